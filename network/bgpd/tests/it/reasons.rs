//! What somebody is told who has set it up and sees nothing: in the log, and as the reason that a session has.

use std::io::Write;
use std::sync::{Arc, Mutex};

use bgp::message::Message;
use bgp::message::notification::Notification;
use bgpd::control::{Answer, Query, Which};
use tracing_subscriber::fmt::MakeWriter;

use crate::world::*;

/// The log of the daemons in this thread, which is that of the test.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn begin() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let to = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
        (log, tracing::subscriber::set_default(to))
    }

    fn lines(&self, with: &str) -> Vec<String> {
        let all = String::from_utf8_lossy(&self.0.lock().expect("whole")).into_owned();
        all.lines().filter(|line| line.contains(with)).map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("whole").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

#[tokio::test]
async fn without_filters_between_ases_both_are_told_that_nothing_flows() {
    let (log, _guard) = Log::begin();
    let rest = format!("neighbors:\n{}", neighbor(100, 1, 2, "remote-as: 65001, passive: true, import: accept"));
    let one = Speaker::start(100, 1, 64512, &rest);
    let mut peer = Scripted::connect(100, 2, 1).await;
    peer.establish(&open(65001, 90, &[])).await;
    assert_eq!(one.up(2).await.reason(), "no export filter: nothing is told");
    let told = log.lines("RFC 8212");
    assert!(matches!(&told[..], [line] if line.contains("WARN") && line.contains("no export filter")), "{told:?}");
    one.end().await;
    let none = format!("neighbors:\n{}", neighbor(101, 1, 2, "remote-as: 65001, passive: true"));
    let one = Speaker::start(101, 1, 64512, &none);
    let mut peer = Scripted::connect(101, 2, 1).await;
    peer.establish(&open(65001, 90, &[])).await;
    assert_eq!(one.up(2).await.reason(), "no filter: nothing is taken or told");
    one.end().await;
    // Inside of the AS all flows.
    let inside = format!("neighbors:\n{}", neighbor(102, 1, 2, "remote-as: 64512, passive: true"));
    let one = Speaker::start(102, 1, 64512, &inside);
    let mut peer = Scripted::connect(102, 2, 1).await;
    peer.establish(&open(64512, 90, &[])).await;
    assert_eq!(one.up(2).await.reason(), "");
    assert_eq!(log.lines("RFC 8212").len(), 2);
    one.end().await;
}

#[tokio::test]
async fn who_is_no_neighbour_is_told_of_in_the_log_once_in_a_while() {
    let (log, _guard) = Log::begin();
    let one = Speaker::start(103, 1, 64512, "");
    for from in [7, 8, 9] {
        assert_eq!(Scripted::connect(103, from, 1).await.next().await, None);
    }
    let told = log.lines("no neighbor and no dynamic range has this address");
    assert!(matches!(&told[..], [line] if line.contains("INFO") && line.contains("127.103.0.7")), "{told:?}");
    one.end().await;
}

/// Who reads only the log sees of each session that it came, that it went and why, and of one that does not come why.
#[tokio::test]
async fn each_session_that_comes_goes_or_fails_is_a_line_of_the_log_with_the_reason() {
    let (log, _guard) = Log::begin();
    let rest = format!("neighbors:\n{}", neighbor(107, 1, 2, "remote-as: 65001, passive: true"));
    let one = Speaker::start(107, 1, 64512, &rest);
    let mut other = Scripted::connect(107, 2, 1).await;
    other.send(&Message::Open(open(65002, 90, &[])).write()).await;
    other.notification().await;
    one.until(2, "the refusal", |n| n.last_error.is_some()).await;
    let said = |what: &str, level: &str, words: &[&str]| {
        let lines = log.lines(what);
        let whole = |line: &str| [level, "127.107.0.2"].iter().chain(words).all(|word| line.contains(word));
        assert!(matches!(&lines[..], [line] if whole(line)), "{what}: {lines:?}");
    };
    said("no session: ", "WARN", &["we ended it", "bad peer AS"]);
    // He is let in once the rest is over.
    let mut peer = Scripted::greeted(107, 2, 1).await;
    peer.establish(&open(65001, 90, &[])).await;
    one.up(2).await;
    said("session up: ", "INFO", &["IPv4 unicast", "as=65001", "hold=Some(90s)"]);
    peer.send(&Message::Notification(Notification::shutdown(2, "new disks")).write()).await;
    one.until(2, "the end", |n| n.state != "Established").await;
    said("session down: ", "WARN", &["new disks", "his routes go", "lasted="]);
    one.end().await;
}

/// The kernel drops what is signed with another password, and says nothing to either.
#[tokio::test]
async fn a_password_that_is_another_is_a_neighbour_without_an_answer() {
    let of = |own: u8, other: u8, word: &str| {
        format!("neighbors:\n{}", neighbor(104, own, other, &format!("remote-as: 64512, password: {word}")))
    };
    let one = Speaker::start(104, 1, 64512, &of(1, 2, "secret"));
    let two = Speaker::start(104, 2, 64512, &of(2, 1, "secret"));
    one.up(2).await;
    one.configure(64512, &of(1, 2, "other")).await.expect("taken");
    let said = one.until(2, "a reason", |n| n.last_error.as_deref().is_some_and(|why| why.contains("password"))).await;
    assert_eq!(said.reason(), "no answer from 127.104.0.2; a wrong password looks like this");
    one.configure(64512, &of(1, 2, "secret")).await.expect("taken");
    one.up(2).await;
    one.end().await;
    two.end().await;
}

/// The reload is the reason for the end; for there being no session yet it is what came after.
#[tokio::test]
async fn after_a_reload_the_reason_is_that_of_the_last_attempt() {
    let of = |own: u8, other: u8, more: &str| {
        format!("neighbors:\n{}", neighbor(105, own, other, &format!("remote-as: 64512, {more}")))
    };
    let one = Speaker::start(105, 1, 64512, &of(1, 2, "hold-time: 90s"));
    let two = Speaker::start(105, 2, 64512, &of(2, 1, "passive: true"));
    one.up(2).await;
    // It signs, he does not.
    one.configure(64512, &of(1, 2, "password: secret")).await.expect("taken");
    one.until(2, "another reason", |n| n.reason().contains("no answer from 127.105.0.2")).await;
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn too_many_prefixes_are_told_with_the_field_and_when_he_is_tried_again() {
    let limit = "prefix-limits: {ipv4: {most: 1, restart-after: 5m}}";
    let rest = format!(
        "neighbors:\n{}",
        neighbor(106, 1, 2, &format!("remote-as: 65001, passive: true, import: accept, {limit}"))
    );
    let one = Speaker::start(106, 1, 64512, &rest);
    let mut peer = Scripted::connect(106, 2, 1).await;
    peer.establish(&open(65001, 90, &[])).await;
    peer.announce(host(106, 2), &[65001], &["10.0.0.0/24", "10.0.1.0/24"].map(prefix)).await;
    let why = one.until(2, "the end", |n| n.state == "Idle").await.reason();
    for word in ["maximum number of prefixes", "more than 1", "IPv4", "prefix-limits.ipv4.most", "tried again 5m after"]
    {
        assert!(why.contains(word), "{word} is not in {why}");
    }
    one.end().await;
}

/// Who has no session is told when he will have the next try, and whom nobody can see that he is waited for.
#[tokio::test]
async fn without_a_session_it_is_told_what_comes_next() {
    let idle = "remote-as: internal, passive: true";
    let lines = format!(
        "  - {{address: {}, {idle}, idle-hold-time: 60s}}\n  - {{address: {}, {idle}, password: secret}}\n\
         \x20 - {{address: {}, {idle}}}\n  - {{address: {}, {idle}, enabled: false}}\n",
        host(104, 2),
        host(104, 3),
        host(104, 4),
        host(104, 5)
    );
    let silent = neighbor(104, 1, 6, "remote-as: internal");
    let one = Speaker::start(104, 1, 64512, &format!("neighbors:\n{lines}{silent}"));
    let mut peer = Scripted::connect(104, 2, 1).await;
    peer.establish(&open(64512, 90, &[])).await;
    peer.send(&[0; 19]).await;
    peer.notification().await;
    let rests = one.until(2, "a rest", |n| n.state == "Idle").await.next.expect("what comes next");
    let seconds = rests.strip_prefix("he is let in again in ").and_then(|rest| rest.strip_suffix('s'));
    assert!(
        seconds.and_then(|text| text.parse().ok()).is_some_and(|seconds: u32| (30..=60).contains(&seconds)),
        "{rests}"
    );
    let next = async |n: u8| one.neighbor(n).await.next;
    assert_eq!(next(3).await.as_deref(), Some("he is waited for (passive); a wrong password looks like this"));
    assert_eq!((next(4).await.as_deref(), next(5).await), (Some("he is waited for (passive)"), None));
    let tried = one.until(6, "an attempt", |n| n.last_error.is_some()).await;
    assert!(tried.next.as_ref().is_some_and(|next| next.contains("again in 1s")), "{tried:?}");
    one.end().await;
}

/// A session by it would run in another table than its routes are in. Here what is no VRF stands for one.
#[tokio::test]
async fn a_link_that_is_not_in_the_vrf_is_the_reason_for_no_session() {
    let more = "remote-as: internal, interface: lo";
    let one = Speaker::start(107, 1, 64512, &format!("vrf: lo\nneighbors:\n{}", neighbor(107, 1, 2, more)));
    let why = one.until(2, "a reason", |n| n.last_error.is_some()).await.reason();
    assert!(why.starts_with("no connection could be made: interface: lo is not in the VRF lo (vrf)"), "{why}");
    one.end().await;
}

#[tokio::test]
async fn an_address_that_several_have_on_links_of_their_own_is_nobodys_without_the_link() {
    let on =
        |link: &str| format!("  - {{address: 'fe80::2', interface: {link}, remote-as: internal, enabled: false}}\n");
    let one = Speaker::start(108, 1, 64512, &format!("neighbors:\n{}{}", on("eth1"), on("eth2")));
    let from = |who: &str| Which { from: Some(who.parse().expect("a neighbor")), ..Which::default() };
    let ask = async |who: &str| one.handle.ask(Query::Page(vec![prefix("10.0.0.0/8")], from(who))).await;
    let Some(Answer::Nothing(why)) = ask("fe80::2").await else { panic!("an answer for one of both") };
    assert!(why.starts_with("fe80::2 is several neighbors"), "{why}");
    assert!(matches!(ask("fe80::2%eth2").await, Some(Answer::Routes(none)) if none.is_empty()));
    one.end().await;
}
