# Each kind of forwarding, to a server that nobody allows.
to() { b $SSH "$@"; }
to -N -D 18001 -p 22 root@"$BAD4"
to -N -R 18002:203.0.113.10:443 root@"$BAD4"
to -N -L 18003:203.0.113.10:443 root@"$BAD4"
to -w any -p 22 root@"$BAD4" true
to -o ProxyCommand="nc.openbsd -X connect -x $BAD4:80 203.0.113.10 22" root@203.0.113.10 true
to root@"$BAD6" true
wait
