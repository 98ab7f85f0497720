//! What somebody deletes or changes by hand is back at once, and a host that gets another address is followed.

use std::time::{Duration, Instant};

use linux::netlink::{Fdb, Mac, Neighbour, Rtnl};
use linux::nft::{Batch, Family, Nft};

use crate::world::{Host, TABLE, World, eventually};

fn conf(backend: &str) -> String {
    format!(r#"{{"Network": "10.5.0.0/16", "Backend": {{"Type": "{backend}"}}}}"#)
}

/// How long what was deleted may stay away, on a machine with other work.
const SECOND: Duration = Duration::from_secs(1);

fn fdb(rtnl: &mut Rtnl) -> Vec<Fdb> {
    rtnl.fdb().unwrap().into_iter().filter(|entry| entry.dst.is_some()).collect()
}

/// The permanent ones of other hosts' subnets.
fn neighbours(rtnl: &mut Rtnl) -> Vec<(std::net::IpAddr, Option<Mac>)> {
    let all = rtnl.neighbours().unwrap().into_iter();
    all.filter(|n| n.is_permanent() && n.addr.to_string().starts_with("10.5.")).map(|n| (n.addr, n.mac)).collect()
}

fn soon<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, mut look: impl FnMut() -> T) {
    let began = Instant::now();
    loop {
        let now = look();
        if now == *expected {
            return;
        }
        assert!(began.elapsed() < SECOND, "{what} is not back: {now:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn entries_that_are_deleted_or_changed_are_back_in_a_second() {
    let world = World::new(&conf("vxlan"));
    let (one, two) = (world.host(1), world.host(2));
    eventually(|| one.asks(&two, 100));
    let mut rtnl = one.rtnl();
    let (entries, known) = (fdb(&mut rtnl), neighbours(&mut rtnl));
    assert_eq!((entries.len(), known.len()), (1, 1));
    let index = entries[0].index;
    let wrong = Mac([2, 9, 9, 9, 9, 9]);

    rtnl.delete_fdb(&entries[0]).unwrap();
    soon("the place of a hardware address", &entries, || fdb(&mut one.rtnl()));
    rtnl.put_fdb(&Fdb { dst: Some("192.0.2.99".parse().unwrap()), ..entries[0].clone() }).unwrap();
    soon("the right place", &entries, || fdb(&mut one.rtnl()));
    rtnl.put_fdb(&Fdb::remote(index, wrong, "192.0.2.99".parse::<std::net::IpAddr>().unwrap())).unwrap();
    soon("the state without what somebody added", &entries, || fdb(&mut one.rtnl()));

    rtnl.delete_neighbour(index, known[0].0).unwrap();
    soon("a neighbour", &known, || neighbours(&mut one.rtnl()));
    rtnl.put_neighbour(&Neighbour::permanent(index, known[0].0, wrong)).unwrap();
    soon("the right neighbour", &known, || neighbours(&mut one.rtnl()));

    // The link goes down, and loses its routes; its MTU is changed; its address is taken away.
    rtnl.set_up(index, false).unwrap();
    soon("the route", &true, || one.route(two.subnet()).is_some());
    let own = one.rtnl().addresses(Some(index)).unwrap();
    let own = own.iter().find(|address| address.global && !address.prefix.is_ipv6()).unwrap().prefix;
    rtnl.delete_address(index, own).unwrap();
    soon("the link's address", &true, || {
        one.rtnl().addresses(Some(index)).unwrap().iter().any(|address| address.prefix == own)
    });
    rtnl.set_mtu(index, 1000).unwrap();
    soon("the size of packets", &1450, || one.rtnl().link("flannel.1").unwrap().unwrap().mtu);
    eventually(|| one.asks(&two, 1400));
}

#[test]
fn rules_that_somebody_took_away_are_made_anew() {
    let world = World::new(&conf("host-gw"));
    let mut one = world.bare_host(1);
    one.ip_masq = true;
    one.start();
    one.subnet();
    let rules = |host: &Host| {
        let mut nft = Nft::open_in(&host.ns).unwrap();
        let comments =
            nft.rules(Family::Ip, TABLE).map(|rules| rules.into_iter().map(|r| r.comment).collect::<Vec<_>>());
        comments.unwrap_or_default()
    };
    let before = rules(&one);
    assert_eq!(before.len(), 6);
    let mut nft = Nft::open_in(&one.ns).unwrap();
    let change = |nft: &mut Nft, change: fn(&mut Batch)| {
        let mut batch = Batch::new(Family::Ip, TABLE);
        change(&mut batch);
        nft.commit(batch).unwrap();
    };
    change(&mut nft, |batch| batch.flush_chain("flannel-postrouting"));
    soon("a chain's rules", &before, || rules(&one));
    let first = nft.rules(Family::Ip, TABLE).unwrap()[0].handle;
    let mut batch = Batch::new(Family::Ip, TABLE);
    batch.delete_rule("flannel-postrouting", first);
    nft.commit(batch).unwrap();
    soon("a rule", &before, || rules(&one));
    nft.remove_table(Family::Ip, TABLE).unwrap();
    soon("the table", &before, || rules(&one));
}

/// The lease stays, and with it the pods' addresses; whoever follows it hears where the host is now.
#[test]
fn a_host_that_gets_another_address_is_followed() {
    for backend in ["host-gw", "vxlan", "udp"] {
        let world = World::new(&conf(backend));
        let (one, two) = (world.host(1), world.host(2));
        eventually(|| one.asks(&two, 100));
        let key = two.subnets().key();
        let mut rtnl = two.rtnl();
        let eth0 = rtnl.link("eth0").unwrap().unwrap().index;
        // As a lease of DHCP that was not renewed: first it has none.
        rtnl.delete_address(eth0, "192.0.2.2/24".parse().unwrap()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        rtnl.put_address(eth0, "192.0.2.22/24".parse().unwrap()).unwrap();
        eventually(|| match world.leases().iter().find(|(other, _, _)| *other == key) {
            Some((_, value, lease)) if value.contains(r#""PublicIP":"192.0.2.22""#) && *lease != 0 => Ok(()),
            other => Err(format!("{backend}: {other:?}")),
        });
        eventually(|| one.asks(&two, 1000).map_err(|error| format!("{backend}: {error}")));
        eventually(|| two.asks(&one, 1000).map_err(|error| format!("{backend}: {error}")));
        assert_eq!((two.subnets().key(), world.leases().len()), (key, 2), "{backend}");
    }
}
