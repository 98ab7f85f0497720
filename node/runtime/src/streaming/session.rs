//! What happens in an exec or attach, whatever the protocol. Does I/O.
//!
//! The protocol gives two queues: what the viewer sends, and what it gets. Both are short, so a slow viewer slows the
//! program down and nothing piles up.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use wire::cri;

use super::Wanted;
use super::budget::Chunk;
use super::outcome::Outcome;
use crate::error::{Error, Result};
use crate::exec::Running;
use crate::link;
use crate::monitor::protocol;
use crate::runtime::Runtime;

/// Messages in a queue.
pub const QUEUE: usize = 16;
/// Bytes a message at most, as read at once.
const CHUNK: usize = 16 << 10;
/// After the program's end, how long output is awaited that others still may write.
const DRAIN: Duration = Duration::from_secs(1);

/// From the viewer. The queue's end means that the viewer has gone.
#[derive(Debug, PartialEq, Eq)]
pub enum In {
    Stdin(Chunk),
    StdinEnd,
    /// Columns, rows.
    Resize(u16, u16),
}

/// To the viewer.
#[derive(Debug, PartialEq, Eq)]
pub enum Out {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The last message.
    End(Outcome),
}

/// Which streams the viewer wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Streams {
    /// Those of a request.
    pub fn of(wanted: &Wanted) -> Self {
        match wanted {
            Wanted::Exec(r) => Streams { stdin: r.stdin, stdout: r.stdout, stderr: r.stderr, tty: r.tty },
            Wanted::Attach(r) => Streams { stdin: r.stdin, stdout: r.stdout, stderr: r.stderr, tty: r.tty },
            Wanted::PortForward(_) => Streams::default(),
        }
    }
}

/// Runs a request to its end; the last message says how it ended, unless the viewer has gone.
pub async fn run(wanted: Wanted, runtime: &Arc<Runtime>, input: mpsc::Receiver<In>, output: mpsc::Sender<Out>) {
    let done = match wanted {
        Wanted::Exec(request) => exec(request, runtime, input, &output).await,
        Wanted::Attach(request) => attach(request, runtime, input, &output).await,
        Wanted::PortForward(_) => return,
    };
    let outcome = match done {
        Ok(Some(outcome)) => outcome,
        Ok(None) => return,
        Err(error) => Outcome::Error(error.to_string()),
    };
    let _ = output.send(Out::End(outcome)).await;
}

/// `None` when the viewer left first: the program is killed then.
async fn exec(
    request: cri::ExecRequest,
    runtime: &Arc<Runtime>,
    input: mpsc::Receiver<In>,
    output: &mpsc::Sender<Out>,
) -> Result<Option<Outcome>> {
    let container = runtime.container(&request.container_id)?;
    let mut running = runtime.exec(&container, &request.cmd, request.tty, request.stdin).await?;
    let watch = Error::failed("watch the terminal");
    let ends = Ends::take(&mut running).map_err(watch)?;
    let mut pumps = tokio::task::JoinSet::new();
    if request.stdout || request.tty {
        pumps.spawn(pump(ends.stdout, output.clone(), Out::Stdout));
    }
    if request.stderr && !request.tty {
        pumps.spawn(pump(ends.stderr, output.clone(), Out::Stderr));
    }
    let feeding = tokio::spawn(feed(input, ends.stdin, ends.resize));
    let abort = feeding.abort_handle();
    let code = tokio::select! {
        code = running.wait() => Some(code),
        () = viewer_gone(feeding) => None,
        () = output.closed() => None,
    };
    abort.abort();
    let Some(code) = code else { return Ok(None) };
    let _ = tokio::time::timeout(DRAIN, async { while pumps.join_next().await.is_some() {} }).await;
    Ok(Some(if code == 0 { Outcome::Success } else { Outcome::Exit(code) }))
}

/// Never returns while the viewer may only have closed its input.
async fn viewer_gone(feeding: tokio::task::JoinHandle<bool>) {
    if !feeding.await.unwrap_or(true) {
        std::future::pending::<()>().await;
    }
}

/// Our ends of a program's streams; with a terminal all are copies of its master.
struct Ends {
    stdin: Option<pipe::Sender>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    resize: Option<std::os::fd::OwnedFd>,
}

