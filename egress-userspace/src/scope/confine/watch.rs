//! The supervisor's side of the filter: judges the calls that were handed over, tells of those that were refused, answers.
//! The callers wait, so a flood of them is slowed down and needs no memory.

use std::{fs, future, io, time::Duration};

use egress_common::{Escape, Hook};
use tokio::{io::unix::AsyncFd, time::Instant};

use super::{
    calls::Fate,
    filter::{FOREIGN_ERRNO, Filter, Judged},
    notify::{Answer, Listener, Notification, Received},
    plan::Plan,
    tell,
};

/// Calls taken at a time.
const BATCH: usize = 64;

/// Refusals told in a [`WINDOW`]; who asks for more waits for the next one.
const RATE: u32 = 500;
const WINDOW: Duration = Duration::from_millis(100);

/// Where calls come from.
enum Source {
    /// From the listener itself.
    Listener(AsyncFd<Listener>),
    /// From the broker of unix sockets, which takes them from the listener; this one is for the answers.
    Broker(Listener),
    /// There are none.
    Nowhere,
}

/// What is watched.
pub struct Watch {
    source: Source,
    /// The last look may have left something.
    more: bool,
    filter: Filter,
    audit: bool,
    /// Cgroup id of the scope.
    scope: u64,
    window: Instant,
    used: u32,
    /// Refusals told in a [`WINDOW`].
    rate: u32,
}

impl Watch {
    /// Inside a runtime. Without a listener there is never anything; with a broker, what it hands over is to be settled.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn new(listener: Option<Listener>, broker: bool, plan: &Plan, scope: u64) -> io::Result<Self> {
        let source = match listener {
            None => Source::Nowhere,
            Some(listener) if broker => Source::Broker(listener),
            // SAFETY: the listener owns its descriptor and lives as long as the registration.
            Some(listener) => Source::Listener(unsafe { AsyncFd::register(listener) }?),
        };
        Ok(Self {
            source,
            more: false,
            filter: plan.filter.clone(),
            audit: plan.audit,
            scope,
            window: Instant::now(),
            used: 0,
            rate: RATE,
        })
    }

    /// Waits until there is a call to take, and time for it.
    ///
    /// # Errors
    /// As `epoll_wait(2)`.
    pub async fn ready(&self) -> io::Result<()> {
        let Source::Listener(listener) = &self.source else { return future::pending().await };
        self.patience().await;
        if self.more {
            tokio::task::yield_now().await;
        } else {
            listener.readable().await?.clear_ready();
        }
        Ok(())
    }

    /// Waits until there is time for a call that the broker hands over.
    pub async fn patience(&self) {
        if self.used >= self.rate {
            tokio::time::sleep_until(self.window + WINDOW).await;
        }
    }

    /// Takes and answers some calls. `inside` says whether a process is of the scope.
    ///
    /// # Errors
    /// As the `ioctl`s of the listener.
    pub fn take(&mut self, inside: &dyn Fn(u32) -> bool, tell: &mut dyn FnMut(&Escape)) -> io::Result<()> {
        self.more = true;
        for _ in 0..BATCH {
            if !self.has_time() {
                break;
            }
            let Source::Listener(listener) = &self.source else { break };
            match listener.get_ref().receive()? {
                Received::Call(call) => self.settle(&call, inside, tell)?,
                Received::Gone => {}
                Received::Nothing => {
                    self.more = false;
                    break;
                }
                Received::End => self.end(),
            }
        }
        Ok(())
    }

    /// Whether the rate allows another refusal now.
    fn has_time(&mut self) -> bool {
        let now = Instant::now();
        if now >= self.window + WINDOW {
            (self.window, self.used) = (now, 0);
        }
        self.used < self.rate
    }

    /// Judges, tells of and answers a call.
    ///
    /// # Errors
    /// As the `ioctl`.
    pub fn settle(
        &mut self,
        call: &Notification,
        inside: &dyn Fn(u32) -> bool,
        tell: &mut dyn FnMut(&Escape),
    ) -> io::Result<()> {
        let listener = match &self.source {
            Source::Listener(listener) => listener.get_ref(),
            Source::Broker(listener) => listener,
            Source::Nowhere => return Ok(()),
        };
        let case = Case { filter: &self.filter, audit: self.audit, scope: self.scope, listener };
        let (answer, told) = case.settle(call, inside);
        if let Some(escape) = &told {
            tell(escape);
        }
        listener.answer(call.id, answer)?;
        if told.is_some() {
            self.count();
        }
        Ok(())
    }

    /// Counts what was told.
    pub fn count(&mut self) {
        self.has_time();
        self.used += 1;
    }

    /// Gives the listener up: if nobody else has it, whoever waits or comes gets `ENOSYS`.
    pub fn end(&mut self) {
        self.source = Source::Nowhere;
    }
}

