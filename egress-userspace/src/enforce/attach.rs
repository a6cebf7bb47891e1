//! Attaches programs to a cgroup as links, pins them, and asks the kernel whether they are where they should be.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{EnforceError, Engine, KernelProgram, sys};

/// The programs of one scope, attached to its cgroup and pinned. Pins outlive this value and the process:
/// [`Attachment::detach`] is the only way to let go.
#[derive(Debug)]
pub struct Attachment {
    directory: PathBuf,
    cgroup: u64,
    links: Vec<(KernelProgram, OwnedFd)>,
}

/// What the kernel says of one link of a scope.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinkHealth {
    /// Which.
    pub program: KernelProgram,
    /// Where the link sits; 0 is a dead link.
    pub cgroup: u64,
    /// Whether that is the scope's cgroup and the attach type is right.
    pub healthy: bool,
}

impl Engine {
    /// Attaches `programs` to the cgroup behind `cgroup` (opened directory, id `id`, `path` for messages) and pins each
    /// link in `directory`, which exists.
    ///
    /// # Errors
    /// [`EnforceError`]; whatever was attached or pinned by this call is taken back.
    pub fn attach(
        &self,
        programs: &[KernelProgram],
        cgroup: BorrowedFd<'_>,
        id: u64,
        path: &Path,
        directory: &Path,
    ) -> Result<Attachment, EnforceError> {
        let mut attachment = Attachment { directory: directory.to_owned(), cgroup: id, links: Vec::new() };
        let attach = |program: &KernelProgram| {
            let link = self.attach_one(*program, cgroup, path)?;
            attachment.add(*program, link)
        };
        let there = |program: &&KernelProgram| program.required() || self.has(**program);
        match programs.iter().filter(there).try_for_each(attach).and_then(|()| attachment.verify()) {
            Ok(()) => Ok(attachment),
            Err(error) => {
                attachment.detach();
                Err(error)
            }
        }
    }

    fn attach_one(
        &self,
        program: KernelProgram,
        cgroup: BorrowedFd<'_>,
        path: &Path,
    ) -> Result<OwnedFd, EnforceError> {
        let loaded = self.program_fd(program)?;
        // A link allows others beside it by nature, and there is no attach without one to fall back to.
        sys::link_cgroup(loaded, cgroup, program.attach_type()).map_err(|error| refusal(program, path, error))
    }
}

/// EPERM from an attach means a program of somebody else that allows no others, here or above.
fn refusal(program: KernelProgram, path: &Path, error: io::Error) -> EnforceError {
    if error.raw_os_error() == Some(libc::EINVAL) {
        return EnforceError::MissingHook { program, source: error };
    }
    if error.raw_os_error() == Some(libc::EPERM) {
        for ancestor in path.ancestors() {
            let Ok(directory) = fs::File::open(ancestor) else { continue };
            let Ok((flags, ids)) = sys::query_cgroup(directory.as_fd(), program.attach_type()) else { break };
            if !ids.is_empty() && flags & aya_obj::generated::BPF_F_ALLOW_MULTI == 0 {
                let programs = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
                return EnforceError::ForeignProgram { program, cgroup: ancestor.to_owned(), programs };
            }
        }
    }
    EnforceError::Attach { program, cgroup: path.to_owned(), reason: error.to_string() }
}

impl Attachment {
    fn add(&mut self, program: KernelProgram, link: OwnedFd) -> Result<(), EnforceError> {
        let path = self.directory.join(program.name());
        let pin = |source| EnforceError::Pin { program, directory: self.directory.clone(), source };
        sys::pin(link.as_fd(), &path).map_err(pin)?;
        tracing::debug!(program = program.name(), pin = %path.display(), "attached and pinned");
        self.links.push((program, link));
        Ok(())
    }

    /// Asks the kernel where each link is.
    ///
    /// # Errors
    /// The first link that is not on the scope's cgroup at its hook.
    pub fn verify(&self) -> Result<(), EnforceError> {
        for (health, found) in self.inspect() {
            if !health.healthy {
                return Err(EnforceError::NotAttached {
                    program: health.program,
                    expected: self.cgroup,
                    found,
                });
            }
        }
        Ok(())
    }

    /// What the kernel says of each link. A pin is no proof: a link dies silently with its cgroup.
    pub fn health(&self) -> Vec<LinkHealth> {
        self.inspect().into_iter().map(|(health, _)| health).collect()
    }

    /// The programs whose pin is gone: their links end with this process.
    pub fn unpinned(&self) -> Vec<KernelProgram> {
        let programs = self.links.iter().map(|(program, _)| *program);
        programs.filter(|program| !self.directory.join(program.name()).exists()).collect()
    }

    fn inspect(&self) -> Vec<(LinkHealth, String)> {
        let inspect = |(program, link): &(KernelProgram, OwnedFd)| {
            let (cgroup, healthy, found) = match sys::cgroup_link(link.as_fd()) {
                Ok(Some(link)) => (
                    link.cgroup,
                    link.cgroup == self.cgroup && link.attach_type == program.attach_type(),
                    format!("on cgroup {} at attach type {}", link.cgroup, link.attach_type),
                ),
                Ok(None) => (0, false, "as no cgroup link".to_owned()),
                Err(error) => (0, false, format!("not at all ({error})")),
            };
            (LinkHealth { program: *program, cgroup, healthy }, found)
        };
        self.links.iter().map(inspect).collect()
    }

    /// The cgroup's id.
    pub const fn cgroup(&self) -> u64 {
        self.cgroup
    }

    /// Removes the pins and closes the links: the programs no longer run on the cgroup once no other process holds
    /// one of the links.
    pub fn detach(self) {
        remove_pins(&self.directory);
    }
}

/// Removes the pins of a scope and their directory; whatever is gone already is fine.
pub fn remove_pins(directory: &Path) {
    super::lsm::remove_lsm_pins(directory);
    for program in KernelProgram::ALL {
        let _gone = fs::remove_file(directory.join(program.name()));
    }
    let _gone = fs::remove_dir(directory);
}

/// Whether no pinned link of a scope sits on a cgroup any more, wherever that cgroup is mounted.
pub fn pins_are_dead(directory: &Path) -> bool {
    KernelProgram::ALL.into_iter().all(|program| {
        let link = sys::open_pin(&directory.join(program.name()));
        link.and_then(|link| sys::cgroup_link(link.as_fd()))
            .map_or(true, |link| link.is_none_or(|link| link.cgroup == 0))
    })
}
