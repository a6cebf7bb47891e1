//! Any bytes as an upstream server's answer; what must hold is in `egress::dns::fuzzing`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| egress::dns::fuzzing::answer(bytes));
