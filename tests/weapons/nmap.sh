# Told that it is privileged, it tries raw sockets and frames also as an ordinary user.
export NMAP_PRIVILEGED=1
scan() { b nmap -n -Pn --max-retries 0 --host-timeout "${TIME}s" "$@"; }
scan -sS -p 443 "$BAD4"
scan -sS -6 -p 443 "$BAD6"
scan -sU -p 445 --data-string nm-udp "$BAD4"
scan -sS -f -p 446 --data-string nm-fragment "$BAD4"
scan -sS --send-eth -p 447 "$BAD4"
scan -sS --send-ip -p 448 "$BAD4"
scan -sY -p 449 "$BAD4"
scan -sO -p 47 "$BAD4"
scan -sS -D 203.0.113.10,ME -p 450 "$BAD4"
scan -sS --ip-options "L $BAD4" -p 451 "$GOOD4"
b nmap -n -sn -PE --max-retries 0 --data-string nm-echo "$BAD4"
NMAP_PRIVILEGED= b nmap --unprivileged -n -Pn -sT -p 452 --max-retries 0 --host-timeout "${TIME}s" "$BAD4"
wait
