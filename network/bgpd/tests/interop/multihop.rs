//! Sessions with neighbours who are not next door: a host between forwards the packets and speaks no BGP.

use std::net::IpAddr;

use anyhow::ensure;
use linux::netlink::Route;
use meta::Prefix;
use serde_json::{Value, json};

use crate::bird::Bird;
use crate::frr::Frr;
use crate::lab::{Host, Lab, eventually, v4};
use crate::ours::Ours;
use crate::speaker::Speaker;

const FAR: u8 = 3;
const BETWEEN: u8 = 2;

/// An address of a host's own, on no link.
fn own(n: u8) -> IpAddr {
    IpAddr::from([192, 168, 0, n])
}

/// Two hosts, and one between them by which each reaches the other's own address.
fn chain(lab: &Lab) -> [Host; 3] {
    let hosts = [1, BETWEEN, FAR].map(|n| lab.host(n));
    for host in &hosts {
        let settings = [("ip_forward", "1"), ("conf.all.send_redirects", "0"), ("conf.eth0.send_redirects", "0")];
        let set =
            |(name, value): (&str, &str)| linux::sysctl::set(&format!("net.ipv4.{name}"), value).map(drop).unwrap();
        host.ns.run(|| settings.into_iter().for_each(set)).unwrap();
        let mut rtnl = host.rtnl();
        let [lo, eth0] = ["lo", "eth0"].map(|name| rtnl.link(name).unwrap().unwrap().index);
        rtnl.put_address(lo, Prefix::host(own(host.n))).unwrap();
        let ways: &[(u8, u8)] = match host.n {
            1 => &[(FAR, BETWEEN)],
            FAR => &[(1, BETWEEN)],
            _ => &[(1, 1), (FAR, FAR)],
        };
        for (to, by) in ways {
            rtnl.put_route(&Route { protocol: 4, ..Route::via(Prefix::host(own(*to)), v4(*by), eth0) }).unwrap();
        }
    }
    hosts
}

/// Ours on the first host, with a neighbour at the far one's own address.
fn ours(host: &Host, number: u32, neighbor: Value) -> Ours {
    let mut words = json!({
        "router-id": "10.0.0.1",
        "as": number,
        "neighbors": [{
            "address": own(FAR),
            "source-address": own(1),
            "connect-retry-time": "1s",
            "idle-hold-time": "1s",
            "longest-idle-hold-time": "2s",
            "import": "accept",
            "export": "accept",
        }],
        "networks": [{"prefix": "10.1.0.0/24"}],
    });
    words["neighbors"][0].as_object_mut().unwrap().extend(neighbor.as_object().unwrap().clone());
    Ours::with(host, &words, false)
}

/// BIRD on the far host.
fn bird(host: &Host, more: &str) -> Bird {
    let text = format!(
        "log stderr all;\nrouter id 10.0.0.{FAR};\nprotocol device {{ scan time 1; }}\nprotocol direct {{ ipv4; }}\n\
         protocol kernel {{ learn; ipv4 {{ import all; export none; }}; }}\n\
         protocol static {{ ipv4; route 10.3.0.0/24 blackhole; }}\n\
         protocol bfd {{ multihop {{ interval 100 ms; multiplier 5; }}; }}\n\
         protocol bgp p0 {{\n  local {} as 64503;\n  neighbor {} as 64501;\n  multihop 2;\n  connect delay time 1;\n  \
         connect retry time 2; error wait time 1, 2;\n  {more}\n  \
         ipv4 {{ import all; export where source = RTS_STATIC; }};\n}}\n",
        own(FAR),
        own(1)
    );
    Bird::with(host, &text)
}

/// The far one's route is in the kernel by the host between, as its next hop is not next door.
fn goes_by_the_one_between(host: &Host) {
    let dst: Prefix = "10.3.0.0/24".parse().unwrap();
    eventually("a route by the host between", || {
        let routes = host.rtnl().routes_of(Some(254), |route| (route.dst == dst).then_some(route))?;
        ensure!(routes.len() == 1 && routes[0].gateway() == Some(v4(BETWEEN)), "{routes:?}");
        Ok(())
    });
}

/// Another AS two links away, with packets from further away dropped (GTSM) and BFD over the same way (RFC 5883), which knows
/// at once that the one between is gone.
#[test]
fn another_as_behind_a_router() {
    let lab = Lab::new();
    let hosts = chain(&lab);
    let neighbor = json!({
        "remote-as": 64503,
        "multihop": 2,
        "ttl-security": true,
        "bfd": {"interval": "100ms", "multiplier": 5},
        "graceful-restart": {"mode": "off"},
    });
    let ours = ours(&hosts[0], 64501, neighbor);
    let bird = bird(&hosts[2], "ttl security on; bfd on; graceful restart off;");
    let path = ours.has("10.3.0.0/24", "of BIRD", &|_| true);
    assert_eq!((path.next_hop, path.as_path), (Some(own(FAR)), vec![64503]));
    bird.has("10.1.0.0/24", "of ours", &|path| path.next_hop == Some(own(1)) && path.as_path == [64501]);
    goes_by_the_one_between(&hosts[0]);
    eventually("BFD on both sides", || {
        let state = ours.neighbor(own(FAR))?.bfd;
        let theirs = bird.ask("show bfd sessions")?;
        ensure!(state.as_deref() == Some("Up") && theirs.contains("Up"), "{state:?} {theirs}");
        Ok(())
    });
    lab.cut(&hosts[1], true);
    ours.loses(&["10.3.0.0/24"]);
    let said = ours.neighbor(own(FAR)).unwrap().last_error.unwrap_or_default();
    assert!(said.contains("BFD"), "{said}");
    lab.cut(&hosts[1], false);
    ours.learns(&["10.3.0.0/24"]);
    goes_by_the_one_between(&hosts[0]);
}

/// Who is two links away has no session with ours before that was said of him.
#[test]
fn further_away_than_was_said() {
    let lab = Lab::new();
    let hosts = chain(&lab);
    let ours = ours(&hosts[0], 64501, json!({"remote-as": 64503}));
    let bird = bird(&hosts[2], "");
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_secs(5) {
        let sessions = (ours.sessions().unwrap_or_default(), bird.sessions().unwrap_or_default());
        assert_eq!(sessions, (vec![], vec![]));
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// Inside of an AS: between addresses on no link, with FRR.
#[test]
fn between_addresses_on_no_link() {
    let lab = Lab::new();
    let hosts = chain(&lab);
    let ours = ours(&hosts[0], 64501, json!({"remote-as": "internal"}));
    let frr = Frr::with(
        &hosts[2],
        &format!(
            "log stdout\nrouter bgp 64501\n bgp router-id 10.0.0.{FAR}\n no bgp network import-check\n \
             neighbor {near} remote-as 64501\n neighbor {near} update-source {far}\n neighbor {near} timers connect 2\n \
             neighbor {near} advertisement-interval 0\n address-family ipv4 unicast\n  network 10.3.0.0/24\n \
             exit-address-family\n!\n",
            near = own(1),
            far = own(FAR)
        ),
    );
    let path = ours.has("10.3.0.0/24", "of FRR", &|_| true);
    assert_eq!((path.next_hop, path.as_path), (Some(own(FAR)), vec![]));
    frr.has("10.1.0.0/24", "of ours", &|path| path.next_hop == Some(own(1)));
    goes_by_the_one_between(&hosts[0]);
}
