//! Connections to a monitor's socket, seen from the monitor. Does I/O, never blocks.
//!
//! A slow viewer holds back the container's output (as a terminal does) instead of losing any of it: its buffer is one
//! read long, and the monitor reads no further while any buffer is full.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use super::log::Stream;
use super::protocol::{self, FRAME_HEADER, FRAME_MAX};

/// What a connection asks the monitor to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    Reopen,
    Signal(i32),
    Resize(u16, u16),
    /// Data for the program's standard input.
    Input(Vec<u8>),
    /// This viewer's input has ended.
    InputEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Unknown,
    Watch,
    Once,
    Attach(u8),
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    mode: Mode,
    input: Vec<u8>,
    output: Vec<u8>,
    closed: bool,
}

impl Client {
    /// Takes over an accepted connection.
    pub fn new(socket: UnixStream) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Client { socket, mode: Mode::Unknown, input: Vec::new(), output: Vec::new(), closed: false })
    }

    /// For poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether it has something to send.
    pub fn wants_write(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        self.closed || (self.mode == Mode::Once && self.output.is_empty() && self.input.is_empty())
    }

    /// Whether it gives input to the program.
    pub fn gives_input(&self) -> bool {
        matches!(self.mode, Mode::Attach(streams) if streams & protocol::STDIN != 0)
    }

    /// Whether frames go both ways.
    pub fn is_attach(&self) -> bool {
        matches!(self.mode, Mode::Attach(_))
    }

    /// Shows output to a viewer.
    pub fn show(&mut self, stream: Stream, data: &[u8]) {
        let (bit, kind) = match stream {
            Stream::Stdout => (protocol::STDOUT, protocol::FRAME_STDOUT),
            Stream::Stderr => (protocol::STDERR, protocol::FRAME_STDERR),
        };
        if matches!(self.mode, Mode::Attach(streams) if streams & bit != 0) {
            for part in data.chunks(FRAME_MAX) {
                self.output.extend(protocol::frame(kind, part));
            }
            self.flush();
        }
    }

    /// Answers a single request.
    pub fn answer(&mut self, ok: bool) {
        self.output.push(u8::from(!ok));
        self.flush();
    }

    /// Sends what it can.
    pub fn flush(&mut self) {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(0) => self.closed = true,
                Ok(n) => drop(self.output.drain(..n)),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.closed = true,
            }
            if self.closed {
                self.output.clear();
            }
        }
    }

    /// Sends the rest with patience and closes: the container has ended.
    pub fn finish(&mut self) {
        let _ = self.socket.set_nonblocking(false);
        let _ = self.socket.set_write_timeout(Some(std::time::Duration::from_secs(2)));
        let _ = self.socket.write_all(&self.output);
    }

    /// Reads what came and answers what it asks for.
    pub fn read(&mut self, buffer: &mut [u8]) -> Vec<Request> {
        match self.socket.read(buffer) {
            Ok(0) => self.closed = true,
            Ok(n) => self.input.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.closed = true,
        }
        let mut requests = Vec::new();
        while let Some(request) = self.next_request() {
            requests.push(request);
        }
        if self.closed && self.gives_input() {
            requests.push(Request::InputEnd);
        }
        requests
    }

    fn next_request(&mut self) -> Option<Request> {
        if self.mode == Mode::Unknown {
            let request = self.first_request()?;
            return request.or_else(|| self.next_request());
        }
        let Mode::Attach(_) = self.mode else {
            // What a watcher says means nothing; it must not pile up.
            self.input.clear();
            return None;
        };
        // A frame longer than any peer of ours sends.
        if self.input.len() >= FRAME_HEADER
            && usize::from(u16::from_be_bytes([self.input[1], self.input[2]])) > FRAME_MAX
        {
            self.closed = true;
            return None;
        }
        let (kind, data) = protocol::take_frame(&mut self.input)?;
        match kind {
            protocol::FRAME_STDIN => Some(Request::Input(data)),
            protocol::FRAME_STDIN_END => Some(Request::InputEnd),
            protocol::FRAME_RESIZE => protocol::size_of(&data).map(|(c, r)| Request::Resize(c, r)),
            _ => None,
        }
    }

    /// The outer option: whether the first bytes are all there; the inner: whether they ask for something at once.
    fn first_request(&mut self) -> Option<Option<Request>> {
        let first = *self.input.first()?;
        let (length, request) = match first {
            protocol::WATCH => (1, None),
            protocol::REOPEN => (1, Some(Request::Reopen)),
            protocol::SIGNAL => (2, Some(Request::Signal(i32::from(*self.input.get(1)?)))),
            protocol::RESIZE => {
                let (columns, rows) = protocol::size_of(self.input.get(1..5)?)?;
                (5, Some(Request::Resize(columns, rows)))
            }
            protocol::ATTACH => (2, None),
            _ => {
                self.closed = true;
                return None;
            }
        };
        self.mode = match first {
            protocol::WATCH => Mode::Watch,
            protocol::ATTACH => Mode::Attach(*self.input.get(1)?),
            _ => Mode::Once,
        };
        self.input.drain(..length);
        Some(request)
    }
}
