//! Watches and logs over WebSocket (RFC 6455), for browsers: each event or piece of the answer is a message. Exec,
//! attach and port-forward are the kubelet's own and pass through [`crate::proxy`]. I/O.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::body::Body;
use super::call::Call;

/// Subprotocols of logs.
const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

/// How an answer is cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// JSON events, one a line: text.
    Lines,
    /// Protobuf events, each after its length: binary.
    Lengths,
    /// As it comes: binary.
    Pieces,
    /// As it comes, in base64: text.
    Base64,
}

/// The answer as messages, when it is a watch or a log and the client asked for WebSocket.
pub fn upgrade(call: &Call, mut response: Response<Body>) -> Response<Body> {
    let log = call.info.subresource == "log";
    let streams = log || call.info.verb == "watch";
    let key = call.header(header::SEC_WEBSOCKET_KEY);
    let wanted = call.header(header::UPGRADE).eq_ignore_ascii_case("websocket") && !key.is_empty();
    if !streams || !wanted || response.status() != StatusCode::OK {
        return response;
    }
    let Some(client) = call.upgrade.lock().take() else { return response };
    let protocol = protocol(call.header(header::SEC_WEBSOCKET_PROTOCOL));
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let cut = match (log, protocol) {
        (true, Some(BASE64)) => Cut::Base64,
        (true, _) => Cut::Pieces,
        (false, _) if kind.contains("protobuf") => Cut::Lengths,
        (false, _) => Cut::Lines,
    };
    let body = std::mem::take(response.body_mut());
    tokio::spawn(async move {
        match client.await {
            Ok(stream) => {
                send(WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None).await, body, cut).await
            }
            Err(error) => tracing::debug!(%error, "an upgrade failed"),
        }
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    for gone in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        headers.remove(gone);
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let values = [
        (header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes())),
        (header::SEC_WEBSOCKET_PROTOCOL, protocol.unwrap_or_default().to_owned()),
    ];
    for (name, value) in values.into_iter().filter(|(_, value)| !value.is_empty()) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

/// The first subprotocol of the client's that is known.
fn protocol(offered: &str) -> Option<&'static str> {
    offered.split(',').find_map(|one| [BINARY, BASE64].into_iter().find(|known| *known == one.trim()))
}

async fn send<S>(mut socket: WebSocketStream<S>, mut body: Body, cut: Cut)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut rest = BytesMut::new();
    loop {
        tokio::select! {
            frame = body.frame() => {
                let Some(Ok(frame)) = frame else { break };
                let Ok(data) = frame.into_data() else { continue };
                rest.extend_from_slice(&data);
                for message in messages(&mut rest, cut) {
                    if socket.feed(message).await.is_err() {
                        return;
                    }
                }
                if socket.flush().await.is_err() {
                    return;
                }
            }
            // What the client says has no meaning here, but reading it answers pings and sees the end.
            heard = socket.next() => match heard {
                Some(Ok(message)) if !message.is_close() => {}
                _ => return,
            },
        }
    }
    let _ = socket.close(None).await;
}

/// Takes the messages that are complete.
fn messages(rest: &mut BytesMut, cut: Cut) -> Vec<Message> {
    let mut out = Vec::new();
    loop {
        let message = match cut {
            Cut::Pieces if !rest.is_empty() => Message::Binary(rest.split().freeze()),
            Cut::Base64 if !rest.is_empty() => Message::text(BASE64_STANDARD.encode(rest.split())),
            Cut::Pieces | Cut::Base64 => return out,
            Cut::Lines => {
                let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return out };
                text(rest.split_to(end + 1).freeze())
            }
            Cut::Lengths => {
                let Some(length) = rest.first_chunk().map(|bytes| u32::from_be_bytes(*bytes) as usize) else {
                    return out;
                };
                if rest.len() < 4 + length {
                    return out;
                }
                rest.advance(4);
                Message::Binary(rest.split_to(length).freeze())
            }
        };
        out.push(message);
    }
}

fn text(line: Bytes) -> Message {
    match Utf8Bytes::try_from(line.clone()) {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_cut_into_events_or_pieces() {
        let cut = |data: &[u8], cut| {
            let mut rest = BytesMut::from(data);
            let all: Vec<Vec<u8>> = messages(&mut rest, cut).into_iter().map(|m| m.into_data().to_vec()).collect();
            (all, rest.to_vec())
        };
        let of = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(cut(b"{a}\n{b}\n{c", Cut::Lines), (of(&["{a}\n", "{b}\n"]), b"{c".to_vec()));
        assert_eq!(cut(b"\0\0\0\x02ab\0\0\0\x01c\0\0", Cut::Lengths), (of(&["ab", "c"]), b"\0\0".to_vec()));
        assert_eq!(cut(b"one\ntwo", Cut::Pieces), (of(&["one\ntwo"]), Vec::new()));
        assert_eq!(cut(b"hi", Cut::Base64), (of(&["aGk="]), Vec::new()));
        assert_eq!(protocol("v4.channel.k8s.io, base64.binary.k8s.io"), Some(BASE64));
    }
}
