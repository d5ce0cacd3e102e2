# As a user of its own: postgres refuses to be root.
mkdir -p "$1"; chown 1000:1000 "$1"; cd "$1"
export PATH=$PATH:/usr/lib/postgresql/15/bin HOME=$1 LC_ALL=C
setpriv --reuid 1000 --regid 1000 --clear-groups bash -c '
initdb -D d -A trust -U me --no-sync > log.init 2>&1 || cat log.init
pg_ctl -D d -w -o "-k $HOME -c listen_addresses= -c fsync=off" -l log start > /dev/null || cat log
pgbench -q -h $HOME -U me -i -s 1 postgres > out.init 2>&1 || cat out.init
pgbench -h $HOME -U me -c 4 -j 2 -t 25 postgres > out 2>&1 || cat out
grep "actually processed" out
psql -h $HOME -U me -Atc "select count(*) from pgbench_accounts; select count(*) from pgbench_history" postgres
pg_ctl -D d -m fast -w stop > /dev/null; echo "stopped $?"
'
