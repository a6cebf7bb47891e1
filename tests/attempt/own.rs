//! Both ends of a local flow in one program: a server of its own, and a client that talks with it.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use crate::steps::Done;

const PATIENCE: Duration = Duration::from_millis(800);

/// Sends a text each way over TCP; the server listens at `listen`, the client connects to `to`.
pub(crate) fn tcp(listen: IpAddr, to: IpAddr) -> Done {
    done(|| {
        let listener = TcpListener::bind((listen, 0))?;
        let to = SocketAddr::new(to, listener.local_addr()?.port());
        let mut client = TcpStream::connect_timeout(&to, PATIENCE)?;
        let (mut server, _) = listener.accept()?;
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(PATIENCE))?;
        }
        client.write_all(b"asked")?;
        expect(&mut server, b"asked")?;
        server.write_all(b"given")?;
        expect(&mut client, b"given")
    })
}

/// Sends a datagram each way, of an unconnected and of a connected client.
pub(crate) fn udp(listen: IpAddr, to: IpAddr) -> Done {
    done(|| {
        let server = UdpSocket::bind((listen, 0))?;
        let to = SocketAddr::new(to, server.local_addr()?.port());
        let any: IpAddr = if listen.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        for connected in [false, true] {
            let client = UdpSocket::bind((any, 0))?;
            for socket in [&client, &server] {
                socket.set_read_timeout(Some(PATIENCE))?;
            }
            if connected {
                client.connect(to)?;
                client.send(b"asked")?;
            } else {
                client.send_to(b"asked", to)?;
            }
            let mut bytes = [0; 8];
            let (length, from) = server.recv_from(&mut bytes)?;
            server.send_to(&bytes[..length], from)?;
            client.recv_from(&mut bytes)?;
        }
        Ok(())
    })
}

fn expect(socket: &mut TcpStream, text: &[u8; 5]) -> std::io::Result<()> {
    let mut bytes = [0; 5];
    socket.read_exact(&mut bytes)?;
    if &bytes == text { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

fn done(perform: impl FnOnce() -> std::io::Result<()>) -> Done {
    perform().map_err(|error| error.raw_os_error().unwrap_or(libc::ETIMEDOUT))
}
