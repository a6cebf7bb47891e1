//! The kernel side's object file, built by the build script from the sources of this very commit.

/// The ELF object with all programs and maps, aligned as its reader needs it.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/egress-ebpf"));

/// The compiler that made it, with its release.
pub const COMPILER: &str = env!("EGRESS_KERNEL_SIDE_COMPILER");
