# Unix sockets of processes outside, by path and by abstract name.
say lo-path socat -t 0.3 -u - "UNIX-CONNECT:$EARS/stream"
say lo-datagram socat -t 0.3 -u - "UNIX-SENDTO:$EARS/datagram"
say lo-abstract socat -t 0.3 -u - "ABSTRACT-CONNECT:$ABSTRACT-stream"
say lo-abstract-datagram socat -t 0.3 -u - "ABSTRACT-SENDTO:$ABSTRACT-datagram"
say lo-ncat ncat -U --send-only -w 1 "$EARS/stream-two"
say lo-bsd nc.openbsd -U -N -w 1 "$EARS/stream-three"
b curl -sS --max-time 2 --unix-socket "$EARS/stream-four" http://lo-curl/
b curl -sS --max-time 2 --abstract-unix-socket "$ABSTRACT-stream-two" http://lo-curl-abstract/
wait
