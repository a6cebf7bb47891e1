//! A process outside the scope that belongs to the same user and means no harm: it sends what is in its memory, and says
//! when it was signalled. Attacks try to make it say more.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::aim::{MEET, token};

/// The number of its socket.
pub(super) const SOCKET: i32 = 9;

/// The number of the writing end of a pipe of its own; what comes in there it says.
pub(super) const PIPE: i32 = 10;

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn signalled(_: i32) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// Until its standard input ends.
pub(super) fn hold(nonce: u32, index: usize) -> ExitCode {
    let mut buffer = [b'.'; 32];
    let Ok(socket) = UdpSocket::bind("0.0.0.0:0") else { return ExitCode::FAILURE };
    if socket.connect(SocketAddr::from((MEET, 9))).is_err() {
        return ExitCode::FAILURE;
    }
    let Ok((mut heard_in, write)) = std::io::pipe() else { return ExitCode::FAILURE };
    // SAFETY: plain system calls; the handler only adds to a number.
    unsafe {
        libc::fcntl(heard_in.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK);
        libc::dup2(socket.as_raw_fd(), SOCKET);
        libc::dup2(write.as_raw_fd(), PIPE);
        libc::signal(libc::SIGUSR1, signalled as extern "C" fn(i32) as *const () as libc::sighandler_t);
        libc::fcntl(0, libc::F_SETFL, libc::O_NONBLOCK);
    }
    let said = |text: &str| std::io::stdout().write_all(text.as_bytes());
    if said(&format!("{}\n", buffer.as_mut_ptr() as u64)).is_err() {
        return ExitCode::FAILURE;
    }
    let mut heard = 0;
    loop {
        // Another process may have changed it; the compiler is not to know better.
        let bytes = std::hint::black_box(&mut buffer);
        let _nobody_there = socket.send(bytes);
        std::thread::sleep(Duration::from_millis(40));
        let signals = SIGNALS.load(Ordering::Relaxed);
        if signals > heard {
            heard = signals;
            let _nobody_listens = said(&format!("{}\n", token(nonce, index)));
        }
        let mut bytes = [0; 64];
        if let Ok(read @ 1..) = heard_in.read(&mut bytes) {
            let _nobody_listens = said(&String::from_utf8_lossy(&bytes[..read]));
        }
        match std::io::stdin().read(&mut [0; 16]) {
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
                ) => {}
            Ok(1..) => {}
            _ => return ExitCode::SUCCESS,
        }
    }
}
