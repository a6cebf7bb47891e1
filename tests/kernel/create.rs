//! `sock_create`: kinds of sockets that are not made at all.

use egress_tests::{judge, rows::CREATE_ROWS};

#[test]
fn without_enforcement_every_case_gets_out() {
    judge::all_get_out(CREATE_ROWS);
}

#[test]
fn every_case_is_refused() {
    judge::all_refused(CREATE_ROWS);
}
