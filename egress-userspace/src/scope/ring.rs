//! A ring buffer of the kernel's, watched without busy waiting. The kernel wakes its reader for what comes, not for what
//! the reader has left.

use std::io;

use aya::maps::{MapData, RingBuf, ring_buf::RingBufItem};
use tokio::io::unix::AsyncFd;

/// A ring, and whether the last look at it left something.
pub(super) struct Ring {
    ring: AsyncFd<RingBuf<MapData>>,
    more: bool,
}

impl Ring {
    /// Inside a runtime.
    pub(super) fn watch(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the ring owns its descriptor and lives as long as the registration.
        let ring = unsafe { AsyncFd::register(ring) }?;
        Ok(Self { ring, more: false })
    }

    /// Waits until there is something to take.
    pub(super) async fn ready(&mut self) -> io::Result<()> {
        if self.more {
            tokio::task::yield_now().await;
        } else {
            self.ring.readable_mut().await?.clear_ready();
        }
        Ok(())
    }

    /// Takes the next entry.
    pub(super) fn next(&mut self) -> Option<RingBufItem<'_>> {
        let item = self.ring.get_mut().next();
        self.more = item.is_some();
        item
    }

    /// Whether the last call of [`Ring::next`] found something, so that there may be more.
    pub(super) fn may_have_more(&self) -> bool {
        self.more
    }
}
