# TLS over TCP, DTLS over UDP, and through somebody's proxy.
b openssl s_client -connect "$BAD4:443" -servername ssl-name
b openssl s_client -connect "[$BAD6]:443" -servername ssl-name6
b openssl s_client -dtls -connect "$BAD4:443"
b openssl s_client -connect 203.0.113.10:443 -proxy "$BAD4:80"
wait
