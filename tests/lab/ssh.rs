//! A real ssh server on the far side, with a git repository.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{Lab, network::address::GOOD4, run::eventually, site::quietly};

/// What ssh is told, the word KEYS to be replaced by [`SshServer::keys`].
pub const SSH: &str = "ssh -i KEYS/user -o BatchMode=yes -o ConnectTimeout=5 -o StrictHostKeyChecking=no \
                       -o UserKnownHostsFile=/dev/null";

/// A running server; it ends with this value.
#[derive(Debug)]
pub struct SshServer {
    server: Child,
    directory: TempDir,
}

impl SshServer {
    /// Starts it under every address.
    pub fn start(lab: &Lab) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700))
            .expect("close the directory");
        let path = |name: &str| directory.path().join(name).display().to_string();
        for key in ["host", "user"] {
            quietly(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)]));
        }
        quietly(Command::new("git").args(["init", "-q", "--bare", &path("repository.git")]));
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\nUseDNS no\n\
             PermitRootLogin yes\nPasswordAuthentication no\nListenAddress 0.0.0.0\nListenAddress ::\n",
            path("host"),
            path("user.pub")
        );
        fs::write(path("config"), config).expect("write the server's settings");
        // The server wants the directory that its package's service makes.
        fs::create_dir_all("/run/sshd").expect("make the server's directory");
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f", &path("config")]).stderr(Stdio::null());
        let server = lab.net.place(&mut command).spawn().expect("start sshd (package openssh-server)");
        let up = || lab.net.enter(|| TcpStream::connect((GOOD4, 22)).is_ok());
        assert!(eventually(Duration::from_secs(5), up), "sshd does not answer");
        Self { server, directory }
    }

    /// Where the user's key and `repository.git` are.
    pub fn keys(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
