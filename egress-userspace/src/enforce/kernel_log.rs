//! Log lines from inside the programs, for their development: built with the feature `kernel-log` on this side and `log`
//! on the other. Each line becomes an event of `tracing`; set EGRESS_LOG=debug to see them.

use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use super::{EnforceError, Engine};

/// Hands lines on to `tracing`.
#[derive(Clone, Copy, Debug)]
pub struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        tracing::debug!(target: "egress::kernel", "{}", record.args());
    }

    fn flush(&self) {}
}

impl Engine {
    /// Opens the programs' log. Can be taken once.
    ///
    /// # Errors
    /// If the embedded kernel side was built without log lines.
    pub fn take_log(&mut self) -> Result<EbpfLogger<ToTracing>, EnforceError> {
        EbpfLogger::init_with_logger(&mut self.ebpf, ToTracing)
            .map_err(|error| EnforceError::other("open the log of the kernel side", error))
    }
}
