//! Questions at a fixed rate, whether answered or not: latency counts from when a question was due, so that one slow
//! answer shows in all that had to wait for it.

use std::{os::fd::AsFd as _, thread, time::Duration};

use anyhow::Result;

use crate::{
    Plan,
    batch::Batch,
    message::{self, ROOM, Template},
    outstanding::{Asker, Watch, warm_up},
    quantile, say,
};

/// Sockets that take turns.
const SOCKETS: usize = 32;

/// Answers between two marks.
const MARK: u64 = 100_000;

/// How long the last answers are waited for.
const LAST: u64 = 2_000_000_000;

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) sent: u64,
    pub(crate) good: u64,
    pub(crate) failed: u64,
    /// Nanoseconds from when each good one was due, sorted.
    pub(crate) latencies: Vec<u64>,
}

/// Asks and prints.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let template = Template::new(plan.question(0))?;
    let start = warm_up(plan, &template)?;
    say("begin");
    let figures = ask(plan, &template, start, |marked| say(&format!("mark {marked}")))?;
    say("end");
    // Time to look at the process that was asked.
    thread::sleep(Duration::from_millis(300));
    let Figures { sent, good, failed, latencies } = &figures;
    say(&format!(
        "sent={sent} good={good} failed={failed} lost={} p50_us={:.1} p99_us={:.1} max_us={:.1}",
        sent - good - failed,
        quantile(latencies, 0.50) / 1e3,
        quantile(latencies, 0.99) / 1e3,
        quantile(latencies, 1.0) / 1e3,
    ));
    Ok(())
}

/// Asks; `mark` hears of every so many good answers.
pub(crate) fn ask(plan: &Plan, template: &Template, start: u64, mark: impl Fn(u64)) -> Result<Figures> {
    let mut askers = Asker::several(plan.server, SOCKETS)?;
    let mut figures = Figures::default();
    let mut batch = Batch::connected();
    let mut room = [0; ROOM];
    let mut watch = Watch::new(&askers);
    let interval = 1_000_000_000 / u64::from(plan.rate.max(1));
    let questions = plan.questions.min(plan.seconds.saturating_mul(u64::from(plan.rate)));
    loop {
        let mut due = figures.sent * interval;
        let now = watch.now();
        while figures.sent < questions && due <= now {
            let number = start + figures.sent;
            let asker = &mut askers[usize::try_from(number).unwrap_or(0) % SOCKETS];
            let length = template.write(asker.put(due), plan.question(number).name, &mut room);
            // What cannot be sent is a question without an answer.
            let _ = asker.send(&room[..length]);
            figures.sent += 1;
            due = figures.sent * interval;
        }
        let over = figures.sent == questions;
        if over {
            due += LAST;
            if due <= now || askers.iter().all(|asker| asker.waiting == 0) {
                figures.latencies.sort_unstable();
                return Ok(figures);
            }
        }
        for index in watch.wait(due).collect::<Vec<_>>() {
            let asker = &mut askers[index];
            // An error that waited on the socket is a question without an answer.
            let count = batch.receive(asker.as_fd(), false).unwrap_or(0);
            let now = watch.now();
            for at in 0..count {
                let Some((id, good)) = message::outcome(batch.received(at)) else { continue };
                let Some(due) = asker.take(id) else { continue };
                if !good {
                    figures.failed += 1;
                    continue;
                }
                figures.latencies.push(now.saturating_sub(due));
                figures.good += 1;
                if figures.good % MARK == 0 {
                    mark(figures.good);
                }
            }
        }
    }
}