/// What one call is judged with.
struct Case<'a> {
    filter: &'a Filter,
    audit: bool,
    scope: u64,
    listener: &'a Listener,
}

impl Case<'_> {
    /// The answer, and what is to be told.
    fn settle(&self, call: &Notification, inside: &dyn Fn(u32) -> bool) -> (Answer, Option<Escape>) {
        let judged = self.filter.judge(call.arch, call.nr, &call.args);
        let errno = match judged {
            Judged::Foreign => FOREIGN_ERRNO,
            Judged::Free => return (Answer::Continue, None),
            Judged::Row(row) => match row.fate {
                Fate::Quiet(errno) | Fate::Denied(errno) => errno,
                // Without the broker, which would have kept it, nobody may make it.
                Fate::Brokered => return (Answer::Errno(libc::EPERM), None),
                Fate::DeniedOutside(errno) => match target(row.nr, call).and_then(process) {
                    Some(target) if !inside(target) => {
                        let told = self.told(judged, call, target);
                        return (self.refusal(errno), Some(told));
                    }
                    // The domain, or BPF LSM, judges it.
                    _ => return (Answer::Continue, None),
                },
            },
        };
        (self.refusal(errno), Some(self.told(judged, call, 0)))
    }

    fn refusal(&self, errno: i32) -> Answer {
        if self.audit { Answer::Continue } else { Answer::Errno(errno) }
    }

    fn told(&self, judged: Judged<'_>, call: &Notification, target: u32) -> Escape {
        let owner = tell::owner(call.pid).filter(|_| self.listener.waits(call.id));
        let owner = owner.unwrap_or_default();
        let (reason, number, text) = tell::said(judged, call);
        let escape = tell::escape(Hook::Launch, reason, &text, self.scope, owner, self.audit);
        Escape { number, target, ..escape }
    }
}

/// The process of a thread: tracers name threads.
fn process(thread: u32) -> Option<u32> {
    tell::owner(thread).map(|owner| owner.tgid)
}

/// The thread that a call reaches into, as far as its number can be understood here.
fn target(nr: u32, call: &Notification) -> Option<u32> {
    if i64::from(nr) == libc::SYS_pidfd_getfd {
        let descriptor = i32::try_from(call.args[0] & 0xffff_ffff).ok()?;
        let about = fs::read_to_string(format!("/proc/{}/fdinfo/{descriptor}", call.pid)).ok()?;
        return about.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok();
    }
    // In another pid namespace the number means another process, one of the scope.
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/pid")).ok();
    if namespace(&call.pid.to_string())? != namespace("self")? {
        return None;
    }
    let second = [libc::SYS_ptrace, libc::SYS_setpriority, libc::SYS_ioprio_set].contains(&i64::from(nr));
    let argument = if second { call.args[1] } else { call.args[0] };
    u32::try_from(argument & 0xffff_ffff).ok()
}

#[cfg(test)]
mod tests {
    use super::{
        super::calls::{self, Call},
        *,
    };
    use crate::policy::Restriction;

