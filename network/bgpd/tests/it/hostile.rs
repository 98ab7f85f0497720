//! Peers who cost only themselves: one who does not read, many who say nothing, one who talks rubbish.

use bgp::message::Kind;
use bgp::message::notification::code;
use meta::Prefix;

use crate::world::*;

fn prefixes(count: u32) -> Vec<Prefix> {
    (0..count).map(|n| Prefix::new(std::net::Ipv4Addr::from(0x0a00_0000 | n << 4), 28)).collect()
}

#[tokio::test]
async fn a_slow_reader_costs_only_itself() {
    let usual =
        "remote-as: external, passive: true, import: accept, export: accept, prefix-limits: {ipv4: {most: unlimited}}";
    let slow = format!("{usual}, send-hold-time: 2s");
    let rest =
        format!("neighbors:\n{}{}{}", neighbor(30, 1, 2, usual), neighbor(30, 1, 3, usual), neighbor(30, 1, 4, &slow));
    let one = Speaker::start(30, 1, 64512, &rest);
    let (mut from, mut to, mut deaf) =
        (Scripted::connect(30, 2, 1).await, Scripted::connect(30, 3, 1).await, Scripted::connect(30, 4, 1).await);
    from.establish(&open(65002, 0, &[])).await;
    to.establish(&open(65003, 0, &[])).await;
    deaf.establish(&open(65004, 0, &[])).await;
    one.up(4).await;
    // Far more than the kernel's buffers hold: every route has a long path of its own.
    let all = prefixes(15_000);
    let sends = async {
        let mut path: Vec<u32> = (0..240).map(|n| 70_000 + n).collect();
        for (n, some) in all.chunks(1).enumerate() {
            (path[0], path[1]) = (65002, 100_000 + n as u32);
            from.announce(host(30, 2), &path, some).await;
        }
        from
    };
    let (from, heard) = tokio::join!(sends, to.hear(all.len()));
    assert!(heard >= all.len());
    let waiting = one.neighbor(4).await;
    assert!(waiting.waiting.ipv4 > 0 || waiting.state != "Established", "{waiting:?}");
    // And he is given up when he has taken nothing for long enough (RFC 9687).
    let gone = one.until(4, "the end", |n| n.sessions == 1 && n.state != "Established").await;
    assert!(gone.last_error.as_deref().is_some_and(|why| why.contains("send hold timer expired")), "{gone:?}");
    assert_eq!((one.neighbor(2).await.sessions, one.neighbor(3).await.sessions), (1, 1));
    drop(from);
    one.end().await;
}

/// Each next hop would be looked up in the kernel's tables whenever something changes there.
#[tokio::test]
async fn who_names_a_next_hop_for_each_route_has_a_share_of_them_and_is_told_of() {
    let usual = "remote-as: external, passive: true, import: accept, export: reject";
    let rest = format!("neighbors:\n{}{}", neighbor(33, 1, 2, usual), neighbor(33, 1, 3, usual));
    let one = Speaker::start(33, 1, 64512, &rest);
    let (mut many, mut other) = (Scripted::connect(33, 2, 1).await, Scripted::connect(33, 3, 1).await);
    many.establish(&open(65002, 0, &[])).await;
    other.establish(&open(65003, 0, &[])).await;
    let (most, beyond) = (bgp::rib::MAX_NEXT_HOPS_OF_ONE, 50);
    let hop = |n: usize| std::net::Ipv4Addr::from(0xac10_0000 + n as u32);
    let all = prefixes((most + beyond + 1) as u32);
    for (n, prefix) in all.iter().take(most + beyond).enumerate() {
        many.announce(hop(n), &[65002], &[*prefix]).await;
    }
    let told = one.until(2, "all is told", |n| n.received.ipv4 as usize == most + beyond).await;
    assert_eq!((told.next_hops_left_out, told.state.as_str()), (beyond as u64, "Established"));
    other.announce(host(33, 3), &[65003], &all[most + beyond..]).await;
    let wanted = || one.kernel.lock().expect("whole").values().flatten().count();
    let begun = std::time::Instant::now();
    while wanted() <= most && begun.elapsed() < PATIENCE {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(wanted(), most + 1, "his share, and the other's one");
    one.end().await;
}

#[tokio::test]
async fn two_hundred_who_say_nothing_keep_nobody_out() {
    let rest = format!(
        "neighbors:\n{}dynamic: [{{prefix: {}/28, remote-as: external, limit: 4}}]\n",
        neighbor(31, 1, 2, "remote-as: 65001, passive: true"),
        host(31, 16)
    );
    let one = Speaker::start(31, 1, 64512, &rest);
    let mut silent = Vec::new();
    for n in 0..200 {
        // Strangers, and hosts of the range.
        silent.push(Scripted::connect(31, if n % 2 == 0 { 100 } else { 17 + n % 8 }, 1).await);
    }
    let mut peer = Scripted::connect(31, 2, 1).await;
    peer.establish(&open(65001, 90, &[])).await;
    one.up(2).await;
    let held = one.neighbors().await;
    assert!(held.len() <= 5, "{} neighbours", held.len());
    one.end().await;
}

#[tokio::test]
async fn rubbish_is_answered_with_what_is_wrong_with_it() {
    let rest = format!("neighbors:\n{}", neighbor(32, 1, 2, "remote-as: 65001, passive: true"));
    let one = Speaker::start(32, 1, 64512, &rest);
    let mut peer = Scripted::connect(32, 2, 1).await;
    peer.send(&[0; 19]).await;
    let said = peer.notification().await;
    assert_eq!((said.code, said.subcode), (code::MESSAGE_HEADER, 1));
    assert_eq!(peer.next().await, None);
    // A length that is none, in the middle of a session.
    let mut peer = Scripted::greeted(32, 2, 1).await;
    peer.establish(&open(65001, 90, &[])).await;
    one.up(2).await;
    peer.send(&[[0xff; 16].as_slice(), &[0, 5, 4]].concat()).await;
    let said = peer.notification().await;
    assert_eq!((said.code, said.subcode), (code::MESSAGE_HEADER, 2));
    one.end().await;
}

#[tokio::test]
async fn messages_cut_anywhere_are_whole_again() {
    let rest = format!("neighbors:\n{}", neighbor(33, 1, 2, "remote-as: 65001, passive: true, import: accept"));
    let one = Speaker::start(33, 1, 64512, &rest);
    let mut peer = Scripted::connect(33, 2, 1).await;
    peer.stream.set_nodelay(true).expect("set");
    let mut bytes = bgp::message::Message::Open(open(65001, 90, &[])).write();
    bytes.extend(bgp::message::Message::Keepalive.write());
    for byte in bytes {
        peer.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    peer.until(Kind::Keepalive).await;
    one.up(2).await;
    peer.announce(host(33, 2), &[65001], &prefixes(3)).await;
    one.until(2, "three", |n| n.received.ipv4 == 3).await;
    one.end().await;
}