impl Ends {
    fn take(running: &mut Running) -> std::io::Result<Self> {
        let Some(terminal) = running.terminal.take() else {
            return Ok(Ends {
                stdin: running.stdin.take(),
                stdout: running.stdout.take(),
                stderr: running.stderr.take(),
                resize: None,
            });
        };
        let flags = rustix::fs::fcntl_getfl(&terminal)?;
        rustix::fs::fcntl_setfl(&terminal, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Ends {
            stdin: Some(pipe::Sender::from_owned_fd_unchecked(terminal.try_clone()?)?),
            stdout: Some(pipe::Receiver::from_owned_fd_unchecked(terminal.try_clone()?)?),
            stderr: None,
            resize: Some(terminal),
        })
    }
}

/// Until the stream's end; a terminal's is an error (EIO).
async fn pump<R: AsyncRead + Unpin>(from: Option<R>, to: mpsc::Sender<Out>, kind: fn(Bytes) -> Out) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0u8; CHUNK];
    while let Ok(n) = from.read(&mut buffer).await {
        if n == 0 || to.send(kind(Bytes::copy_from_slice(&buffer[..n]))).await.is_err() {
            break;
        }
    }
}

/// Gives the program its input; answers whether the viewer has gone.
async fn feed(
    mut input: mpsc::Receiver<In>,
    mut stdin: Option<pipe::Sender>,
    terminal: Option<std::os::fd::OwnedFd>,
) -> bool {
    while let Some(message) = input.recv().await {
        match message {
            In::Stdin(data) => {
                if let Some(pipe) = &mut stdin
                    && pipe.write_all(&data).await.is_err()
                {
                    stdin = None;
                }
            }
            In::StdinEnd if terminal.is_none() => stdin = None,
            In::StdinEnd => {}
            In::Resize(columns, rows) => {
                if let Some(terminal) = &terminal {
                    let _ = linux::pty::resize(terminal, columns, rows);
                }
            }
        }
    }
    true
}

/// How long output may still come to a viewer whose input ended before the container's.
const LINGER: Duration = Duration::from_millis(200);

async fn attach(
    request: cri::AttachRequest,
    runtime: &Arc<Runtime>,
    mut input: mpsc::Receiver<In>,
    output: &mpsc::Sender<Out>,
) -> Result<Option<Outcome>> {
    let container = runtime.container(&request.container_id)?;
    let bit = |on: bool, bit: u8| if on { bit } else { 0 };
    let streams = bit(request.stdin, protocol::STDIN)
        | bit(request.stdout, protocol::STDOUT)
        | bit(request.stderr, protocol::STDERR);
    let dir = runtime.container_run_dir(&container.id);
    let socket = link::attach(&dir, streams).await.map_err(Error::failed("attach to the container"))?;
    let (mut from, mut to) = socket.into_split();
    // The end of a viewer's input is the container's where that may come once, and else the viewer's own.
    let shared = container.read(|r| r.config.as_ref().is_some_and(|config| config.stdin_once && !config.tty));
    let sending = async move {
        while let Some(message) = input.recv().await {
            let sent = match message {
                In::Stdin(data) => send_frames(&mut to, &data).await,
                In::StdinEnd if !shared => {
                    tokio::time::sleep(LINGER).await;
                    return Some(Outcome::Success);
                }
                In::StdinEnd => to.write_all(&protocol::frame(protocol::FRAME_STDIN_END, &[])).await,
                In::Resize(columns, rows) => {
                    let size = protocol::size_bytes(columns, rows);
                    to.write_all(&protocol::frame(protocol::FRAME_RESIZE, &size)).await
                }
            };
            if sent.is_err() {
                // The container has ended; its last output is still on the way.
                std::future::pending::<()>().await;
            }
        }
        None
    };
    let receiving = async {
        let mut header = [0u8; protocol::FRAME_HEADER];
        while from.read_exact(&mut header).await.is_ok() {
            let mut data = vec![0u8; usize::from(u16::from_be_bytes([header[1], header[2]]))];
            if from.read_exact(&mut data).await.is_err() {
                break;
            }
            let message = match header[0] {
                protocol::FRAME_STDERR => Out::Stderr(data.into()),
                _ => Out::Stdout(data.into()),
            };
            if output.send(message).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = receiving => Ok(Some(Outcome::Success)),
        left = sending => Ok(left),
        () = output.closed() => Ok(None),
    }
}

async fn send_frames(to: &mut tokio::net::unix::OwnedWriteHalf, data: &[u8]) -> std::io::Result<()> {
    for part in data.chunks(protocol::FRAME_MAX) {
        to.write_all(&protocol::frame(protocol::FRAME_STDIN, part)).await?;
    }
    Ok(())
}
