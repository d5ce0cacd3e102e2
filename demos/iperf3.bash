# Run by demos/benchmarks: a server and a client of iperf3 on the loopback network.
iperf3 -s -1 -p 5301 >/dev/null &
sleep 0.5
iperf3 -c 127.0.0.1 -p 5301 -t 3
wait
