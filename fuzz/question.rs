//! Any bytes as a client's question; what must hold is in `egress::dns::fuzzing`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| egress::dns::fuzzing::question(bytes));
