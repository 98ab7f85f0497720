//! Segments signed by TCP-AO (RFC 5925). None of the others can: ours speaks to ours, and what is on the wire is looked at.
//! Where the kernel has it not, what is said of that is all that is tried.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bgpd::control::Command as Question;
use bgpd::control::view::NeighborView;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType};
use serde_json::{Value, json};

use crate::lab::{Host, Lab, eventually, v4};
use crate::ours::{Ours, configuration};
use crate::speaker::{Conf, Peer, Speaker, own4};

const PORT: u16 = 179;
/// `ETH_P_ALL`.
const ALL: u32 = 3;
/// The option of a segment, and the number of its key behind its length.
const TCP_AO: u8 = 29;

fn key(number: u8, algorithm: &str, secret: &str) -> Value {
    json!({"send-id": number, "receive-id": number, "algorithm": algorithm, "key": secret})
}

fn first() -> Value {
    key(1, "hmac-sha-1-96", "one")
}

fn second() -> Value {
    key(2, "aes-128-cmac-96", "two")
}

fn conf(host: &Host, other: u8, keys: &[Value]) -> Value {
    let number = |n: u8| 64500 + u32::from(n);
    let peer = Peer { hold: 6, ..Peer::new(other, number(other)) };
    let mut all = configuration(host, &Conf::new(number(host.n), vec![peer]).own(host.n));
    all["neighbors"][0]["tcp-ao"] = json!(keys);
    all
}

fn him(ours: &Ours) -> Result<NeighborView> {
    ours.neighbors()?.pop().context("a neighbour")
}

/// Whether this kernel has TCP-AO. If not, there is no session, and it is said why.
fn has_tcp_ao(one: &Ours) -> bool {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let key =
        linux::tcp_ao::Key { send_id: 1, receive_id: 1, algorithm: linux::tcp_ao::Algorithm::HmacSha1, secret: b"one" };
    match linux::tcp_ao::add(&socket, v4(2), 32, &key, false) {
        Ok(()) => return true,
        Err(error) => assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NOPROTOOPT.raw_os_error())),
    }
    println!("skipped: this kernel has no TCP-AO (CONFIG_TCP_AO)");
    eventually("it is said what is lacking", || {
        let view = him(one)?;
        let why = view.last_error.unwrap_or_default();
        let said = "tcp-ao: key 1: this kernel has no TCP-AO (Linux 6.7, CONFIG_TCP_AO)";
        ensure!(view.state != "Established" && why.contains(said), "{} {why}", view.state);
        Ok(())
    });
    false
}

/// What comes and goes by a host's links.
fn wire(host: &Host) -> OwnedFd {
    let all = Protocol::from_raw(std::num::NonZeroU32::new(u32::from((ALL as u16).to_be())).unwrap());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    host.ns
        .run(|| rustix::net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, Some(all)))
        .unwrap()
        .unwrap()
}

/// Of each segment of a session since the last look: the number of the key by which it is signed.
fn keys(wire: impl AsFd) -> Vec<Option<u8>> {
    let mut all = Vec::new();
    let mut packet = [0; 2048];
    while let Ok((length, _)) = rustix::net::recv(&wire, &mut packet[..], RecvFlags::empty()) {
        all.extend(segment(&packet[..length]).map(key_of));
    }
    all
}

