//! For programs: one JSON object.
//!
//! `egress`, `policy`, `users`, `seconds`; `totals`: number of findings by verdict; `attacks`: for each attack and user `id`,
//! `class`, `title`, `needs`, `user`, `verdict` (contained, leaked, known, not possible, allowed, unknown), `slow`, `control`
//! and `enforced` with what the program noticed (`at`: the call that failed or null, `errno`, `micros`: its longest
//! call), and `advice` for a leak, `note` for what the policy allows.

use serde_json::{Value, json};

use super::super::{Finding, Report, Told, Verdict};

/// The report.
pub fn json(report: &Report) -> String {
    let totals: serde_json::Map<String, Value> = Verdict::ALL
        .iter()
        .map(|&verdict| (verdict.name().to_owned(), report.count(verdict).into()))
        .collect();
    let value = json!({
        "egress": env!("CARGO_PKG_VERSION"),
        "policy": report.policy,
        "users": report.users,
        "seconds": report.took.as_secs_f64(),
        "totals": totals,
        "attacks": report.findings.iter().map(finding).collect::<Vec<_>>(),
    });
    serde_json::to_string_pretty(&value).unwrap_or_default() + "\n"
}

fn finding(finding: &Finding) -> Value {
    let attack = finding.attack;
    json!({
        "id": attack.id,
        "class": attack.class().title,
        "title": attack.title,
        "needs": attack.needs,
        "user": finding.user,
        "verdict": finding.verdict.name(),
        "slow": finding.slow(),
        "control": told(&finding.control),
        "enforced": told(&finding.enforced),
        "advice": (finding.verdict == Verdict::Leaked).then_some(attack.class().advice),
        "note": finding.note,
    })
}

fn told(told: &Told) -> Value {
    let failed = !told.at.is_empty();
    json!({
        "at": failed.then_some(&told.at),
        "errno": failed.then_some(told.errno),
        "micros": u64::try_from(told.longest.as_micros()).unwrap_or(u64::MAX),
    })
}
