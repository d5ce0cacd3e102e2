# Run by demos/fish in the enclave.
ulimit -S -n 256
set inner (/usr/bin/fish --no-config -c 'ulimit -S -n 64; ulimit -n')
set outer (ulimit -n)
set sum 0
for n in (seq 100)
    set sum (math $sum + $n)
end
# A process that may have 64 MB can't take 256 MB.
set memory allowed
/usr/bin/fish --no-config -c 'ulimit -v 65536; head -c 256M /dev/zero | tail -c 256M >/dev/null' 2>/dev/null
or set memory refused
echo "files $inner, outside $outer, sum $sum, memory $memory"
