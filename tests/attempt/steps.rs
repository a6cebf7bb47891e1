//! The steps that an attempt is made of.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use crate::{
    ask, call, own, race, ring,
    socket::{Name, Socket},
};

/// What the steps so far have made.
#[derive(Debug, Default)]
pub(crate) struct State {
    socket: Option<Socket>,
    kept: Vec<Socket>,
    questions: u16,
}

/// Success, or an errno.
pub(crate) type Done = Result<(), i32>;

impl State {
    /// Performs one step; `None` if it is not understood.
    pub(crate) fn perform(&mut self, verb: &str, rest: &str) -> Option<Done> {
        let words: Vec<&str> = rest.split(' ').filter(|word| !word.is_empty()).collect();
        match (verb, words.as_slice()) {
            ("socket", [family, kind, protocol @ ..]) => {
                let protocol = protocol.first().map_or(Some(0), |number| number.parse().ok())?;
                Some(Socket::open(family, kind, protocol)?.map(|socket| self.socket = Some(socket)))
            }
            ("sleep", [milliseconds]) => {
                thread::sleep(Duration::from_millis(milliseconds.parse().ok()?));
                Some(Ok(()))
            }
            ("join", [directory]) => Some(write(&format!("{directory}/cgroup.procs"), "0")),
            ("write", [path, text]) => Some(write(path, text)),
            ("open", [path]) => {
                let file = std::fs::File::options().read(true).write(true).open(path);
                Some(file.map(drop).map_err(|error| errno(&error)))
            }
            ("exists", [path]) => Some(std::fs::metadata(path).map(drop).map_err(|error| errno(&error))),
            ("await", [path]) => Some(appears(path)),
            ("print", [path]) => Some(print(path)),
            ("serve", []) => Some(self.socket.take().map(race::serve).ok_or(libc::EBADF)),
            ("take", []) => Some(self.socket.as_ref()?.take().map(|taken| self.kept.extend(taken))),
            ("keep", []) => Some(self.socket.take().map(|socket| self.kept.push(socket)).ok_or(libc::EBADF)),
            ("chdir", [directory]) => {
                Some(std::env::set_current_dir(directory).map_err(|error| errno(&error)))
            }
            ("chroot", [directory]) => {
                Some(std::os::unix::fs::chroot(directory).map_err(|error| errno(&error)))
            }
            ("race", [link, own, outside, count]) => {
                Some(race::race(link, own, outside, count.parse().ok()?))
            }
            ("time", [what, to, count]) => Some(race::time(what, &name(to)?, count.parse().ok()?)),
            ("fds", []) => Some(descriptors()),
            ("batch", []) => Some(batch()),
            ("call", words) => Some(call::call(words)?.map(drop)),
            ("value", words) => Some(call::call(words)?.map(|value| println!("> {value}"))),
            ("again", [count, words @ ..]) => call::again(count.parse().ok()?, words),
            ("write-into", [process]) => Some(call::write_into(process.parse().ok()?)),
            ("clone-into", [directory]) => Some(call::clone_into(directory)),
            ("foreign", []) => Some(call::foreign()),
            ("own-tcp", [listen, to]) => Some(own::tcp(listen.parse().ok()?, to.parse().ok()?)),
            ("own-udp", [listen, to]) => Some(own::udp(listen.parse().ok()?, to.parse().ok()?)),
            ("load", [both, neither, one, path]) => {
                let names = [name(both)?, name(neither)?, name(one)?];
                Some(load(&names, path))
            }
            ("namespace", []) => Some(ask::namespace()),
            ("lo", []) => Some(ask::loopback_up()),
            ("storm" | "follow", [server, asked, kind, count, port]) => {
                let (server, count, port) = (server.parse().ok()?, count.parse().ok()?, port.parse().ok()?);
                let perform = if verb == "storm" { ask::storm } else { ask::follow };
                Some(perform(server, asked, kind, count, port))
            }
            _ if verb.starts_with("ask") => self.ask(verb, &words),
            _ => self.on_socket(verb, &words),
        }
    }

