//! The monitor of one container: starts it, keeps its streams and its log, and writes down how it ended. Does I/O.
//!
//! One thread and one poll over a handful of descriptors. Whatever happens to the daemon, this goes on; when this is
//! killed, the kernel kills the container's first process with it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use linux::container::init::{Prepared, Stdio};
use linux::container::{PidNamespace, exec::start_time};
use linux::process::{self, Ended};
use linux::{cgroup, fdpass, pty};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;

use super::attach::{Client, Request};
use super::log::{Log, Stream, now};
use super::protocol::{self, Exit, RunSpec};
use super::{Fds, answer, read_spec};

/// Bytes moved at a time.
const CHUNK: usize = 16 << 10;
/// Input kept for a program that doesn't read it; viewers wait beyond that.
const MAX_INPUT: usize = 64 << 10;
/// Connections at once: watchers, viewers.
const MAX_CLIENTS: usize = 64;
/// After the end, how long output is awaited from streams that someone else still holds open.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs a container from start to end; the answer is the exit code of the monitor process.
pub fn main(fds: Fds) -> i32 {
    process::set_name("fk-monitor");
    match start(fds) {
        Ok(mut monitor) => {
            monitor.serve();
            monitor.finish();
            0
        }
        Err((control, reason)) => {
            answer(control, &format!("err {reason}"));
            1
        }
    }
}

/// The monitor's ends of the container's streams.
struct Streams {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// With a terminal, `stdin` and `stdout` are copies of this.
    terminal: Option<OwnedFd>,
}

struct Monitor {
    spec: RunSpec,
    pid: i32,
    streams: Streams,
    log: Log,
    listener: UnixListener,
    clients: Vec<Client>,
    children: OwnedFd,
    input: Vec<u8>,
    ended: Option<Ended>,
    end_seen: Option<Instant>,
}

type Refused = (OwnedFd, String);

fn start(fds: Fds) -> Result<Monitor, Refused> {
    let Fds { control, spec, .. } = fds;
    let spec: RunSpec = match read_spec(spec) {
        Ok(spec) => spec,
        Err(reason) => return Err((control, reason)),
    };
    match try_start(spec, &control) {
        Ok(monitor) => Ok(monitor),
        Err(reason) => Err((control, reason)),
    }
}

fn try_start(mut spec: RunSpec, control: &OwnedFd) -> Result<Monitor, String> {
    let text = |doing: &'static str| move |e: io::Error| format!("{doing}: {e}");
    process::adopt_orphans().map_err(text("adopt orphans"))?;
    let children = process::child_signal().map_err(text("watch children"))?;
    let listener = fdpass::listen_at(&spec.dir, protocol::SOCKET).map_err(text("listen on the monitor's socket"))?;
    listener.set_nonblocking(true).map_err(text("listen on the monitor's socket"))?;
    let log = Log::open(spec.log.clone()).map_err(|e| {
        let path = spec.log.as_ref().map_or(String::new(), |p| p.display().to_string());
        format!("open the log {path}: {e}")
    })?;
    write_file(&spec, protocol::MONITOR_PID_FILE, std::process::id() as i32).map_err(text("write the PID file"))?;
    let (pid, streams) = launch(&spec)?;
    write_file(&spec, protocol::PID_FILE, pid).map_err(text("write the PID file"))?;
    answer(control, &format!("ok {pid} {}", start_time(pid).unwrap_or(0)));
    // The container's setup is done; only what the end needs is kept.
    let keep = std::mem::take(&mut spec.container);
    spec.container.cgroup = keep.cgroup;
    spec.container.namespaces = keep.namespaces;
    Ok(Monitor {
        spec,
        pid,
        streams,
        log,
        listener,
        clients: Vec::new(),
        children,
        input: Vec::new(),
        ended: None,
        end_seen: None,
    })
}

fn write_file(spec: &RunSpec, name: &str, pid: i32) -> io::Result<()> {
    std::fs::write(spec.dir.join(name), format!("{pid} {}\n", start_time(pid).unwrap_or(0)))
}

/// Forks the container and waits until its program runs, or tells why it doesn't.
fn launch(spec: &RunSpec) -> Result<(i32, Streams), String> {
    let prepared = Prepared::new(&spec.container).map_err(|e| e.to_string())?;
    let mut plumbing = Plumbing::new(spec).map_err(|e| format!("make the standard streams: {e}"))?;
    let pid = prepared.launch(&spec.container, &plumbing.inside())?;
    match plumbing.outside() {
        Ok(streams) => Ok((pid, streams)),
        Err(e) => {
            let _ = process::kill(pid, rustix::process::Signal::KILL.as_raw());
            let _ = process::wait_child(pid, true);
            Err(format!("take the terminal: {e}"))
        }
    }
}

