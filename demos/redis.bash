# Run by demos/redis in the enclave.
redis-server --save "" --appendonly no --daemonize no --logfile /tmp/redis.log --dir /tmp &
server=$!
for _ in $(seq 100 2>/dev/null || echo 1 2 3 4 5 6 7 8 9); do
    redis-cli ping 2>/dev/null | read -r _ && break
    sleep 0.1
done
redis-cli set counter 1000 >/dev/null
echo "stored $(redis-cli incr counter)"
redis-benchmark -q -n 2000 -c 10 -t set,get 2>/dev/null | tr '\r' '\n' | grep "requests per second"
redis-cli shutdown nosave
wait $server
