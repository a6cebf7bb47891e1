//! What the BPF LSM programs are told: constants that the loader finds in the running kernel, the state of their scope,
//! and names of unix sockets.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    counter::Fate,
    decide::{Reason, Verdict},
    rule::{RuleId, Scope},
};

/// Where the running kernel keeps what the programs read, in bytes from the start of each structure.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Offsets {
    /// `socket.sk`
    pub socket_sk: u32,
    /// `socket.file`
    pub socket_file: u32,
    /// `sock.__sk_common.skc_family`
    pub sock_family: u32,
    /// `sock.sk_cgrp_data.cgroup`
    pub sock_cgroup: u32,
    /// `unix_sock.addr`
    pub unix_sock_addr: u32,
    /// `unix_address.len`
    pub unix_address_len: u32,
    /// `unix_address.name`
    pub unix_address_name: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `file.private_data`
    pub file_private: u32,
    /// `file.f_path.dentry`
    pub file_dentry: u32,
    /// `dentry.d_name.name`
    pub dentry_name: u32,
    /// `inode.i_sb`
    pub inode_sb: u32,
    /// `inode.i_private`
    pub inode_private: u32,
    /// `super_block.s_magic`
    pub super_magic: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `css_set.dfl_cgrp`
    pub css_set_cgroup: u32,
    /// `cgroup.level`
    pub cgroup_level: u32,
    /// `cgroup.ancestors`
    pub cgroup_ancestors: u32,
    /// `cgroup.kn`
    pub cgroup_node: u32,
    /// `kernfs_node.id`
    pub node_id: u32,
    /// `kernfs_node.name`
    pub node_name: u32,
}

/// Constants of the programs of one scope.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Facts {
    /// Id of the scope's cgroup.
    pub scope: u64,
    /// Its depth below the root.
    pub level: u32,
    /// Zero.
    pub pad: u32,
    /// The running kernel's structures.
    pub offsets: Offsets,
}

/// What the programs look up at run time. All zero refuses whatever can be refused.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct State {
    /// The scope's state, as its own hooks have it.
    pub scope: Scope,
    /// Bits of [`State::FAMILIES`] and the like: what is not refused.
    pub lifted: u32,
    /// A [`Unix`] as a byte.
    pub unix: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl State {
    /// All zero.
    pub const ZERO: Self = Self { scope: Scope::ZERO, lifted: 0, unix: 0, pad: [0; 3] };

    /// Socket families other than unix, inet, inet6 and netlink.
    pub const FAMILIES: u32 = 1;
    /// Netlink protocols other than the ordinary ones.
    pub const NETLINK: u32 = 1 << 1;
    /// Reaching into processes outside.
    pub const PTRACE: u32 = 1 << 2;
    /// Signals to processes outside.
    pub const SIGNALS: u32 = 1 << 3;
    /// The bpf(2) system call.
    pub const BPF: u32 = 1 << 4;
}

/// One CPU's counters of one scope. Law: for each verdict, the sum of `attempts` is `emitted` + `suppressed` + `dropped`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LsmCounters {
    /// Attempts by verdict and reason.
    pub attempts: [[u64; Reason::COUNT]; Verdict::COUNT],
    /// Fate of their records by verdict.
    pub fate: [Fate; Verdict::COUNT],
}

impl LsmCounters {
    /// All zero.
    pub const ZERO: Self =
        Self { attempts: [[0; Reason::COUNT]; Verdict::COUNT], fate: [Fate::ZERO; Verdict::COUNT] };

    /// Adds another CPU's counters.
    pub fn add(&mut self, other: &Self) {
        let mine = self.attempts.as_flattened_mut();
        for (mine, theirs) in mine.iter_mut().zip(other.attempts.as_flattened()) {
            *mine += theirs;
        }
        for (mine, theirs) in self.fate.iter_mut().zip(&other.fate) {
            mine.emitted += theirs.emitted;
            mine.suppressed += theirs.suppressed;
            mine.dropped += theirs.dropped;
        }
    }

    /// Attempts that came to one decision.
    pub const fn count(&self, verdict: Verdict, reason: Reason) -> u64 {
        self.attempts[verdict as usize][reason as usize]
    }
}

/// Whose unix sockets the scope may talk to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Unix {
    /// Its own, and those that a rule opens.
    Own = 0,
    /// Everybody's.
    Any = 1,
    /// Nobody's.
    None = 2,
}

/// Name that a unix socket is bound to, as the tables are asked for it: exactly, and by its longest listed beginning.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct UnixName {
    /// Length in bits.
    pub bits: u32,
    /// The path, or `@` and an abstract name; zero padded.
    pub name: [u8; Self::MAX],
}

impl UnixName {
    /// The longest name in bytes.
    pub const MAX: usize = 108;

    /// From its bytes; `None` if it is too long for any socket.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut name = [0; Self::MAX];
        name.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self { bits: u32::try_from(bytes.len()).ok()? * 8, name })
    }
}

/// Value of both tables of names. Deny rules are already laid over allow rules.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UnixRule {
    /// The rule.
    pub rule: RuleId,
    /// 1 allows; anything else denies.
    pub allow: u8,
    /// Zero.
    pub pad: [u8; 3],
}

const _: () = {
    assert!(size_of::<Facts>() == 104);
    assert!(size_of::<State>() == 48);
    assert!(size_of::<UnixName>() == 112);
    assert!(size_of::<UnixRule>() == 8);
};
