//! Exec, attach and port-forward as clients of Kubernetes speak them: WebSocket and SPDY.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use wire::cri::*;

use self::frame::{Decoder, Encoder, Frame};
use crate::Test;
use crate::host::{Host, shell, with_host};

/// The frames of SPDY, from the other side.
#[path = "../../src/streaming/spdy/frame.rs"]
#[allow(dead_code, unused_imports)]
mod frame;

pub const TESTS: &[Test] = &[
    ("streams::exec_over_websocket", exec_over_websocket),
    ("streams::exec_with_a_terminal", exec_with_a_terminal),
    ("streams::exec_over_spdy", exec_over_spdy),
    ("streams::a_viewer_that_leaves_ends_the_command", a_viewer_that_leaves_ends_the_command),
    ("streams::attach_shows_output_and_gives_input", attach_shows_output_and_gives_input),
    ("streams::input_that_stays_open_outlives_its_viewer", input_that_stays_open_outlives_its_viewer),
    ("streams::attach_to_a_terminal", attach_to_a_terminal),
    ("streams::port_forward_over_spdy_and_websocket", port_forward_over_spdy_and_websocket),
    ("streams::tokens_are_good_once", tokens_are_good_once),
];

type Socket = WebSocketStream<TcpStream>;

async fn dial(url: &str) -> (TcpStream, String) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    (TcpStream::connect(host).await.unwrap(), format!("/{path}"))
}

async fn websocket(url: &str, protocol: &str) -> Result<Socket, String> {
    let (socket, path) = dial(url).await;
    let request = hyper::Request::get(format!("ws://127.0.0.1{path}"))
        .header("host", "127.0.0.1")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", protocol)
        .body(())
        .unwrap();
    tokio_tungstenite::client_async(request, socket).await.map(|(socket, _)| socket).map_err(|e| e.to_string())
}

/// Everything a command says, by channel.
#[derive(Default, Debug)]
struct Heard(HashMap<u8, Vec<u8>>);

impl Heard {
    fn text(&self, channel: u8) -> String {
        String::from_utf8_lossy(self.0.get(&channel).map_or(&[][..], |v| v)).into_owned()
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.text(3)).unwrap()
    }
}

async fn hear(socket: &mut Socket) -> Heard {
    let mut heard = Heard::default();
    while let Ok(Some(Ok(message))) = tokio::time::timeout(Duration::from_secs(10), socket.next()).await {
        if let Message::Binary(data) = message {
            heard.0.entry(data[0]).or_default().extend_from_slice(&data[1..]);
        }
    }
    heard
}

async fn say(socket: &mut Socket, channel: u8, data: &[u8]) {
    socket.send(Message::binary([&[channel], data].concat())).await.unwrap();
}

async fn exec_url(host: &mut Host, id: &str, script: &str, tty: bool, stdin: bool) -> String {
    let request = ExecRequest {
        container_id: id.into(),
        cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
        tty,
        stdin,
        stdout: true,
        stderr: !tty,
    };
    host.cri.exec(request).await.unwrap().into_inner().url
}

async fn sleeper(host: &mut Host) -> String {
    let pod = host.pod(|_| {}).await;
    host.sh(&pod, "sleeper", "sleep 1000").await
}

