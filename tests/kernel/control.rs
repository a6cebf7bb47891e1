//! Without enforcement every forbidden attempt gets out: a case that cannot fail is no case.

use egress_tests::{Lab, rows};

fn get_out(rows: &[egress_tests::Case]) {
    let lab = Lab::new().expect("the lab");
    let failed: Vec<_> = rows.iter().filter_map(|case| case.control(&lab).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn connect() {
    get_out(rows::CONNECT_ROWS);
}

#[test]
fn sendmsg() {
    get_out(rows::SENDMSG_ROWS);
}

#[test]
fn create() {
    get_out(rows::CREATE_ROWS);
}

#[test]
fn packet() {
    get_out(rows::PACKET_ROWS);
}
