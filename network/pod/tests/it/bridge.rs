//! The bridge network: what can't be made says why until it can, ranges of both families, what a crash left.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use linux::netlink::{LinkKind, Mac, Route, Rtnl, Vxlan};
use linux::netns::NetNs;
use meta::Prefix;
use pod_network::{NETWORKS, NetError, NotReady, PodNet, PodNetwork, Setup, Way, named};

/// More than the pause between two tries.
const PATIENCE: Duration = Duration::from_secs(10);

/// A host of its own whose files go away with it.
struct World {
    host: NetNs,
    setup: Setup,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup {
            tag: "fk-test".into(),
            bridge: "fk-test0".into(),
            pods: "10.42.0.0/16".parse().unwrap(),
            services: "10.43.0.0/16".parse().unwrap(),
            ranges_by_way: false,
            state_dir: dir.path().join("cni"),
            range_file: dir.path().join("range"),
            settings_dir: dir.path().join("settings"),
            host_lock: dir.path().to_owned(),
        };
        World { host: NetNs::create().unwrap(), setup, _dir: dir }
    }

    fn open(&self) -> Arc<dyn PodNetwork> {
        self.open_as("bridge")
    }

    fn open_as(&self, name: &str) -> Arc<dyn PodNetwork> {
        self.host.run(|| (named(name).unwrap().open)(&self.setup)).unwrap()
    }

    /// The bytes of a packet of the bridge.
    fn mtu(&self) -> u32 {
        Rtnl::open_in(&self.host).unwrap().link(&self.setup.bridge).unwrap().unwrap().mtu
    }

    fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.host.run(work).unwrap()
    }

    /// Somebody else's link has the bridge's name.
    fn take_the_name(&self) {
        let mut rtnl = Rtnl::open_in(&self.host).unwrap();
        let veth = linux::netlink::NewVeth {
            name: &self.setup.bridge,
            mac: None,
            master: None,
            mtu: 1500,
            peer_name: "other",
            peer_mac: None,
            peer_ns: None,
        };
        rtnl.add_veth(&veth).unwrap();
    }

    fn give_the_name_back(&self) {
        Rtnl::open_in(&self.host).unwrap().delete_link(&self.setup.bridge).unwrap();
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn pod(id: &str, netns: &NetNs) -> PodNet {
    PodNet {
        id: id.into(),
        namespace: "default".into(),
        name: id.into(),
        uid: format!("uid-{id}"),
        netns: format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd()).into(),
        ports: Vec::new(),
    }
}

