# A server that is allowed, by ssh: a shared connection, copies, forwarded ports.
cd "$HOME" && mkdir -m 700 .ssh && cp "$KEYS/user" .ssh/key && chmod 600 .ssh/key
ssh="ssh -F none -i $HOME/.ssh/key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
$ssh -M -S "$HOME/control" -fN root@203.0.113.10 >/dev/null
$ssh -S "$HOME/control" root@203.0.113.10 echo over the shared connection
echo contents >file && scp -q -F none -o ControlPath="$HOME/control" file root@203.0.113.10:"$HOME/copied" && cat copied
$ssh -S "$HOME/control" -O forward -L 8401:127.0.0.1:80 root@203.0.113.10
curl -sS --max-time 5 http://127.0.0.1:8401/
$ssh -S "$HOME/control" -O forward -L "$HOME/forward":127.0.0.1:80 root@203.0.113.10
curl -sS --max-time 5 --unix-socket "$HOME/forward" http://any/
$ssh -S "$HOME/control" -O exit root@203.0.113.10 2>/dev/null
$ssh -M -S "$HOME/second" -D 8402 -fN root@203.0.113.10 >/dev/null && curl -sS --max-time 5 --socks5 127.0.0.1:8402 http://203.0.113.10/
$ssh -S "$HOME/second" -O exit root@203.0.113.10 2>/dev/null
echo done