fn exec_over_websocket() {
    with_host(|mut host| async move {
        let id = sleeper(&mut host).await;
        let url = exec_url(&mut host, &id, "echo out; echo err >&2; cat; exit 7", false, true).await;
        let mut socket = websocket(&url, "v5.channel.k8s.io").await.unwrap();
        say(&mut socket, 0, b"typed\n").await;
        say(&mut socket, 255, &[0]).await;
        let heard = hear(&mut socket).await;
        assert_eq!((heard.text(1).as_str(), heard.text(2).as_str()), ("out\ntyped\n", "err\n"));
        let status = heard.status();
        assert_eq!(
            (&status["reason"], &status["details"]["causes"][0]["message"]),
            (&"NonZeroExitCode".into(), &"7".into())
        );

        let url = exec_url(&mut host, &id, "seq 1 50000", false, false).await;
        let heard = hear(&mut websocket(&url, "v4.channel.k8s.io").await.unwrap()).await;
        assert_eq!(heard.text(1).lines().count(), 50_000, "nothing is lost at the end");
        assert_eq!(heard.status()["status"], "Success");

        let request =
            ExecRequest { container_id: id.clone(), cmd: vec!["nothing".into()], stdout: true, ..Default::default() };
        let url = host.cri.exec(request).await.unwrap().into_inner().url;
        let heard = hear(&mut websocket(&url, "v5.channel.k8s.io").await.unwrap()).await;
        assert!(heard.status()["message"].as_str().unwrap().contains("executable file not found"), "{heard:?}");
        host.finish().await;
    });
}

fn exec_with_a_terminal() {
    with_host(|mut host| async move {
        let id = sleeper(&mut host).await;
        let script = "read go; stty size; test -t 1 && echo terminal; exit 2";
        let url = exec_url(&mut host, &id, script, true, true).await;
        let mut socket = websocket(&url, "v5.channel.k8s.io").await.unwrap();
        say(&mut socket, 4, br#"{"Width":132,"Height":43}"#).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        say(&mut socket, 0, b"go\n").await;
        let heard = hear(&mut socket).await;
        let text = heard.text(1);
        assert!(text.contains("43 132\r\n") && text.contains("terminal\r\n"), "{text:?}");
        assert_eq!(heard.status()["details"]["causes"][0]["message"], "2");
        host.finish().await;
    });
}

/// A SPDY client of one connection.
struct Spdy {
    socket: TcpStream,
    encoder: Encoder,
    decoder: Decoder,
    buffer: BytesMut,
    next: u32,
}

impl Spdy {
    async fn connect(url: &str, protocol: &str) -> Self {
        let (mut socket, path) = dial(url).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
             X-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Spdy { socket, encoder: Encoder::default(), decoder: Decoder::default(), buffer: BytesMut::new(), next: 1 }
    }

    async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        self.encoder.encode(&frame, &mut bytes);
        self.socket.write_all(&bytes).await.unwrap();
    }

    async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let id = self.next;
        self.next += 2;
        let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.send(Frame::SynStream { id, headers, last: false }).await;
        id
    }

    async fn say(&mut self, id: u32, data: &'static [u8], last: bool) {
        self.send(Frame::Data { id, data: Bytes::from_static(data), last }).await;
    }

    /// Data by stream until all given streams have ended.
    async fn hear(&mut self, until: &[u32]) -> HashMap<u32, String> {
        let mut heard: HashMap<u32, Vec<u8>> = HashMap::new();
        let mut open: Vec<u32> = until.to_vec();
        while !open.is_empty() {
            while let Some(frame) = self.decoder.decode(&mut self.buffer).unwrap() {
                if let Frame::Data { id, data, last } = frame {
                    heard.entry(id).or_default().extend_from_slice(&data);
                    open.retain(|o| !(last && *o == id));
                }
            }
            if open.is_empty() {
                break;
            }
            let read = tokio::time::timeout(Duration::from_secs(10), self.socket.read_buf(&mut self.buffer));
            if read.await.unwrap().unwrap_or(0) == 0 {
                break;
            }
        }
        heard.into_iter().map(|(id, data)| (id, String::from_utf8_lossy(&data).into_owned())).collect()
    }
}

