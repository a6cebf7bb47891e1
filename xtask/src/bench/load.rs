//! The load itself, in processes of its own: a client whose operations are timed, and the server it talks to.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const CHUNK: usize = 64 << 10;
const MIB: usize = 1 << 20;

/// Makes a load and prints one number: nanoseconds per operation, or microseconds per MiB for `stream`.
pub(crate) fn load(kind: &str, address: &str, amount: &str) -> Result<()> {
    let amount: u32 = amount.parse().context("the amount is no number")?;
    let told = || format!("cannot {kind} to {address}");
    let figure = match kind {
        "connect" => connect(address, amount).with_context(told)?,
        "send" => send(address, amount, true).with_context(told)?,
        "sendto" => send(address, amount, false).with_context(told)?,
        "stream" => stream(address, amount).with_context(told)?,
        _ => bail!("no such load: `{kind}`"),
    };
    println!("{figure}");
    Ok(())
}

/// Accepts, reads and forgets until its standard input ends.
pub(crate) fn serve(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while socket.recv(&mut buffer).is_ok() {}
    });
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// `c` asks to be hung up on, so that the server's end keeps the waiting state and the client's ports stay free;
/// anything else is read to its end and acknowledged by one byte.
fn answer(mut stream: TcpStream) {
    let mut first = [0];
    if stream.read_exact(&mut first).is_err() || first == *b"c" {
        return;
    }
    let mut buffer = vec![0; CHUNK];
    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
    // A client that is gone needs no answer.
    let _ = stream.write_all(b"!");
}

fn connect(address: &str, amount: u32) -> io::Result<f64> {
    let mut spent = Duration::ZERO;
    for _ in 0..amount {
        let started = Instant::now();
        let mut stream = TcpStream::connect(address)?;
        spent += started.elapsed();
        stream.write_all(b"c")?;
        stream.read_to_end(&mut Vec::new())?;
    }
    Ok(spent.as_secs_f64() * 1e9 / f64::from(amount))
}

fn send(address: &str, amount: u32, connected: bool) -> io::Result<f64> {
    let socket = UdpSocket::bind(if address.starts_with("127.") { "127.0.0.1:0" } else { "0.0.0.0:0" })?;
    let target: std::net::SocketAddr = address.parse().map_err(io::Error::other)?;
    if connected {
        socket.connect(target)?;
    }
    let started = Instant::now();
    for _ in 0..amount {
        if connected {
            socket.send(b"0123456789abcdef")
        } else {
            socket.send_to(b"0123456789abcdef", target)
        }?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e9 / f64::from(amount))
}

fn stream(address: &str, mebibytes: u32) -> io::Result<f64> {
    let chunk = vec![0; CHUNK];
    let mut stream = TcpStream::connect(address)?;
    let started = Instant::now();
    for _ in 0..mebibytes {
        for _ in 0..MIB / CHUNK {
            stream.write_all(&chunk)?;
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    Ok(started.elapsed().as_secs_f64() * 1e6 / f64::from(mebibytes))
}
