//! SPDY/3.1 as Kubernetes clients speak it: many streams on one connection, no flow control. Does I/O.
//!
//! `frame` has the wire format. Streams are told apart by their headers (`streamtype`). Called for exec and attach here,
//! and by `portforward`.

pub mod frame;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use self::frame::{Decoder, Encoder, Frame};
use super::Wanted;
use super::budget::{Budget, Chunk};
use super::session::{self, In, Out, QUEUE, Streams};
use super::websocket::terminal_size;
use crate::runtime::Runtime;

/// For commands, best first.
pub const PROTOCOLS: [&str; 4] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// For port-forward.
pub const FORWARD_PROTOCOLS: [&str; 1] = ["portforward.k8s.io"];

/// Frames waiting for a stream's reader; the whole connection waits beyond that, and beyond its budget of bytes.
const STREAM_QUEUE: usize = 64;
/// Streams open at once on a connection: 512 forwarded connections.
const MAX_STREAMS: usize = 1024;
/// The headers that anybody looks at; others are not kept.
const HEADERS: [&str; 3] = ["streamtype", "port", "requestid"];
/// Bytes of the value of one of them.
const MAX_HEADER: usize = 128;
/// Bytes a data frame that we send.
const MAX_DATA: usize = 16 << 10;
/// The client gets this long to open all streams of a command.
const STREAM_PATIENCE: Duration = Duration::from_secs(30);
/// After our goodbye, the other side gets this long to hang up.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 3;
const CANCEL: u32 = 5;

/// A stream that the client opened.
#[derive(Debug)]
pub struct Stream {
    id: u32,
    pub headers: HashMap<String, String>,
    input: mpsc::Receiver<Chunk>,
    output: mpsc::Sender<Frame>,
}

impl Stream {
    /// A header's value, empty when missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// What the client sends next; `None` at its end of the stream.
    pub async fn receive(&mut self) -> Option<Chunk> {
        self.input.recv().await
    }

    /// Gives the stream up, and lets go of what came for it.
    pub async fn cancel(self) {
        drop(self.input);
        let _ = self.output.send(Frame::Reset { id: self.id, status: CANCEL }).await;
    }

    /// Splits reading from writing.
    pub fn split(self) -> (mpsc::Receiver<Chunk>, StreamWriter) {
        (self.input, StreamWriter { id: self.id, output: self.output })
    }
}

/// The writing half of a stream.
#[derive(Debug, Clone)]
pub struct StreamWriter {
    id: u32,
    output: mpsc::Sender<Frame>,
}

impl StreamWriter {
    /// Sends data; false when the connection is gone.
    pub async fn send(&self, data: &[u8]) -> bool {
        for part in data.chunks(MAX_DATA) {
            let frame = Frame::Data { id: self.id, data: Bytes::copy_from_slice(part), last: false };
            if self.output.send(frame).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Ends our half.
    pub async fn finish(&self) {
        let _ = self.output.send(Frame::Data { id: self.id, data: Bytes::new(), last: true }).await;
    }
}

/// A connection: new streams come out of `streams`.
#[derive(Debug)]
pub struct Connection {
    pub streams: mpsc::Receiver<Stream>,
    output: mpsc::Sender<Frame>,
    tasks: tokio::task::JoinSet<()>,
}

impl Connection {
    /// Starts to serve a connection that has been upgraded.
    pub fn new<T: AsyncRead + AsyncWrite + Send + 'static>(io: T) -> Self {
        let (read, write) = tokio::io::split(io);
        let (output, frames) = mpsc::channel(QUEUE);
        let (new, streams) = mpsc::channel(QUEUE);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(read_frames(read, new, output.clone()));
        tasks.spawn(write_frames(write, frames));
        Connection { streams, output, tasks }
    }

    /// Says goodbye and waits until the client has hung up, so that nothing we sent is lost.
    pub async fn close(mut self) {
        let _ = self.output.send(Frame::GoAway).await;
        self.streams.close();
        let hang_up = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(CLOSE_PATIENCE, hang_up).await;
    }
}

async fn read_frames<R: AsyncRead>(read: R, new: mpsc::Sender<Stream>, output: mpsc::Sender<Frame>) {
    tokio::pin!(read);
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::with_capacity(32 << 10);
    let mut open: HashMap<u32, mpsc::Sender<Chunk>> = HashMap::new();
    let budget = Budget::default();
    loop {
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => handle(frame, &mut open, &budget, &new, &output).await,
                Ok(None) => break,
                Err(reason) => {
                    tracing::debug!(reason, "a SPDY client broke the protocol");
                    return;
                }
            }
        }
        match read.read_buf(&mut buffer).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
}

