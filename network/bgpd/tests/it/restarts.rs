//! What a restarted daemon waits for before it decides and speaks: whatever it forgets costs packets.

use std::time::Duration;

use bgp::family::Family;
use bgp::message::capability::{Capability, GracefulRestart};
use bgp::message::open::Open;
use bgpd::daemon::Farewell;

use crate::world::{PATIENCE, Scripted, Speaker, announcement, end_of_rib, host, neighbor, open, prefix};

const NETWORK: &str = "networks: [{prefix: 10.1.0.0/24}]\n";
/// Long enough for something that is wrong to happen.
const A_WHILE: Duration = Duration::from_millis(500);

/// A daemon that finds five routes of an earlier one in the kernel.
fn restarted(test: u8, rest: &str) -> Speaker {
    Speaker::start_with(test, 1, 64512, &format!("{NETWORK}{rest}"), 5, Farewell::Told)
}

fn graceful(number: u32, restarted: bool) -> Open {
    let families = vec![(Family::Ipv4Unicast.wire(), true)];
    let restart = GracefulRestart { families, time: 90, restarted, ..GracefulRestart::default() };
    open(number, 90, &[Capability::GracefulRestart(restart)])
}

fn has_restarted(open: &Open) -> bool {
    let is = |capability: &Capability| matches!(capability, Capability::GracefulRestart(restart) if restart.restarted);
    open.capabilities.iter().any(is)
}

fn is_quiet(one: &Speaker) -> bool {
    one.kernel.lock().expect("whole").is_empty() && one.told.lock().expect("whole").is_empty()
}

async fn until_loaded(one: &Speaker) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !one.told.lock().expect("whole").iter().any(|told| told == "Loaded") {
        assert!(tokio::time::Instant::now() < end, "what is left of before is to go");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Who has few routes tells them and that it was all in one packet: the kernel has not yet been asked where they lead.
#[tokio::test]
async fn routes_told_with_their_end_are_there_before_those_of_before_go() {
    let one = restarted(90, &format!("neighbors:\n{}", neighbor(90, 1, 2, "remote-as: 64512, passive: true")));
    one.answering.send_replace(false);
    let mut peer = Scripted::connect(90, 2, 1).await;
    peer.establish(&graceful(64512, false)).await;
    let told = [announcement(host(90, 2), &[], &[prefix("10.7.0.0/24")]), end_of_rib()].concat();
    peer.send(&told).await;
    one.until(2, "a prefix", |n| n.received.ipv4 == 1).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(is_quiet(&one), "decided without the way to the next hop");
    one.answering.send_replace(true);
    until_loaded(&one).await;
    let wish = one.kernel.lock().expect("whole").get(&prefix("10.7.0.0/24")).cloned().flatten();
    assert!(wish.is_some(), "it was wanted again before the rest went");
    assert_eq!(peer.hear(1).await, 1);
    one.end().await;
}

/// Two who have restarted would wait for each other.
#[tokio::test]
async fn one_who_has_restarted_is_not_waited_for() {
    let one = restarted(91, &format!("neighbors:\n{}", neighbor(91, 1, 2, "remote-as: 64512, passive: true")));
    let mut peer = Scripted::connect(91, 2, 1).await;
    assert!(has_restarted(&peer.establish(&graceful(64512, true)).await));
    assert_eq!(peer.hear(1).await, 1, "he is told without having told anything");
    tokio::time::sleep(A_WHILE).await;
    assert!(one.told.lock().expect("whole").is_empty(), "what he told before stays for him");
    peer.announce(host(91, 2), &[], &[prefix("10.7.0.0/24")]).await;
    peer.end_of_rib().await;
    one.until_wish("10.7.0.0/24", |wish| wish.is_some()).await;
    until_loaded(&one).await;
    one.end().await;
}

/// Of those who have no names the first is not all.
#[tokio::test]
async fn who_was_let_in_by_a_range_is_waited_for() {
    let range = format!("{}/28", host(92, 0));
    let one = restarted(92, &format!("dynamic: [{{prefix: {range}, remote-as: external}}]\n"));
    let mut first = Scripted::connect(92, 2, 1).await;
    first.establish(&graceful(65002, false)).await;
    first.end_of_rib().await;
    one.up(2).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(is_quiet(&one), "decided with the routes of one");
    let mut second = Scripted::connect(92, 3, 1).await;
    assert!(has_restarted(&second.establish(&graceful(65003, false)).await), "he is to keep what he had");
    one.up(3).await;
    assert!(is_quiet(&one));
    one.end().await;
}

/// Routes that nobody tells again would lie in the kernel for two minutes, and those of this host be missing there.
#[tokio::test]
async fn with_nobody_to_wait_for_it_is_over_at_once() {
    let one = restarted(93, "");
    until_loaded(&one).await;
    assert!(one.route("10.1.0.0/24").await.is_some_and(|route| route.paths[0].best));
    one.end().await;
    let disabled = restarted(94, &format!("neighbors:\n{}", neighbor(94, 1, 2, "remote-as: 64512, enabled: false")));
    until_loaded(&disabled).await;
    disabled.end().await;
}

#[tokio::test]
async fn when_the_last_who_is_missing_is_taken_out_it_is_over() {
    let neighbors = format!("neighbors:\n{}", neighbor(95, 1, 2, "remote-as: 64512, passive: true"));
    let range = format!("dynamic: [{{prefix: {}/28, remote-as: external}}]\n", host(95, 16));
    let one = restarted(95, &format!("{neighbors}{range}"));
    one.neighbor(2).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(is_quiet(&one), "he is waited for");
    one.configure(64512, NETWORK).await.expect("taken");
    until_loaded(&one).await;
    one.end().await;
}
