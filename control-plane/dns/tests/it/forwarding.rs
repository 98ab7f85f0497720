//! Names outside the cluster: upstreams, cache, failures, circles.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record};

use crate::serving::Server;
use crate::world::{question, told};

/// How a fake upstream behaves.
#[derive(Clone, Copy)]
pub enum Manner {
    /// Answers each A with 192.0.2.1.
    Answers,
    /// Says that nothing is there.
    Denies,
    Fails,
    Silent,
    /// Says by UDP that the answer is long, and gives it by TCP.
    Long,
}

pub struct Upstream {
    pub address: SocketAddr,
    pub asked: Arc<AtomicUsize>,
}

fn reply(message: &Message, manner: Manner, tcp: bool) -> Option<Vec<u8>> {
    let mut reply = Message::new(message.metadata.id, MessageType::Response, message.metadata.op_code);
    reply.metadata.recursion_available = true;
    reply.add_queries(message.queries.clone());
    let name = message.queries[0].name().clone();
    let count = if tcp { 60 } else { 1 };
    match manner {
        Manner::Silent => return None,
        Manner::Fails => reply.metadata.response_code = ResponseCode::ServFail,
        Manner::Long if !tcp => reply.metadata.truncation = true,
        Manner::Answers | Manner::Long => {
            for i in 0..count {
                reply.add_answer(Record::from_rdata(name.clone(), 300, RData::A(A::new(192, 0, 2, i + 1))));
            }
        }
        Manner::Denies => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            let zone = Name::from_ascii("example.").unwrap();
            let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, 60);
            reply.add_authority(Record::from_rdata(zone, 300, RData::SOA(soa)));
        }
    }
    Some(reply.to_vec().unwrap())
}

pub fn upstream(manner: Manner) -> Upstream {
    use std::io::{Read, Write};
    let socket = UdpSocket::bind("127.0.0.3:0").unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((read, peer)) = socket.recv_from(&mut buffer) {
            count.fetch_add(1, Ordering::SeqCst);
            if let Some(reply) = reply(&Message::from_vec(&buffer[..read]).unwrap(), manner, false) {
                socket.send_to(&reply, peer).unwrap();
            }
        }
    });
    if let Manner::Long = manner {
        let listener = std::net::TcpListener::bind(address).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut len = [0; 2];
                stream.read_exact(&mut len).unwrap();
                let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
                stream.read_exact(&mut message).unwrap();
                let reply = reply(&Message::from_vec(&message).unwrap(), manner, true).unwrap();
                stream.write_all(&(reply.len() as u16).to_be_bytes()).unwrap();
                stream.write_all(&reply).unwrap();
            }
        });
    }
    Upstream { address, asked }
}

#[test]
fn answers_and_denials_come_from_upstream_once_and_then_from_the_cache() {
    let (good, bad) = (upstream(Manner::Answers), upstream(Manner::Denies));
    let server = Server::start(&[good.address]);
    for _ in 0..3 {
        let (code, answers, ..) = told(&server.udp(&question("Example.org.", "A")));
        assert_eq!((code.as_str(), answers), ("No Error", vec!["Example.org. A 192.0.2.1".to_owned()]));
    }
    assert_eq!(told(&server.tcp(&question("example.org.", "A"))).1.len(), 1);
    assert_eq!(good.asked.load(Ordering::SeqCst), 1);
    let server = Server::start(&[bad.address]);
    for _ in 0..3 {
        let (code, _, authority, _) = told(&server.udp(&question("no.example.", "A")));
        assert_eq!((code.as_str(), authority.len()), ("Non-Existent Domain", 1));
    }
    assert_eq!(bad.asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_silent_or_failing_upstream_costs_little() {
    let (silent, failing, good) = (upstream(Manner::Silent), upstream(Manner::Fails), upstream(Manner::Answers));
    let server = Server::start(&[silent.address, failing.address, good.address]);
    let start = Instant::now();
    assert_eq!(told(&server.udp(&question("one.example.", "A"))).0, "No Error");
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(told(&server.udp(&question("two.example.", "A"))).0, "No Error");
    assert_eq!(silent.asked.load(Ordering::SeqCst), 1, "who answered last is asked first");
    let server = Server::start(&[failing.address]);
    assert_eq!(told(&server.udp(&question("three.example.", "A"))).0, "Server Failure");
}

#[test]
fn equal_questions_at_once_are_one_upstream() {
    let slow = upstream(Manner::Silent);
    let server = Server::start(&[slow.address]);
    let asked: Vec<_> = (0..20).map(|_| server.send(&question("same.example.", "A"))).collect();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(slow.asked.load(Ordering::SeqCst), 1);
    drop(asked);
}

#[test]
fn long_answers_are_fetched_by_tcp() {
    let long = upstream(Manner::Long);
    let server = Server::start(&[long.address]);
    assert_eq!(told(&server.tcp(&question("long.example.", "A"))).1.len(), 60);
    let by_udp = Message::from_vec(&server.udp(&question("long.example.", "A"))).unwrap();
    assert!(by_udp.metadata.truncation, "the client asks again by TCP");
}

#[test]
fn a_resolver_that_points_at_this_server_makes_no_circle() {
    let server = Server::pointing_at_itself();
    let start = Instant::now();
    assert_eq!(told(&server.udp(&question("example.org.", "A"))).0, "Server Failure");
    assert!(start.elapsed() < Duration::from_secs(1));
    // Round a corner it can't be seen: the question meets itself and ends there.
    let middle = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = Server::start(&[middle.local_addr().unwrap()]);
    let (to, count) = (server.address, Arc::new(AtomicUsize::new(0)));
    let seen = count.clone();
    std::thread::spawn(move || {
        let back = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut buffer = [0; 1500];
        while let Ok((read, _)) = middle.recv_from(&mut buffer) {
            seen.fetch_add(1, Ordering::SeqCst);
            back.send_to(&buffer[..read], to).unwrap();
        }
    });
    let client = server.send(&question("circle.example.", "A"));
    client.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
    let mut buffer = [0; 1500];
    let read = client.recv(&mut buffer).unwrap();
    assert_eq!(told(&buffer[..read]).0, "Server Failure");
    assert!(count.load(Ordering::SeqCst) <= 5, "{count:?} questions went round");
}

#[test]
fn an_alias_to_the_outside_is_followed() {
    let good = upstream(Manner::Answers);
    let server = Server::start(&[good.address]);
    server.put_external_name("out", "Example.org");
    let asked = question("out.default.svc.cluster.local.", "A");
    let (code, answers, ..) = server.eventually(&asked, |(code, ..)| code == "No Error");
    assert_eq!(code, "No Error");
    let name = "out.default.svc.cluster.local.";
    // The upstream is asked in small letters, and that is what it tells.
    assert_eq!(answers, ["example.org. A 192.0.2.1".to_owned(), format!("{name} CNAME Example.org.")]);
}