async fn handle(
    frame: Frame,
    open: &mut HashMap<u32, mpsc::Sender<Chunk>>,
    budget: &Budget,
    new: &mpsc::Sender<Stream>,
    output: &mpsc::Sender<Frame>,
) {
    match frame {
        Frame::SynStream { id, mut headers, last } => {
            headers.retain(|name, value| HEADERS.contains(&name.as_str()) && value.len() <= MAX_HEADER);
            if open.len() >= MAX_STREAMS || open.contains_key(&id) {
                let status = if open.contains_key(&id) { PROTOCOL_ERROR } else { REFUSED_STREAM };
                let _ = output.send(Frame::Reset { id, status }).await;
                return;
            }
            let (to, input) = mpsc::channel(STREAM_QUEUE);
            if !last {
                open.insert(id, to);
            }
            let _ = output.send(Frame::SynReply { id }).await;
            let _ = new.send(Stream { id, headers, input, output: output.clone() }).await;
        }
        Frame::Data { id, data, last } => {
            // The reader of a stream may have lost interest: what comes for it is dropped.
            if let Some(to) = open.get(&id)
                && !data.is_empty()
                && !to.is_closed()
            {
                let _ = to.send(budget.hold(data).await).await;
            }
            if last {
                open.remove(&id);
            }
        }
        Frame::Reset { id, .. } => drop(open.remove(&id)),
        Frame::Ping { id } if id % 2 == 1 => {
            let _ = output.send(Frame::Ping { id }).await;
        }
        _ => {}
    }
}

async fn write_frames<W: AsyncWrite>(write: W, mut frames: mpsc::Receiver<Frame>) {
    tokio::pin!(write);
    let mut encoder = Encoder::default();
    let mut buffer = BytesMut::new();
    while let Some(frame) = frames.recv().await {
        let goodbye = matches!(frame, Frame::GoAway);
        encoder.encode(&frame, &mut buffer);
        if write.write_all_buf(&mut buffer).await.is_err() || write.flush().await.is_err() {
            return;
        }
        if goodbye {
            let _ = write.shutdown().await;
            return;
        }
    }
}

/// The streams of a command, as far as they have been opened.
#[derive(Default)]
struct Opened {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Opened {
    fn is_whole(&self, wanted: Streams, resizes: bool) -> bool {
        self.error.is_some()
            && (self.stdin.is_some() || !wanted.stdin)
            && (self.stdout.is_some() || !wanted.stdout)
            && (self.stderr.is_some() || !wanted.stderr || wanted.tty)
            && (self.resize.is_some() || !(wanted.tty && resizes))
    }

    fn take(&mut self, stream: Stream) {
        let slot = match stream.header("streamtype") {
            "error" => &mut self.error,
            "stdin" => &mut self.stdin,
            "stdout" => &mut self.stdout,
            "stderr" => &mut self.stderr,
            "resize" => &mut self.resize,
            _ => return,
        };
        *slot = Some(stream);
    }
}

/// Serves an exec or attach.
pub async fn command<T>(io: T, protocol: Option<&str>, wanted: Wanted, runtime: &Arc<Runtime>)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut connection = Connection::new(io);
    let streams = Streams::of(&wanted);
    let version = protocol.unwrap_or("");
    let resizes = version.starts_with("v3") || version.starts_with("v4");
    let mut opened = Opened::default();
    let gather = async {
        while !opened.is_whole(streams, resizes) {
            match connection.streams.recv().await {
                Some(stream) => opened.take(stream),
                None => return false,
            }
        }
        true
    };
    if !matches!(tokio::time::timeout(STREAM_PATIENCE, gather).await, Ok(true)) {
        return;
    }
    let (to_session, input) = mpsc::channel(QUEUE);
    let (output, from_session) = mpsc::channel(QUEUE);
    let mut readers = tokio::task::JoinSet::new();
    if let Some(stdin) = opened.stdin.take() {
        readers.spawn(read_stdin(stdin, to_session.clone()));
    }
    if let Some(resize) = opened.resize.take() {
        readers.spawn(read_sizes(resize, to_session.clone()));
    }
    let gone = async {
        // The queue of new streams ends with the connection.
        while connection.streams.recv().await.is_some() {}
    };
    let writer = write_output(opened, version.starts_with("v4"), from_session);
    let session = async { tokio::join!(session::run(wanted, runtime, input, output), writer) };
    let ended = tokio::select! {
        _ = session => true,
        () = gone => false,
    };
    drop(to_session);
    readers.abort_all();
    if ended {
        connection.close().await;
    }
}

