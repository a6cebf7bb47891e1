//! Ordinary work under a fitting policy: what it prints, and how it ends, is the same with and without `egress`.
//!
//! What it needs is in `packages.txt`, what is done in `work/`. Installs and clones over the network are in `tools.rs`.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::Output,
    time::{Duration, Instant},
};

use egress_tests::{
    Names,
    run::{Run, at_best},
    ssh::SshServer,
};

const POLICY: &str = "version: 1
name: honest-work
allow:
  - { cidr: 203.0.113.10/32, ports: [22, 80, 443] }
  - { host: '*.packages.example', ports: [80] }
";
const ZONE: &str = "www.packages.example 60 A 203.0.113.10\n";
/// The control groups' layer must not make anything slower than this, and a process's start is not free.
const SLACK: Duration = Duration::from_secs(4);
/// Who does the work.
const USERS: [(&str, u32); 2] = [("nobody", 65534), ("root", 0)];

/// What the scripts read.
const FILES: [(&str, &str); 4] = [
    ("processes.py", include_str!("../work/processes.py")),
    ("sockets.py", include_str!("../work/sockets.py")),
    ("cluster.js", include_str!("../work/cluster.js")),
    ("Local.java", include_str!("../work/Local.java")),
];

/// One piece of work.
struct Work<'a> {
    script: &'a str,
    policy: &'a str,
    users: &'a [&'a str],
    settings: &'a [(&'a str, &'a str)],
}

impl Work<'_> {
    fn check(&self) {
        let names = Names::serving(ZONE, &[80, 443], &[]);
        self.check_in(&names);
    }

    fn check_in(&self, names: &Names) {
        for (user, id) in USERS.iter().filter(|(user, _)| self.users.contains(user)) {
            let start = Instant::now();
            let free = self.free(names, *id);
            let most = 2 * start.elapsed() + SLACK;
            let text = String::from_utf8_lossy(&free.stdout).into_owned();
            assert!(
                free.status.success() && text.ends_with("done\n"),
                "without egress, as {user}: {text}{}",
                String::from_utf8_lossy(&free.stderr)
            );
            let run = names.run(self.policy).option(&["--user", user]);
            let home = Home::new(*id);
            let start = Instant::now();
            let ended = run.run(&strings(&self.words(&run, &home)));
            let took = start.elapsed();
            assert_eq!(ended.stdout, text, "as {user}: {}", ended.stderr);
            assert_eq!(ended.code(), 0, "as {user}: {}", ended.stderr);
            assert_eq!(ended.summary("deny").0, 0, "as {user}: {}", ended.stderr);
            let took = at_best(took, most, || {
                drop(run.run(&strings(&self.words(&run, &Home::new(*id)))));
            });
            assert!(took < most, "as {user} it took {took:?}, which is more than {most:?}: {}", ended.stderr);
        }
    }

    fn free(&self, names: &Names, id: u32) -> Output {
        let run = names.run(self.policy);
        let home = Home::new(id);
        let drop_to = ["setpriv", "--reuid", &id.to_string(), "--regid", &id.to_string(), "--clear-groups"]
            .map(str::to_owned);
        let words = [&drop_to[..], &self.words(&run, &home)].concat();
        run.free(&strings(&words))
    }

    /// The words, in an environment without this machine's own settings.
    fn words(&self, run: &Run<'_>, home: &Home) -> Vec<String> {
        for (name, text) in FILES {
            run.file(name, text);
        }
        let mut words = vec!["env".to_owned(), "-i".to_owned(), "LC_ALL=C.UTF-8".to_owned()];
        words.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        words.push(format!("HOME={}", home.path().display()));
        words.push(format!("FILES={}", run.directory().display()));
        words.extend(self.settings.iter().map(|(name, value)| format!("{name}={value}")));
        // Work that hangs has failed.
        words.extend(["timeout", "-k", "1", "100", "sh", "-c", self.script].map(str::to_owned));
        words
    }
}

