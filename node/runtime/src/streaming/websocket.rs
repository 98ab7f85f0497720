//! Exec, attach and port-forward over WebSocket: `v5.channel.k8s.io` and its forebears. Does I/O.
//!
//! Each message begins with a channel: 0 stdin, 1 stdout, 2 stderr, 3 error, 4 resize; in version 5, 255 closes the
//! channel that follows. Port-forward comes in two forms: SPDY frames carried in messages (kubectl), or two channels a
//! port.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};
use wire::cri;

use super::Wanted;
use super::budget::{Budget, Chunk};
use super::outcome::Outcome;
use super::portforward;
use super::session::{self, In, Out, QUEUE, Streams};
use crate::runtime::Runtime;

/// For commands, best first.
pub const PROTOCOLS: [&str; 8] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "v2.base64.channel.k8s.io",
    "base64.channel.k8s.io",
];
/// Carries SPDY in messages.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// For port-forward, best first.
pub const FORWARD_PROTOCOLS: [&str; 4] =
    [TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "portforward.k8s.io"];

/// Messages are at most this long; clients of Kubernetes send 32 KiB at a time.
pub const MAX_MESSAGE: usize = 1 << 20;
/// Go clients take a close without a status for a broken connection.
const NORMAL: CloseFrame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") };
/// After our close, the other side gets this long to answer.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The answer to a client's key (RFC 6455, section 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    tokio_tungstenite::tungstenite::handshake::derive_accept_key(key)
}

async fn open(io: TokioIo<Upgraded>) -> Socket {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MAX_MESSAGE);
    config.max_frame_size = Some(MAX_MESSAGE);
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// How messages are written in the chosen protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form {
    /// Text messages: the channel as a digit, the rest in base64.
    base64: bool,
    /// From version 4 on the error channel carries a Status.
    status: bool,
    /// Version 5 can close one channel.
    close: bool,
}

impl Form {
    fn of(protocol: Option<&str>) -> Self {
        let name = protocol.unwrap_or("");
        Form {
            base64: name.contains("base64"),
            status: name.starts_with("v4") || name.starts_with("v5"),
            close: name.starts_with("v5"),
        }
    }

    fn message(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            return Message::text(format!("{channel}{}", BASE64.encode(data)));
        }
        let mut bytes = Vec::with_capacity(data.len() + 1);
        bytes.push(channel);
        bytes.extend_from_slice(data);
        Message::binary(bytes)
    }

    /// Channel and data of a message; `None` when it isn't one of ours.
    fn read(self, message: Message) -> Option<(u8, Bytes)> {
        if self.base64 {
            let text = message.into_text().ok()?;
            let (channel, data) = text.split_at_checked(1)?;
            let channel = channel.parse().ok()?;
            return Some((channel, BASE64.decode(data).ok()?.into()));
        }
        let mut data = message.into_data();
        if data.is_empty() {
            return None;
        }
        let channel = data.split_to(1)[0];
        Some((channel, data))
    }

    fn end(self, outcome: &Outcome) -> Option<Message> {
        if self.status {
            return Some(self.message(ERROR, outcome.status().to_string().as_bytes()));
        }
        (*outcome != Outcome::Success).then(|| self.message(ERROR, outcome.text().as_bytes()))
    }
}

/// Serves an exec or attach.
pub async fn command(io: TokioIo<Upgraded>, protocol: Option<&str>, wanted: Wanted, runtime: &Arc<Runtime>) {
    let form = Form::of(protocol);
    let streams = Streams::of(&wanted);
    let (mut sink, source) = open(io).await.split();
    // An empty message on the first channel that we write tells old clients that the channels stand.
    let first = if streams.stdout {
        STDOUT
    } else if streams.stderr {
        STDERR
    } else {
        ERROR
    };
    if sink.send(form.message(first, b"")).await.is_err() {
        return;
    }
    let (to_session, input) = mpsc::channel(QUEUE);
    let (output, from_session) = mpsc::channel(QUEUE);
    let reader = tokio::spawn(read_input(source, form, streams, to_session));
    let writer = write_output(&mut sink, form, from_session);
    tokio::join!(session::run(wanted, runtime, input, output), writer);
    let _ = sink.send(Message::Close(Some(NORMAL))).await;
    let abort = reader.abort_handle();
    // Closing with unread input would take away what the viewer has yet to read.
    let _ = tokio::time::timeout(CLOSE_PATIENCE, reader).await;
    abort.abort();
}

