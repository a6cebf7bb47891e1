//! A network without a way out: one namespace for the agent, one for the servers, a cable between them, and names
//! that only the agent's mount namespace knows. All of it ends with this process, however that ends.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::run;

/// Joins a network namespace, hides the machine's names behind the demo's, and becomes the command.
const ENTER: &str = r#"mount --bind "$0/hosts" /etc/hosts && mount --bind "$0/resolv.conf" /etc/resolv.conf &&
mount --bind "$0/nsswitch.conf" /etc/nsswitch.conf && cd "$0" && exec "$@""#;

/// The network, its servers and their directory; dropping it removes everything.
pub(crate) struct Network {
    /// Holds what the agent reads, what the servers use, and their logs.
    pub(crate) dir: PathBuf,
    agent: Child,
    servers: Child,
    python: PathBuf,
}

impl Network {
    /// Builds the network and starts a server for each name and address.
    pub(crate) fn new(places: &[(&str, &str)]) -> Result<Self> {
        // The system's interpreter first: one in a user's home cannot be run by the user that the agent becomes.
        let system = PathBuf::from("/usr/bin/python3");
        let python = if system.is_file() { system } else { run::on_path("python3").context("no python3")? };
        let dir = std::env::temp_dir().join(format!("egress-demo-{}", std::process::id()));
        furnish(&dir, places)?;
        let agent = hold("the agent's namespace", Command::new("unshare").args(["--net", "cat"]))?;
        // The servers bind addresses that the cable brings, so their namespace is held until it is laid.
        let holder = hold("the servers' namespace", Command::new("unshare").args(["--net", "cat"]))?;
        cable(&agent, &holder, places)?;
        let mut cmd = nsenter(holder.id());
        cmd.arg(&python).arg(run::root().join("tests/demo/servers.py")).arg(&dir);
        cmd.args(places.iter().map(|(name, address)| format!("{name}={address}")));
        let servers = hold("the servers", &mut cmd)?;
        let mut network = Self { dir, agent, servers, python };
        end(holder);
        network.await_servers()?;
        Ok(network)
    }

    /// What the agent is started with.
    pub(crate) fn agent_command(&self) -> Vec<OsString> {
        let words = [self.python.as_os_str(), "agent.py".as_ref(), "documents".as_ref()];
        words.map(OsStr::to_os_string).to_vec()
    }

    /// A command inside the agent's namespaces.
    pub(crate) fn inside(&self, words: &[OsString]) -> Command {
        let mut cmd = nsenter(self.agent.id());
        cmd.args(["unshare", "--mount", "sh", "-c", ENTER]).arg(&self.dir).args(words);
        cmd.env("SSL_CERT_FILE", self.dir.join("ca.pem")).env("PYTHONDONTWRITEBYTECODE", "1");
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            cmd.env_remove(proxy).env_remove(proxy.to_uppercase());
        }
        cmd
    }

    fn await_servers(&mut self) -> Result<()> {
        let out = self.servers.stdout.take().context("the servers have no output")?;
        let mut first = String::new();
        BufReader::new(out).read_line(&mut first)?;
        if first.trim() != "ready" {
            bail!("the demo's servers did not start");
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for child in [&mut self.servers, &mut self.agent] {
            // They end when their standard input does; the servers remove the directory then.
            drop(child.stdin.take());
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A child that ends with this process, since it ends when its standard input does.
fn hold(what: &str, cmd: &mut Command) -> Result<Child> {
    let child = cmd.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    child.with_context(|| format!("cannot start {what}"))
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    let _ = child.wait();
}

fn nsenter(pid: u32) -> Command {
    let mut cmd = Command::new("nsenter");
    cmd.arg(format!("--net=/proc/{pid}/ns/net"));
    cmd
}

/// Lays the cable: addresses on both ends, a default route on neither.
fn cable(agent: &Child, servers: &Child, places: &[(&str, &str)]) -> Result<()> {
    let own = fs::read_link("/proc/self/ns/net")?;
    for child in [agent, servers] {
        // `unshare` needs a moment; laying the cable before would touch the machine's own namespace.
        let namespace = format!("/proc/{}/ns/net", child.id());
        let moved = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            fs::read_link(&namespace).is_ok_and(|now| now != own)
        });
        if !moved {
            bail!("cannot make a network namespace (is this a container without CAP_SYS_ADMIN?)");
        }
    }
    let ip = |child: &Child, line: &str| run::quietly(nsenter(child.id()).arg("ip").args(line.split(' ')));
    ip(agent, &format!("link add eth0 type veth peer name eth0 netns {}", servers.id()))?;
    ip(agent, "address add 203.0.113.1/24 dev eth0")?;
    for (_, address) in places {
        ip(servers, &format!("address add {address}/24 dev eth0"))?;
    }
    for child in [agent, servers] {
        ip(child, "link set lo up")?;
        ip(child, "link set eth0 up")?;
    }
    Ok(())
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