async fn read_stdin(mut stream: Stream, to: mpsc::Sender<In>) {
    while let Some(data) = stream.receive().await {
        if to.send(In::Stdin(data)).await.is_err() {
            return;
        }
    }
    let _ = to.send(In::StdinEnd).await;
}

/// Sizes are JSON documents one after the other, cut anywhere.
async fn read_sizes(mut stream: Stream, to: mpsc::Sender<In>) {
    let mut text = Vec::new();
    while let Some(data) = stream.receive().await {
        text.extend_from_slice(&data);
        while let Some(end) = text.iter().position(|b| *b == b'}') {
            let document: Vec<u8> = text.drain(..=end).collect();
            if let Some((columns, rows)) = terminal_size(&document) {
                let _ = to.send(In::Resize(columns, rows)).await;
            }
        }
        // No size is that long.
        if text.len() > 1024 {
            return;
        }
    }
}

async fn write_output(opened: Opened, status: bool, mut from: mpsc::Receiver<Out>) {
    let writer = |stream: Option<Stream>| stream.map(|s| s.split().1);
    let (error, stdout, stderr) = (writer(opened.error), writer(opened.stdout), writer(opened.stderr));
    while let Some(out) = from.recv().await {
        let (to, data) = match out {
            Out::Stdout(data) => (&stdout, data),
            Out::Stderr(data) => (&stderr, data),
            Out::End(outcome) => {
                let text = if status { outcome.status().to_string() } else { outcome.text() };
                (&error, Bytes::from(text))
            }
        };
        if let Some(to) = to
            && !to.send(&data).await
        {
            return;
        }
    }
    for stream in [stdout, stderr, error].into_iter().flatten() {
        stream.finish().await;
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! The other side of a connection.
    use super::*;
    use tokio::io::DuplexStream;

    pub struct Client {
        io: DuplexStream,
        encoder: Encoder,
        decoder: Decoder,
        buffer: BytesMut,
        next: u32,
    }

    impl Client {
        pub fn new(io: DuplexStream) -> Self {
            Client { io, encoder: Encoder::default(), decoder: Decoder::default(), buffer: BytesMut::new(), next: 1 }
        }

        pub async fn send(&mut self, frame: &Frame) {
            let mut bytes = BytesMut::new();
            self.encoder.encode(frame, &mut bytes);
            self.io.write_all(&bytes).await.unwrap();
        }

        pub async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
            let id = self.next;
            self.next += 2;
            let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            self.send(&Frame::SynStream { id, headers, last: false }).await;
            id
        }

        /// Waits for so many streams to be reset.
        pub async fn resets(&mut self, count: usize) -> Vec<u32> {
            let mut reset = Vec::new();
            while reset.len() < count {
                match self.decoder.decode(&mut self.buffer).unwrap() {
                    Some(Frame::Reset { id, .. }) => reset.push(id),
                    Some(_) => {}
                    None => drop(self.io.read_buf(&mut self.buffer).await.unwrap()),
                }
            }
            reset
        }
    }

    #[tokio::test]
    async fn headers_that_nobody_reads_are_not_kept() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let mut connection = Connection::new(far);
        let mut client = Client::new(near);
        let long = "x".repeat(20_000);
        client.open(&[("streamtype", "data"), ("requestid", &long), ("other", &long)]).await;
        let stream = connection.streams.recv().await.unwrap();
        assert_eq!(stream.headers, HashMap::from([("streamtype".to_owned(), "data".to_owned())]));
    }

    #[tokio::test]
    async fn streams_that_nobody_reads_hold_the_connection_not_the_memory() {
        const FRAME: usize = 512 << 10;
        let (near, far) = tokio::io::duplex(64 << 10);
        let mut connection = Connection::new(far);
        let mut client = Client::new(near);
        let mut held = Vec::new();
        for number in 0..6 {
            client.open(&[("streamtype", "data"), ("requestid", &number.to_string())]).await;
            held.push(connection.streams.recv().await.unwrap());
        }
        let mut sent = 0;
        for round in 0..1000u32 {
            let frame = Frame::Data { id: 1 + 2 * (round % 6), data: Bytes::from(vec![0u8; FRAME]), last: false };
            if tokio::time::timeout(Duration::from_millis(300), client.send(&frame)).await.is_err() {
                break;
            }
            sent += FRAME;
        }
        assert!(sent <= super::super::budget::BUDGET + 4 * FRAME, "{sent} bytes were taken in");
        // The connection goes on when they are given up.
        for stream in held {
            stream.cancel().await;
        }
        assert_eq!(client.resets(6).await.len(), 6);
    }
}
