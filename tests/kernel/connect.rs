//! `connect4`, `connect6`: TCP in all its forms.

use egress_tests::{judge, rows::CONNECT_ROWS};

#[test]
fn without_enforcement_every_case_gets_out() {
    judge::all_get_out(CONNECT_ROWS);
}

#[test]
fn every_case_is_refused() {
    judge::all_refused(CONNECT_ROWS);
}
