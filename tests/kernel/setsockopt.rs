//! `setsockopt`: options that lead packets elsewhere, or send data of their own.

use egress_tests::{judge, rows::SETSOCKOPT_ROWS};

#[test]
fn without_enforcement_every_case_gets_out() {
    judge::all_get_out(SETSOCKOPT_ROWS);
}

#[test]
fn every_case_is_refused() {
    judge::all_refused(SETSOCKOPT_ROWS);
}