async fn read_input<S>(mut source: S, form: Form, streams: Streams, to: mpsc::Sender<In>)
where
    S: Stream<Item = Result<Message, WsError>> + Unpin,
{
    let mut open = true;
    let budget = Budget::default();
    while let Some(Ok(message)) = source.next().await {
        if message.is_close() {
            break;
        }
        if !(message.is_binary() || message.is_text()) {
            continue;
        }
        let Some((channel, data)) = form.read(message) else { continue };
        let request = match channel {
            STDIN if !open => continue,
            STDIN if streams.stdin && !data.is_empty() => In::Stdin(budget.hold(data).await),
            RESIZE => match terminal_size(&data) {
                Some((columns, rows)) => In::Resize(columns, rows),
                None => continue,
            },
            CLOSE if form.close && data.first() == Some(&STDIN) => In::StdinEnd,
            _ => continue,
        };
        // After the session's end, what still comes is read and dropped.
        open = open && to.send(request).await.is_ok();
    }
}

async fn write_output<S>(sink: &mut S, form: Form, mut from: mpsc::Receiver<Out>)
where
    S: Sink<Message, Error = WsError> + Unpin,
{
    while let Some(out) = from.recv().await {
        let message = match &out {
            Out::Stdout(data) => Some(form.message(STDOUT, data)),
            Out::Stderr(data) => Some(form.message(STDERR, data)),
            Out::End(outcome) => form.end(outcome),
        };
        if let Some(message) = message
            && sink.send(message).await.is_err()
        {
            return;
        }
    }
}

/// `{"Width":80,"Height":24}` as columns and rows.
pub fn terminal_size(json: &[u8]) -> Option<(u16, u16)> {
    let size: serde_json::Value = serde_json::from_slice(json).ok()?;
    let number = |name: &str| size.get(name)?.as_u64().and_then(|n| u16::try_from(n).ok());
    Some((number("Width")?, number("Height")?))
}

/// Serves a port-forward.
pub async fn port_forward(
    io: TokioIo<Upgraded>,
    protocol: Option<&str>,
    request: cri::PortForwardRequest,
    runtime: &Arc<Runtime>,
) {
    if protocol == Some(TUNNEL) {
        let (near, far) = tokio::io::duplex(MAX_MESSAGE);
        let socket = open(io).await;
        tokio::join!(portforward::over_spdy(far, &request.pod_sandbox_id, runtime), tunnel(socket, near));
        return;
    }
    forward_channels(open(io).await, Form::of(protocol), request, runtime).await;
}

