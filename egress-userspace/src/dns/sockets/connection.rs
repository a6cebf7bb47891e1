//! One TCP connection of a client: framed questions in, framed replies out in whatever order they come (RFC 7766 §7).

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::Instant,
};

use egress_common::Asker;
use nix::sys::epoll::EpollFlags;

/// Most questions of a connection that wait for their answers.
const MAX_OUTSTANDING: usize = 64;

/// Bytes of replies that the client has not taken, above which no more questions are taken.
const MAX_UNSENT: usize = 128 * 1024;

/// Bytes read at a time.
const READ: usize = 4_096;

/// Length of the frame's head (RFC 1035 §4.2.2).
const HEAD: usize = 2;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Cookie of its network namespace.
    pub(super) netns: u64,
    /// Who opened it.
    pub(super) asker: Asker,
    /// When it last brought a whole question or took a part of a reply.
    pub(super) active: Instant,
    socket: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    outstanding: usize,
    /// The client sends no more.
    ended: bool,
    interest: EpollFlags,
}

impl Connection {
    /// Of a socket that is watched for something to read.
    pub(super) fn new(socket: OwnedFd, netns: u64, asker: Asker) -> Self {
        Self {
            netns,
            asker,
            active: Instant::now(),
            socket: socket.into(),
            input: Vec::new(),
            output: Vec::new(),
            outstanding: 0,
            ended: false,
            interest: EpollFlags::EPOLLIN,
        }
    }

    /// Its descriptor.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads once; whether the connection stands.
    pub(super) fn read(&mut self) -> bool {
        let mut buffer = [0; READ];
        match self.socket.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(length) => self.input.extend_from_slice(&buffer[..length]),
            Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
        true
    }

    /// Takes the next whole question, unless the client is to take answers first.
    pub(super) fn next_question(&mut self) -> Option<Vec<u8>> {
        if !self.has_question() {
            return None;
        }
        let end = HEAD + self.length()?;
        let question = self.input[HEAD..end].to_vec();
        self.input.drain(..end);
        self.outstanding += 1;
        self.active = Instant::now();
        Some(question)
    }

    /// Whether [`Connection::next_question`] has one.
    pub(super) fn has_question(&self) -> bool {
        !self.is_stalled() && self.length().is_some_and(|length| self.input.len() >= HEAD + length)
    }

    fn length(&self) -> Option<usize> {
        self.input.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)))
    }

    fn is_stalled(&self) -> bool {
        self.outstanding >= MAX_OUTSTANDING || self.output.len() >= MAX_UNSENT
    }

    /// Adds a reply to what is to be sent.
    pub(super) fn push(&mut self, reply: &[u8]) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if let Ok(length) = u16::try_from(reply.len()) {
            self.output.extend_from_slice(&length.to_be_bytes());
            self.output.extend_from_slice(reply);
        }
    }

    /// Sends as much as goes without waiting; whether the connection stands.
    pub(super) fn flush(&mut self) -> bool {
        let mut sent = 0;
        let stands = loop {
            if sent == self.output.len() {
                break true;
            }
            match self.socket.write(&self.output[sent..]) {
                Ok(0) => break false,
                Ok(length) => sent += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break error.kind() == ErrorKind::WouldBlock,
            }
        };
        if sent > 0 {
            self.output.drain(..sent);
            self.active = Instant::now();
        }
        stands
    }

    /// Whether there is nothing left to do: the client sends no more and has all its answers.
    pub(super) fn is_over(&self) -> bool {
        self.ended && self.outstanding == 0 && self.output.is_empty() && !self.has_question()
    }

    /// What to watch the socket for, if that is another thing than before.
    pub(super) fn change_of_interest(&mut self) -> Option<EpollFlags> {
        let mut wanted = EpollFlags::empty();
        wanted.set(EpollFlags::EPOLLIN, !self.ended && !self.is_stalled());
        wanted.set(EpollFlags::EPOLLOUT, !self.output.is_empty());
        if wanted == self.interest {
            return None;
        }
        self.interest = wanted;
        Some(wanted)
    }
}
