//! Sessions come up, carry routes, follow the configuration, and end with a reason.

use std::time::Duration;

use bgp::message::capability::{Capability, GracefulRestart};
use bgp::message::notification::{cease, code};
use bgp::message::{Kind, Message};
use bgpd::daemon::Farewell;
use bgpd::kernel::Target;

use crate::world::*;

const NETWORKS: &str = "networks:
  - {prefix: 10.1.0.0/24, kernel: blackhole, set: {communities: {add: ['64512:7']}}}
  - {prefix: 10.2.0.0/24}
";

#[tokio::test]
async fn two_daemons_tell_each_other_their_routes() {
    let one = Speaker::start(
        10,
        1,
        64512,
        &format!("{NETWORKS}neighbors:\n{}", neighbor(10, 1, 2, "remote-as: 64512, description: the other")),
    );
    let two = Speaker::start(10, 2, 64512, &format!("neighbors:\n{}", neighbor(10, 2, 1, "remote-as: internal")));
    let (here, there) = (one.up(2).await, two.up(1).await);
    assert_eq!((here.number, here.description.as_str(), here.hold_time_seconds), (Some(64512), "the other", Some(90)));
    assert!(there.capabilities.iter().any(|known| known == "graceful restart"), "{:?}", there.capabilities);
    two.until_route("10.1.0.0/24", |best| {
        best.is_some_and(|best| {
            best.attributes.communities == ["64512:7"] && best.attributes.next_hop == Some(host(10, 1).into())
        })
    })
    .await;
    two.until(1, "two prefixes and the end of them", |n| n.received.ipv4 == 2 && !n.end_of_rib.is_empty()).await;
    // The kernel of the one drops the rest of its network, that of the other sends packets there.
    one.until_wish("10.1.0.0/24", |wish| wish.is_some_and(|wish| wish.target == Target::Blackhole)).await;
    one.until_wish("10.2.0.0/24", |wish| wish.is_none()).await;
    two.until_wish("10.2.0.0/24", |wish| {
        wish.is_some_and(|wish| matches!(&wish.target, Target::Hops(hops) if hops[0].address == host(10, 1)))
    })
    .await;
    one.end().await;
    // Who is told that it is for good keeps nothing.
    let down = two.until(1, "the end", |n| n.state != "Established").await;
    assert!(down.last_error.as_deref().is_some_and(|why| why.contains("the daemon ends")), "{down:?}");
    two.until_wish("10.2.0.0/24", |wish| wish.is_none()).await;
    two.end().await;
}

