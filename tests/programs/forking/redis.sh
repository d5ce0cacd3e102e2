# A background save of 100 MB while the data changes.
mkdir -p "$1"; cd "$1"
redis-server --port 0 --unixsocket "$1/s" --dir "$1" --save "" --enable-debug-command yes --loglevel warning > log 2>&1 &
server=$!
c="redis-cli -s $1/s"
for i in $(seq 100); do [ "$($c ping 2>/dev/null)" = PONG ] && break; sleep 0.1; done
$c debug populate 100000 key 1000; $c set before 1; $c bgsave; $c set after 2
until $c info persistence | grep -q "rdb_bgsave_in_progress:0"; do sleep 0.05; done
$c info persistence | grep rdb_last_bgsave_status | tr -d '\r'; $c dbsize
$c shutdown nosave; wait $server; echo "exit $?"
redis-check-rdb dump.rdb | grep "keys read"
