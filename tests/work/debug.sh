# A debugger and a tracer on programs that they start, and on a child that lets them.
cd "$HOME"
echo 'int add(int a, int b) { return a + b; } int main(void) { return add(40, 2); }' >p.c
cc -g -O0 -o p p.c
gdb -nx -batch -ex 'set debuginfod enabled off' -ex 'break add' -ex run -ex 'print a + b' -ex continue ./p 2>/dev/null | grep -oE '^\$1 = 42|exited with code 052'
strace -f -o trace -e trace=execve,exit_group sh -c '/bin/true; exit 5'
echo "exit code $?, $(grep -c execve trace) programs"
strace -o trace curl -sS --max-time 5 http://203.0.113.10:443/
grep -q 'connect(.*203.0.113.10' trace && echo 'the connect was seen'
echo done
