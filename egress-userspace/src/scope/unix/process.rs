//! The broker's process: takes calls from the supervisor, gives each a thread of its own, answers the callers and tells the
//! supervisor of what was refused. Ends with the supervisor.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use egress_common::Escape;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, sigaction},
};
use zerocopy::IntoBytes as _;

use super::{
    call::{Outcome, Scene, perform},
    wire,
};
use crate::scope::confine::notify::{Answer, Notification};

/// Calls in hand at a time; each may have to wait for a listener with a full queue.
const AT_ONCE: usize = 64;

/// Calls that wait for a thread. A caller beyond that hears what a full queue says.
const QUEUED: usize = 4_096;

/// How often calls in hand are looked after: a thread whose caller is gone need not wait any longer.
const LOOK: u16 = 100;

/// How soon a queued call is taken up.
const SOON: u16 = 1;

/// A thread needs little more than a buffer or two.
const STACK: usize = 256 * 1024;

/// A call and the thread that it is in the hands of, once that is known.
type InHand = Arc<Mutex<Vec<(u64, Option<i32>)>>>;

/// Serves until the supervisor is gone.
pub(super) fn serve(channel: OwnedFd, scene: Scene) -> io::Result<()> {
    listen_for_interruptions()?;
    let (channel, scene) = (Arc::new(channel), Arc::new(scene));
    let in_hand = InHand::default();
    let mut queue = VecDeque::new();
    loop {
        let busy = in_hand.lock().unwrap_or_else(PoisonError::into_inner).len();
        let timeout = match (queue.is_empty(), busy) {
            (false, _) => PollTimeout::from(SOON),
            (true, 0) => PollTimeout::NONE,
            (true, _) => PollTimeout::from(LOOK),
        };
        if wait(channel.as_fd(), timeout)? {
            let Some(call) = wire::receive_call(channel.as_fd())? else { return Ok(()) };
            if queue.len() < QUEUED {
                queue.push_back(call);
            } else {
                scene.listener.answer(call.id, Answer::Errno(libc::EAGAIN))?;
            }
        }
        interrupt_abandoned(&scene, &in_hand);
        while in_hand.lock().unwrap_or_else(PoisonError::into_inner).len() < AT_ONCE {
            let Some(call) = queue.pop_front() else { break };
            start(call, &channel, &scene, &in_hand);
        }
    }
}

fn wait(channel: BorrowedFd<'_>, timeout: PollTimeout) -> io::Result<bool> {
    match poll(&mut [PollFd::new(channel, PollFlags::POLLIN)], timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::Error::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn start(call: Notification, channel: &Arc<OwnedFd>, scene: &Arc<Scene>, in_hand: &InHand) {
    in_hand.lock().unwrap_or_else(PoisonError::into_inner).push((call.id, None));
    let (channel, shared, hands) = (Arc::clone(channel), Arc::clone(scene), Arc::clone(in_hand));
    let work = move || {
        let me = nix::unistd::gettid().as_raw();
        set_thread(&hands, call.id, Some(me));
        let outcome = perform(&shared, &call);
        set_thread(&hands, call.id, None);
        finish(&shared, channel.as_fd(), call.id, &outcome);
        hands.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, _)| *id != call.id);
    };
    if thread::Builder::new().stack_size(STACK).spawn(work).is_err() {
        let _gone = scene.listener.answer(call.id, Answer::Errno(libc::EAGAIN));
        in_hand.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, _)| *id != call.id);
    }
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

fn interrupt_abandoned(scene: &Scene, in_hand: &InHand) {
    let in_hand = in_hand.lock().unwrap_or_else(PoisonError::into_inner);
    for (id, thread) in in_hand.iter() {
        if let Some(thread) = thread
            && !scene.listener.waits(*id)
        {
            let process = std::process::id();
            // SAFETY: sends a signal that has a handler to a thread of this process.
            unsafe { libc::syscall(libc::SYS_tgkill, process, *thread, libc::SIGUSR1) };
        }
    }
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
