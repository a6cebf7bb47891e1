//! Resource limits: what the supervisor raises for itself, descriptors above all (sockets in many network namespaces,
//! connections, exchanges), and gives back to the command.

use std::io;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// Descriptors: more than all bounds of the supervisor together.
const ENOUGH: rlim_t = 65_536;

/// Of descriptors, and of locked memory, which loading programs raises before Linux 5.11.
const RAISED: [Resource; 2] = [Resource::RLIMIT_NOFILE, Resource::RLIMIT_MEMLOCK];

/// Limits, soft and hard, as they were found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResourceLimits([(rlim_t, rlim_t); RAISED.len()]);

impl ResourceLimits {
    /// Raises the soft limit of descriptors of this process as far as the hard one lets it and is needed; gives all limits as
    /// they were.
    ///
    /// # Errors
    /// As `setrlimit(2)`.
    pub fn raise() -> io::Result<Self> {
        let [descriptors, memory] = RAISED.map(getrlimit);
        let (soft, hard) = descriptors?;
        setrlimit(Resource::RLIMIT_NOFILE, raised(soft, hard), hard)?;
        Ok(Self([(soft, hard), memory?]))
    }

    /// Gives this process the limits back.
    ///
    /// # Errors
    /// As `setrlimit(2)`.
    pub fn restore(self) -> io::Result<()> {
        for (resource, (soft, hard)) in RAISED.into_iter().zip(self.0) {
            setrlimit(resource, soft, hard)?;
        }
        Ok(())
    }
}

fn raised(soft: rlim_t, hard: rlim_t) -> rlim_t {
    soft.max(hard.min(ENOUGH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_raised_to_what_may_be_and_never_lowered() {
        // Mutations seen to fail here: the hard limit whatever it is; never more than is needed, be there more already.
        for (soft, hard, expected) in [
            (1_024, 4_096, 4_096),
            (1_024, ENOUGH + 1, ENOUGH),
            (1_024, libc::RLIM_INFINITY, ENOUGH),
            (ENOUGH + 1, ENOUGH + 2, ENOUGH + 1),
            (4_096, 4_096, 4_096),
            (0, 0, 0),
        ] {
            assert_eq!(raised(soft, hard), expected, "{soft} {hard}");
        }
    }
}
