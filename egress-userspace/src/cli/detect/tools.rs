//! What each tool answers when asked where it is set up to go: receives nothing but this machine, gives endpoints, each
//! with where it was read from. No host is known here beforehand.

use std::{
    ffi::OsStr,
    io::Read,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::url::{self, Endpoint};

/// Longest that a tool may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether the tool has answered.
const STEP: Duration = Duration::from_millis(10);

/// What a tool said.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Endpoints, each with where it was read from.
    pub(super) found: Vec<(Endpoint, String)>,
    /// What else there is to know.
    pub(super) notes: Vec<String>,
}

impl Answer {
    fn add(&mut self, endpoints: impl IntoIterator<Item = Endpoint>, from: &str) {
        self.found.extend(endpoints.into_iter().map(|endpoint| (endpoint, from.to_owned())));
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

/// Asks pip.
pub(super) fn pip() -> Answer {
    let mut answer = Answer::default();
    let Some(config) = run("pip", &["config", "list"]) else { return not_there("pip") };
    for line in config.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let option = key.rsplit('.').next().unwrap_or(key);
        if matches!(option, "index-url" | "extra-index-url" | "find-links" | "proxy" | "index") {
            answer.add(url::endpoints(value), &format!("`pip config list`: {key}"));
        }
    }
    let own_index = config.lines().any(|line| line.contains(".index-url="));
    if !own_index {
        let help = run("pip", &["install", "--help"]).unwrap_or_default();
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let default =
            words.split_once("--index-url <url>").and_then(|(_, rest)| rest.split_once("(default "));
        match default.and_then(|(_, rest)| url::endpoints(rest.split(')').next()?).into_iter().next()) {
            Some(endpoint) => answer.add([endpoint], "pip's built-in default, by `pip install --help`"),
            None => answer.note("pip's built-in default index; not configured, so not listed"),
        }
    }
    answer.note("an index may name other hosts for the files themselves; a run with `--audit` shows them");
    answer
}

/// Asks npm.
pub(super) fn npm() -> Answer {
    let mut answer = Answer::default();
    let Some(text) = run("npm", &["config", "list", "--json"]) else { return not_there("npm") };
    let Ok(serde_json::Value::Object(config)) = serde_json::from_str(&text) else {
        answer.note("`npm config list --json` gave no configuration");
        return answer;
    };
    for (key, value) in &config {
        let wanted =
            key == "registry" || key.ends_with(":registry") || key == "proxy" || key == "https-proxy";
        if let (true, Some(value)) = (wanted, value.as_str()) {
            answer.add(url::endpoint(value), &format!("`npm config get {key}`"));
        }
    }
    answer
}

/// Asks cargo. Printing the configuration is an unstable option, which the variable opens on a stable cargo.
pub(super) fn cargo() -> Answer {
    let mut answer = Answer::default();
    let arguments = ["-Z", "unstable-options", "config", "get", "--show-origin"];
    let Some(config) = run_with("cargo", &arguments, &[("RUSTC_BOOTSTRAP", "1")]) else {
        return not_there("cargo");
    };
    let mut replaced = false;
    for line in config.lines().filter(|line| !line.starts_with('#')) {
        let Some((key, rest)) = line.split_once(" = ") else { continue };
        let (value, origin) = rest.rsplit_once(" # ").unwrap_or((rest, "its configuration"));
        replaced |= key == "source.crates-io.replace-with";
        let source = key.starts_with("source.") && matches!(key.rsplit('.').next(), Some("registry" | "git"));
        let registry = key.starts_with("registries.") && key.ends_with(".index");
        if source || registry || matches!(key, "registry.index" | "http.proxy") {
            answer.add(url::endpoints(value), &format!("cargo configuration {key} ({origin})"));
        }
    }
    if !replaced {
        answer.note("cargo's built-in default registry; not configured, so not listed");
    }
    answer.note("an index may name another host for the crates themselves; a run with `--audit` shows it");
    answer
}

/// Asks apt.
pub(super) fn apt() -> Answer {
    let mut answer = Answer::default();
    let targets = run("apt-get", &["indextargets", "--format", "$(REPO_URI) $(SOURCESENTRY)"]);
    let Some(targets) = targets else { return not_there("apt-get") };
    for line in targets.lines() {
        let Some((uri, entry)) = line.split_once(' ') else { continue };
        let uri = uri.strip_prefix("mirror+").unwrap_or(uri);
        answer.add(url::endpoint(uri), &format!("`apt-get indextargets`: {entry}"));
    }
    let proxies = run("apt-config", &["dump", "--format", "%f %v%n", "Acquire"]).unwrap_or_default();
    for line in proxies.lines() {
        if let Some((key, value)) =
            line.split_once(' ').filter(|(key, _)| key.to_lowercase().contains("::proxy"))
        {
            answer.add(url::endpoint(value), &format!("`apt-config dump`: {key}"));
        }
    }
    answer
}

/// Asks git, about the repository of the current directory.
pub(super) fn git() -> Answer {
    let mut answer = Answer::default();
    if run("git", &["--version"]).is_none() {
        return not_there("git");
    }
    // `remote -v` has `url.*.insteadOf` applied already.
    match run("git", &["remote", "-v"]) {
        Some(remotes) => {
            for line in remotes.lines() {
                let mut words = line.split_whitespace();
                if let (Some(name), Some(address)) = (words.next(), words.next()) {
                    answer.add(url::git_endpoint(address), &format!("`git remote -v`: {name}"));
                }
            }
        }
        None => answer.note("git: the current directory is no repository"),
    }
    let pattern = "^(url\\..*\\.insteadof|https?\\..*proxy|submodule\\..*\\.url)$";
    let config = run("git", &["config", "--get-regexp", pattern]).unwrap_or_default();
    for line in config.lines() {
        let Some((key, value)) = line.split_once(' ') else { continue };
        let address =
            key.strip_prefix("url.").and_then(|rest| rest.strip_suffix(".insteadof")).unwrap_or(value);
        // The key of `insteadOf` is an address, which may hold a password.
        let option = key.rsplit('.').next().unwrap_or(key);
        answer.add(url::git_endpoint(address), &format!("`git config`: {option}"));
    }
    answer
}

/// Asks go.
pub(super) fn go() -> Answer {
    let mut answer = Answer::default();
    for variable in ["GOPROXY", "GOSUMDB"] {
        let Some(value) = run("go", &["env", variable]) else { return not_there("go") };
        answer.add(url::endpoints(&value), &format!("`go env {variable}`"));
        // A checksum database may be given by its name alone.
        let name = value.split_whitespace().next().filter(|name| name.contains('.') && !name.contains('/'));
        if let (Some(name), "GOSUMDB", false) = (name, variable, value.contains("://")) {
            let host = name.split('+').next().unwrap_or(name);
            answer.add(url::endpoint(&format!("https://{host}")), &format!("`go env {variable}`"));
        }
        if value.split([',', '|']).any(|entry| entry.trim() == "direct") {
            answer.note("GOPROXY holds `direct`: modules may also come from their own hosts");
        }
    }
    answer
}

/// Reads the proxy variables that most tools obey.
pub(super) fn proxy() -> Answer {
    let mut answer = Answer::default();
    for variable in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        if let Ok(value) = std::env::var(variable) {
            answer.add(url::endpoint(&value), &format!("environment variable {variable}"));
        }
    }
    answer
}

