//! Leases in etcd: whose subnet is whose, for how long, and what is heard of.

use flannel::Attributes;
use wire::etcd::LeaseTimeToLiveResponse;

use crate::world::{World, block, eventually, put};

const CONF: &str = r#"{"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}"#;

#[test]
fn a_lease_is_for_a_day_and_a_reservation_for_good() {
    let world = World::new(CONF);
    let reserved = r#"{"PublicIP": "192.0.2.2", "PublicIPv6": null, "BackendType": "host-gw"}"#;
    world.put("subnets/10.5.99.0-24", reserved, 0);
    let (mut one, mut two) = (world.bare_host(1), world.bare_host(2));
    one.start();
    two.start();
    assert_eq!(two.subnet().to_string(), "10.5.99.0/24");
    let own = one.subnets().key();
    let all = world.leases();
    let of = |key: &str| all.iter().find(|(k, _, _)| k == key).unwrap();
    let (_, value, lease) = of(&own);
    let left: LeaseTimeToLiveResponse = world.store.as_ref().unwrap().lease_time_to_live(*lease, false);
    assert!((86_000..=86_400).contains(&left.ttl), "{}", left.ttl);
    let told = Attributes::parse(value.as_bytes()).unwrap();
    assert_eq!((told.address(false), told.backend_type.as_str()), (Some("192.0.2.1".parse().unwrap()), "host-gw"));
    assert_eq!(of("10.5.99.0-24").2, 0, "still a reservation");
}

#[test]
fn a_host_that_starts_again_has_its_subnet_even_when_etcd_has_forgotten_it() {
    let world = World::new(CONF);
    let mut one = world.bare_host(1);
    one.start();
    let subnet = one.subnet();
    one.stop();
    world.delete(&format!("subnets/{}", one.subnets().key()));
    one.start();
    eventually(|| if world.leases().len() == 1 { Ok(()) } else { Err("no lease".to_owned()) });
    assert_eq!(one.subnet(), subnet);
    assert_eq!(world.leases()[0].0, one.subnets().key());
}

