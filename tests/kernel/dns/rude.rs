//! Clients that do not behave: whatever they do, others are answered, and only what was redirected is.

use egress_tests::{Names, run::Ended};

use super::{POLICY, names};

/// What the scripts share: a question, asking over UDP and over TCP, and the listener's own addresses.
const HELPERS: &str = r"
import socket, struct, time
SERVER = ('203.0.113.53', 53)
def question(name, kind=1, number=7):
    labels = b''.join(bytes([len(label)]) + label.encode() for label in name.split('.'))
    return struct.pack('>6H', number, 256, 1, 0, 0, 0) + labels + b'\0' + struct.pack('>2H', kind, 1)
GOOD = question('api.listed.example')
def heard(sock, seconds):
    sock.settimeout(seconds)
    try:
        return len(sock.recv(4096))
    except OSError:
        return 0
def udp(to=SERVER, text=GOOD, seconds=3):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(text, to)
        except OSError as error:
            return -error.errno
        return heard(sock, seconds)
def tcp(to=SERVER, text=GOOD, seconds=3):
    with socket.socket() as sock:
        sock.settimeout(seconds)
        try:
            sock.connect(to)
            sock.sendall(struct.pack('>H', len(text)) + text)
        except OSError as error:
            return -error.errno if error.errno else -1
        return heard(sock, seconds)
def listeners(table):
    with open('/proc/net/' + table) as lines:
        locals = [line.split()[1] for line in list(lines)[1:]]
    return [('127.0.0.1', int(local[9:], 16)) for local in locals if local.startswith('0100007F:')]
";

fn script(names: &Names, policy: &str, script: &str) -> Ended {
    names.forget();
    let script = format!("{HELPERS}{script}");
    let ended = names.run(policy).run(&["python3", "-c", &script]);
    assert_eq!(ended.code(), 0, "{} {}", ended.stdout, ended.stderr);
    ended
}

/// Sent to the listener itself, though the policy opens the host: not redirected, so nobody's question.
/// Mutation seen to fail here, and below: whoever asks without an entry taken for an unknown client.
#[test]
fn a_listener_answers_only_what_was_redirected() {
    let names = names();
    let policy = POLICY.replace("dns:\n", "loopback: any\ndns:\n");
    let ended = script(
        &names,
        &policy,
        "over_udp, over_tcp = listeners('udp'), listeners('tcp')
print(len(over_udp) >= 8, len(over_tcp) >= 1)
print([udp(to, GOOD, 0.1) for to in over_udp if udp(to, GOOD, 0.1)])
print([tcp(to, GOOD, 0.3) for to in over_tcp if tcp(to, GOOD, 0.3) > 0])
print(udp() > 30, tcp() > 30)",
    );
    assert_eq!(ended.stdout, "True True\n[]\n[]\nTrue True\n", "{}", ended.stderr);
}

/// Two scopes beside each other: to one, the other's listener is deaf.
#[test]
fn a_listener_of_another_scope_is_deaf() {
    let names = names();
    let policy = POLICY.replace("dns:\n", "loopback: any\ndns:\n");
    let other = names.run(&policy);
    let mut other_run = other.command(&["sleep", "20"]).spawn().expect("egress starts");
    let up = || {
        let text = names.lab.agent.enter(|| std::fs::read_to_string("/proc/thread-self/net/udp"));
        text.is_ok_and(|text| text.matches(" 0100007F:").count() >= 8)
    };
    assert!(egress_tests::run::eventually(std::time::Duration::from_secs(10), up), "no listener");
    let ended = script(
        &names,
        &policy,
        "over_udp = listeners('udp')
print(len(over_udp) >= 16)
print([udp(to, GOOD, 0.1) for to in over_udp if udp(to, GOOD, 0.1)])
print(udp() > 30)",
    );
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(other_run.id().cast_signed()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .expect("end the other run");
    other_run.wait().expect("egress ends");
    assert_eq!(ended.stdout, "True\n[]\nTrue\n", "{}", ended.stderr);
}

/// Connections that say nothing, half a length, half a question; rubbish of every length; then an honest client.
#[test]
fn others_are_answered_meanwhile() {
    let names = names();
    let ended = script(
        &names,
        POLICY,
        "crowd = []
for number in range(200):
    sock = socket.socket()
    sock.settimeout(2)
    try:
        sock.connect(SERVER)
        sock.sendall([b'', b'\\0', struct.pack('>H', 500) + b'x' * 99, b'\\xff' * 700][number % 4])
    except OSError:
        pass
    crowd.append(sock)
print(udp() > 30)
rubbish = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for length in range(600):
    rubbish.sendto(bytes(length % 251 for _ in range(length)), SERVER)
    rubbish.sendto(GOOD[:length % len(GOOD)], SERVER)
print(udp() > 30)
for sock in crowd:
    sock.close()
time.sleep(0.3)
print(tcp() > 30)",
    );
    assert_eq!(ended.stdout, "True\nTrue\nTrue\n", "{}", ended.stderr);
    assert!(!names.seen().strangers_asked());
}

/// Namespaces that come and go, more than are listened in at a time.
#[test]
fn many_namespaces_are_served_one_after_the_other() {
    let names = names();
    let run = names.run(POLICY).option(&["--permit", "userns"]);
    names.forget();
    let program = run.program();
    let script = format!(
        "i=0; while [ $i -lt 50 ]; do {program} namespace lo 'socket inet dgram' \
         'askto 203.0.113.53:53 api.listed.example A' hear | grep -c NOERROR; i=$((i+1)); done"
    );
    let ended = run.run(&["sh", "-c", &script]);
    assert_eq!(ended.stdout, "1\n".repeat(50), "{}", ended.stderr);
}

/// A process that asks without listening to what is answered is no burden to another.
#[test]
fn a_flood_of_questions_leaves_room_for_one() {
    let names = names();
    let ended = script(
        &names,
        POLICY,
        "flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(20000):
    flood.sendto(question('secret%d.refused.example' % number, 1, number % 65536), SERVER)
answered = [udp(seconds=1) > 30 for _ in range(10)]
print(any(answered))",
    );
    assert_eq!(ended.stdout, "True\n", "{}", ended.stderr);
    assert!(!names.seen().label("refused"));
    let (questions, told) = (ended.questions().len(), ended.stderr.lines().count());
    assert!(told < 2000, "{told} lines for {questions} questions");
}
