# What the others begin with: each attempt in the background and for TIME seconds at most.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec 2>&1
t() { timeout -k 1 "$TIME" "$@"; }
b() { t "$@" & }
say() { word=$1; shift; { printf '%s' "$word" | t "$@"; } & }
