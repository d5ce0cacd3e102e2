# bash, the way scripts and people use it.
mkdir -p "$1"; cd "$1"
echo a b c | tr a-z A-Z | sed 's/B/x/' | cat
x=$( (echo in; exit 3) ); echo "$x $?"
for i in 1 2 3; do echo $i; done | while read n; do echo "n$n"; done
set -o pipefail; false | true; echo "pipefail $?"
(trap 'echo end of subshell' EXIT; exit 4); echo $?
trap 'echo usr1' USR1; kill -USR1 $$
(trap 'echo told; exit 9' TERM; echo > ready; while :; do sleep 0.01; done) & p=$!
until [ -e ready ]; do sleep 0.01; done; kill $p; wait $p; echo "trapped $?"
cat << E1; cat <<'E2'
value $((1+2)) $(echo substituted)
E1
literal $x
E2
cat <<< "here string"
cat <(echo one) <(echo two)
exec 3< <(seq 5); read a <&3; read b <&3; echo $a $b; exec 3<&-
mkfifo p; (tr a-z A-Z < p > teed) & t=$!; echo data | tee p; wait $t; cat teed
coproc CO { while read l; do echo "got $l"; done; }
echo hi >&${CO[1]}; read r <&${CO[0]}; echo $r
eval "exec ${CO[1]}>&-"; wait $CO_PID
(until [ -e go ]; do sleep 0.01; done; exit 5) & (exit 6) & wait -n; echo "first $?"
> go; wait -n; echo "second $?"
set -m
sleep 0.1 & jobs | sed 's/ \+/ /g'; fg %1 >/dev/null; echo "foreground $?"
sleep 10 & sleep 0.1; kill -STOP %1; sleep 0.1; jobs | sed 's/ \+/ /g'
kill -CONT %1; kill %1; wait %1 2>/dev/null; echo "ended $?"
set +m
for i in $(seq 20); do (exit $i) & pids[i]=$!; done
t=0; for i in $(seq 20); do wait ${pids[i]}; t=$((t+$?)); done; echo $t
f() { local a=$1; if [ $a -gt 0 ]; then echo $(f $((a-1)))$a; fi; }; f 12
bash -c 'kill -9 $$'; echo "killed $?"
for ((i = 0; i < 100; i++)); do y=$(echo $i); done; echo $y
