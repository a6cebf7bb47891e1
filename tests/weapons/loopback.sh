# What processes outside serve on this very machine.
say lo-tcp ncat --send-only -w 1 127.0.0.1 7001
say lo-any ncat --send-only -w 1 0.0.0.0 7002
say lo-six ncat --send-only -w 1 ::1 7003
say lo-own ncat --send-only -w 1 "$AGENT4" 7004
say lo-odd ncat --send-only -w 1 127.9.8.7 7005
say lo-udp nc.openbsd -u -w 1 127.0.0.1 7006
say lo-proxy socat -t 0.3 -u - "SOCKS4:127.0.0.1:$BAD4:80,socksport=7007"
wait
