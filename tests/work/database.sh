# A database of one's own: its server, and clients over its unix socket and over TCP.
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
"$bin/initdb" -D "$HOME/db" -A trust -U lab --no-sync --no-locale >/dev/null
"$bin/pg_ctl" -s -D "$HOME/db" -l "$HOME/log" -w -o "-k $HOME -h localhost -p 8301 -F" start || cat "$HOME/log"
for host in "$HOME" localhost 127.0.0.1 ::1; do
    "$bin/psql" -X -h "$host" -p 8301 -U lab -d postgres -Atc 'select 40 + 2'
done
"$bin/psql" -X -h "$HOME" -p 8301 -U lab -d postgres -Atc 'create table t as select generate_series(1, 50000) as n' \
    -c 'set max_parallel_workers_per_gather = 2; set min_parallel_table_scan_size = 0; set parallel_setup_cost = 0' \
    -c 'select sum(n) from t'
"$bin/pg_dump" -h localhost -p 8301 -U lab postgres | grep -c 'CREATE TABLE'
"$bin/pg_ctl" -s -D "$HOME/db" -m fast stop
echo done