fn exec_over_spdy() {
    with_host(|mut host| async move {
        let id = sleeper(&mut host).await;
        let url = exec_url(&mut host, &id, "echo out; echo err >&2; cat; exit 3", false, true).await;
        let mut spdy = Spdy::connect(&url, "v4.channel.k8s.io").await;
        let error = spdy.open(&[("streamType", "error")]).await;
        let stdin = spdy.open(&[("streamType", "stdin")]).await;
        let stdout = spdy.open(&[("streamType", "stdout")]).await;
        let stderr = spdy.open(&[("streamType", "stderr")]).await;
        spdy.say(stdin, b"typed\n", false).await;
        spdy.say(stdin, b"", true).await;
        let heard = spdy.hear(&[error, stdout, stderr]).await;
        assert_eq!((heard[&stdout].as_str(), heard[&stderr].as_str()), ("out\ntyped\n", "err\n"));
        let status: serde_json::Value = serde_json::from_str(&heard[&error]).unwrap();
        assert_eq!(status["details"]["causes"][0]["message"], "3");
        host.finish().await;
    });
}

fn a_viewer_that_leaves_ends_the_command() {
    with_host(|mut host| async move {
        let id = sleeper(&mut host).await;
        let url = exec_url(&mut host, &id, "echo ready; sleep 777", false, true).await;
        let mut socket = websocket(&url, "v5.channel.k8s.io").await.unwrap();
        while !socket.next().await.unwrap().unwrap().into_data().ends_with(b"ready\n") {}
        drop(socket);
        for _ in 0..300 {
            if host.exec(&id, "grep -q 77[7] /proc/[0-9]*/cmdline").await.unwrap().2 != 0 {
                return host.finish().await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the command goes on");
    });
}

fn attach_shows_output_and_gives_input() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let mut config = shell("cat", "while read line; do echo \"got $line\"; done; echo end; exit 4");
        (config.stdin, config.stdin_once) = (true, true);
        let id = host.run(&pod, config).await;
        let request = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: true, tty: false };
        let url = host.cri.attach(request).await.unwrap().into_inner().url;
        let mut socket = websocket(&url, "v5.channel.k8s.io").await.unwrap();
        say(&mut socket, 0, b"one\n").await;
        say(&mut socket, 0, b"two\n").await;
        say(&mut socket, 255, &[0]).await;
        let heard = hear(&mut socket).await;
        assert_eq!(heard.text(1), "got one\ngot two\nend\n");
        assert_eq!(host.ended(&id).await.exit_code, 4);
        assert_eq!(host.log("cat"), "got one\ngot two\nend\n", "the log has it too");
        host.finish().await;
    });
}

fn input_that_stays_open_outlives_its_viewer() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let mut config = shell("cat", "cat; echo closed");
        config.stdin = true;
        let id = host.run(&pod, config).await;
        for line in ["one\n", "two\n"] {
            let request =
                AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: true, tty: false };
            let url = host.cri.attach(request).await.unwrap().into_inner().url;
            let mut socket = websocket(&url, "v5.channel.k8s.io").await.unwrap();
            say(&mut socket, 0, line.as_bytes()).await;
            say(&mut socket, 255, &[0]).await;
            assert_eq!(hear(&mut socket).await.text(1), line);
        }
        assert_eq!(host.status(&id).await.state(), ContainerState::ContainerRunning);
        assert_eq!(host.log("cat"), "one\ntwo\n");
        host.finish().await;
    });
}

fn attach_to_a_terminal() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let mut config = shell("tty", "stty -echo; while read line; do stty size; echo \"got $line\"; done");
        (config.stdin, config.tty) = (true, true);
        let id = host.run(&pod, config).await;
        let request = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: false, tty: true };
        let url = host.cri.attach(request).await.unwrap().into_inner().url;
        let mut socket = websocket(&url, "v5.channel.k8s.io").await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        say(&mut socket, 4, br#"{"Width":99,"Height":11}"#).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        say(&mut socket, 0, b"x\n").await;
        let mut text = String::new();
        while !text.contains("got x") {
            let message = tokio::time::timeout(Duration::from_secs(5), socket.next()).await.unwrap();
            text += &String::from_utf8_lossy(&message.unwrap().unwrap().into_data()[1..]);
        }
        assert!(text.contains("11 99"), "{text}");
        drop(socket);
        assert_eq!(host.status(&id).await.state(), ContainerState::ContainerRunning, "leaving changes nothing");
        host.finish().await;
    });
}

