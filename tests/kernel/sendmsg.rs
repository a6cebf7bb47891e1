//! `sendmsg4`, `sendmsg6`: datagrams with an address of their own.

use egress_tests::{judge, rows::SENDMSG_ROWS};

#[test]
fn without_enforcement_every_case_gets_out() {
    judge::all_get_out(SENDMSG_ROWS);
}

#[test]
fn every_case_is_refused() {
    judge::all_refused(SENDMSG_ROWS);
}
