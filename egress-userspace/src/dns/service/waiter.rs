//! One client that waits: what it asked, what was decided, and what it is told.

use egress_common::{Asker, RuleId, Transport, Verdict};

use super::{Happened, desk::Desk};
use crate::dns::{
    answer::Answer,
    clock::Clock,
    message::Question,
    reply,
    sockets::Way,
    told::{DnsReason, Told},
};

/// Response codes that we give ourselves (RFC 6895 §2.3).
pub(super) mod rcode {
    pub(in super::super) const SERVFAIL: u16 = 2;
    pub(in super::super) const NX_DOMAIN: u16 = 3;
}

/// A client that waits.
pub(super) struct Waiter {
    pub(super) question: Question,
    pub(super) way: Way,
    pub(super) asker: Asker,
    pub(super) ruled: Ruled,
}

/// What was decided about a question that is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ruled {
    pub(super) verdict: Verdict,
    pub(super) reason: DnsReason,
    pub(super) rule: Option<RuleId>,
}

impl<C: Clock> Desk<C> {
    /// Gives an answer of this age; the client may keep it for so many seconds.
    pub(super) fn reply(&mut self, waiter: &Waiter, answer: &Answer, cap: u32, age: u32, now: u64) {
        let question = &waiter.question;
        let bytes = reply::answer(question, answer, cap, age, limit(waiter));
        self.outbox.push((waiter.way, bytes));
        let ruled = waiter.ruled;
        let refused = is_refusal(answer.reason);
        let (verdict, reason) = match ruled.verdict {
            Verdict::Allow if refused && self.compiled.audit => (Verdict::Audit, answer.reason),
            Verdict::Allow if refused => (Verdict::Deny, answer.reason),
            Verdict::Allow => (Verdict::Allow, answer.reason),
            verdict => (verdict, ruled.reason),
        };
        let told = Told {
            rule: answer.rule.or(ruled.rule),
            addresses: answer.addresses.iter().map(|(address, _)| *address).collect(),
            dropped: answer.dropped.clone(),
            aliases: answer.aliases.clone(),
            ttl: (!answer.records.is_empty()).then(|| answer.ttl.saturating_sub(age).min(cap)),
            ..told(waiter, verdict, reason, answer.rcode, now)
        };
        self.happened.push(Happened::Told(told));
    }

    /// Refuses.
    pub(super) fn refuse(&mut self, waiter: &Waiter, rcode: u16, now: u64) {
        let reason = waiter.ruled.reason;
        let bytes = reply::refusal(&waiter.question, rcode, reply::extended_error(reason), limit(waiter));
        self.outbox.push((waiter.way, bytes));
        self.happened.push(Happened::Told(told(waiter, Verdict::Deny, reason, rcode, now)));
    }

    /// There is no answer, through no decision of the policy's.
    pub(super) fn fail(&mut self, waiter: &Waiter, reason: DnsReason, now: u64) {
        let extended = reply::extended_error(reason);
        let bytes = reply::refusal(&waiter.question, rcode::SERVFAIL, extended, limit(waiter));
        self.outbox.push((waiter.way, bytes));
        let verdict = if reason == DnsReason::NoPermit { Verdict::Deny } else { waiter.ruled.verdict };
        self.happened.push(Happened::Told(told(waiter, verdict, reason, rcode::SERVFAIL, now)));
    }
}

/// Whether the policy refuses an answer for this.
fn is_refusal(reason: DnsReason) -> bool {
    matches!(reason, DnsReason::DenyRule | DnsReason::Rebinding)
}

fn limit(waiter: &Waiter) -> usize {
    match waiter.way.transport() {
        Transport::Udp => reply::udp_limit(&waiter.question),
        Transport::Tcp | Transport::Icmp => reply::TCP_LIMIT,
    }
}

fn told(waiter: &Waiter, verdict: Verdict, reason: DnsReason, rcode: u16, now: u64) -> Told {
    Told {
        verdict,
        rule: waiter.ruled.rule,
        name: waiter.question.name.text().to_owned(),
        query_type: waiter.question.query_type,
        class: waiter.question.class,
        rcode,
        ..Told::refused(now, reason, waiter.asker, waiter.way.transport())
    }
}
