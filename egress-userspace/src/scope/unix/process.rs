//! The broker's process: takes the calls that the filter hands over. What names no unix socket is answered at once, what does
//! gets a thread of its own, and all else is the supervisor's. Lives as long as the scope does, with or without a supervisor.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use egress_common::Escape;
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, sigaction,
};
use zerocopy::IntoBytes as _;

use super::{
    call::{Outcome, Scene, perform},
    glance, wire,
};
use crate::scope::confine::notify::{Answer, Notification, Received};

/// Calls in hand at a time; each may have to wait for a listener with a full queue.
const AT_ONCE: usize = 64;

/// Calls that wait for a thread. A caller beyond that hears what a full queue says.
const QUEUED: usize = 4_096;

/// How often calls in hand are looked after: a thread whose caller is gone need not wait any longer.
const LOOK: Duration = Duration::from_millis(100);

/// How soon a queued call is taken up, in milliseconds.
const SOON: i32 = 1;

/// Niceness of the thread that reads the calls: it works for microseconds, while TCP waits.
const READER: libc::c_int = -20;

/// A thread needs little more than a buffer or two.
const STACK: usize = 256 * 1024;

/// Handed calls that are remembered; those answered are forgotten at this many.
const REMEMBERED: usize = 1_024;

/// A call and the thread that it is in the hands of, once that is known.
type InHand = Arc<Mutex<Vec<(u64, Option<i32>)>>>;

/// Serves until both the scope and the supervisor are gone.
pub(super) fn serve(channel: OwnedFd, scene: Scene) -> io::Result<()> {
    listen_for_interruptions()?;
    scene.listener.wake_in_place();
    // A hint: who waits for the answer should not wait for others too.
    set_niceness(READER);
    let _not_grouped = std::fs::write("/proc/self/autogroup", READER.to_string());
    let mut desk = Desk {
        channel: Arc::new(channel),
        scene: Arc::new(scene),
        in_hand: InHand::default(),
        queue: VecDeque::new(),
        pending: VecDeque::new(),
        handed: Vec::new(),
        supervised: true,
        inhabited: true,
        looked: Instant::now(),
    };
    while desk.supervised || desk.inhabited {
        desk.turn()?;
    }
    Ok(())
}

/// The thread that reads the listener, and everything that it must not wait for.
struct Desk {
    channel: Arc<OwnedFd>,
    scene: Arc<Scene>,
    in_hand: InHand,
    /// Calls on unix sockets that wait for a thread.
    queue: VecDeque<Notification>,
    /// Calls of the supervisor's that wait for room in the channel; never more than the scope has threads, since they wait.
    pending: VecDeque<Notification>,
    /// Calls that the supervisor was handed, so that they get an answer should it die.
    handed: Vec<u64>,
    supervised: bool,
    inhabited: bool,
    looked: Instant,
}

