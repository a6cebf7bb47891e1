//! Who the command runs as: the invoking user behind sudo, or the one asked for.

use std::{ffi::CString, path::PathBuf};

use nix::unistd::{Gid, Uid, User, getgid, getgrouplist, getuid};

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
    /// The databases could not be read.
    #[error("cannot look up user {0}: {1}")]
    Lookup(String, nix::Error),
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
                Self::of(Uid::from_raw(uid), gid.map(Gid::from_raw), &uid.to_string())
            }
            _ => Self::of(getuid(), Some(getgid()), "running this"),
        }
    }

    fn named(user: &str) -> Result<Self, IdentityError> {
        let lookup = |error| IdentityError::Lookup(user.to_owned(), error);
        if let Some(account) = User::from_name(user).map_err(lookup)? {
            return Self::of(account.uid, Some(account.gid), user);
        }
        let uid = user.parse::<u32>().map_err(|_| IdentityError::NoSuchUser(user.to_owned()))?;
        Self::of(Uid::from_raw(uid), None, user)
    }

    fn of(uid: Uid, gid: Option<Gid>, label: &str) -> Result<Self, IdentityError> {
        let lookup = |error| IdentityError::Lookup(label.to_owned(), error);
        let user = User::from_uid(uid).map_err(lookup)?;
        // An id without an account has no groups beyond its own; never those of root.
        let gid = gid.or(user.as_ref().map(|user| user.gid)).unwrap_or_else(|| Gid::from_raw(uid.as_raw()));
        let groups = match &user {
            Some(user) => {
                let name = CString::new(user.name.as_str()).map_err(|_| lookup(nix::Error::EINVAL))?;
                getgrouplist(&name, gid).map_err(lookup)?
            }
            None => vec![gid],
        };
        let account = user.map(|user| Account { name: user.name, home: user.dir, shell: user.shell });
        Ok(Self { uid, gid, groups, account })
    }

    /// The login name, or the number.
    pub fn label(&self) -> String {
        self.account.as_ref().map_or_else(|| format!("uid {}", self.uid), |account| account.name.clone())
    }
}

fn sudo_id(variable: &'static str) -> Result<Option<u32>, IdentityError> {
    match std::env::var(variable) {
        Ok(text) => text.parse().map(Some).map_err(|_| IdentityError::BadSudo(variable, text)),
        Err(_) => Ok(None),
    }
}