    /// Asks of no, one or two servers for a name of a type.
    fn ask(&mut self, verb: &str, words: &[&str]) -> Option<Done> {
        let (servers, [asked, kind]) = words.split_last_chunk()?;
        self.questions += 1;
        let question = ask::question(self.questions, asked, kind)?;
        let socket = self.socket.as_ref()?;
        Some(match (verb, servers) {
            ("ask", []) => ask::ask(socket, &question),
            ("askto", [to]) => socket.send_to(&name(to)?, &question, 0),
            ("askmsg", [to]) => ask::ask_by_message(socket, &name(to)?, &question),
            ("askmmsg", [first, second]) => socket.send_many(&[name(first)?, name(second)?], &question),
            _ => return None,
        })
    }

    fn on_socket(&mut self, verb: &str, words: &[&str]) -> Option<Done> {
        let socket = self.socket.as_ref()?;
        Some(match (verb, words) {
            ("bind", [to]) => socket.bind(&name(to)?),
            ("listen", []) => socket.listen(),
            ("accept", []) => return Some(socket.accept().map(|peer| self.socket = Some(peer))),
            ("connect", [to]) => socket.connect(&name(to)?),
            ("probe", [to]) => socket.probe(&name(to)?),
            ("disconnect", []) => socket.connect(&Name::unspecified(None)),
            ("send", [text]) => socket.send(text.as_bytes(), 0),
            ("bulk", [length]) => socket.send(&vec![b'b'; length.parse().ok()?], 0),
            ("more", [text]) => socket.send(text.as_bytes(), libc::MSG_MORE),
            ("moreto", [to, text]) => socket.send_to(&name(to)?, text.as_bytes(), libc::MSG_MORE),
            ("sendto", [to, text]) => socket.send_to(&name(to)?, text.as_bytes(), 0),
            ("bulkto", [to, length]) => socket.send_to(&name(to)?, &vec![b'b'; length.parse().ok()?], 0),
            ("hexto", [to, hex]) => socket.send_to(&name(to)?, &bytes(hex)?, 0),
            ("unspecto", [to, text]) => {
                socket.send_to(&Name::unspecified(Some(to.parse().ok()?)), text.as_bytes(), 0)
            }
            ("fastopen", [to, text]) => socket.send_to(&name(to)?, text.as_bytes(), libc::MSG_FASTOPEN),
            ("sendmmsg", [first, second, text]) => {
                socket.send_many(&[name(first)?, name(second)?], text.as_bytes())
            }
            ("cmsg", [level, kind, hex, text]) => {
                socket.send_with(level.parse().ok()?, kind.parse().ok()?, &bytes(hex)?, None, text.as_bytes())
            }
            ("cmsgto", [to, level, kind, hex, text]) => {
                let (level, kind) = (level.parse().ok()?, kind.parse().ok()?);
                socket.send_with(level, kind, &bytes(hex)?, Some(&name(to)?), text.as_bytes())
            }
            ("option", [level, option, hex]) => {
                socket.option(level.parse().ok()?, option.parse().ok()?, &bytes(hex)?)
            }
            ("patience", [time]) => socket.patience(time.parse().ok()?),
            ("receive", []) => socket.receive(),
            ("echo", []) => socket.echo(),
            ("hear", []) => ask::hear(socket, false),
            ("hearmsg", []) => ask::hear(socket, true),
            ("silence", [time]) => ask::silence(socket, Duration::from_millis(time.parse().ok()?)),
            ("peer", []) => ask::peer(socket),
            ("flood", [to, count]) => flood(socket, &name(to)?, count.parse().ok()?),
            ("ring-connect", [to]) => ring::connect(socket, &name(to)?, false),
            ("ring-sendmsg", [to, text]) => ring::sendmsg(socket, &name(to)?, text.as_bytes(), false),
            ("polled-connect", [to]) => ring::connect(socket, &name(to)?, true),
            ("polled-sendmsg", [to, text]) => ring::sendmsg(socket, &name(to)?, text.as_bytes(), true),
            _ => return None,
        })
    }
}

