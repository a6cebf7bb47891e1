//! `cgroup_skb/egress`: what only the packet shows.

use egress_tests::{judge, rows::PACKET_ROWS};

#[test]
fn without_enforcement_every_case_gets_out() {
    judge::all_get_out(PACKET_ROWS);
}

#[test]
fn every_case_is_refused() {
    judge::all_refused(PACKET_ROWS);
}
