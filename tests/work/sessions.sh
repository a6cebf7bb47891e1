# A terminal multiplexer and a session bus, which talk over unix sockets and pass descriptors.
export TMUX_TMPDIR=$HOME TERM=screen
tmux -f /dev/null -L lab new-session -d -x 80 -y 24 'echo in the pane; sleep 5'
sleep 0.5
tmux -L lab capture-pane -p | head -n 1
tmux -L lab kill-server
dbus-run-session -- dbus-send --session --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetId | grep -o '^ *string'
eval "$(ssh-agent -a "$HOME/agent")" >/dev/null
ssh-keygen -q -t ed25519 -N '' -f "$HOME/key" && ssh-add -q "$HOME/key" && ssh-add -l | wc -l
ssh-agent -k >/dev/null
echo done
