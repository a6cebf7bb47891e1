# A developer's server, and clients on the same machine.
cd "$HOME" && echo 'the page' >page
/usr/bin/python3 -m http.server -b 127.0.0.1 8201 2>log1 & pids=$!
/usr/bin/python3 -m http.server -b :: 8202 2>log2 & pids="$pids $!"
ncat -l -k -U "$HOME/ncat.sock" -c 'echo from ncat' & pids="$pids $!"
git init -q -b main repository && git -C repository -c user.name=lab -c user.email=lab@lab.example commit -q --allow-empty -m first
"$(git --exec-path)/git-daemon" --reuseaddr --listen=127.0.0.1 --port=8203 --base-path="$HOME" --export-all 2>log3 & pids="$pids $!"
retry() { for _ in $(seq 50); do "$@" 2>/dev/null && return; sleep 0.1; done; "$@"; }
retry curl -sS --max-time 5 http://127.0.0.1:8201/page
retry curl -sS --max-time 5 'http://[::1]:8202/page'
retry curl -sS --max-time 5 http://localhost:8201/page
curl -sS --max-time 5 http://192.0.2.2:8202/page
wget -q -O- --tries=1 --timeout=5 http://localhost:8202/page
retry ncat -U "$HOME/ncat.sock" --recv-only
retry git clone -q git://127.0.0.1:8203/repository clone && git -C clone log --format=%s
bash -c 'exec 3<>/dev/tcp/127.0.0.1/8201; printf "GET /page HTTP/1.0\r\n\r\n" >&3; tail -n 1 <&3'
curl -sS --max-time 5 http://127.0.0.1:8299/ 2>&1 | grep -o "Couldn't connect to server"
kill $pids
echo done
