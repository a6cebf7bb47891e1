//! Who the command runs as: the invoking user behind sudo, or the one asked for.
//!
//! This binary is static, and the C library's user look-ups would load modules made for another release of it. So the
//! local files are read here, and the system's own `getent` and `id` are asked for what is not in them.

use std::{fs, path::PathBuf, process::Command};

use nix::unistd::{Gid, Uid, getgid, getgroups, getuid};

/// A user to run as.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// User id.
    pub uid: Uid,
    /// Primary group id.
    pub gid: Gid,
    /// All groups.
    pub groups: Vec<Gid>,
    /// The account, if the id has one: name, home directory and shell.
    pub account: Option<Account>,
}

/// What the password database says of a user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: Uid,
    /// Primary group id.
    pub gid: Gid,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

/// No such user.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// `--user` names nobody.
    #[error("--user {0}: there is no such user; give a name or a numeric id")]
    NoSuchUser(String),
    /// `SUDO_UID` or `SUDO_GID` is not a number.
    #[error("{0} is set to {1:?}, which is no user or group id: call `egress` through sudo, or give --user")]
    BadSudo(&'static str, String),
    /// The groups of this process could not be read.
    #[error("cannot read the groups of this process: {0}")]
    Groups(nix::Error),
}

impl Identity {
    /// The user given with `--user` (name or id), else the one who called sudo, else the one who runs this process.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn find(user: Option<&str>) -> Result<Self, IdentityError> {
        if let Some(user) = user {
            return Self::named(user);
        }
        match (sudo_id("SUDO_UID")?, sudo_id("SUDO_GID")?) {
            (Some(uid), gid) if getuid().is_root() => {
                Ok(Self::of(Uid::from_raw(uid), account(&uid.to_string()), gid.map(Gid::from_raw)))
            }
            _ => Self::own(),
        }
    }

    fn own() -> Result<Self, IdentityError> {
        let groups = getgroups().map_err(IdentityError::Groups)?;
        Ok(Self { uid: getuid(), gid: getgid(), groups, account: account(&getuid().to_string()) })
    }

    fn named(user: &str) -> Result<Self, IdentityError> {
        match (account(user), user.parse::<u32>()) {
            (Some(account), _) => Ok(Self::of(account.uid, Some(account), None)),
            (None, Ok(uid)) if uid != NO_ID => Ok(Self::of(Uid::from_raw(uid), None, None)),
            (None, _) => Err(IdentityError::NoSuchUser(user.to_owned())),
        }
    }

    /// An id without an account has no groups beyond its own; never those of root.
    fn of(uid: Uid, account: Option<Account>, gid: Option<Gid>) -> Self {
        let gid = gid.or(account.as_ref().map(|account| account.gid));
        let gid = gid.unwrap_or_else(|| Gid::from_raw(uid.as_raw()));
        let mut groups = vec![gid];
        if let Some(account) = &account {
            groups.extend(groups_of(&account.name).into_iter().filter(|&group| group != gid));
        }
        Self { uid, gid, groups, account }
    }

    /// The login name, or the number.
    pub fn label(&self) -> String {
        self.account.as_ref().map_or_else(|| format!("uid {}", self.uid), |account| account.name.clone())
    }
}

/// To setresuid(2) and setresgid(2) this means "leave as it is": the command would run as root.
const NO_ID: u32 = u32::MAX;

fn sudo_id(variable: &'static str) -> Result<Option<u32>, IdentityError> {
    let Some(text) = std::env::var_os(variable) else { return Ok(None) };
    let text = text.to_string_lossy().into_owned();
    match text.parse() {
        Ok(id) if id != NO_ID => Ok(Some(id)),
        _ => Err(IdentityError::BadSudo(variable, text)),
    }
}

/// The account of a name or id, from passwd(5) or else from whatever the system asks.
fn account(key: &str) -> Option<Account> {
    let local = fs::read_to_string("/etc/passwd").unwrap_or_default();
    find_account(&local, key).or_else(|| find_account(&ask("getent", &["passwd", key])?, key))
}

fn find_account(passwd: &str, key: &str) -> Option<Account> {
    let accounts = || passwd.lines().filter_map(parse_account);
    let by_name = accounts().find(|account| account.name == key);
    by_name.or_else(|| {
        let uid = Uid::from_raw(key.parse().ok()?);
        accounts().find(|account| account.uid == uid)
    })
}

/// One line of passwd(5).
fn parse_account(line: &str) -> Option<Account> {
    let id = |text: &str| text.parse().ok().filter(|id| *id != NO_ID);
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let _password = fields.next()?;
    let uid = Uid::from_raw(id(fields.next()?)?);
    let gid = Gid::from_raw(id(fields.next()?)?);
    let _comment = fields.next()?;
    let (home, shell) = (PathBuf::from(fields.next()?), PathBuf::from(fields.next()?));
    Some(Account { name, uid, gid, home, shell })
}

/// All groups of an account, from `id` or else from group(5).
fn groups_of(name: &str) -> Vec<Gid> {
    let parse = |text: &str| text.split_whitespace().map(|id| id.parse().ok().map(Gid::from_raw)).collect();
    let asked: Option<Vec<Gid>> = ask("id", &["-G", name]).and_then(|text| parse(&text));
    asked.unwrap_or_else(|| groups_in(&fs::read_to_string("/etc/group").unwrap_or_default(), name))
}

/// The groups of group(5) that list a name as a member.
fn groups_in(group: &str, name: &str) -> Vec<Gid> {
    let member = |line: &str| {
        let mut fields = line.splitn(4, ':').skip(2);
        let (gid, members) = (fields.next()?.parse().ok()?, fields.next()?);
        members.split(',').any(|member| member == name).then(|| Gid::from_raw(gid))
    };
    group.lines().filter_map(member).collect()
}

/// What a program of the system prints, if it is there and succeeds. Never found along `PATH`, which the caller of
/// sudo may have written.
fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let output = ["/usr/bin", "/bin"]
        .iter()
        .find_map(|directory| Command::new(format!("{directory}/{program}")).args(arguments).output().ok())?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nleave:x:4294967295:0::/:/bin/sh\nann:x:1000:100:Ann,,,:/home/ann:/bin/zsh\n\
                          1000:x:7:7::/:/bin/sh\nbroken:x:no:1::/:/bin/sh\nshort:x:8\n";

    #[test]
    fn a_name_goes_before_a_number_and_broken_lines_are_no_accounts() {
        let find = |key| find_account(PASSWD, key).map(|account| (account.name, account.uid.as_raw()));
        assert_eq!(find("ann"), Some(("ann".to_owned(), 1000)));
        assert_eq!(find("1000"), Some(("1000".to_owned(), 7)));
        assert_eq!(find("0"), Some(("root".to_owned(), 0)));
        assert_eq!((find("leave"), find("4294967295")), (None, None));
        assert_eq!((find("broken"), find("short"), find("8"), find("")), (None, None, None, None));
    }

    #[test]
    fn groups_are_those_that_list_the_whole_name() {
        let group = "adm:x:4:ann,bob\nannex:x:5:annex\nwheel:x:10:bob,ann\nempty:x:11:\n";
        assert_eq!(groups_in(group, "ann"), [Gid::from_raw(4), Gid::from_raw(10)]);
        assert_eq!(groups_in(group, "nobody"), []);
    }
}