    /// Threads of their own under a filter that refuses bpf(2), which each calls so many times; the errnos that they got.
    fn callers(threads: usize, calls: usize) -> (Listener, std::thread::JoinHandle<Vec<i32>>, Filter) {
        let filter = Filter { calls: calls::rows(Restriction::Bpf), foreign: false, told: true };
        let (give, take) = std::sync::mpsc::channel();
        let of_thread = filter.clone();
        let thread = std::thread::spawn(move || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            give.send(Listener::new(of_thread.install().unwrap().unwrap())).unwrap();
            let call = |_| {
                // SAFETY: no memory is given.
                let result = unsafe { libc::syscall(libc::SYS_bpf, 0, 0, 1_000_000) };
                assert!(result < 0);
                io::Error::last_os_error().raw_os_error().unwrap()
            };
            let several = || (0..calls).map(call).collect::<Vec<_>>();
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..threads).map(|_| scope.spawn(several)).collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            })
        });
        (take.recv().unwrap(), thread, filter)
    }

    async fn watch(listener: Listener, filter: Filter, rate: u32, calls: usize) -> Vec<Escape> {
        let plan = plan(filter);
        let mut watch = Watch { rate, ..Watch::new(Some(listener), false, &plan, 7).unwrap() };
        let mut told = Vec::new();
        while told.len() < calls {
            tokio::time::timeout(Duration::from_secs(10), watch.ready()).await.unwrap().unwrap();
            watch.take(&|_| true, &mut |escape| told.push(*escape)).unwrap();
        }
        told
    }

    fn plan(filter: Filter) -> Plan {
        let mut plan = Plan::nothing();
        plan.filter = filter;
        plan
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Mutation seen to fail here: the rate without effect.
    #[test]
    fn a_flood_waits_and_is_told_whole() {
        let (listener, thread, filter) = callers(4, 4);
        let begun = Instant::now();
        let told = runtime().block_on(watch(listener, filter, 3, 16));
        assert!(begun.elapsed() >= 4 * WINDOW, "{:?}", begun.elapsed());
        assert_eq!(thread.join().unwrap(), [libc::EPERM; 16]);
        assert!(told.iter().all(|escape| escape.owner.tgid == std::process::id() && escape.scope == 7));
    }

    /// All wait already, so that nobody comes after the rate is used up.
    #[test]
    fn what_is_left_for_the_next_window_is_not_forgotten() {
        let (listener, thread, filter) = callers(4, 1);
        std::thread::sleep(2 * WINDOW);
        let told = runtime().block_on(watch(listener, filter, 3, 4));
        assert_eq!((told.len(), thread.join().unwrap()), (4, vec![libc::EPERM; 4]));
    }

    #[test]
    fn whoever_calls_after_the_watch_is_gone_is_refused() {
        let (listener, thread, filter) = callers(1, 3);
        let told = runtime().block_on(watch(listener, filter, 1, 1));
        assert_eq!((told.len(), thread.join().unwrap()), (1, vec![libc::EPERM, libc::ENOSYS, libc::ENOSYS]));
    }

    /// Mutation seen to fail here: no end, so that a loop would turn for ever.
    #[test]
    fn the_end_of_the_last_caller_ends_the_watch() {
        let (listener, thread, filter) = callers(0, 0);
        thread.join().unwrap();
        let plan = plan(filter);
        runtime().block_on(async {
            let mut watch = Watch::new(Some(listener), false, &plan, 7).unwrap();
            let end = async {
                for _ in 0..1_000 {
                    if matches!(watch.source, Source::Nowhere) {
                        return;
                    }
                    watch.ready().await.unwrap();
                    watch.take(&|_| true, &mut |_| panic!("nobody called")).unwrap();
                }
                panic!("it turns for ever");
            };
            tokio::time::timeout(Duration::from_secs(5), end).await.expect("it ends");
        });
    }

    #[test]
    fn a_row_of_no_fate_goes_on() {
        let (listener, thread, _) = callers(1, 1);
        let filter = Filter { calls: Vec::<Call>::new(), foreign: false, told: true };
        let plan = plan(filter);
        let told = runtime().block_on(async {
            let mut watch = Watch::new(Some(listener), false, &plan, 7).unwrap();
            let mut told = 0;
            watch.ready().await.unwrap();
            watch.take(&|_| true, &mut |_| told += 1).unwrap();
            told
        });
        // The kernel's own answer.
        assert_eq!((told, thread.join().unwrap()), (0, vec![libc::E2BIG]));
    }
}
