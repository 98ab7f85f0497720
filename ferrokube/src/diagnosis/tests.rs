//! Each fault by itself on a host that is well.

use std::path::PathBuf;

use super::facts::{Disk, Link, Node, Way};
use super::*;

fn well() -> Facts {
    let link = |name: &str, mtu| Some(Link { name: name.to_owned(), mtu });
    let node = |name: &str| Node { name: name.to_owned(), ready: true, lease_age: Some(4) };
    Facts {
        kernel_version: "6.12".to_owned(),
        kernel_lacks: None,
        cgroup_v2: Some(true),
        watches: Some(524_288),
        disk: Some(Disk { path: PathBuf::from("/var/lib/ferrokube/x"), free: 60, free_inodes: 70 }),
        future: Some(-3),
        firewall: Ok(vec![]),
        runs: true,
        forwarding: Some("1".to_owned()),
        outer: link("eth0", 1500),
        inner: link("flannel.1", 1450),
        overhead: 50,
        tunnel: Some("UDP port 8472 (VXLAN)".to_owned()),
        nodes: Ok(vec![node("a"), node("b")]),
        server_apart: Some(0),
        ways: vec![Way { node: "b".to_owned(), address: [192, 0, 2, 2].into(), reach: Reach::Whole, size: 1450 }],
        cluster_dns: Some(Ok(Duration::from_micros(300))),
        upstreams: vec![("192.0.2.53".to_owned(), Some(Duration::from_millis(3)))],
        start: None,
    }
}

/// What is no good, with its words.
fn told(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, State, String)> {
    let mut facts = well();
    change(&mut facts);
    let ill = judge(&facts).into_iter().filter(|finding| finding.state != State::Good);
    ill.map(|finding| (finding.what, finding.state, format!("{} → {}", finding.why, finding.cure))).collect()
}

fn one(change: impl FnOnce(&mut Facts), what: &str, state: State, words: &[&str]) {
    let found = told(change);
    let [(row, is, text)] = &found[..] else { panic!("{what}: {found:?}") };
    assert_eq!((*row, *is), (what, state), "{text}");
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn a_host_that_is_well_has_no_finding() {
    assert_eq!(told(|_| {}), []);
}

#[test]
fn each_fault_of_the_host_is_told_with_its_cure() {
    use State::{Fault, Unknown, Warning};
    one(|f| f.kernel_lacks = Some("this kernel lacks overlayfs".into()), "kernel", Fault, &["overlayfs"]);
    one(|f| f.cgroup_v2 = Some(false), "cgroups", Warning, &["unified_cgroup_hierarchy=1"]);
    one(|f| f.cgroup_v2 = None, "cgroups", Fault, &["mount cgroup2"]);
    one(|f| f.watches = Some(8192), "limits", Warning, &["max_user_watches=524288"]);
    let full = |free, free_inodes| Some(Disk { path: "/d".into(), free, free_inodes });
    one(|f| f.disk = full(9, 50), "disk", Fault, &["9 % of the space of /d"]);
    one(|f| f.disk = full(50, 2), "disk", Fault, &["2 % of the inodes"]);
    one(|f| f.future = Some(3600), "clock", Fault, &["3600 s from now", "went back"]);
    one(|f| f.firewall = Ok(vec!["ufw drops".into()]), "firewall", Fault, &["ufw drops", "--open-firewall"]);
    one(|f| f.firewall = Err("no netlink".into()), "firewall", Unknown, &["no netlink"]);
    one(|f| f.forwarding = Some("0".into()), "forwarding", Fault, &["ip_forward=1"]);
    one(|f| f.cluster_dns = Some(Err("timeout".into())), "cluster DNS", Fault, &["timeout"]);
    one(|f| f.cluster_dns = Some(Ok(SLOW_NAME * 2)), "cluster DNS", Warning, &["1000 ms"]);
    one(|f| f.upstreams[0].1 = None, "DNS servers of the host", Fault, &["none of 192.0.2.53"]);
    one(|f| f.upstreams.push(("::1".into(), None)), "DNS servers of the host", Warning, &["::1 doesn't answer"]);
    one(|f| f.upstreams.clear(), "DNS servers of the host", Warning, &["names none"]);
    one(|f| f.start = Some(Err("port 6443 is taken".into())), "a start", Fault, &["port 6443"]);
}

#[test]
fn a_tunnel_that_is_wider_than_its_link_is_told() {
    let mtu = |outer, inner| {
        move |f: &mut Facts| {
            (f.outer, f.inner) =
                (Some(Link { name: "wg0".into(), mtu: outer }), Some(Link { name: "flannel.1".into(), mtu: inner }));
        }
    };
    assert_eq!(told(mtu(1420, 1370)), []);
    one(mtu(1420, 1450), "MTU", State::Fault, &["wg0 carries 1420", "flannel.1 takes 1450", "restart"]);
    one(mtu(1000, 950), "MTU", State::Fault, &["ip link set wg0 mtu 1500"]);
}

#[test]
fn how_far_packets_come_says_what_is_closed() {
    let reach = |reach| move |f: &mut Facts| f.ways[0].reach = reach;
    let what = "way to other nodes";
    one(reach(Reach::Nothing), what, State::Fault, &["b doesn't answer", "10250"]);
    one(reach(Reach::Direct), what, State::Fault, &["UDP port 8472"]);
    one(reach(Reach::Small), what, State::Fault, &["1450 bytes don't", "MTU"]);
    one(|f| f.ways.clear(), what, State::Unknown, &["no other node"]);
}

#[test]
fn clocks_of_others_are_told_by_their_leases_and_their_answers() {
    let lease = |age| move |f: &mut Facts| f.nodes.as_mut().expect("nodes")[1].lease_age = Some(age);
    assert_eq!(told(lease(30)), []);
    for age in [-20, 90] {
        one(lease(age), "other clocks", State::Fault, &["b (", "set-ntp"]);
    }
    one(|f| f.server_apart = Some(-7), "other clocks", State::Fault, &["-7 s"]);
    let away = told(|f| f.nodes.as_mut().expect("nodes")[1].ready = false);
    assert_eq!(away.len(), 1, "its lease is old because it is away: {away:?}");
}
