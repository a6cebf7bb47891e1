//! Where the demo plays: two servers, an agent without a way to anything else, and names that only the agent's mount
//! namespace knows.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::netns::{Held, Pair};
use crate::run;

/// Hides the machine's names behind the demo's, and becomes the command.
const ENTER: &str = r#"mount --bind "$0/hosts" /etc/hosts && mount --bind "$0/resolv.conf" /etc/resolv.conf &&
mount --bind "$0/nsswitch.conf" /etc/nsswitch.conf && cd "$0" && exec "$@""#;

/// The network, its servers and their directory; dropping it removes everything.
pub(crate) struct Network {
    /// Holds what the agent reads, what the servers use, and their logs.
    pub(crate) dir: PathBuf,
    // Before the namespaces: the servers end first.
    _servers: Held,
    namespaces: Pair,
    python: PathBuf,
}

impl Network {
    /// Builds the network and starts a server for each name and address.
    pub(crate) fn new(places: &[(&str, &str)]) -> Result<Self> {
        // The system's interpreter first: one in a user's home cannot be run by the user that the agent becomes.
        let system = PathBuf::from("/usr/bin/python3");
        let python = if system.is_file() { system } else { run::on_path("python3").context("no python3")? };
        let dir = std::env::temp_dir().join(format!("egress-demo-{}", std::process::id()));
        let ready = Self::start(&dir, python, places);
        if ready.is_err() {
            let _ = fs::remove_dir_all(&dir);
        }
        ready
    }

    fn start(dir: &Path, python: PathBuf, places: &[(&str, &str)]) -> Result<Self> {
        furnish(dir, places)?;
        let addresses: Vec<&str> = places.iter().map(|(_, address)| *address).collect();
        let namespaces = Pair::new(&addresses)?;
        let mut cmd = namespaces.servers();
        cmd.arg(&python).arg(run::root().join("tests/demo/servers.py")).arg(dir);
        cmd.args(places.iter().map(|(name, address)| format!("{name}={address}")));
        let mut servers = Held::start(&mut cmd)?;
        let out = servers.child().stdout.take().context("the servers have no output")?;
        let mut first = String::new();
        BufReader::new(out).read_line(&mut first).context("cannot read from the servers")?;
        if first.trim() != "ready" {
            bail!("the demo's servers did not start");
        }
        Ok(Self { dir: dir.to_path_buf(), _servers: servers, namespaces, python })
    }

    /// What the agent is started with.
    pub(crate) fn agent_command(&self) -> Vec<OsString> {
        let words = [self.python.as_os_str(), "agent.py".as_ref(), "documents".as_ref()];
        words.map(OsStr::to_os_string).to_vec()
    }

    /// A command inside the agent's namespaces.
    pub(crate) fn inside(&self, words: &[OsString]) -> Command {
        let mut cmd = self.namespaces.agent();
        cmd.args(["unshare", "--mount", "sh", "-c", ENTER]).arg(&self.dir).args(words);
        cmd.env("SSL_CERT_FILE", self.dir.join("ca.pem")).env("PYTHONDONTWRITEBYTECODE", "1");
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            cmd.env_remove(proxy).env_remove(proxy.to_uppercase());
        }
        cmd
    }
}

/// Puts into the directory what the agent and the servers need, with keys for the servers' eyes only.
fn furnish(dir: &Path, places: &[(&str, &str)]) -> Result<()> {
    let demo = run::root().join("tests/demo");
    let documents = dir.join("documents");
    fs::create_dir_all(&documents).with_context(|| format!("cannot make {}", documents.display()))?;
    for entry in fs::read_dir(demo.join("documents"))? {
        let path = entry?.path();
        fs::copy(&path, documents.join(path.file_name().unwrap_or_default()))?;
    }
    fs::copy(demo.join("agent.py"), dir.join("agent.py"))?;
    let hosts: Vec<String> = places.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
    fs::write(dir.join("hosts"), format!("127.0.0.1 localhost\n{}", hosts.concat()))?;
    fs::write(dir.join("resolv.conf"), "# the demo has names, but no name server\n")?;
    fs::write(dir.join("nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files\n")?;
    certify(dir, places)?;
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    Ok(())
}

/// A lab authority, and a certificate of it for each name.
fn certify(dir: &Path, places: &[(&str, &str)]) -> Result<()> {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let request = |name: &str| {
        let mut cmd = Command::new("openssl");
        cmd.current_dir(dir).args(["req", "-x509"]).args(key).args(["-subj", &format!("/CN={name}")]);
        cmd
    };
    run::quietly(request("egress demo authority").args(["-keyout", "ca.key", "-out", "ca.pem"]))?;
    for (name, _) in places {
        let mut cmd = request(name);
        cmd.args(["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", &format!("subjectAltName=DNS:{name}")]);
        cmd.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        run::quietly(cmd.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]))?;
    }
    Ok(())
}
