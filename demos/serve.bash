# serve.bash PORT SERVER ARGS...: run by demos of web servers in the enclave: start, ask, stop.
port=$1
shift
"$@" &
server=$!
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    curl -s -o /dev/null "http://127.0.0.1:$port/" && break
    sleep 0.2
done
curl -s -S "http://127.0.0.1:$port/"
kill "$server"
wait "$server"
exit 0