/// Both ends of the container's streams, before and after the fork.
struct Plumbing {
    terminal: Option<(OwnedFd, OwnedFd)>,
    stdin: (Option<OwnedFd>, OwnedFd),
    stdout: Option<(OwnedFd, OwnedFd)>,
    stderr: Option<(OwnedFd, OwnedFd)>,
}

impl Plumbing {
    fn new(spec: &RunSpec) -> io::Result<Self> {
        let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        if spec.container.program.terminal {
            let terminal = Some(fdpass::packet_pair()?);
            return Ok(Plumbing { terminal, stdin: (None, null()?), stdout: None, stderr: None });
        }
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
        let stdin = if spec.stdin {
            let (read, write) = pipe()?;
            (Some(write), read)
        } else {
            (None, null()?)
        };
        Ok(Plumbing { terminal: None, stdin, stdout: Some(pipe()?), stderr: Some(pipe()?) })
    }

    fn inside(&self) -> Stdio<'_> {
        match (&self.terminal, &self.stdout, &self.stderr) {
            (None, Some(stdout), Some(stderr)) => {
                Stdio::Files { stdin: self.stdin.1.as_fd(), stdout: stdout.1.as_fd(), stderr: stderr.1.as_fd() }
            }
            (Some(terminal), ..) => Stdio::Terminal { send_to: terminal.1.as_fd() },
            _ => {
                Stdio::Files { stdin: self.stdin.1.as_fd(), stdout: self.stdin.1.as_fd(), stderr: self.stdin.1.as_fd() }
            }
        }
    }

    /// Keeps the monitor's ends, closes the container's.
    fn outside(&mut self) -> io::Result<Streams> {
        let quiet = |fd: OwnedFd| -> io::Result<OwnedFd> {
            let flags = rustix::fs::fcntl_getfl(&fd)?;
            rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
            Ok(fd)
        };
        if let Some((ours, theirs)) = self.terminal.take() {
            drop(theirs);
            let (_, mut fds) = fdpass::receive(&ours, &mut [0u8; 8])?;
            let terminal = quiet(fds.pop().ok_or_else(|| io::Error::other("the container sent none"))?)?;
            let copy = || terminal.try_clone().map(Some);
            return Ok(Streams { stdin: copy()?, stdout: copy()?, stderr: None, terminal: Some(terminal) });
        }
        let null = File::open("/dev/null")?;
        self.stdin.1 = null.into();
        let take = |pair: &mut Option<(OwnedFd, OwnedFd)>| pair.take().map(|(read, _)| quiet(read)).transpose();
        Ok(Streams {
            stdin: self.stdin.0.take().map(quiet).transpose()?,
            stdout: take(&mut self.stdout)?,
            stderr: take(&mut self.stderr)?,
            terminal: None,
        })
    }
}

/// What poll found.
#[derive(Default)]
struct Ready {
    child: bool,
    connection: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    clients: Vec<(bool, bool)>,
}

impl Monitor {
    /// Until the program has ended and its output has been read.
    fn serve(&mut self) {
        let mut buffer = vec![0u8; CHUNK];
        while !self.is_done() {
            let Ok(ready) = self.wait() else { return };
            if ready.child {
                self.reap();
            }
            for (at, (read, write)) in ready.clients.iter().enumerate() {
                if *write {
                    self.clients[at].flush();
                }
                if *read {
                    let requests = self.clients[at].read(&mut buffer);
                    requests.into_iter().for_each(|request| self.obey(at, request));
                }
            }
            if ready.stdin {
                self.feed();
            }
            if ready.stdout {
                self.drain(Stream::Stdout, &mut buffer);
            }
            if ready.stderr {
                self.drain(Stream::Stderr, &mut buffer);
            }
            self.clients.retain(|client| !client.is_closed());
            if ready.connection {
                self.accept();
            }
        }
    }

    fn is_done(&self) -> bool {
        let quiet = self.streams.stdout.is_none() && self.streams.stderr.is_none();
        self.end_seen.is_some_and(|at| quiet || at.elapsed() > DRAIN)
    }

