# The options by which curl is talked into another way than the plain one.
get() { b curl -sS --max-time 2 "$@"; }
get "http://$BAD4/plain"
get "http://[$BAD6]/plain6"
get --tcp-fastopen "http://$BAD4/fastopen"
get --interface agent0 "http://$BAD4/device"
get --interface "host!$AGENT4" "http://$BAD4/bound"
get --resolve "api.listed.example:80:$BAD4" http://api.listed.example/resolved
get --connect-to "::$BAD4:80" http://203.0.113.10/elsewhere
get --proxy "http://$BAD4:80" http://203.0.113.10/proxied
get --proxy "socks5h://$BAD4:444" http://203.0.113.10/socks
get --doh-insecure --doh-url "https://$BAD4:443/dns" https://doh.attacker.example/
get "tftp://$BAD4/cu-tftp"
get "gopher://$BAD4:53/1cu-gopher"
get -H 'Host: api.listed.example' "http://$BAD4/fronted"
get --local-port 53 "http://$BAD4/port"
get http://curl.attacker.example/named
wait
