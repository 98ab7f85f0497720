//! A network with a client and two nodes: who answers for an address, who takes it over, and what is heard of it. Needs root.
#![allow(clippy::unwrap_used)]

mod network;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::network::{Lan, V4, V6};

/// A node that takes an address over has it by then: it takes a fraction of a second where the machine isn't busy.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn the_elected_node_alone_answers_and_another_takes_over_at_once() {
    let lan = Lan::new();
    lan.elect("a");
    let (a, _b) = (lan.announcer("a"), lan.announcer("b"));
    let ears = lan.ears();
    lan.until("a answers", || lan.reached(V4) == Some("a"));
    assert_eq!((lan.answers(V4), lan.answers(V6)), (vec!["a"], vec!["a"]));
    assert_eq!(lan.reached(V6), Some("a"));
    assert!(ears.announced(V4, "a") && ears.announced(V6, "a"), "it was said to all");
    assert!(lan.answers("192.0.2.241").is_empty(), "nobody's");
    // Who looks whether the address is free hears that it isn't.
    assert_eq!(lan.probed(V4), vec!["a"]);

    // The node is gone, without a word.
    drop(a);
    ears.forget();
    let gone = Instant::now();
    lan.elect("b");
    lan.until("b has taken over", || lan.reached(V4) == Some("b") && lan.reached(V6) == Some("b"));
    assert!(gone.elapsed() < SOON, "it took {:?}", gone.elapsed());
    assert!(ears.announced(V4, "b") && ears.announced(V6, "b"), "whoever knew the other's hardware address was told");
    assert_eq!((lan.answers(V4), lan.answers(V6)), (vec!["b"], vec!["b"]));

    // The Service goes.
    lan.forget_service();
    lan.until("nobody answers", || lan.answers(V4).is_empty() && lan.answers(V6).is_empty());
}

#[test]
fn a_node_that_was_replaced_while_it_heard_of_nothing_falls_silent() {
    let (lan, other) = (Lan::new(), testkit::FakeApi::new());
    lan.elect("a");
    let _a = lan.announcer("a");
    lan.until("a answers", || lan.answers(V4) == ["a"]);
    // `a` is cut off: its server says nothing new, and doesn't answer. The others are told that `b` was elected.
    // In another version: informers of one process share what has one UID and version.
    for node in ["a", "b"] {
        other.put(network::SERVICES, network::service(node));
    }
    other.document(network::SERVICE, network::service("b"));
    let _b = lan.announcer_of("b", &other);
    lan.until("b alone answers", || lan.answers(V4) == ["b"] && lan.answers(V6) == ["b"]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(lan.answers(V4), ["b"], "and it stays so");
    assert_eq!(lan.reached(V4), Some("b"));
}

#[test]
fn who_is_sure_that_an_address_is_its_own_says_so_again() {
    let lan = Lan::new();
    lan.elect("a");
    lan.api.document(network::SERVICE, network::service("a"));
    let _a = lan.announcer("a");
    lan.until("a answers", || lan.answers(V4) == ["a"]);
    let ears = lan.ears();
    lan.until("the first announcements are over", || {
        std::thread::sleep(Duration::from_millis(3500));
        true
    });
    ears.forget();
    lan.claim(V4);
    lan.until("it is said again", || ears.announced(V4, "a"));
    assert_eq!(lan.answers(V4), ["a"]);
    assert_eq!(lan.reached(V4), Some("a"));
}

#[test]
fn a_link_that_goes_and_comes_again_is_answered_on_again() {
    let lan = Lan::new();
    lan.elect("a");
    let _a = lan.announcer("a");
    lan.until("a answers", || lan.answers(V4) == ["a"]);
    lan.set_up("a", false);
    lan.until("nobody answers", || lan.answers(V4).is_empty());
    lan.set_up("a", true);
    lan.until("a answers again", || lan.answers(V4) == ["a"] && lan.answers(V6) == ["a"]);
    lan.unplug("a");
    lan.until("nobody answers", || lan.answers(V4).is_empty());
    let ears = lan.ears();
    lan.plug("a");
    lan.until("a answers by its new link", || lan.answers(V4) == ["a"]);
    assert!(ears.announced(V4, "a"), "which has another hardware address");
    // An annotation of somebody who has no word in it.
    let mut service = network::service("a");
    service["status"] = json!({"loadBalancer": {}});
    lan.api.put(network::SERVICES, service);
    lan.until("nobody answers", || lan.answers(V4).is_empty());
}

/// The one who elects knows by it within seconds that a node is gone; an idle cluster has no use for it.
#[test]
fn a_node_gives_signs_as_long_as_anybody_announces_anything() {
    let lan = Lan::new();
    let signs = || lan.api.posted("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/b");
    let _b = lan.announcer("b");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(signs(), 0, "nothing is announced");
    lan.elect("a");
    lan.until("two signs", || signs() >= 2);
    lan.forget_service();
    std::thread::sleep(Duration::from_millis(500));
    let before = signs();
    std::thread::sleep(Duration::from_millis(3000));
    assert_eq!(signs(), before, "nothing is announced any more");
}