/// Sends `count` datagrams, each of which must be refused.
fn flood(socket: &Socket, to: &Name, count: u64) -> Done {
    for _ in 0..count {
        match socket.send_to(to, b"flood", 0) {
            Err(libc::EPERM) => {}
            Err(other) => return Err(other),
            Ok(()) => return Err(libc::EEXIST),
        }
    }
    Ok(())
}

/// Connects, while there is a file (and no longer than 30 s), to three places in turn, where nobody listens: to the first, which must always answer, to the second,
/// which must always be refused, and to the third, which may be either.
fn load([both, neither, one]: &[Name; 3], path: &str) -> Done {
    let connect = |to: &Name| -> Done {
        let family = if to.address().is_some_and(|address| address.is_ipv4()) { "inet" } else { "inet6" };
        let socket = Socket::open(family, "stream", 0).ok_or(libc::EINVAL)??;
        socket.connect(to)
    };
    let end = Instant::now() + Duration::from_secs(30);
    let mut rounds = 0;
    while std::path::Path::new(path).exists() && Instant::now() < end {
        match connect(both) {
            Err(libc::ECONNREFUSED) => {}
            Err(other) => return Err(other),
            Ok(()) => return Err(libc::EEXIST),
        }
        match connect(neither) {
            Err(libc::EPERM) => {}
            Err(other) => return Err(other),
            Ok(()) => return Err(libc::EEXIST),
        }
        let _either = connect(one);
        rounds += 1;
    }
    println!("> {rounds} rounds");
    Ok(())
}

/// Makes one attempt for each line of standard input, `tcp ADDRESS` or `udp ADDRESS`; what becomes of it is not told.
fn batch() -> Done {
    for line in std::io::stdin().lines() {
        let line = line.map_err(|error| errno(&error))?;
        let (kind, to) = line.split_once(' ').ok_or(libc::EINVAL)?;
        let (address, to) =
            (to.parse::<SocketAddr>().map_err(|_| libc::EINVAL)?, name(to).ok_or(libc::EINVAL)?);
        let family = if address.is_ipv4() { "inet" } else { "inet6" };
        let kind = if kind == "tcp" { "stream" } else { "dgram" };
        let socket = Socket::open(family, kind, 0).ok_or(libc::EINVAL)??;
        let _refused_or_not = if kind == "stream" {
            socket.connect_without_waiting(&to)
        } else {
            // Broadcast addresses ask for the option.
            socket.option(libc::SOL_SOCKET, libc::SO_BROADCAST, &[1, 0, 0, 0])?;
            socket.send_to(&to, b"batch", 0)
        };
    }
    Ok(())
}

/// Fails with EMFILE if a descriptor beyond the first three is open.
fn descriptors() -> Done {
    for fd in 3..1024 {
        // SAFETY: asks about a number; nothing is touched.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0 {
            return Err(libc::EMFILE);
        }
    }
    Ok(())
}

fn write(path: &str, text: &str) -> Done {
    std::fs::write(path, text).map_err(|error| errno(&error))
}

/// Waits for a file, for ten seconds at most.
fn appears(path: &str) -> Done {
    let end = Instant::now() + Duration::from_secs(10);
    while !std::path::Path::new(path).exists() {
        if Instant::now() >= end {
            return Err(libc::ETIMEDOUT);
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn print(path: &str) -> Done {
    let text = std::fs::read_to_string(path).map_err(|error| errno(&error))?;
    for line in text.lines() {
        println!("> {line}");
    }
    Ok(())
}

fn errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn name(text: &str) -> Option<Name> {
    if let Some(unix) = text.strip_prefix("unix:") {
        return Name::of_unix(unix);
    }
    text.parse::<SocketAddr>().ok().map(Name::of)
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}