/// It was a line in the log, and the node said that it had no range.
#[test]
fn a_network_that_cannot_be_made_says_why_until_it_can() {
    let world = World::new();
    let network = world.open();
    assert_eq!(network.ready(), Err(NotReady::NoRange));
    world.take_the_name();
    let refused = world.on_host(|| network.set_ranges(&[prefix("10.42.3.0/24")])).unwrap_err();
    let why = world.on_host(|| network.ready()).unwrap_err();
    assert!(matches!(&refused, NetError::NotReady(reason) if *reason == why), "{refused}");
    let text = "the pod network could not be made: fk-test0 is there already and is not ours: it is not a bridge";
    assert!(why.to_string().starts_with(text), "{why}");
    let ns = NetNs::create().unwrap();
    assert_eq!(world.on_host(|| network.add(&pod("a", &ns))).unwrap_err().to_string(), why.to_string());

    world.give_the_name_back();
    let began = Instant::now();
    while let Err(reason) = world.on_host(|| network.ready()) {
        assert!(began.elapsed() < PATIENCE, "it is not tried again: {reason}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(
        world.on_host(|| network.add(&pod("a", &ns))).unwrap(),
        ["10.42.3.2".parse::<std::net::IpAddr>().unwrap()]
    );
}

/// They came with a comma between, were read as one, and the node never became ready.
#[test]
fn ranges_of_both_families_are_taken_in_either_order() {
    let given = [["10.42.3.0/24", "fd42:0:0:3::/64"], ["fd42:0:0:3::/64", "10.42.3.0/24"]];
    let clusters = [
        ("10.42.0.0/16", vec!["10.42.3.2"]),
        ("10.42.0.0/16,fd42::/48", vec!["10.42.3.2", "fd42:0:0:3::2"]),
        ("fd42::/48,10.42.0.0/16", vec!["fd42:0:0:3::2", "10.42.3.2"]),
        ("fd42::/48", vec!["fd42:0:0:3::2"]),
    ];
    for (pods, expected) in clusters {
        for ranges in given {
            let mut world = World::new();
            (world.setup.pods, world.setup.services) =
                (pods.parse().unwrap(), "fd43::/112,10.43.0.0/16".parse().unwrap());
            let network = world.open();
            world.on_host(|| network.set_ranges(&ranges.map(prefix)).unwrap());
            assert_eq!(world.on_host(|| network.ready()), Ok(()));
            let ns = NetNs::create().unwrap();
            let addresses = world.on_host(|| network.add(&pod("a", &ns))).unwrap();
            assert_eq!(addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{pods} {ranges:?}");
            drop(network);
            let next = world.open();
            assert_eq!(world.on_host(|| next.add(&pod("a", &ns))).unwrap(), addresses, "the next life");
        }
    }
    let world = World::new();
    let network = world.open();
    let refused = world.on_host(|| network.set_ranges(&[prefix("fd42:0:0:3::/64")])).unwrap_err();
    let said = "podCIDRs: the node has fd42:0:0:3::/64 of the cluster's 10.42.0.0/16: a node keeps";
    assert!(refused.to_string().contains(said), "{refused}");
    assert!(matches!(network.ready(), Err(NotReady::Failed(why)) if why.contains(said)));
}

/// The cluster has a second family from this life on, and the node gets a range of it a moment later.
#[test]
fn pods_that_are_there_keep_their_address_when_the_network_gets_a_second_family() {
    let mut world = World::new();
    let (a, b, c) = (NetNs::create().unwrap(), NetNs::create().unwrap(), NetNs::create().unwrap());
    let (v4, v6) = (prefix("10.42.3.0/24"), prefix("fd42:0:0:3::/64"));
    let add = |world: &World, network: &Arc<dyn PodNetwork>, id: &str, ns: &NetNs| {
        let addresses = world.on_host(|| network.add(&pod(id, ns))).unwrap();
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let first = world.open();
    world.on_host(|| first.set_ranges(&[v4]).unwrap());
    assert_eq!(add(&world, &first, "a", &a), ["10.42.3.2"]);
    drop(first);
    (world.setup.pods, world.setup.services) =
        ("10.42.0.0/16,fd42::/48".parse().unwrap(), "10.43.0.0/16,fd43::/112".parse().unwrap());
    let next = world.open();
    world.on_host(|| {
        next.keep_only(&["a".into()]).unwrap();
        next.set_ranges(&[v4]).unwrap();
        assert_eq!(next.ready(), Ok(()), "pods go on by what there is");
    });
    assert_eq!(add(&world, &next, "b", &b), ["10.42.3.3"]);
    world.on_host(|| next.set_ranges(&[v4, v6]).unwrap());
    assert_eq!(add(&world, &next, "c", &c), ["10.42.3.4", "fd42:0:0:3::2"]);
    // What was there is as it was, and reaches what has come.
    let has = |ns: &NetNs| {
        let mut rtnl = Rtnl::open_in(ns).unwrap();
        let eth0 = rtnl.link("eth0").unwrap().unwrap().index;
        rtnl.addresses(Some(eth0))
            .unwrap()
            .into_iter()
            .filter(|a| a.global)
            .map(|a| a.prefix.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!((has(&a), has(&c).len()), (vec!["10.42.3.2/24".to_owned()], 2));
    let server = c.run(|| std::net::TcpListener::bind("10.42.3.4:80").unwrap()).unwrap();
    let reached = a.run(|| std::net::TcpStream::connect_timeout(&"10.42.3.4:80".parse().unwrap(), PATIENCE)).unwrap();
    reached.expect("by the first family");
    drop(server);
    drop(next);
    let last = world.open();
    world.on_host(|| {
        last.keep_only(&["a".into(), "c".into()]).unwrap();
        last.set_ranges(&[v4, v6]).unwrap();
        last.del(&pod("a", &a)).unwrap();
        last.del(&pod("c", &c)).unwrap();
    });
    let records = std::fs::read_dir(world.setup.state_dir.join("addresses")).unwrap().count();
    assert_eq!(records, 0, "each is free once");
}

#[test]
fn the_next_life_knows_the_range_and_frees_what_nobody_has_also_when_it_starts_broken() {
    let world = World::new();
    let (a, b) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    let first = world.open();
    world.on_host(|| {
        first.set_ranges(&[prefix("10.42.3.0/24")]).unwrap();
        first.add(&pod("a", &a)).unwrap();
        first.add(&pod("b", &b)).unwrap();
    });
    drop(first);
    let addresses = || std::fs::read_dir(world.setup.state_dir.join("addresses")).unwrap().count();
    let before = addresses();

    // A boot: the bridge is gone, and its name is somebody else's.
    world.give_the_name_back();
    world.take_the_name();
    let second = world.open();
    world.on_host(|| {
        second.keep_only(&["a".into(), "b".into()]).unwrap();
        second.del(&pod("b", &b)).unwrap();
    });
    assert_eq!(addresses(), before);
    world.give_the_name_back();
    let began = Instant::now();
    while world.on_host(|| second.ready()).is_err() {
        assert!(began.elapsed() < PATIENCE, "nobody says the range again");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(addresses(), before - 1, "b's is free");
}

#[test]
fn what_is_removed_is_ours_and_this_clusters() {
    let world = World::new();
    world.on_host(|| {
        let network = world.open();
        network.set_ranges(&[prefix("10.42.3.0/24")]).unwrap();
        let mut rtnl = Rtnl::open().unwrap();
        rtnl.add_bridge("lan0", Mac([2, 0, 0, 0, 0, 1]), 1500).unwrap();
        let lan = rtnl.link("lan0").unwrap().unwrap().index;
        let ours = Route::link(prefix("10.42.7.0/24"), lan);
        let others = [
            Route::link(prefix("10.44.7.0/24"), lan),
            Route { protocol: 4, ..Route::link(prefix("10.42.8.0/24"), lan) },
        ];
        others.iter().chain([&ours]).for_each(|route| rtnl.put_route(route).unwrap());
        for _ in 0..2 {
            (named("bridge").unwrap().remove)(&world.setup).unwrap();
        }
        let left = rtnl.routes().unwrap();
        assert!(!left.contains(&ours) && others.iter().all(|other| left.contains(other)), "{left:?}");
        assert_eq!(rtnl.link(&world.setup.bridge).unwrap(), None);
    });
}

#[test]
fn the_way_to_other_nodes_says_how_long_a_packet_may_be_also_in_the_next_life() {
    let world = World::new();
    let network = world.open_as("flannel");
    let way = |mtu| Way { mtu: Some(mtu), ..Way::default() };
    world.on_host(|| {
        network.set_way(&way(1450)).unwrap();
        network.set_ranges(&[prefix("10.42.3.0/24")]).unwrap();
    });
    let (a, b) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    let inside = |ns: &NetNs| Rtnl::open_in(ns).unwrap().link("eth0").unwrap().unwrap().mtu;
    world.on_host(|| network.add(&pod("a", &a)).unwrap());
    assert_eq!((world.mtu(), inside(&a)), (1450, 1450));
    drop(network);

    let next = world.open_as("flannel");
    world.on_host(|| {
        assert_eq!(next.ready(), Ok(()));
        next.set_way(&way(1400)).unwrap();
        next.add(&pod("b", &b)).unwrap();
    });
    assert_eq!((world.mtu(), inside(&a), inside(&b)), (1400, 1450, 1400));
    // Longer ones would be lost on their way into the pods that are there.
    let c = NetNs::create().unwrap();
    world.on_host(|| {
        next.set_way(&way(1500)).unwrap();
        next.add(&pod("c", &c)).unwrap();
    });
    assert_eq!((world.mtu(), inside(&c)), (1400, 1400));
    let d = NetNs::create().unwrap();
    world.on_host(|| {
        for (id, ns) in [("a", &a), ("b", &b), ("c", &c)] {
            next.del(&pod(id, ns)).unwrap();
        }
        next.add(&pod("d", &d)).unwrap();
    });
    assert_eq!((world.mtu(), inside(&d)), (1500, 1500));
    // The network of one host has no way to others.
    let alone = World::new();
    let network = alone.open();
    alone.on_host(|| {
        network.set_ranges(&[prefix("10.42.3.0/24")]).unwrap();
        network.set_way(&way(1300)).unwrap();
    });
    assert_eq!(alone.mtu(), 1500);
}

#[test]
fn where_leases_have_the_ranges_the_kubelets_are_passed_over() {
    let mut world = World::new();
    world.setup.ranges_by_way = true;
    let network = world.open_as("flannel");
    world.on_host(|| network.set_ranges(&[prefix("10.42.3.0/24")]).unwrap());
    assert_eq!(network.ready(), Err(NotReady::NoRange));
    let way = Way { mtu: Some(1450), ranges: vec![prefix("10.42.77.0/24")] };
    let ns = NetNs::create().unwrap();
    let addresses = world.on_host(|| {
        network.set_way(&way).unwrap();
        network.add(&pod("a", &ns)).unwrap()
    });
    assert_eq!(addresses, ["10.42.77.2".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn flannels_links_and_rules_of_this_cluster_go_with_it() {
    let world = World::new();
    world.on_host(|| {
        let mut rtnl = Rtnl::open().unwrap();
        for (name, id, tag) in [("flannel.1", 1, "fk-test"), ("flannel.2", 2, "fk-test2"), ("flannel.3", 3, "")] {
            match rtnl.add_vxlan(name, None, 1450, &Vxlan { id, port: 8472, ..Vxlan::default() }) {
                Err(error) if error.is_unsupported() => return println!("skipped: this kernel has no VXLAN links"),
                made => made.unwrap(),
            }
            let link = rtnl.link(name).unwrap().unwrap();
            assert!(matches!(link.kind, Some(LinkKind::Vxlan(_))));
            if !tag.is_empty() {
                rtnl.set_alias(link.index, tag).unwrap();
            }
        }
        for _ in 0..2 {
            NETWORKS.iter().for_each(|row| (row.remove)(&world.setup).unwrap());
        }
        let left: Vec<_> = rtnl.links().unwrap().into_iter().map(|link| link.name).collect();
        assert_eq!(left, ["lo", "flannel.2", "flannel.3"]);
    });
}

/// Its hosts were told of flannel before; now pods of this one are reached by the bridge alone.
#[test]
fn a_cluster_that_turns_to_the_bridge_keeps_nothing_of_flannels() {
    let world = World::new();
    world.on_host(|| {
        let mut rtnl = Rtnl::open().unwrap();
        rtnl.add_bridge("wire", Mac([2, 0, 0, 0, 7, 7]), 1500).unwrap();
        let wire = rtnl.link("wire").unwrap().unwrap().index;
        rtnl.put_address(wire, prefix("192.0.2.1/24")).unwrap();
        let router = "192.0.2.2".parse().unwrap();
        let ours = Route::via(prefix("10.42.9.0/24"), router, wire);
        let theirs = [
            Route::via(prefix("10.77.9.0/24"), router, wire),
            Route { protocol: 4, ..Route::via(prefix("10.42.10.0/24"), router, wire) },
            Route::link(prefix("10.42.11.0/24"), wire),
        ];
        theirs.iter().chain([&ours]).for_each(|route| rtnl.put_route(route).unwrap());
        (named("bridge").unwrap().open)(&world.setup);
        let left: Vec<_> = rtnl.routes().unwrap().into_iter().map(|route| route.dst).collect();
        assert!(!left.contains(&ours.dst) && theirs.iter().all(|route| left.contains(&route.dst)), "{left:?}");
    });
}

/// Whoever connects pods now may have the same range.
#[test]
fn a_cluster_that_turns_to_a_network_of_somebody_else_keeps_no_bridge() {
    let world = World::new();
    let before = world.open_as("flannel");
    world.on_host(|| {
        before.set_ranges(&[prefix("10.42.0.0/24")]).unwrap();
        let mut rtnl = Rtnl::open().unwrap();
        assert!(rtnl.link(&world.setup.bridge).unwrap().is_some());
        for _ in 0..2 {
            (named("cni").unwrap().open)(&world.setup);
            assert!(rtnl.link(&world.setup.bridge).unwrap().is_none());
            assert!(rtnl.routes().unwrap().iter().all(|route| !route.is_ours()));
        }
    });
}
