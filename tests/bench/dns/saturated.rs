//! Questions as fast as they are answered, so many unanswered at a time.

use std::{os::fd::AsFd as _, thread, time::Duration};

use anyhow::Result;

use crate::{
    Plan,
    batch::{BATCH, Batch},
    message::{self, Template},
    outstanding::{Asker, Watch, warm_up},
    say,
};

/// Sockets that share the questions.
const SOCKETS: usize = 8;

/// A question is lost after this, and looked for this often.
const LOST: u64 = 1_000_000_000;
const LOOK: u64 = 250_000_000;

#[derive(Default)]
struct Counts {
    sent: u64,
    good: u64,
    failed: u64,
    lost: u64,
}

/// Asks and prints.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let template = Template::new(plan.question(0))?;
    let start = warm_up(plan, &template)?;
    let mut askers = Asker::several(plan.server, SOCKETS)?;
    let each = plan.outstanding.div_ceil(SOCKETS).min(BATCH);
    let (mut received, mut batch) = (Batch::connected(), Batch::connected());
    let mut counts = Counts::default();
    let mut watch = Watch::new(&askers);
    let end = plan.seconds.saturating_mul(1_000_000_000);
    let mut look = LOOK;
    let mut ready: Vec<usize> = (0..SOCKETS).collect();
    say("begin");
    while watch.now() < end && counts.good < plan.questions {
        for index in std::mem::take(&mut ready) {
            let asker = &mut askers[index];
            let count = received.receive(asker.as_fd(), false).unwrap_or(0);
            for at in 0..count {
                let Some((id, good)) = message::outcome(received.received(at)) else { continue };
                if asker.take(id).is_some() {
                    *(if good { &mut counts.good } else { &mut counts.failed }) += 1;
                }
            }
            let (now, free) = (watch.now(), each.saturating_sub(asker.waiting));
            for at in 0..free {
                let name = plan.question(start + counts.sent).name;
                let length = template.write(asker.put(now), name, batch.room(at));
                batch.set_length(at, length);
                counts.sent += 1;
            }
            batch.send(asker.as_fd(), free);
        }
        if watch.now() >= look {
            look = watch.now() + LOOK;
            counts.lost +=
                askers.iter_mut().map(|asker| asker.give_up(watch.now().saturating_sub(LOST))).sum::<u64>();
            ready.extend(0..SOCKETS);
        } else {
            ready.extend(watch.wait(look));
        }
    }
    let nanos = watch.now();
    say("end");
    // Time to look at the process that was asked.
    thread::sleep(Duration::from_millis(300));
    let Counts { sent, good, failed, lost } = counts;
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark fit a float's mantissa")]
    let rate = good as f64 / (nanos as f64 / 1e9);
    say(&format!("sent={sent} good={good} failed={failed} lost={lost} rate={rate:.0}"));
    Ok(())
}
