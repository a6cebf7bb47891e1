# Needs raw sockets: SYN, UDP, ICMP, a protocol of no name, fragments, a source that is not ours.
b hping3 -c 2 -i u50000 -S -p 443 "$BAD4"
b hping3 -c 2 -i u50000 --udp -p 444 -d 8 -e hp-udp "$BAD4"
b hping3 -c 2 -i u50000 --icmp -d 8 -e hp-icmp "$BAD4"
b hping3 -c 2 -i u50000 --rawip -H 200 -d 8 -e hp-raw "$BAD4"
b hping3 -c 2 -i u50000 -S -f -d 64 -e hp-frag -p 445 "$BAD4"
b hping3 -c 2 -i u50000 -S -a 203.0.113.10 -p 446 "$BAD4"
wait
