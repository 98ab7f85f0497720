//! What ours puts into the kernel of routes that others tell: several next hops, and what the file says of them.

use std::net::IpAddr;

use anyhow::ensure;
use bgpd::control::Command as Question;
use linux::netlink::Route;
use meta::Prefix;
use serde_json::json;

use crate::lab::{Host, Lab, eventually, v4, v6};
use crate::ours::{Ours, configuration};
use crate::speaker::{Conf, Kind, Peer};

const SHARED: [&str; 2] = ["10.99.0.0/24", "fd00:99::/48"];

/// Ours of the kernel's main table to a prefix.
fn routes(host: &Host, dst: &str) -> anyhow::Result<Vec<Route>> {
    let dst: Prefix = dst.parse()?;
    Ok(host.rtnl().routes_of(Some(254), |route| (route.dst == dst && route.protocol == 71).then_some(route))?)
}

/// Waits until there is one route to each shared prefix, by these hosts.
fn goes_by(host: &Host, hosts: &[u8]) {
    let addresses: [fn(u8) -> IpAddr; 2] = [v4, v6];
    for (dst, address) in SHARED.into_iter().zip(addresses) {
        let wanted: Vec<_> = hosts.iter().map(|n| Some(address(*n))).collect();
        eventually(&format!("{dst} by {hosts:?}"), || {
            let routes = routes(host, dst)?;
            let mut hops: Vec<_> = routes.iter().flat_map(|route| &route.next_hops).map(|hop| hop.gateway).collect();
            hops.sort_unstable();
            ensure!(routes.len() == 1 && hops == wanted, "{routes:?}");
            Ok(())
        });
    }
}

/// Two of the same AS tell the same prefixes: there is one route to each by both, and by one when the other is gone.
#[test]
fn routes_of_two_neighbours_share_the_packets() {
    let lab = Lab::new();
    let hosts = [1, 2, 3].map(|n| lab.host(n));
    let both = |host: u8, number: u32| {
        let peer = Peer { graceful: false, ..Peer::new(host, number) };
        [peer.clone(), peer.ipv6()]
    };
    let peers = [both(2, 64502), both(3, 64502)].concat();
    let ours = Ours::start(&hosts[0], &Conf { kernel: true, ..Conf::new(64501, peers) });
    let source =
        || SHARED.iter().fold(Conf::new(64502, both(1, 64501).into()), |conf, dst| conf.network(dst, &["1:1"]));
    let bird = Kind::Bird.start(&hosts[1], &source());
    let frr = Kind::Frr.start(&hosts[2], &source());
    goes_by(&hosts[0], &[2, 3]);
    for view in ours.route_views().unwrap() {
        assert!(view.paths.len() == 2 && view.paths.iter().all(|path| path.used), "{view:?}");
    }
    drop(bird);
    goes_by(&hosts[0], &[3]);
    let bird = Kind::Bird.start(&hosts[1], &source());
    goes_by(&hosts[0], &[2, 3]);
    drop(frr);
    goes_by(&hosts[0], &[2]);
    drop(bird);
    goes_gone(&hosts[0]);
}

fn goes_gone(host: &Host) {
    eventually("no route is left", || {
        let left = [routes(host, SHARED[0])?, routes(host, SHARED[1])?].concat();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    });
}

/// `kernel.export` keeps routes out of the kernel that neighbours are told all the same, and
/// `metric-of-local-preference` makes the better of them the lower; both change by a reload.
#[test]
fn a_filter_and_a_metric_of_the_kernels() {
    let lab = Lab::new();
    let hosts = [1, 2, 3].map(|n| lab.host(n));
    let [kept, taken] = ["10.2.0.0/24", "10.20.0.0/24"];
    let mut words = configuration(&hosts[0], &Conf::new(64501, vec![Peer::new(2, 64502), Peer::new(3, 64503)]));
    words["filters"] = json!([
        {"name": "all", "rules": [], "default": "accept"},
        {"name": "good", "rules": [{"match": {"communities": ["2:2"]}, "set": {"local-preference": 200}}], "default": "accept"},
        {"name": "some", "rules": [{"match": {"prefixes": [{"prefix": kept}]}, "action": "reject"}], "default": "accept"},
    ]);
    words["neighbors"][0]["import"] = json!("good");
    words["kernel"] = json!({"routes": true, "export": "some", "metric-of-local-preference": true});
    let ours = Ours::with(&hosts[0], &words, false);
    let theirs = Conf::new(64502, vec![Peer::new(1, 64501)]).network(kept, &["2:2"]).network(taken, &["2:2"]);
    let _bird = Kind::Bird.start(&hosts[1], &theirs);
    let frr = Kind::Frr.start(&hosts[2], &Conf::new(64503, vec![Peer::new(1, 64501)]));
    let has = |dst: &str, metric: Option<u32>| {
        eventually(&format!("{dst} with metric {metric:?}"), || {
            let routes = routes(&hosts[0], dst)?;
            let metrics: Vec<u32> = routes.iter().map(|route| route.metric).collect();
            ensure!(
                metrics.iter().eq(&metric) && routes.iter().all(|route| route.gateway() == Some(v4(2))),
                "{routes:?}"
            );
            Ok(())
        });
    };
    frr.learns(&[kept, taken]);
    // What Calico's BIRD makes of LOCAL_PREF: 2^31 - 1 less it.
    has(taken, Some(2_147_483_447));
    has(kept, None);
    let before = ours.neighbor(v4(2)).unwrap().sessions;
    words["kernel"] = json!({"routes": true, "metric": 77});
    ours.configure(&words);
    ours.ask(&Question::Reload).unwrap();
    has(kept, Some(77));
    has(taken, Some(77));
    assert_eq!(ours.neighbor(v4(2)).unwrap().sessions, before);
}
