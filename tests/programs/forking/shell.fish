set x (echo a | tr a b); echo $x
for i in (seq 3); echo $i | cat; end
function f; echo in f $argv; end; f 1 | tr a-z A-Z
begin; echo x; echo y; end | sort -r
sh -c 'exit 7'; echo $status
echo (echo (echo nested))
sleep 0.05 &
wait; echo waited