/// The header of a segment of TCP from or to BGP's port, where a packet is one of IPv4 with that.
fn segment(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let tcp = packet.get(usize::from(first & 15) * 4..).filter(|_| first >> 4 == 4 && packet.get(9) == Some(&6))?;
    let port = |at: usize| Some(u16::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
    (port(0)? == PORT || port(2)? == PORT).then_some(())?;
    tcp.get(..usize::from(tcp.get(12)? >> 4) * 4)
}

fn key_of(segment: &[u8]) -> Option<u8> {
    let mut options = segment.get(20..)?;
    loop {
        match *options {
            [1, ..] => options = &options[1..],
            [TCP_AO, _, key, ..] => return Some(key),
            [kind, length, ..] if kind != 0 && length > 1 => options = options.get(usize::from(length)..)?,
            _ => return None,
        }
    }
}

#[test]
fn every_segment_is_signed_and_keys_change_while_the_session_goes_on() {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let wire = wire(&one);
    let ours = Ours::with(&one, &conf(&one, 2, &[first()]), false);
    if !has_tcp_ao(&ours) {
        return;
    }
    let theirs = Ours::with(&two, &conf(&two, 1, &[first()]), false);
    let up = |session: u64| {
        eventually("a session", || {
            for speaker in [&ours, &theirs] {
                let view = him(speaker)?;
                ensure!(view.state == "Established" && view.sessions == session, "{view:?}");
            }
            Ok(())
        });
    };
    up(1);
    theirs.learns(&[&own4(1)]);
    let before = keys(&wire);
    assert!(before.len() > 5 && before.iter().all(|key| *key == Some(1)), "{before:?}");
    // Whoever signs nothing is not even answered.
    let to = SocketAddr::new(v4(1), PORT);
    let unsigned = two.ns.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(2))).unwrap();
    assert!(unsigned.is_err(), "an unsigned connection was taken");
    keys(&wire);
    // Both get the other key, and prefer it, one after the other; then the first goes.
    let step = |speaker: &Ours, host: &Host, keys: &[Value]| {
        speaker.configure(&conf(host, 3 - host.n, keys));
        speaker.ask(&Question::Reload).unwrap();
    };
    step(&ours, &one, &[first(), second()]);
    step(&theirs, &two, &[second(), first()]);
    step(&ours, &one, &[second(), first()]);
    eventually("all is signed by the other key", || {
        std::thread::sleep(Duration::from_secs(2));
        let now = keys(&wire);
        ensure!(!now.is_empty() && now.iter().all(|key| *key == Some(2)), "{now:?}");
        Ok(())
    });
    step(&theirs, &two, &[second()]);
    step(&ours, &one, &[second()]);
    std::thread::sleep(Duration::from_secs(7));
    let now = keys(&wire);
    assert!(!now.is_empty() && now.iter().all(|key| *key == Some(2)), "{now:?}");
    up(1);
    // A new connection begins with it.
    drop(theirs);
    let theirs = Ours::with(&two, &conf(&two, 1, &[second()]), false);
    eventually("another session", || {
        let view = him(&theirs)?;
        ensure!(view.state == "Established", "{view:?}");
        Ok(())
    });
}

/// Who is let in by a range signs by the range's keys, and by those that it has later.
#[test]
fn keys_of_a_range_change_while_a_session_goes_on() {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let ranged = |keys: &[Value]| {
        let mut all = conf(&one, 2, keys);
        let mut range = all["neighbors"][0].take();
        for field in ["address", "source-address", "connect-retry-time", "passive"] {
            range.as_object_mut().unwrap().remove(field);
        }
        range["prefix"] = json!("10.0.0.0/24");
        (all["neighbors"], all["dynamic"]) = (json!([]), json!([range]));
        all
    };
    let wire = wire(&one);
    let theirs = Ours::with(&two, &conf(&two, 1, &[first()]), false);
    if !has_tcp_ao(&theirs) {
        return;
    }
    let ours = Ours::with(&one, &ranged(&[first()]), false);
    let up = || {
        eventually("a session", || {
            let view = him(&theirs)?;
            ensure!(view.state == "Established" && view.sessions == 1, "{view:?}");
            Ok(())
        });
    };
    up();
    ours.configure(&ranged(&[second(), first()]));
    ours.ask(&Question::Reload).unwrap();
    theirs.configure(&conf(&two, 1, &[second(), first()]));
    theirs.ask(&Question::Reload).unwrap();
    eventually("all is signed by the other key", || {
        std::thread::sleep(Duration::from_secs(2));
        let now = keys(&wire);
        ensure!(!now.is_empty() && now.iter().all(|key| *key == Some(2)), "{now:?}");
        Ok(())
    });
    ours.configure(&ranged(&[second()]));
    ours.ask(&Question::Reload).unwrap();
    std::thread::sleep(Duration::from_secs(7));
    up();
    let log = ours.log();
    assert!(!log.contains("cannot change"), "{log}");
}

#[test]
fn another_key_is_no_session() {
    let lab = Lab::new();
    let (one, two) = (lab.host(1), lab.host(2));
    let ours = Ours::with(&one, &conf(&one, 2, &[first()]), false);
    if !has_tcp_ao(&ours) {
        return;
    }
    let _theirs = Ours::with(&two, &conf(&two, 1, &[key(1, "hmac-sha-1-96", "other")]), false);
    eventually("it is said what that may be", || {
        let view = him(&ours)?;
        let why = view.last_error.unwrap_or_default();
        ensure!(view.state != "Established" && why.contains("another key"), "{} {why}", view.state);
        Ok(())
    });
}