#[test]
fn a_lease_that_does_not_fit_the_network_any_more_is_given_up() {
    let world = World::new(CONF);
    let mut one = world.bare_host(1);
    one.start();
    one.subnet();
    one.stop();
    world.put("config", &CONF.replace("10.5.0.0", "10.9.0.0"), 0);
    one.start();
    eventually(|| match &world.leases()[..] {
        [(key, _, _)] if key.starts_with("10.9.") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn a_host_whose_lease_is_taken_away_ends_and_says_so() {
    for take in [true, false] {
        let world = World::new(CONF);
        let mut one = world.bare_host(1);
        one.start();
        let key = one.subnets().key();
        // It follows once a route of another is there.
        world.put("subnets/10.5.254.0-24", r#"{"PublicIP": "192.0.2.9", "BackendType": "host-gw"}"#, 0);
        eventually(|| one.route("10.5.254.0/24".parse().unwrap()).ok_or("no route".to_owned()));
        match take {
            true => world.put(&format!("subnets/{key}"), r#"{"PublicIP": "192.0.2.9", "BackendType": "host-gw"}"#, 0),
            false => world.delete(&format!("subnets/{key}")),
        }
        let said = one.flannel.take().unwrap().end(false).unwrap_err();
        assert_eq!(said, format!("the lease of {} was taken from this host", one.subnet()));
        assert!(one.route("10.5.254.0/24".parse().unwrap()).is_some(), "packets go on until it is started again");
    }
}

#[test]
fn leases_that_come_while_etcd_is_away_and_compacted_are_heard_of() {
    let mut world = World::new(CONF);
    let one = world.host(1);
    let two = world.host(2);
    eventually(|| one.asks(&two, 100));
    world.stop_etcd();
    eventually(|| one.asks(&two, 100));
    let (come, gone) = (r#"{"PublicIP": "192.0.2.9", "BackendType": "host-gw"}"#, two.subnets().key());
    world.start_etcd(move |store| {
        // On the thread that serves: what waits here keeps it from serving.
        let store = store.clone();
        std::thread::spawn(move || {
            put(&store, "subnets/10.5.254.0-24", come, 0);
            let key = format!("{}/subnets/{gone}", crate::world::PREFIX).into();
            block(store.delete(wire::etcd::DeleteRangeRequest { key, ..Default::default() })).unwrap();
            block(store.compact(store.revision(), true)).unwrap();
        })
        .join()
        .unwrap();
    });
    eventually(|| one.route("10.5.254.0/24".parse().unwrap()).ok_or("no route".to_owned()));
    eventually(|| one.route(two.subnet()).map_or(Ok(()), |route| Err(format!("{route:?}"))));
}

#[test]
fn hosts_that_come_at_once_all_get_a_subnet_of_their_own() {
    let world = World::new(r#"{"Network": "10.5.0.0/24", "SubnetLen": 27, "Backend": {"Type": "host-gw"}}"#);
    let mut hosts: Vec<_> = (1..=7).map(|n| world.bare_host(n)).collect();
    hosts.iter_mut().for_each(|host| host.start());
    let mut subnets: Vec<_> = hosts.iter().map(|host| host.subnet()).collect();
    subnets.sort_unstable();
    subnets.dedup();
    assert_eq!(subnets.len(), 7, "{subnets:?}");
    let mut eighth = world.bare_host(8);
    eighth.start();
    let said = eighth.flannel.take().unwrap().end(false).unwrap_err();
    assert_eq!(said, "all subnets of 10.5.0.0/24 are taken: widen the network or make SubnetLen longer");
}

#[test]
fn hundreds_of_hosts_that_come_at_once_all_have_a_route_and_lose_it() {
    let world = World::new(CONF);
    let mut one = world.bare_host(1);
    one.start();
    one.subnet();
    let ours = |count: usize| {
        eventually(|| {
            let routes = one.rtnl().routes().unwrap();
            let found = routes.iter().filter(|route| route.is_ours() && route.dst.len == 28).count();
            if found == count { Ok(()) } else { Err(format!("{found} routes")) }
        });
    };
    let hosts: Vec<String> = (0..250u32).map(|n| format!("10.5.{}.{}-28", 200 + n / 16, n % 16 * 16)).collect();
    for (n, key) in hosts.iter().enumerate() {
        let host = format!(r#"{{"PublicIP": "192.0.2.{}", "BackendType": "host-gw"}}"#, 2 + n % 100);
        world.put(&format!("subnets/{key}"), &host, 0);
    }
    let began = std::time::Instant::now();
    ours(250);
    assert!(began.elapsed() < std::time::Duration::from_secs(1), "{:?}", began.elapsed());
    hosts.iter().for_each(|key| world.delete(&format!("subnets/{key}")));
    ours(0);
}

#[test]
fn a_configuration_that_comes_late_is_waited_for() {
    let world = World::new("{}");
    let mut one = world.bare_host(1);
    one.start();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!one.subnet_file.exists());
    world.put("config", CONF, 0);
    assert!(one.subnet().to_string().starts_with("10.5."));
}

/// By each backend that carries both; the first host's lease is a reservation.
#[test]
fn a_second_family_is_followed_while_hosts_run_and_their_subnets_stay() {
    for backend in ["host-gw", "vxlan"] {
        let conf = CONF.replace("host-gw", backend);
        let world = World::new(&conf);
        world.put("subnets/10.5.99.0-24", r#"{"PublicIP": "192.0.2.1"}"#, 0);
        let (one, two) = (world.host(1), world.host(2));
        eventually(|| one.asks(&two, 100));
        let before = [one.subnet(), two.subnet()];
        let both = r#""Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48""#;
        world.put("config", &conf.replace(r#""Network": "10.5.0.0/16""#, both), 0);
        for (host, before) in [&one, &two].into_iter().zip(before) {
            eventually(|| host.subnet6().ok_or("no subnet of IPv6".to_owned()));
            assert_eq!(host.subnet(), before);
        }
        let all = world.leases();
        let keys: Vec<_> = all.iter().map(|(key, _, lease)| (key.clone(), *lease == 0)).collect();
        let mut expected = vec![(one.subnets().key(), true), (two.subnets().key(), false)];
        expected.sort();
        assert_eq!(keys, expected, "one lease each, in upstream's layout");
        let told = Attributes::parse(all[0].1.as_bytes()).unwrap();
        assert!(told.address(true).is_some(), "{told:?}");
        eventually(|| one.route(two.subnet6().unwrap()).ok_or("no route of IPv6".to_owned()));
        eventually(|| two.route(one.subnet6().unwrap()).ok_or("no route of IPv6".to_owned()));
        eventually(|| one.asks(&two, 100).and_then(|()| two.asks(&one, 100)));
        // Another range for the same family is none that pods can follow.
        world.put("config", &conf.replace("10.5.0.0", "10.9.0.0"), 0);
        eventually(|| {
            let apart = one.told.borrow().apart.clone().unwrap_or_default();
            if apart.contains("the network is 10.9.0.0/16 now") { Ok(()) } else { Err(apart) }
        });
        assert_eq!(one.subnet(), before[0]);
    }
}

#[test]
fn a_clusters_second_family_is_written_where_its_first_is() {
    let both =
        r#"{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48", "Backend": {"Type": "vxlan"}}"#;
    let world = World::new(CONF);
    let written = |conf: &str| {
        world.publish(conf).unwrap();
        world.config()
    };
    assert_eq!(written(CONF), CONF);
    let grown = written(both);
    assert!(grown.contains(r#""IPv6Network":"fd00:5::/48""#) && grown.contains("host-gw"), "{grown}");
    assert_eq!(written(CONF), grown, "who does not know of it yet takes it from nobody");
}