impl Desk {
    fn turn(&mut self) -> io::Result<()> {
        let (listener, channel) = self.wait()?;
        if channel & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) != 0 {
            self.go_on_alone()?;
        } else if channel & libc::POLLOUT != 0 {
            self.hand_over()?;
        }
        if listener & libc::POLLIN != 0 {
            if let Received::Call(call) = self.scene.listener.take()? {
                self.sort(call)?;
            }
        } else if listener != 0 {
            self.inhabited = false;
        }
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.interrupt_abandoned();
        }
        while !self.queue.is_empty() && self.busy() < AT_ONCE {
            let Some(call) = self.queue.pop_front() else { break };
            self.start(call)?;
        }
        Ok(())
    }

    /// What there is of the listener and of the channel.
    fn wait(&self) -> io::Result<(libc::c_short, libc::c_short)> {
        let timeout = match (self.queue.is_empty(), self.busy()) {
            (false, _) => SOON,
            (true, 0) => -1,
            (true, _) => i32::try_from(LOOK.as_millis()).unwrap_or(SOON),
        };
        // What is over is not asked for any more.
        let descriptor = |wanted, number| if wanted { number } else { -1 };
        let listener = descriptor(self.inhabited, self.scene.listener.as_raw_fd());
        let channel = descriptor(self.supervised, self.channel.as_raw_fd());
        let room = if self.pending.is_empty() { 0 } else { libc::POLLOUT };
        let mut both = [
            libc::pollfd { fd: listener, events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: channel, events: libc::POLLIN | room, revents: 0 },
        ];
        // SAFETY: reads and writes the two entries.
        if unsafe { libc::poll(both.as_mut_ptr(), 2, timeout) } < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok((0, 0)) } else { Err(error) };
        }
        Ok((both[0].revents, both[1].revents))
    }

    fn busy(&self) -> usize {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn sort(&mut self, call: Notification) -> io::Result<()> {
        let connect = call.is(libc::SYS_connect);
        if connect && !glance::names_unix(&call) {
            // The other hooks judge it. If the caller makes it a unix address meanwhile, the unix hook refuses it.
            return self.scene.listener.answer(call.id, Answer::Continue);
        }
        if !connect && !call.is(libc::SYS_sendto) {
            self.pending.push_back(call);
            return self.hand_over();
        }
        if self.queue.len() >= QUEUED {
            return self.scene.listener.answer(call.id, Answer::Errno(libc::EAGAIN));
        }
        self.queue.push_back(call);
        Ok(())
    }

    /// Gives the supervisor what it has room for.
    fn hand_over(&mut self) -> io::Result<()> {
        while self.supervised
            && let Some(call) = self.pending.front()
        {
            match wire::send_call(self.channel.as_fd(), call) {
                Ok(()) => self.handed.extend(self.pending.pop_front().map(|call| call.id)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.go_on_alone(),
            }
        }
        if !self.supervised {
            return self.go_on_alone();
        }
        if self.handed.len() >= REMEMBERED {
            let listener = &self.scene.listener;
            self.handed.retain(|id| listener.waits(*id));
        }
        Ok(())
    }

    /// Without a supervisor nobody can tell of a refusal, so what it would have judged fails as if nobody listened.
    fn go_on_alone(&mut self) -> io::Result<()> {
        self.supervised = false;
        let waiting = self.handed.drain(..).chain(self.pending.drain(..).map(|call| call.id));
        for id in waiting {
            self.scene.listener.answer(id, Answer::Errno(libc::ENOSYS))?;
        }
        Ok(())
    }

    fn start(&self, call: Notification) -> io::Result<()> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner).push((call.id, None));
        let (channel, scene) = (Arc::clone(&self.channel), Arc::clone(&self.scene));
        let hands = Arc::clone(&self.in_hand);
        let work = move || {
            set_niceness(0);
            let me = nix::unistd::gettid().as_raw();
            set_thread(&hands, call.id, Some(me));
            let outcome = perform(&scene, &call);
            set_thread(&hands, call.id, None);
            finish(&scene, channel.as_fd(), call.id, &outcome);
            hands.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, _)| *id != call.id);
        };
        if thread::Builder::new().stack_size(STACK).spawn(work).is_err() {
            self.in_hand.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, _)| *id != call.id);
            self.scene.listener.answer(call.id, Answer::Errno(libc::EAGAIN))?;
        }
        Ok(())
    }

    fn interrupt_abandoned(&self) {
        let in_hand = self.in_hand.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, thread) in in_hand.iter() {
            if let Some(thread) = thread
                && !self.scene.listener.waits(*id)
            {
                let process = std::process::id();
                // SAFETY: sends a signal that has a handler to a thread of this process.
                unsafe { libc::syscall(libc::SYS_tgkill, process, *thread, libc::SIGUSR1) };
            }
        }
    }
}

/// Of the calling thread.
fn set_niceness(niceness: libc::c_int) {
    // SAFETY: takes numbers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
}

fn set_thread(in_hand: &InHand, id: u64, thread: Option<i32>) {
    let mut in_hand = in_hand.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(entry) = in_hand.iter_mut().find(|(found, _)| *found == id) {
        entry.1 = thread;
    }
}

/// Tells first: once the caller has its answer, the run may end.
fn finish(scene: &Scene, channel: BorrowedFd<'_>, id: u64, outcome: &Outcome) {
    if let Some(told) = &outcome.told {
        tell(channel, told);
    }
    if let Some(answer) = outcome.answer {
        let _gone = scene.listener.answer(id, answer);
    }
}

/// Waits while the supervisor does not take it: the caller waits too.
fn tell(channel: BorrowedFd<'_>, told: &Escape) {
    let _supervisor_is_gone = wire::Channel(channel).write_all(told.as_bytes());
}

/// A signal that ends what a thread waits for, and does nothing else.
fn listen_for_interruptions() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }?;
    let mut only = SigSet::empty();
    only.add(Signal::SIGUSR1);
    pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&only), None)?;
    Ok(())
}
