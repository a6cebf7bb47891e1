# A browser with its own sandbox, at a page of the lab's, one of a server here, and one by name.
cd "$HOME" && echo 'local page' >index.html
/usr/bin/python3 -m http.server -b 127.0.0.1 8501 2>log &
server=$!
see() {
    timeout 20 chromium-headless-shell --disable-gpu --disable-background-networking --disable-component-update \
        --user-data-dir="$HOME/profile" "$@" 2>>"$HOME/said" | sed 's/<[^>]*>//g' | grep -v '^$'
}
see --dump-dom http://203.0.113.10/
see --dump-dom http://localhost:8501/index.html
see --dump-dom http://www.packages.example/
see --screenshot="$HOME/shot.png" http://203.0.113.10/ >/dev/null; head -c 4 shot.png | tail -c 3; echo
kill $server
grep -o 'No usable sandbox' said
echo done
