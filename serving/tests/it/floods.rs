//! Connections that say nothing, or half of it, keep nobody out.

use std::time::{Duration, Instant};

use serving::Http;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{SHORT, closes_within, start};

#[tokio::test]
async fn silent_connections_keep_no_honest_client_out() {
    let server = start(16, Http::default()).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(server.connect().await);
    }
    for _ in 0..20 {
        let began = Instant::now();
        assert!(server.get("/hello").await.ends_with("/hello"));
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        silent.push(server.connect().await);
    }
    assert!(server.connections.count() <= 16);
    assert!(closes_within(&mut silent[0], Duration::from_secs(1)).await, "the oldest gave way");
}

#[tokio::test]
async fn half_sent_requests_give_way_and_running_ones_stay() {
    let server = start(8, Http::default()).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut half = Vec::new();
    for _ in 0..40 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").await.unwrap();
        half.push(stream);
    }
    assert!(server.get("/hello").await.ends_with("/hello"));
    assert!(!closes_within(&mut slow, Duration::from_millis(200)).await);
}

#[tokio::test]
async fn a_known_peer_keeps_its_idle_connection_through_a_flood_of_strangers() {
    let server = start(8, Http::default()).await;
    let mut friend = server.connect().await;
    let mut once = async |path: &str| {
        friend.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut buffer = vec![0; 1024];
        let length = tokio::time::timeout(Duration::from_secs(1), friend.read(&mut buffer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert!(once("/login").await.ends_with("welcome"));
    let mut flood = Vec::new();
    for _ in 0..50 {
        flood.push(server.connect().await);
        assert!(server.get("/x").await.ends_with("/x"));
    }
    assert!(once("/again").await.ends_with("/again"));
}

#[tokio::test]
async fn every_wait_for_a_client_ends() {
    let server = start(64, Http { deadlines: SHORT, ..Http::default() }).await;
    for (what, bytes) in [
        ("silent", ""),
        ("half a head", "GET / HTTP/1.1\r\nHost: a\r\nX: "),
        ("half a preface", "PRI * HTTP/2.0\r\n"),
        ("a preface alone", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        ("idle after an answer", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("half a second head", "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT"),
    ] {
        let mut stream = server.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        assert!(closes_within(&mut stream, Duration::from_secs(4)).await, "{what}");
    }
    let slow = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nConnection: close\r\n\r\n123";
    assert!(server.talk(slow).await.ends_with("the client sent nothing of the body for too long"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.connections.count(), 0, "every place is free again");
}

#[tokio::test]
async fn a_body_that_comes_slowly_and_steadily_is_read() {
    let server = start(64, Http { deadlines: SHORT, ..Http::default() }).await;
    let mut stream = server.connect().await;
    let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
    stream.write_all(head).await.unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        stream.write_all(b"x").await.unwrap();
    }
    assert!(super::said(&mut stream).await.ends_with("5 bytes"));
}