    fn wait(&self) -> io::Result<Ready> {
        // Nobody's buffer may grow: output waits for the slowest viewer, viewers' input for the program.
        let hold = self.ended.is_none() && self.clients.iter().any(Client::wants_write);
        let full = self.input.len() >= MAX_INPUT;
        let mut fds = vec![PollFd::new(&self.children, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        for client in &self.clients {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, !(full && client.gives_input()));
            flags.set(PollFlags::OUT, client.wants_write());
            fds.push(PollFd::from_borrowed_fd(client.fd(), flags));
        }
        let base = fds.len();
        let mut places = [None; 3];
        let wanted = [
            (&self.streams.stdin, PollFlags::OUT, !self.input.is_empty()),
            (&self.streams.stdout, PollFlags::IN, !hold),
            (&self.streams.stderr, PollFlags::IN, !hold),
        ];
        for (place, (stream, flags, on)) in places.iter_mut().zip(wanted) {
            if let (Some(stream), true) = (stream, on) {
                *place = Some(fds.len());
                fds.push(PollFd::new(stream, flags));
            }
        }
        let patience = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, self.end_seen.map(|_| &patience)))?;
        let any = |at: usize| !fds[at].revents().is_empty();
        let stream = |place: Option<usize>| place.is_some_and(any);
        let gone = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        Ok(Ready {
            child: any(0),
            connection: any(1),
            stdin: stream(places[0]),
            stdout: stream(places[1]),
            stderr: stream(places[2]),
            clients: fds[2..base]
                .iter()
                .map(|fd| (fd.revents().intersects(gone), fd.revents().contains(PollFlags::OUT)))
                .collect(),
        })
    }

    fn reap(&mut self) {
        let mut drop_signals = [0u8; 1024];
        let _ = rustix::io::read(&self.children, &mut drop_signals[..]);
        if let Some(end) = process::reap(self.pid) {
            self.ended = Some(end);
            self.end_seen = Some(Instant::now());
            if self.spec.container.namespaces.pid != PidNamespace::New {
                // Without a PID namespace of its own, what the program left behind would live on.
                cgroup::kill_members(&self.spec.container.cgroup.join);
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            if self.clients.len() < MAX_CLIENTS
                && let Ok(client) = Client::new(socket)
            {
                self.clients.push(client);
            }
        }
    }

    fn obey(&mut self, from: usize, request: Request) {
        match request {
            Request::Reopen => {
                let done = self.log.reopen().is_ok();
                self.clients[from].answer(done);
            }
            Request::Signal(signal) => {
                let sent = self.ended.is_none() && process::kill(self.pid, signal).is_ok();
                self.clients[from].answer(sent);
            }
            Request::Resize(columns, rows) => {
                let done = self.streams.terminal.as_ref().is_some_and(|t| pty::resize(t, columns, rows).is_ok());
                if !self.clients[from].is_attach() {
                    self.clients[from].answer(done);
                }
            }
            Request::Input(data) => {
                if self.streams.stdin.is_some() {
                    self.input.extend(data);
                    self.feed();
                }
            }
            Request::InputEnd => {
                if self.spec.stdin_once && self.streams.terminal.is_none() {
                    self.spec.stdin = false;
                    self.feed();
                }
            }
        }
    }

    /// Gives the program what it takes of its input.
    fn feed(&mut self) {
        while let (Some(stdin), false) = (&self.streams.stdin, self.input.is_empty()) {
            match rustix::io::write(stdin, &self.input) {
                Ok(n) => drop(self.input.drain(..n)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    self.streams.stdin = None;
                    self.input.clear();
                }
            }
        }
        // Input that may come only once has come.
        if self.streams.terminal.is_none() && !self.spec.stdin {
            self.streams.stdin = None;
        }
    }

    fn drain(&mut self, stream: Stream, buffer: &mut [u8]) {
        let slot = match stream {
            Stream::Stdout => &mut self.streams.stdout,
            Stream::Stderr => &mut self.streams.stderr,
        };
        let Some(fd) = slot else { return };
        match rustix::io::read(&*fd, &mut *buffer) {
            Ok(n) if n > 0 => {
                self.log.write(stream, &buffer[..n]);
                self.clients.iter_mut().for_each(|client| client.show(stream, &buffer[..n]));
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            // The end; a terminal whose last user has gone answers EIO.
            _ => {
                *slot = None;
                self.log.end(stream);
            }
        }
    }

    /// Writes down the end, then lets everybody know by going away.
    fn finish(mut self) {
        self.log.end(Stream::Stdout);
        self.log.end(Stream::Stderr);
        let oom_file = self.spec.container.cgroup.oom_file.as_ref();
        let exit = Exit {
            code: self.ended.map_or(255, Ended::code),
            oom: oom_file.is_some_and(|file| cgroup::oom_kills(file) > 0),
            finished_at: now(),
        };
        // Not flushed: after a power cut the container has ended in any case.
        let temporary = self.spec.exit_file.with_extension("tmp");
        if let Ok(text) = serde_json::to_vec(&exit) {
            let _ = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, &self.spec.exit_file));
        }
        let _ = std::fs::remove_file(self.spec.dir.join(protocol::SOCKET));
        self.clients.iter_mut().for_each(Client::finish);
    }
}

/// Reads "PID START" as the monitor wrote it, if that process still is the one.
pub fn read_pid_file(path: &std::path::Path) -> Option<(i32, u64)> {
    let mut text = String::new();
    File::open(path).ok()?.take(64).read_to_string(&mut text).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    let (pid, started) = (pid.parse().ok()?, started.parse().ok()?);
    (start_time(pid) == Some(started)).then_some((pid, started))
}
