# A container engine's API over the socket that the policy names.
get() { curl -sS --max-time 5 --unix-socket "$SOCKET" "$@"; }
get http://docker/v1.41/version
head -c 300000 /dev/zero >"$HOME/image" && get -H 'Expect:' --data-binary @"$HOME/image" http://docker/v1.41/images/load
/usr/bin/python3 - "$SOCKET" <<'P'
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(5)
    client.connect(sys.argv[1])
    client.sendall(b"GET /version HTTP/1.1\r\n\r\n")
    print(client.makefile("rb").read().splitlines()[-1])
P
node -e "require('http').get({ socketPath: process.env.SOCKET, path: '/version' }, (reply) => reply.pipe(process.stdout))"
echo done
