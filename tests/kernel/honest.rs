//! Honest traffic, which a naive hook breaks.

use egress_tests::{judge, rows::HONEST_ROWS};

#[test]
fn honest_traffic_arrives() {
    judge::all_pass(HONEST_ROWS);
}