/// A directory for the work.
struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    fn new(id: u32) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700))
            .expect("close the directory");
        chown(directory.path(), Some(id), Some(id)).expect("give the directory away");
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn strings(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn check(script: &str, users: &[&str]) {
    Work { script, policy: POLICY, users, settings: &[] }.check();
}

#[test]
fn python_multiprocessing() {
    check("exec /usr/bin/python3 $FILES/processes.py", &["nobody", "root"]);
}

#[test]
fn sockets_of_its_own() {
    check("exec /usr/bin/python3 $FILES/sockets.py", &["nobody", "root"]);
}

#[test]
fn node_cluster() {
    check("exec node $FILES/cluster.js", &["nobody", "root"]);
}

#[test]
fn java() {
    check("exec java -Xshare:auto -XX:TieredStopAtLevel=1 $FILES/Local.java", &["nobody"]);
}

#[test]
fn servers_and_clients_here() {
    check(include_str!("../work/servers.sh"), &["nobody"]);
}

#[test]
fn builds() {
    let cargo = std::env::var("CARGO").expect("cargo runs the tests");
    // Next to cargo, or where the distribution has it: not the one that asks for its user's settings.
    let beside = Path::new(&cargo).with_file_name("rustc");
    let rustc = if beside.exists() { beside.display().to_string() } else { "rustc".to_owned() };
    let settings = [("CARGO", cargo.as_str()), ("RUSTC", rustc.as_str())];
    Work { script: include_str!("../work/build.sh"), policy: POLICY, users: &["root"], settings: &settings }
        .check();
}

#[test]
fn packages() {
    check(include_str!("../work/packages.sh"), &["nobody"]);
}

#[test]
fn postgresql() {
    check(include_str!("../work/database.sh"), &["nobody"]);
}

#[test]
fn gdb_and_strace() {
    check(include_str!("../work/debug.sh"), &["nobody"]);
}

#[test]
fn tmux_dbus_and_ssh_agent() {
    check(include_str!("../work/sessions.sh"), &["nobody"]);
}

#[test]
fn headless_browser() {
    check(include_str!("../work/browser.sh"), &["nobody"]);
}

#[test]
fn ssh() {
    let names = Names::serving(ZONE, &[80, 443], &[]);
    let server = SshServer::start(&names.lab);
    let keys = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(keys.path(), fs::Permissions::from_mode(0o755)).expect("open the directory");
    let key = keys.path().join("user");
    fs::copy(server.keys().join("user"), &key).expect("copy the key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("open the key");
    let place = keys.path().display().to_string();
    let settings = [("KEYS", place.as_str())];
    let script = include_str!("../work/remote.sh");
    Work { script, policy: POLICY, users: &["nobody"], settings: &settings }.check_in(&names);
}

/// What a container engine's client does with a socket that the policy lists, by the same words: HTTP over it, also for
/// minutes and both ways. The engine itself is outside.
#[test]
fn a_listed_unix_socket() {
    let names = Names::serving(ZONE, &[80, 443], &[]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("open the directory");
    let path = directory.path().join("engine.sock");
    let listener = UnixListener::bind(&path).expect("the engine's socket");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("open the socket");
    // Ends with the test's process.
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(engine));
    let place = path.display().to_string();
    let policy = format!("{POLICY}  - {{ unix: {place} }}\n");
    let settings = [("SOCKET", place.as_str())];
    let script = include_str!("../work/engine.sh");
    Work { script, policy: &policy, users: &["nobody", "root"], settings: &settings }.check_in(&names);
}

/// Answers one request: its version, or what it was sent.
fn engine(stream: UnixStream) {
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    if length > 0 && reader.read_exact(&mut body).is_err() {
        return;
    }
    let answer =
        if length > 0 { format!("{length} bytes\n") } else { "{\"ApiVersion\":\"1.41\"}\n".to_owned() };
    let header = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length:";
    let _ = write!(reader.get_mut(), "{header} {}\r\n\r\n{answer}", answer.len());
}
