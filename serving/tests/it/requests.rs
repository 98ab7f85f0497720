//! Odd requests, answered as Go's server does.

use serving::Http;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::start;

#[tokio::test]
async fn a_request_without_one_host_is_a_bad_request() {
    let server = start(8, Http::default()).await;
    for (hosts, why) in [
        ("", "missing required Host header"),
        ("Host: a\r\nHost: b\r\n", "too many Host headers"),
        ("Host: a b\r\n", "malformed Host header"),
    ] {
        let answer = server.talk(&format!("GET / HTTP/1.1\r\n{hosts}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n400 Bad Request: {why}")), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    assert!(server.talk("GET /old HTTP/1.0\r\n\r\n").await.ends_with("/old"));
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let server = start(8, Http::default()).await;
    let answer = server.talk("HEAD /four HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("content-length: 5\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

/// One HEADERS frame that ends its stream, with literal fields.
fn headers(stream: u8, authority: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", authority)] {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    let mut frame = vec![0, 0, block.len() as u8, 1, 5, 0, 0, 0, stream];
    frame.append(&mut block);
    frame
}

#[tokio::test]
async fn a_request_is_answered_whatever_its_authority_is() {
    let server = start(8, Http::default()).await;
    let authorities =
        ["a b", "@@:99999999", "[::", "", "\u{e9}", "http://127.0.0.1:2379", "%2Frun%2Fx.sock", "/x", "a"];
    let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for (at, authority) in authorities.iter().enumerate() {
        said.extend(headers(at as u8 * 2 + 1, authority));
    }
    // Whole, and in pieces that end anywhere.
    for step in [said.len(), 10] {
        let mut stream = server.connect().await;
        stream.set_nodelay(true).unwrap();
        let mut answered = std::collections::BTreeSet::new();
        let (mut reader, mut writer) = stream.split();
        let asking = async {
            for piece in said.chunks(step) {
                writer.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let hearing = async {
            while answered.len() < authorities.len() {
                let mut head = [0; 9];
                reader.read_exact(&mut head).await.unwrap();
                let mut rest = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
                reader.read_exact(&mut rest).await.unwrap();
                assert!(
                    head[3] != 7 && head[3] != 3,
                    "neither the connection nor a stream is ended: {head:?} {rest:?}"
                );
                if head[3] == 0 && !rest.is_empty() {
                    assert_eq!(rest, b"/x");
                    answered.insert(head[8]);
                }
            }
        };
        let both = async { tokio::join!(asking, hearing) };
        tokio::time::timeout(std::time::Duration::from_secs(2), both).await.expect("answers");
    }
}
