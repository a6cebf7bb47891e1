//! The listener: deaf to whoever is outside the scope, and what holds when its supervisor is killed.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    process::Child,
    time::Duration,
};

use egress_tests::{Lab, message, network::reached, run::Run};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{POLICY, names};

/// Local addresses of the sockets of a table in `/proc/net` of the agent's namespace.
fn sockets(lab: &Lab, table: &str) -> Vec<SocketAddr> {
    let text = lab.agent.enter(|| fs::read_to_string(format!("/proc/thread-self/net/{table}")));
    let text = text.expect("the table of sockets");
    let local = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
    local.map(|local| address(local).expect("an address and a port")).collect()
}

/// An address as the kernel's tables have it: words of hexadecimal in the machine's order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let port = u16::from_str_radix(port, 16).ok()?;
    if ip.len() == 8 {
        return Some((word(0)?, port).into());
    }
    let bytes: [u8; 16] = [word(0)?, word(8)?, word(16)?, word(24)?].concat().try_into().ok()?;
    Some((bytes, port).into())
}

/// Starts steps under egress, and returns once the first line of theirs is there.
fn start(run: &Run<'_>, steps: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let program = run.program();
    let command: Vec<&str> = std::iter::once(program.as_str()).chain(steps.iter().copied()).collect();
    let mut child = run.command(&command).spawn().expect("egress starts");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    output.read_line(&mut line).expect("the command started");
    (child, output)
}

fn rest(mut output: impl std::io::Read) -> String {
    let mut text = String::new();
    output.read_to_string(&mut text).expect("the command's output");
    text
}

/// Mutation seen to fail here: whoever asks without an entry taken for an unknown client.
#[test]
fn who_is_outside_the_scope_gets_no_answer() {
    let names = names();
    let lab = &names.lab;
    let run = names.run(POLICY);
    let ask = "askto 203.0.113.53:53 api.listed.example A";
    let (mut child, output) = start(&run, &["sleep 1", "socket inet dgram", "sleep 2500", ask, "hear"]);
    names.forget();
    let loopback = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
    let udp = [sockets(lab, "udp"), sockets(lab, "udp6")].concat();
    let udp: Vec<_> = udp.into_iter().filter(loopback).collect();
    let tcp = [sockets(lab, "tcp"), sockets(lab, "tcp6")].concat();
    let tcp: Vec<_> = tcp.into_iter().filter(loopback).collect();
    assert!(udp.len() >= 16 && tcp.len() >= 2, "no listener: {udp:?} {tcp:?}");
    let question = message::question(7, "api.listed.example", 1);
    let answered = lab.agent.enter(|| answers_over_udp(&udp, &question));
    assert_eq!(answered, []);
    for address in tcp {
        let said = lab.agent.enter(|| answer_over_tcp(address, &question));
        assert_eq!(said, b"", "{address} answered");
    }
    assert!(names.seen().asked.is_empty(), "a question from outside went upstream");
    let text = rest(output);
    assert!(text.contains("NOERROR api.listed.example"), "who is inside gets one: {text}");
    assert!(child.wait().expect("egress ends").success());
}

fn answers_over_udp(listeners: &[SocketAddr], question: &[u8]) -> Vec<SocketAddr> {
    let sockets = listeners.iter().map(|address| {
        let socket = UdpSocket::bind((if address.is_ipv4() { "127.0.0.1" } else { "::1" }, 0))?;
        socket.send_to(question, address)?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok::<_, std::io::Error>((*address, socket))
    });
    let sockets: Vec<_> = sockets.map(|socket| socket.expect("a socket that asked")).collect();
    std::thread::sleep(Duration::from_millis(200));
    let heard = sockets.iter().filter(|(_, socket)| socket.recv(&mut [0; 512]).is_ok());
    heard.map(|(address, _)| *address).collect()
}

fn answer_over_tcp(address: SocketAddr, question: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
        return Vec::new();
    };
    let length = u16::try_from(question.len()).expect("a short question").to_be_bytes();
    let _closed = stream.write_all(&[&length[..], question].concat());
    stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    let mut said = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        said.extend(&buffer[..read]);
    }
    said
}

/// Killed, the supervisor answers nobody; what is open stays open for its time, and no question gets past its listener.
#[test]
fn a_killed_supervisor_leaves_no_way_round_it() {
    let names = names();
    let run = names.run(POLICY);
    let steps = [
        "sleep 1",
        "socket inet dgram",
        "askto 203.0.113.53:53 api.listed.example A",
        "hear",
        "sleep 1200",
        "socket inet stream",
        "?connect 203.0.113.10:443",
        "socket inet stream",
        "?connect 203.0.113.66:443",
        "socket inet dgram",
        "?askto 203.0.113.53:53 secret.refused.example A",
        "silence 300",
        "?askto 203.0.113.153:53 secret.refused.example A",
        "socket inet dgram",
        "?connect 203.0.113.53:53",
        "?ask secret.refused.example A",
        "socket inet stream",
        "?connect 203.0.113.53:53",
        "socket inet stream",
        "?connect 203.0.113.53:853",
    ];
    let (mut child, mut output) = start(&run, &steps);
    let mut heard = String::new();
    while !heard.contains("hear 0 ") {
        let read = output.read_line(&mut heard).expect("a line");
        assert!(read > 0, "the command ended: {heard}");
    }
    assert!(heard.contains("NOERROR api.listed.example"), "{heard}");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).expect("kill egress");
    child.wait().expect("egress is dead");
    names.forget();
    let text = rest(output);
    let of = |verb: &str| -> Vec<i32> {
        let words = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        words.filter(|words| words[0] == verb).map(|words| words[1].parse().expect("an errno")).collect()
    };
    let connects = of("connect");
    assert_eq!((connects.len(), &connects[..2]), (5, &[0, libc::EPERM][..]), "{text}");
    assert_ne!(connects[3], 0, "a connection for DNS came about: {text}");
    assert_eq!(connects[4], libc::EPERM, "{text}");
    let seen = names.seen();
    assert!(reached(&seen.frames, "203.0.113.10".parse().expect("an address")), "{text}");
    assert!(!seen.label("secret") && !seen.strangers_asked() && seen.asked.is_empty(), "{:?}", seen.asked);
    for (verb, took) in text.lines().filter_map(|line| line.rsplit_once(' ')) {
        let took: u64 = took.parse().expect("microseconds");
        assert!(verb.starts_with("sleep") || took < 1_500_000, "{verb} took {took} µs");
    }
}

/// Who goes on in the scope when the command has ended asks nobody, not even whoever has the listener's port next. Seen to
/// fail with the table of listeners left as it was: the connection was refused by the host, not by the scope.
#[test]
fn who_is_left_behind_asks_nobody() {
    let names = names();
    let run = names.run(POLICY);
    let (program, dir) = (run.program(), run.directory().display().to_string());
    let script = format!(
        "setsid {program} 'sleep 1' 'socket inet dgram' 'sleep 1000' 'socket inet stream' \
         '?connect 203.0.113.53:53' > {dir}/left 2>&1 & while ! test -s {dir}/left; do :; done"
    );
    let ended = run.run(&["sh", "-c", &script]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    std::thread::sleep(Duration::from_millis(2_000));
    let text = fs::read_to_string(run.directory().join("left")).expect("its output");
    let errno = text.lines().find_map(|line| line.strip_prefix("connect ")?.split(' ').next()?.parse().ok());
    assert_eq!(errno, Some(libc::EPERM), "{text}");
}