fn not_there(program: &str) -> Answer {
    Answer { found: Vec::new(), notes: vec![format!("{program} is not installed or gave no answer")] }
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    run_with(program, arguments, &[])
}

/// What a tool prints, within [`PATIENCE`]; as the user who called sudo, whose configuration it is.
fn run_with(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(user) = caller() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        command.env("HOME", &user.dir).env("USER", &user.name);
    }
    let mut child = command.spawn().ok()?;
    let mut pipe = child.stdout.take()?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        // Nobody listens any more if the tool took too long.
        let _ = sender.send(pipe.read_to_end(&mut text).map(|_| text));
    });
    let end = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < end => thread::sleep(STEP),
            _ => {
                // It did not answer: it is ended, and what it printed is not believed.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    // A process that the tool left behind can hold the pipe open.
    let text = receiver.recv_timeout(end.saturating_duration_since(Instant::now())).ok()?.ok()?;
    status.success().then(|| String::from_utf8_lossy(&text).into_owned())
}

/// The user behind sudo, if there is one.
fn caller() -> Option<nix::unistd::User> {
    let name = std::env::var_os("SUDO_USER").filter(|_| nix::unistd::geteuid().is_root())?;
    nix::unistd::User::from_name(OsStr::to_str(&name)?).ok()?
}
