x=$(echo a | tr a b); echo $x; (exit 4); echo $?
cat <(echo p) <(echo q); cat =(echo in a file)
for i in {1..3}; do (exit $i) & done; wait; echo waited
coproc cat; print -p hi; read -p y; echo $y
sleep 0.05 & wait $!; echo $?
echo ${(j:,:)$(seq 3)}
TRAPEXIT() { echo bye }