fn port_forward_over_spdy_and_websocket() {
    with_host(|mut host| async move {
        let pod = host.pod(|_| {}).await;
        let id = host.sh(&pod, "server", "while true; do nc -l -p 8080 -e sh -c 'read x; echo hello $x'; done").await;
        while host.exec(&id, "grep -q 1F90 /proc/net/tcp /proc/net/tcp6").await.unwrap().2 != 0 {}
        let forward = PortForwardRequest { pod_sandbox_id: pod.0.clone(), port: vec![] };
        let url = host.cri.port_forward(forward.clone()).await.unwrap().into_inner().url;
        let mut spdy = Spdy::connect(&url, "portforward.k8s.io").await;
        let error = spdy.open(&[("streamType", "error"), ("port", "8080"), ("requestID", "0")]).await;
        let data = spdy.open(&[("streamType", "data"), ("port", "8080"), ("requestID", "0")]).await;
        spdy.say(error, b"", true).await;
        spdy.say(data, b"spdy\n", false).await;
        let heard = spdy.hear(&[data]).await;
        assert_eq!(heard[&data], "hello spdy\n");
        let error = spdy.open(&[("streamType", "error"), ("port", "81"), ("requestID", "1")]).await;
        spdy.open(&[("streamType", "data"), ("port", "81"), ("requestID", "1")]).await;
        let heard = spdy.hear(&[error]).await;
        assert!(heard[&error].contains("refused"), "{heard:?}");

        // kubectl of today: the same frames inside WebSocket messages.
        while host.exec(&id, "grep -q 1F90 /proc/net/tcp /proc/net/tcp6").await.unwrap().2 != 0 {}
        let url = host.cri.port_forward(forward).await.unwrap().into_inner().url;
        let mut socket = websocket(&url, "SPDY/3.1+portforward.k8s.io").await.unwrap();
        let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
        let headers = |kind: &str| {
            [("streamtype", kind), ("port", "8080"), ("requestid", "0")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into()
        };
        encoder.encode(&Frame::SynStream { id: 1, headers: headers("error"), last: false }, &mut bytes);
        encoder.encode(&Frame::SynStream { id: 3, headers: headers("data"), last: false }, &mut bytes);
        encoder.encode(&Frame::Data { id: 3, data: Bytes::from_static(b"tunnel\n"), last: false }, &mut bytes);
        socket.send(Message::binary(bytes.to_vec())).await.unwrap();
        let (mut decoder, mut buffer, mut text) = (Decoder::default(), BytesMut::new(), String::new());
        while !text.ends_with('\n') {
            let message = tokio::time::timeout(Duration::from_secs(5), socket.next()).await.unwrap();
            buffer.extend_from_slice(&message.unwrap().unwrap().into_data());
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                if let Frame::Data { id: 3, data, .. } = frame {
                    text += &String::from_utf8_lossy(&data);
                }
            }
        }
        assert_eq!(text, "hello tunnel\n");
        host.finish().await;
    });
}

fn tokens_are_good_once() {
    with_host(|mut host| async move {
        let id = sleeper(&mut host).await;
        let url = exec_url(&mut host, &id, "true", false, false).await;
        hear(&mut websocket(&url, "v5.channel.k8s.io").await.unwrap()).await;
        assert!(websocket(&url, "v5.channel.k8s.io").await.unwrap_err().contains("404"));
        let url = exec_url(&mut host, &id, "true", false, false).await;
        assert!(websocket(&url, "v9.channel.k8s.io").await.is_err(), "a protocol that nobody knows");
        let both =
            ExecRequest { container_id: id, cmd: vec!["x".into()], tty: true, stderr: true, ..Default::default() };
        assert_eq!(host.cri.exec(both).await.unwrap_err().code(), tonic::Code::InvalidArgument);
        host.finish().await;
    });
}
