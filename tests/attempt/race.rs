//! Many calls in a row: while a name changes under them, or against the clock.

use std::{
    fs,
    os::unix::fs::symlink,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use crate::{
    socket::{Name, Socket},
    steps::Done,
};

/// Connects to `link` while it is swapped between two sockets; prints how many were made, refused, and neither.
pub(crate) fn race(link: &str, own: &str, outside: &str, count: u32) -> Done {
    let over = AtomicBool::new(false);
    let (mut made, mut refused, mut other) = (0, 0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let next = format!("{link}.next");
            for target in [own, outside].iter().cycle() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let _swapped = symlink(target, &next).and_then(|()| fs::rename(&next, link));
            }
        });
        for _ in 0..count {
            let connected = Socket::open("unix", "stream", 0)
                .unwrap_or(Err(libc::EINVAL))
                .and_then(|socket| socket.connect(&Name::of_unix(link).ok_or(libc::EINVAL)?));
            match connected {
                Ok(()) => made += 1,
                Err(libc::EPERM) => refused += 1,
                Err(_) => other += 1,
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    println!("> made {made} refused {refused} other {other}");
    Ok(())
}

/// Accepts whoever comes, until the program ends.
pub(crate) fn serve(listener: Socket) {
    thread::spawn(move || {
        loop {
            let _nobody_for_a_while = listener.accept();
        }
    });
}

/// Makes so many sends or connects on sockets of their own; prints the median of their nanoseconds.
pub(crate) fn time(what: &str, to: &Name, count: u32) -> Done {
    let family = if to.address().is_some() { "inet" } else { "unix" };
    let open = |kind| Socket::open(family, kind, 0).unwrap_or(Err(libc::EINVAL));
    let datagram = open("dgram")?;
    let mut spent = Vec::new();
    for _ in 0..count {
        if what == "sendto" {
            let begin = Instant::now();
            datagram.send_to(to, b"timed", 0)?;
            spent.push(begin.elapsed().as_nanos());
        } else {
            let stream = open("stream")?;
            let begin = Instant::now();
            stream.connect(to)?;
            spent.push(begin.elapsed().as_nanos());
        }
    }
    spent.sort_unstable();
    println!("> {}", spent.get(spent.len() / 2).copied().unwrap_or_default());
    Ok(())
}