/// Carries bytes between binary messages and a stream.
async fn tunnel(socket: Socket, stream: tokio::io::DuplexStream) {
    let (mut sink, mut source) = socket.split();
    let (mut from, mut to) = tokio::io::split(stream);
    let inward = async {
        while let Some(Ok(message)) = source.next().await {
            if message.is_close() {
                break;
            }
            if message.is_binary() && to.write_all(&message.into_data()).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    let outward = async {
        let mut buffer = vec![0u8; 32 << 10];
        while let Ok(n) = from.read(&mut buffer).await {
            if n == 0 || sink.send(Message::binary(buffer[..n].to_vec())).await.is_err() {
                break;
            }
        }
        let _ = sink.send(Message::Close(Some(NORMAL))).await;
    };
    tokio::join!(inward, outward);
}

/// The older form: channel 2n is data of the n-th port, 2n+1 its errors; each begins with the port's number.
async fn forward_channels(socket: Socket, form: Form, request: cri::PortForwardRequest, runtime: &Arc<Runtime>) {
    let (mut sink, mut source) = socket.split();
    let (replies, mut queue) = mpsc::channel::<Message>(QUEUE);
    let mut inputs = Vec::new();
    let budget = Budget::default();
    let mut connections = tokio::task::JoinSet::new();
    for (at, port) in request.port.iter().take(usize::from(u8::MAX / 2)).enumerate() {
        let Ok(port) = u16::try_from(*port) else { return };
        let (data, error) = (2 * at as u8, 2 * at as u8 + 1);
        for channel in [data, error] {
            let _ = sink.send(form.message(channel, &port.to_le_bytes())).await;
        }
        let (to, from) = mpsc::channel::<Chunk>(QUEUE);
        inputs.push(to);
        let (runtime, id, replies) = (runtime.clone(), request.pod_sandbox_id.clone(), replies.clone());
        connections.spawn(async move {
            let connection = async {
                let socket = portforward::connect(&runtime, &id, port).await?;
                carry(socket, from, &replies, form, data).await.map_err(|e| e.to_string())
            };
            if let Err(text) = connection.await {
                let _ = replies.send(form.message(error, text.as_bytes())).await;
            }
        });
    }
    drop(replies);
    let read = async {
        while let Some(Ok(message)) = source.next().await {
            let Some((channel, data)) = form.read(message) else { continue };
            let to = inputs.get(usize::from(channel / 2)).filter(|to| channel % 2 == 0 && !to.is_closed());
            if let Some(to) = to {
                let _ = to.send(budget.hold(data).await).await;
            }
        }
    };
    let write = async {
        while let Some(message) = queue.recv().await {
            if sink.send(message).await.is_err() {
                break;
            }
        }
        let _ = sink.send(Message::Close(Some(NORMAL))).await;
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}

async fn carry(
    socket: tokio::net::TcpStream,
    mut input: mpsc::Receiver<Chunk>,
    replies: &mpsc::Sender<Message>,
    form: Form,
    channel: u8,
) -> std::io::Result<()> {
    let (mut from, mut to) = socket.into_split();
    let inward = async {
        while let Some(data) = input.recv().await {
            to.write_all(&data).await?;
        }
        Ok::<(), std::io::Error>(())
    };
    let outward = async {
        let mut buffer = vec![0u8; 32 << 10];
        loop {
            let n = from.read(&mut buffer).await?;
            if n == 0 || replies.send(form.message(channel, &buffer[..n])).await.is_err() {
                return Ok(());
            }
        }
    };
    tokio::select! {
        done = inward => done,
        done = outward => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_each_form() {
        let v5 = Form::of(Some("v5.channel.k8s.io"));
        assert_eq!(v5.message(1, b"hi"), Message::binary(b"\x01hi".to_vec()));
        assert_eq!(v5.read(Message::binary(b"\x00in".to_vec())), Some((0, Bytes::from_static(b"in"))));
        assert!(v5.close && v5.status);
        let old = Form::of(Some("base64.channel.k8s.io"));
        assert_eq!(old.message(1, b"hi"), Message::text("1aGk="));
        assert_eq!(old.read(Message::text("0aGk=")), Some((0, Bytes::from_static(b"hi"))));
        assert_eq!(old.read(Message::text("é")), None);
        assert_eq!(old.end(&Outcome::Success), None, "nothing to say");
        let bare = Form::of(None);
        assert_eq!(bare.end(&Outcome::Error("x".into())).unwrap().into_data()[0], ERROR);
    }

    #[test]
    fn sizes_of_terminals() {
        assert_eq!(terminal_size(br#"{"Width":80,"Height":24}"#), Some((80, 24)));
        assert_eq!(terminal_size(b"{}"), None);
    }
}
