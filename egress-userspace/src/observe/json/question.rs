//! The line of a question.

use std::{borrow::Cow, net::IpAddr};

use serde::Serialize;

use super::{Process, Rule, VERSION, line};
use crate::{
    dns::told::Dropped,
    explain::transport_name,
    observe::{
        question::{Question, rcode_name},
        time::rfc3339,
    },
    policy::query_type_name,
};

#[derive(Serialize)]
struct QuestionLine<'a> {
    v: u32,
    r#type: &'static str,
    time: String,
    verdict: &'static str,
    reason: &'static str,
    name: &'a str,
    query_type: Cow<'static, str>,
    query_type_number: u16,
    class: u16,
    protocol: &'static str,
    server: Option<IpAddr>,
    rcode: Cow<'static, str>,
    rcode_number: u16,
    addresses: &'a [IpAddr],
    dropped: Vec<DroppedAddress>,
    aliases: &'a [String],
    ttl: Option<u32>,
    rule: Option<Rule<'a>>,
    process: Option<Process<'a>>,
    cgroup: u64,
    cgroup_path: Option<&'a str>,
    cookie: Option<u64>,
    remedy: Option<&'a str>,
    setting: Option<&'a str>,
}

#[derive(Serialize)]
struct DroppedAddress {
    address: IpAddr,
    why: &'static str,
}

/// The line of a question.
pub fn question_line(question: &Question) -> Vec<u8> {
    let dropped = |dropped: &Dropped| DroppedAddress { address: dropped.address, why: dropped.why };
    line(&QuestionLine {
        v: VERSION,
        r#type: "dns",
        time: rfc3339(question.time),
        verdict: question.verdict.name(),
        reason: question.reason.name(),
        name: &question.name,
        query_type: query_type_name(question.query_type),
        query_type_number: question.query_type,
        class: question.class,
        protocol: transport_name(question.transport),
        server: question.server,
        rcode: rcode_name(question.rcode),
        rcode_number: question.rcode,
        addresses: &question.addresses,
        dropped: question.dropped.iter().map(dropped).collect(),
        aliases: &question.aliases,
        ttl: question.ttl,
        rule: question.rule.as_ref().map(Rule::of),
        process: question.process.as_ref().map(Process::of),
        cgroup: question.cgroup,
        cgroup_path: question.cgroup_path.as_deref(),
        cookie: question.cookie,
        remedy: question.remedy.as_deref(),
        setting: question.setting.as_deref(),
    })
}
