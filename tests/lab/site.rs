//! A web site on the far side: an index of each kind that package managers know, a git repository and a page, over TLS
//! with an authority of the lab's own.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::Lab;

/// Makes a wheel of one module.
const WHEEL: &str = "
import sys, zipfile
info = 'lab_package-1.0.dist-info'
with zipfile.ZipFile(sys.argv[1], 'w') as wheel:
    wheel.writestr('lab_package.py', 'WORD = 1\\n')
    wheel.writestr(info + '/METADATA', 'Metadata-Version: 2.1\\nName: lab-package\\nVersion: 1.0\\n')
    wheel.writestr(info + '/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + '/RECORD', 'lab_package.py,,\\n')
";

/// A running site; it ends with this value.
#[derive(Debug)]
pub struct Site {
    server: Child,
    directory: TempDir,
}

impl Site {
    /// Starts it for all hosts below these domains; files that one host refers to are on other hosts of its domain.
    pub fn start(lab: &Lab, domains: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("open the directory");
        certify(path, domains);
        furnish(&path.join("files"), domains);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("site/server.js");
        let mut command = Command::new("node");
        command.arg(script).args([path.join("files"), path.join("site.pem"), path.join("site.key")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut server = lab.net.place(&mut command).spawn().expect("start node (package nodejs)");
        let mut output = BufReader::new(server.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("the site's output");
        assert_eq!(line, "ready\n", "the site did not start");
        // Else the server would wait for somebody to read what it says.
        std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(drop));
        Self { server, directory }
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Runs a command of the preparations.
pub(crate) fn quietly(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn certify(directory: &Path, domains: &[&str]) {
    let request = |name: &str, file: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(directory).args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]);
        command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", &format!("/CN={name}")]);
        command.args(["-keyout", &format!("{file}.key"), "-out", &format!("{file}.pem")]);
        command
    };
    quietly(&mut request("egress lab authority", "ca"));
    let names: Vec<_> = domains.iter().map(|domain| format!("DNS:*.{domain}")).collect();
    let names = format!("subjectAltName={}", names.join(","));
    let mut site = request("egress lab site", "site");
    quietly(site.args([
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-addext",
        &names,
        "-addext",
        "basicConstraints=CA:FALSE",
    ]));
}

/// What is served: `page`, `lab.git`, an index for pip, one for npm and one for apt, for each domain below its name.
fn furnish(files: &Path, domains: &[&str]) {
    for directory in ["debian", "package", "lab.git"].map(|name| files.join(name)) {
        fs::create_dir_all(directory).expect("make a directory");
    }
    let write = |name: &str, text: &str| {
        let path = files.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("make a directory");
        fs::write(path, text).expect("write a file");
    };
    write("page", "the page\n");
    write("package/package.json", r#"{"name": "lab-package", "version": "1.0.0"}"#);
    write(
        "debian/Packages",
        "Package: lab-package\nVersion: 1.0\nArchitecture: all\nMaintainer: lab <lab@lab.example>\nSize: 1\n\
         Filename: ./lab-package.deb\nSHA256: 0000000000000000000000000000000000000000000000000000000000000000\n",
    );
    for domain in domains {
        let link = format!("<a href=\"https://files.{domain}/lab_package-1.0-py3-none-any.whl\">lab</a>\n");
        write(&format!("{domain}/simple/lab-package/index.html"), &link);
        let package = format!(
            r#"{{"name": "lab-package", "dist-tags": {{"latest": "1.0.0"}}, "versions": {{"1.0.0": {{"name": "lab-package",
            "version": "1.0.0", "dist": {{"tarball": "https://files.{domain}/lab-package-1.0.0.tgz"}}}}}}}}"#
        );
        write(&format!("{domain}/npm/lab-package"), &package);
    }
    quietly(Command::new("python3").args(["-c", WHEEL]).arg(files.join("lab_package-1.0-py3-none-any.whl")));
    quietly(Command::new("tar").current_dir(files).args(["czf", "lab-package-1.0.0.tgz", "package"]));
    let release = "gzip -k Packages; echo SHA256: > Release; for f in Packages Packages.gz; do \
                   echo \" $(sha256sum $f | cut -c -64) $(stat -c %s $f) $f\" >> Release; done";
    quietly(Command::new("sh").current_dir(files.join("debian")).args(["-ec", release]));
    repository(&files.join("lab.git"));
}

/// A bare repository with a commit, as a plain web server can serve it.
fn repository(path: &Path) {
    let git = || {
        let mut git = Command::new("git");
        git.current_dir(path).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "lab").env(format!("GIT_{who}_EMAIL"), "lab@lab.example");
        }
        git
    };
    quietly(git().args(["init", "-q", "--bare", "-b", "main", "."]));
    // The empty tree.
    quietly(git().args(["mktree"]));
    let tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
    let output = git().args(["commit-tree", "-m", "first", tree]).output().expect("git (package git)");
    let commit = String::from_utf8(output.stdout).expect("an id");
    quietly(git().args(["update-ref", "refs/heads/main", commit.trim()]));
    quietly(git().args(["update-server-info"]));
}
