# Its own packets and frames, and connections as anybody makes them.
ping() { b nping --no-capture -c 2 --delay 50ms "$@"; }
ping --tcp-connect -p 443 "$BAD4"
ping --tcp -p 444 --data-string np-tcp "$BAD4"
ping --udp -p 445 --data-string np-udp "$BAD4"
ping --icmp --data-string np-icmp "$BAD4"
ping --send-eth --udp -p 446 --data-string np-frame "$BAD4"
ping -6 --tcp-connect -p 448 "$BAD6"
ping --udp -p 449 --mtu 24 --data-string np-fragment-np-fragment-np-fragment "$BAD4"
wait