#[tokio::test]
async fn another_as_hears_nothing_before_a_filter_says_what() {
    let filters = "filters:\n  - {name: some, rules: [{match: {prefixes: [{prefix: 10.1.0.0/24}]}, action: accept}]}\n";
    let rest = |filtered: &str| {
        format!("{NETWORKS}{filters}neighbors:\n{}", neighbor(11, 1, 2, &format!("remote-as: 65001{filtered}")))
    };
    let one = Speaker::start(11, 1, 64512, &rest(""));
    let two = Speaker::start(
        11,
        2,
        65001,
        &format!("neighbors:\n{}", neighbor(11, 2, 1, "remote-as: external, import: accept")),
    );
    one.up(2).await;
    two.until(1, "the end of nothing", |n| !n.end_of_rib.is_empty()).await;
    assert_eq!((two.neighbor(1).await.received.ipv4, two.route("10.1.0.0/24").await), (0, None));
    // The filter comes, and the session stays.
    let told = one.configure(64512, &rest(", export: some")).await.expect("taken");
    assert!(told.contains("0 with a new session, 1 with routes judged anew"), "{told}");
    two.until_route("10.1.0.0/24", |best| best.is_some_and(|best| best.attributes.as_path == "64512")).await;
    assert_eq!(two.route("10.2.0.0/24").await, None);
    assert_eq!((one.neighbor(2).await.sessions, two.neighbor(1).await.sessions), (1, 1));
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn a_reload_touches_only_what_has_changed() {
    let rest = |hold: &str, more: &str| {
        let (two, three) = (
            neighbor(12, 1, 2, "remote-as: 64512"),
            neighbor(12, 1, 3, &format!("remote-as: 64512, hold-time: {hold}")),
        );
        format!("{NETWORKS}{more}neighbors:\n{two}{three}")
    };
    let of = |own: u8| format!("neighbors:\n{}", neighbor(12, own, 1, "remote-as: 64512"));
    let one = Speaker::start(12, 1, 64512, &rest("90s", ""));
    let (two, three) = (Speaker::start(12, 2, 64512, &of(2)), Speaker::start(12, 3, 64512, &of(3)));
    one.up(2).await;
    one.up(3).await;
    one.configure(64512, &rest("30s", "")).await.expect("taken");
    one.until(3, "a new session", |n| n.hold_time_seconds == Some(30)).await;
    assert_eq!(one.neighbor(2).await.sessions, 1, "he has nothing to do with it");
    // Routes stayed meanwhile: both keep them over such an end.
    let why = three.neighbor(1).await.last_error.expect("a reason");
    assert!(why.contains("other configuration change"), "{why}");
    three.until_route("10.1.0.0/24", |best| best.is_some()).await;
    // One goes; what cannot be changed is refused, and nothing is.
    let refused = one.configure(64513, &rest("30s", "cluster-id: 1.2.3.4\n")).await.expect_err("refused");
    assert!(refused.contains("as, cluster-id can only be changed by a restart"), "{refused}");
    let only = format!(
        "networks: [{{prefix: 10.3.0.0/24}}]\nneighbors:\n{}",
        neighbor(12, 1, 3, "remote-as: 64512, hold-time: 30s")
    );
    let told = one.configure(64512, &only).await.expect("taken");
    assert!(told.contains("0 added, 1 removed, 0 with a new session"), "{told}");
    two.until(1, "that he is none any more", |n| {
        n.last_error.as_deref().is_some_and(|why| why.contains("de-configured"))
    })
    .await;
    three.until_route("10.3.0.0/24", |best| best.is_some()).await;
    three.until_route("10.1.0.0/24", |best| best.is_none()).await;
    for speaker in [one, two, three] {
        speaker.end().await;
    }
}

#[tokio::test]
async fn a_neighbour_can_be_turned_off_and_on() {
    let rest =
        |enabled: bool| format!("neighbors:\n{}", neighbor(13, 1, 2, &format!("remote-as: 64512, enabled: {enabled}")));
    let one = Speaker::start(13, 1, 64512, &rest(false));
    let two = Speaker::start(13, 2, 64512, &format!("neighbors:\n{}", neighbor(13, 2, 1, "remote-as: 64512")));
    assert_eq!(one.neighbor(2).await.state, "Disabled");
    one.configure(64512, &rest(true)).await.expect("taken");
    one.up(2).await;
    one.configure(64512, &rest(false)).await.expect("taken");
    two.until(1, "the end", |n| n.state != "Established").await;
    one.end().await;
    two.end().await;
}

/// Off is for good: who keeps routes over the end of a session hears that these are not to be kept (RFC 8538).
#[tokio::test]
async fn who_is_turned_off_keeps_no_routes() {
    let rest = |enabled: bool| {
        let more = format!("remote-as: 65001, passive: true, enabled: {enabled}");
        format!("neighbors:\n{}", neighbor(26, 1, 2, &more))
    };
    let one = Speaker::start(26, 1, 64512, &rest(true));
    let mut peer = Scripted::connect(26, 2, 1).await;
    let families = vec![(bgp::family::Family::Ipv4Unicast.wire(), true)];
    let restart = GracefulRestart { families, time: 90, notification: true, ..Default::default() };
    peer.establish(&open(65001, 90, &[Capability::GracefulRestart(restart)])).await;
    one.up(2).await;
    one.configure(64512, &rest(false)).await.expect("taken");
    let said = peer.notification().await;
    assert_eq!((said.code, said.subcode), (code::CEASE, cease::HARD_RESET));
    assert_eq!(said.inner().subcode, cease::ADMINISTRATIVE_SHUTDOWN);
    one.until(2, "that he is off", |n| n.state == "Disabled").await;
    one.end().await;
}

#[tokio::test]
async fn who_is_of_another_as_than_he_should_be_is_refused_and_both_know_why() {
    let one = Speaker::start(14, 1, 64512, &format!("neighbors:\n{}", neighbor(14, 1, 2, "remote-as: 65009")));
    let two = Speaker::start(14, 2, 65001, &format!("neighbors:\n{}", neighbor(14, 2, 1, "remote-as: 64512")));
    let has = |who: &'static str| {
        move |n: &bgpd::control::view::NeighborView| {
            n.last_error.as_deref().is_some_and(|why| why.contains("bad peer AS") && why.contains(who))
        }
    };
    one.until(2, "a reason", has("we ended it")).await;
    two.until(1, "a reason", has("the neighbour ended it")).await;
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn silence_ends_a_session_and_says_so() {
    let one = Speaker::start(
        15,
        1,
        64512,
        &format!("neighbors:\n{}", neighbor(15, 1, 2, "remote-as: 65001, passive: true, hold-time: 3s")),
    );
    let mut peer = Scripted::connect(15, 2, 1).await;
    peer.establish(&open(65001, 90, &[])).await;
    one.up(2).await;
    assert_eq!(peer.notification().await.code, code::HOLD_TIMER_EXPIRED);
    let down = one.until(2, "the end", |n| n.state != "Established").await;
    assert!(down.last_error.as_deref().is_some_and(|why| why.contains("hold timer expired")), "{down:?}");
    one.end().await;
}

#[tokio::test]
async fn too_many_prefixes_end_a_session() {
    let rest = neighbor(16, 1, 2, "remote-as: 65001, passive: true, import: accept, prefix-limits: {ipv4: {most: 2}}");
    let one = Speaker::start(16, 1, 64512, &format!("neighbors:\n{rest}"));
    let mut peer = Scripted::connect(16, 2, 1).await;
    peer.establish(&open(65001, 90, &[])).await;
    let routes = ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"].map(prefix);
    peer.announce(host(16, 2), &[65001], &routes[..2]).await;
    one.until_route("10.0.1.0/24", |best| best.is_some()).await;
    peer.announce(host(16, 2), &[65001], &routes[2..]).await;
    let said = peer.notification().await;
    assert_eq!((said.code, said.subcode), (code::CEASE, cease::MAXIMUM_PREFIXES));
    one.until_route("10.0.1.0/24", |best| best.is_none()).await;
    one.end().await;
}

#[tokio::test]
async fn a_range_lets_in_as_many_as_it_says_and_forgets_who_goes() {
    let rest = format!(
        "dynamic: [{{prefix: {}/30, remote-as: external, limit: 1, import: accept, export: accept, idle-hold-time: 100ms}}]\n{NETWORKS}",
        host(17, 4)
    );
    let one = Speaker::start(17, 1, 64512, &rest);
    let mut peer = Scripted::connect(17, 5, 1).await;
    peer.establish(&open(65001, 90, &[])).await;
    let there = one.up(5).await;
    assert_eq!(there.range, Some(prefix("127.17.0.4/30")));
    assert_eq!(peer.hear(2).await, 2, "he is told as others are");
    one.handle.ask(bgpd::control::Query::Measure).await.expect("an answer");
    assert!(one.handle.registry.text().contains("127.17.0.5"), "he has figures");
    // Another finds no place, and a stranger none at all.
    for from in [6, 9] {
        let mut other = Scripted::connect(17, from, 1).await;
        assert_eq!(other.next().await, None, "{from}");
    }
    drop(peer);
    let end = tokio::time::Instant::now() + PATIENCE;
    while !one.neighbors().await.is_empty() {
        assert!(tokio::time::Instant::now() < end, "he is kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    one.handle.ask(bgpd::control::Query::Measure).await.expect("an answer");
    let page = one.handle.registry.text();
    assert!(!page.contains("127.17.0.5"), "{page}");
    let mut other = Scripted::connect(17, 6, 1).await;
    other.establish(&open(65002, 90, &[])).await;
    one.up(6).await;
    one.end().await;
}

#[tokio::test]
async fn the_end_is_told_unless_routes_are_to_stay() {
    for (test, farewell) in [(18, Farewell::Told), (19, Farewell::KeepRoutes)] {
        let rest = format!("neighbors:\n{}", neighbor(test, 1, 2, "remote-as: 65001, passive: true"));
        let one = Speaker::start_with(test, 1, 64512, &rest, 0, farewell);
        let told = std::sync::Arc::clone(&one.told);
        let mut peer = Scripted::connect(test, 2, 1).await;
        peer.establish(&open(65001, 90, &[])).await;
        one.up(2).await;
        one.end().await;
        let told = told.lock().expect("whole").join(" ");
        if farewell == Farewell::Told {
            let said = peer.notification().await;
            assert_eq!(
                (said.subcode, said.text().as_deref()),
                (cease::ADMINISTRATIVE_SHUTDOWN, Some("the daemon ends"))
            );
            assert!(told.contains("Clear"), "{told}");
        } else {
            while let Some((kind, _)) = peer.next().await {
                assert_ne!(kind, Kind::Notification);
            }
            assert!(!told.contains("Clear"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_restarted_speaker_says_so_and_decides_when_it_has_heard_all() {
    let rest = format!("{NETWORKS}neighbors:\n{}", neighbor(20, 1, 2, "remote-as: 64512, passive: true"));
    let one = Speaker::start_with(20, 1, 64512, &rest, 5, Farewell::Told);
    let mut peer = Scripted::connect(20, 2, 1).await;
    let family = bgp::family::Family::Ipv4Unicast.wire();
    let restart =
        Capability::GracefulRestart(GracefulRestart { families: vec![(family, true)], time: 90, ..Default::default() });
    let his = peer.establish(&open(64512, 90, &[restart])).await;
    let told = his.capabilities.iter().find_map(|capability| match capability {
        Capability::GracefulRestart(restart) => Some(restart.clone()),
        _ => None,
    });
    let told = told.expect("graceful restart");
    assert!(told.restarted && told.families == [(family, true)], "{told:?}");
    peer.announce(host(20, 2), &[], &[prefix("10.7.0.0/24")]).await;
    one.until(2, "a prefix", |n| n.received.ipv4 == 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(one.kernel.lock().expect("whole").is_empty(), "the kernel has what it had");
    assert!(one.told.lock().expect("whole").is_empty());
    // Another configuration meanwhile decides nothing either.
    one.configure(64512, &format!("kernel: {{metric: 77}}\n{rest}")).await.expect("taken");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(one.kernel.lock().expect("whole").is_empty(), "the kernel has what it had");
    peer.end_of_rib().await;
    one.until_wish("10.7.0.0/24", |wish| wish.is_some()).await;
    one.until_wish("10.1.0.0/24", |wish| wish.is_some_and(|wish| wish.metric == 77)).await;
    assert_eq!(peer.hear(2).await, 2);
    let end = tokio::time::Instant::now() + PATIENCE;
    while !one.told.lock().expect("whole").iter().any(|told| told == "Loaded") {
        assert!(tokio::time::Instant::now() < end, "what is left of before is to go");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    one.end().await;
}

#[tokio::test]
async fn changes_are_gathered_for_as_long_as_a_neighbour_wants() {
    let usual = "remote-as: 65001, passive: true, import: accept, export: accept";
    let rest = format!(
        "neighbors:\n{}{}",
        neighbor(23, 1, 2, &format!("{usual}, advertisement-interval: 1s")),
        neighbor(23, 1, 3, "remote-as: 65003, passive: true, import: accept")
    );
    let one = Speaker::start(23, 1, 64512, &rest);
    let (mut peer, mut from) = (Scripted::connect(23, 2, 1).await, Scripted::connect(23, 3, 1).await);
    peer.establish(&open(65001, 90, &[])).await;
    from.establish(&open(65003, 90, &[])).await;
    one.up(2).await;
    one.up(3).await;
    let began = tokio::time::Instant::now();
    for n in 0..20 {
        // The same prefix, each time another path.
        from.announce(host(23, 3), &[65003, 70_000 + n], &[prefix("10.0.0.0/24")]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let sent = one.neighbor(2).await.messages_sent.update;
    let most = began.elapsed().as_secs() + 3;
    assert!((2..=most).contains(&sent), "{sent} updates in {:?}", began.elapsed());
    one.end().await;
}

#[tokio::test]
async fn a_password_is_needed_on_both_sides_and_the_same() {
    let of = |own: u8, other: u8, password: &str| {
        format!("neighbors:\n{}", neighbor(21, own, other, &format!("remote-as: 64512, password: {password}")))
    };
    let one = Speaker::start(21, 1, 64512, &of(1, 2, "right"));
    let two = Speaker::start(21, 2, 64512, &of(2, 1, "wrong"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_ne!(one.neighbor(2).await.state, "Established");
    two.configure(64512, &of(2, 1, "right")).await.expect("taken");
    one.up(2).await;
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn near_neighbours_look_for_how_far_packets_came() {
    let of = |own: u8, other: u8| {
        format!("neighbors:\n{}", neighbor(22, own, other, "remote-as: external, ttl-security: true"))
    };
    let one = Speaker::start(22, 1, 64512, &of(1, 2));
    let two = Speaker::start(22, 2, 65001, &of(2, 1));
    one.up(2).await;
    // Who sends as far as usual is not heard.
    let three = Speaker::start(
        22,
        3,
        64512,
        &format!("neighbors:\n{}", neighbor(22, 3, 4, "remote-as: external, ttl-security: true, passive: true")),
    );
    let mut peer = Scripted::connect(22, 4, 3).await;
    peer.send(&Message::Open(open(65001, 90, &[])).write()).await;
    assert_eq!(peer.next().await, None, "a packet with a TTL of 64 was heard");
    for speaker in [one, two, three] {
        speaker.end().await;
    }
}

#[tokio::test]
async fn a_reflector_tells_its_clients_of_each_other() {
    let client = "remote-as: 64512, route-reflector-client: true";
    let rest = format!("cluster-id: 9.9.9.9\nneighbors:\n{}{}", neighbor(24, 1, 2, client), neighbor(24, 1, 3, client));
    let one = Speaker::start(24, 1, 64512, &rest);
    let of = |own: u8, more: &str| format!("{more}neighbors:\n{}", neighbor(24, own, 1, "remote-as: 64512"));
    let two = Speaker::start(24, 2, 64512, &of(2, NETWORKS));
    let three = Speaker::start(24, 3, 64512, &of(3, ""));
    three
        .until_route("10.1.0.0/24", |best| {
            best.is_some_and(|best| {
                let set = &best.attributes;
                (set.next_hop, set.originator_id) == (Some(host(24, 2).into()), Some([10, 0, 0, 2].into()))
                    && set.cluster_list == [std::net::Ipv4Addr::new(9, 9, 9, 9)]
            })
        })
        .await;
    assert!(two.route("10.1.0.0/24").await.is_some_and(|route| route.paths.len() == 1), "not back to whom it is from");
    for speaker in [one, two, three] {
        speaker.end().await;
    }
}

#[tokio::test]
async fn one_session_carries_both_families_and_several_paths() {
    let rest = |own: u8, other: u8, more: &str| {
        let more =
            format!("remote-as: 64512, families: [ipv4, ipv6], add-path: both, own-addresses: ['fd00::{own}']{more}");
        format!(
            "networks: [{{prefix: 'fd00:{own}::/48'}}, {{prefix: 10.0.{own}.0/24}}]\nneighbors:\n{}",
            neighbor(25, own, other, &more)
        )
    };
    let one = Speaker::start(25, 1, 64512, &rest(1, 2, ""));
    let two = Speaker::start(25, 2, 64512, &rest(2, 1, ""));
    let agreed = one.up(2).await.capabilities;
    for words in ["add-path to him (IPv6 unicast)", "add-path from him (IPv4 unicast)"] {
        assert!(agreed.iter().any(|known| known == words), "{agreed:?}");
    }
    let next_hop: std::net::IpAddr = "fd00::1".parse().expect("an address");
    two.until_route("fd00:1::/48", |best| best.is_some_and(|best| best.attributes.next_hop == Some(next_hop))).await;
    one.until_route("10.0.2.0/24", |best| best.is_some_and(|best| best.path_id > 0)).await;
    one.end().await;
    two.end().await;
}
