# Run by demos/bash, natively and in the enclave.
count() { sort | uniq -c | sort -rn | tr -s ' '; }

printf 'pear\napple\npear\nfig\napple\npear\n' | count
total=0
for n in $(seq 1 100); do total=$((total + n)); done
echo "sum $total"
(exit 7) || echo "subshell ended with $?"
seq 1 1000 | wc -l &
wait $!
while read -r word; do echo "<$word>"; done <<TEXT
here
document
TEXT
diff_of() { cat <(seq 3) <(seq 4 5) | tr '\n' ' '; }
diff_of
echo "${BASH_VERSINFO[0]} done"
