//! What is left of a session elsewhere: dumps, and routes that come from the kernel.

use bgpd::kernel::{Event, Learned, LearnedHop};
use linux::netlink::RouteKind;

use crate::world::*;

#[tokio::test]
async fn dumps_have_messages_states_and_the_table() {
    let folder = tempfile::tempdir().expect("a folder");
    let (updates, table) = (folder.path().join("updates"), folder.path().join("table"));
    // What somebody has put beside the table is not written through.
    let elsewhere = folder.path().join("elsewhere");
    std::fs::write(&elsewhere, "mine").expect("written");
    std::os::unix::fs::symlink(&elsewhere, folder.path().join("table.new")).expect("a link");
    let rest = format!(
        "mrt: {{updates: {}, table: {}, table-interval: 1s}}\nneighbors:\n{}",
        updates.display(),
        table.display(),
        neighbor(40, 1, 2, "remote-as: 65001, passive: true, import: accept")
    );
    let one = Speaker::start(40, 1, 64512, &rest);
    let mut peer = Scripted::connect(40, 2, 1).await;
    peer.establish(&open(65001, 90, &[])).await;
    peer.announce(host(40, 2), &[65001], &[prefix("10.0.0.0/24")]).await;
    one.until_route("10.0.0.0/24", |best| best.is_some()).await;
    let end = tokio::time::Instant::now() + PATIENCE;
    let records = |path: &std::path::Path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        let mut rest = &bytes[..];
        let mut found = Vec::new();
        while rest.len() >= 12 {
            let word = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
            let length = u32::from_be_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
            found.push((word(4), word(6)));
            rest = &rest[12 + length..];
        }
        found
    };
    loop {
        let (messages, table) = (records(&updates), records(&table));
        // OPEN, KEEPALIVE and UPDATE; changes of state among them; a table with its neighbours first.
        let said = messages.iter().filter(|kind| **kind == (16, 4)).count();
        if said == 3 && messages.contains(&(16, 5)) && table == [(13, 1), (13, 2)] {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "{messages:?} {table:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(std::fs::read_to_string(&elsewhere).expect("there"), "mine");
    // Somebody puts the file elsewhere and has the configuration read again: another begins, and the old one ends.
    let (old, before) = (folder.path().join("updates.1"), records(&updates).len());
    std::fs::rename(&updates, &old).expect("renamed");
    one.configure(64512, &rest).await.expect("taken");
    peer.announce(host(40, 2), &[65001], &[prefix("10.0.1.0/24")]).await;
    let end = tokio::time::Instant::now() + PATIENCE;
    while records(&updates) != [(16, 4)] {
        assert!(tokio::time::Instant::now() < end, "{:?}", records(&updates));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(records(&old).len(), before);
    one.end().await;
}

#[tokio::test]
async fn routes_of_the_kernel_are_told_by_filter_and_go_with_them() {
    let filters = "filters:
  - {name: no-veth, rules: [{match: {interfaces: ['veth*']}, action: reject}], default: accept}
kernel:
  direct: {interfaces: ['eth*']}
  learn: {protocols: [static], import: no-veth}
";
    let one = Speaker::start(41, 1, 64512, &format!("{filters}neighbors:\n{}", neighbor(41, 1, 2, "remote-as: 64512")));
    let two = Speaker::start(41, 2, 64512, &format!("neighbors:\n{}", neighbor(41, 2, 1, "remote-as: 64512")));
    one.up(2).await;
    let learned = |protocol: u8, link: &str| {
        let hops = vec![LearnedHop { gateway: None, link: link.into() }];
        Some(Learned { protocol, metric: 0, kind: RouteKind::Unicast, hops })
    };
    for news in [
        Event::Direct(prefix("10.1.0.0/24"), vec!["eth0".into()]),
        Event::Direct(prefix("10.2.0.0/24"), vec!["docker0".into()]),
        Event::Learned(prefix("10.3.0.0/24"), learned(4, "eth0")),
        Event::Learned(prefix("10.4.0.0/24"), learned(4, "veth7")),
        Event::Learned(prefix("10.5.0.0/24"), learned(16, "eth0")),
    ] {
        one.news.send(news).await.expect("heard");
    }
    two.until_route("10.1.0.0/24", |best| best.is_some()).await;
    two.until_route("10.3.0.0/24", |best| best.is_some_and(|best| best.attributes.origin == "incomplete")).await;
    for other in ["10.2.0.0/24", "10.4.0.0/24", "10.5.0.0/24"] {
        assert_eq!(two.route(other).await, None, "{other}");
    }
    let here = one.route("10.3.0.0/24").await.expect("a route");
    assert_eq!((here.paths[0].source.as_str(), here.paths[0].interface.as_deref()), ("kernel", Some("eth0")));
    one.until_wish("10.3.0.0/24", |wish| wish.is_none()).await;
    one.news.send(Event::Learned(prefix("10.3.0.0/24"), None)).await.expect("heard");
    one.news.send(Event::Direct(prefix("10.1.0.0/24"), Vec::new())).await.expect("heard");
    two.until_route("10.3.0.0/24", |best| best.is_none()).await;
    two.until_route("10.1.0.0/24", |best| best.is_none()).await;
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn without_a_way_to_its_next_hop_a_route_is_told_nobody() {
    let one =
        Speaker::start(42, 1, 64512, &format!("neighbors:\n{}", neighbor(42, 1, 2, "remote-as: 64512, passive: true")));
    let mut peer = Scripted::connect(42, 2, 1).await;
    peer.establish(&open(64512, 90, &[])).await;
    peer.announce(host(42, 77), &[], &[prefix("10.0.0.0/24")]).await;
    one.until_wish("10.0.0.0/24", |wish| wish.is_some()).await;
    one.news.send(Event::NextHop(host(42, 77).into(), None)).await.expect("heard");
    one.until_wish("10.0.0.0/24", |wish| wish.is_none()).await;
    let why = one.route("10.0.0.0/24").await.expect("known").paths[0].why.clone();
    assert_eq!(why, "refused: no way to the next hop");
    one.end().await;
}

#[tokio::test]
async fn a_neighbour_whom_bfd_loses_is_lost_at_once() {
    use bgp::bfd::{Action, Bfd, Config, Packet};
    use std::net::SocketAddr;
    let more = "remote-as: 65001, passive: true, bfd: {interval: 200ms, multiplier: 25}";
    let one = Speaker::start(43, 1, 64512, &format!("neighbors:\n{}", neighbor(43, 1, 2, more)));
    let mut peer = Scripted::connect(43, 2, 1).await;
    peer.establish(&open(65001, 90, &[])).await;
    one.up(2).await;
    let socket = linux::hops::bind(SocketAddr::new(host(43, 2).into(), 3784), None).expect("bound");
    let socket = tokio::net::UdpSocket::from_std(socket).expect("a socket");
    let (began, interval) = (std::time::Instant::now(), std::time::Duration::from_millis(200));
    let pace = Config { desired_min_tx: interval, required_min_rx: interval, ..Config::default() };
    // Where the machine is busy, packets come seconds late.
    let config = Config { detect_multiplier: 25, ..pace };
    let mut bfd = Bfd::new(config, 7, began.elapsed());
    let to = SocketAddr::new(host(43, 1).into(), 3784);
    let mut up_at = None;
    // Both watch each other for a while.
    while up_at.is_none_or(|at| began.elapsed() < at + interval * 8) {
        assert!(began.elapsed() < PATIENCE);
        let mut bytes = [0; 64];
        let wait = bfd.due().unwrap_or_default().saturating_sub(began.elapsed());
        let actions = match tokio::time::timeout(wait, socket.recv(&mut bytes)).await {
            Ok(length) => {
                let packet = Packet::read(&bytes[..length.expect("received")]).expect("a packet");
                bfd.received(&packet, began.elapsed())
            }
            Err(_) => bfd.time(began.elapsed()),
        };
        for action in actions {
            match action {
                Action::Send(packet) => {
                    socket.send_to(&packet.write(), to).await.expect("sent");
                }
                Action::Up => up_at = Some(began.elapsed()),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((one.neighbor(2).await.bfd.as_deref(), one.neighbor(2).await.sessions), (Some("Up"), 1));
    // Packets from further away are nobody's: the session does not hear of them.
    let far = std::net::UdpSocket::bind(SocketAddr::new(host(43, 2).into(), 50_000)).expect("bound");
    let deaf = async {
        loop {
            let down = Packet { state: bgp::bfd::State::Up, ..Packet::read(&last(7)).expect("sound") };
            far.send_to(&down.write(), to).expect("sent");
            tokio::time::sleep(interval / 2).await;
        }
    };
    tokio::select! {
        () = deaf => {}
        down = one.until(2, "the end", |n| n.state != "Established") => {
            // Long before the hold time of 90 s.
            assert!(down.last_error.as_deref().is_some_and(|why| why.contains("BFD down")), "{down:?}");
        }
    }
    assert_eq!(peer.notification().await.inner().subcode, bgp::message::notification::cease::BFD_DOWN);
    one.end().await;
}

/// A packet as the neighbour sends it.
fn last(name: u32) -> [u8; 24] {
    bgp::bfd::Packet {
        diagnostic: 0,
        state: bgp::bfd::State::Up,
        poll: false,
        is_final: false,
        demand: false,
        detect_multiplier: 3,
        my_discriminator: name,
        your_discriminator: 1,
        desired_min_tx: 200_000,
        required_min_rx: 200_000,
    }
    .write()
}

#[tokio::test]
async fn without_the_kernels_side_it_ends_and_routes_stay() {
    let one = Speaker::start(44, 1, 64512, "networks: [{prefix: 10.0.0.0/24, kernel: blackhole}]\n");
    one.until_wish("10.0.0.0/24", |wish| wish.is_some()).await;
    let told = one.lose_kernel().await;
    assert!(told.contains("their thread has ended"), "{told}");
}

/// His link comes after the configuration, and comes back under another number: packets of BFD go where it is.
#[tokio::test]
async fn a_neighbour_whose_link_comes_later_is_watched_then() {
    use linux::netlink::{NewVeth, Rtnl};
    let more = "remote-as: 65001, passive: true, interface: late0, bfd: {}";
    let rest = format!("neighbors: [{{address: 'fe80::2', port: {PORT}, {more}}}]");
    let one = Speaker::start(45, 1, 64512, &rest);
    let watched = async || one.neighbors().await[0].bfd.clone();
    assert_eq!(watched().await, None, "there is no such link");
    let mut rtnl = Rtnl::open().expect("netlink");
    let veth = NewVeth {
        name: "late0",
        mac: None,
        master: None,
        mtu: 1500,
        peer_name: "late1",
        peer_mac: None,
        peer_ns: None,
    };
    rtnl.add_veth(&veth).expect("a link");
    let index = rtnl.link("late0").expect("links").expect("it").index;
    one.news.send(Event::Link { name: "late0".into(), index, up: true }).await.expect("heard");
    let end = tokio::time::Instant::now() + PATIENCE;
    while watched().await.as_deref() != Some("Down") {
        assert!(tokio::time::Instant::now() < end, "he is not watched");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    one.end().await;
}
