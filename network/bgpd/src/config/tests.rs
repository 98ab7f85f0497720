//! Files that people write: what they come to, and what is said of wrong ones.

use std::time::Duration;

use bgp::family::Families;
use bgp::policy::{Source, Verdict};
use bgp::rib::NextHopMode;
use bgp::session::config::{Algorithm, AoKey, Authentication, DEFAULT_PREFIX_LIMIT, RemoteAs};

use super::settings::Secret;
use super::*;

fn config(text: &str) -> Config {
    read_text(text).unwrap_or_else(|problem| panic!("{problem}"))
}

fn read_text(text: &str) -> Result<Config, String> {
    let text = format!("router-id: 10.0.0.1\nas: 64512\n{text}");
    parse(&text, Kind::Speaker, &|path| match path.to_str() {
        Some("secret") => Ok("hush".into()),
        _ => Err("is not there".into()),
    })
}

fn refused(text: &str) -> String {
    read_text(text).err().unwrap_or_else(|| panic!("was taken: {text}"))
}

#[test]
fn little_is_enough() {
    let config = config("neighbors: [{address: 10.0.0.2, remote-as: 64512}]");
    let Neighbor { address, peering } = &config.neighbors[0];
    assert_eq!((address.to_string().as_str(), peering.port), ("10.0.0.2", 179));
    assert_eq!((peering.session.hold_time, peering.session.families), (90, Families::IPV4));
    assert_eq!((peering.routes.source, peering.routes.import.default), (Source::Internal, Verdict::Accept));
    assert_eq!(config.listen, ["0.0.0.0:179".parse().unwrap(), "[::]:179".parse().unwrap()]);
    assert_eq!(config.cluster_id, config.identifier);
    assert!(
        config.kernel.routes && config.kernel.tables == crate::kernel::Config { learn: false, ..Default::default() }
    );
}

#[test]
fn a_reflector_puts_nothing_into_the_kernel_unless_it_is_told_to() {
    let of = |text: &str| {
        let kernel = parse(text, Kind::Reflector, &|_| Err(String::new())).expect("a file").kernel;
        assert_eq!(kernel.routes, kernel.tables.write, "nor takes any there for its own");
        kernel.routes
    };
    assert!(!of("{router-id: 10.0.0.1, as: 64512}"));
    assert!(of("{router-id: 10.0.0.1, as: 64512, kernel: {routes: true}}"));
}

#[test]
fn every_setting_gets_where_it_belongs() {
    let config = config(
        "neighbors:
  - address: fe80::2
    interface: eth1
    remote-as: 65001
    local-as: 64999
    source-address: fe80::1
    port: 1790
    passive: true
    multihop: 3
    ttl-security: true
    password-file: secret
    hold-time: 9s
    least-hold-time: 6s
    keepalive-time: 2s
    connect-retry-time: 1s
    delay-open-time: 500ms
    idle-hold-time: 2s
    longest-idle-hold-time: 8s
    send-hold-time: 30s
    advertisement-interval: 200ms
    families: [ipv4, ipv6]
    add-path: receive
    extended-next-hop: false
    extended-messages: false
    graceful-restart: {restart-time: 60s, stale-time: 90s, long-lived-time: 24h, notification: false, mode: helper}
    role: customer
    strict-role: true
    next-hop: self
    own-addresses: [10.0.0.1]
    remove-private-as: true
    as-override: true
    allow-own-as: 2
    enforce-first-as: false
    prefix-limits: {ipv4: {most: 10, restart-after: 1m}, ipv6: {most: unlimited}}
    import: accept
    export: reject
    bfd: {interval: 100ms, multiplier: 5}
",
    );
    let Peering { session, routes, .. } = &config.neighbors[0].peering;
    let peering = &config.neighbors[0].peering;
    let second = Duration::from_secs(1);
    assert_eq!((session.local_as, session.remote_as, session.passive), (64999, RemoteAs::Number(65001), true));
    assert_eq!((session.hold_time, session.least_hold_time, session.keepalive), (9, 6, Some(second * 2)));
    assert_eq!((session.connect_retry, session.delay_open), (second, Some(second / 2)));
    assert_eq!((session.idle_hold, session.most_idle_hold), (second * 2, second * 8));
    assert_eq!(
        (session.families, session.receive_paths, session.send_paths),
        (Families::ALL, Families::ALL, Families::NONE)
    );
    assert!(!session.extended_next_hop && !session.extended_messages && session.strict_role);
    let restart = session.restart.expect("a helper");
    assert_eq!((restart.time, restart.long_lived, restart.notification), (60, 86_400, false));
    assert_eq!((restart.stale_paths, restart.forwarding), (second * 90, Families::NONE));
    assert_eq!(session.prefix_limits[0].map(|limit| (limit.most, limit.restart)), Some((10, Some(second * 60))));
    assert_eq!(session.prefix_limits[1], None);
    assert_eq!(session.transport.authentication, Some(Authentication::Md5("hush".into())));
    assert_eq!((session.transport.multihop, session.transport.ttl_security), (Some(3), true));
    assert_eq!((peering.port, peering.interface.as_deref()), (1790, Some("eth1")));
    assert_eq!((peering.send_hold, peering.advertisement_interval), (second * 30, second / 5));
    assert_eq!((routes.next_hop, routes.allowed_own_as, routes.enforce_first_as), (NextHopMode::Own, 2, false));
    assert!(routes.remove_private && routes.as_override && routes.own_addresses.len() == 1);
    assert_eq!((routes.import.default, routes.export.default), (Verdict::Accept, Verdict::Reject));
    let bfd = peering.bfd.expect("watched");
    assert_eq!((bfd.session.detect_multiplier, bfd.session.required_min_rx, bfd.far), (5, second / 10, true));
}

#[test]
fn what_a_neighbour_does_not_say_his_group_says() {
    let config = config(
        "groups:
  - {name: rack, remote-as: external, hold-time: 9s, import: accept, export: accept, password: a, bfd: {}}
neighbors:
  - {address: 10.0.0.2, group: rack}
  - {address: 10.0.0.3, group: rack, hold-time: 30s, password-file: secret, bfd: {enabled: false}}
dynamic:
  - {prefix: 10.0.0.0/8, group: rack}
  - {prefix: 10.1.0.0/16, group: rack, limit: 5}
",
    );
    let [two, three] = &config.neighbors[..] else { panic!("two") };
    let of = |n: &Neighbor| (n.peering.session.hold_time, n.peering.authentication().cloned());
    let password = |text: &str| Some(Authentication::Md5(text.to_owned()));
    assert_eq!((of(two), of(three)), ((9, password("a")), (30, password("hush"))));
    assert!(two.peering.bfd.is_some() && three.peering.bfd.is_none());
    let ranges: Vec<_> = config.dynamic.iter().map(|range| (range.prefix.len, range.limit)).collect();
    assert_eq!(ranges, [(16, 5), (8, 100)], "the longest is asked first");
    assert!(config.dynamic.iter().all(|range| range.peering.session.passive));
}

#[test]
fn a_neighbour_without_an_address_is_who_is_found_on_his_link() {
    let config = config(
        "groups: [{name: up, remote-as: external}]\nneighbors: [{interface: eth1, group: up}, {interface: eth2, group: up}]",
    );
    let [one, two] = &config.neighbors[..] else { panic!("two") };
    assert!(one.peering.unnumbered && !one.is_found() && one.name() == "eth1");
    assert_eq!((one.peering.session.families, one.peering.session.extended_next_hop), (Families::ALL, true));
    assert_ne!(one.peering.session.seed, two.peering.session.seed, "their timers don't beat together");
    let found = Neighbor { address: "fe80::2".parse().expect("one"), ..one.clone() };
    assert_eq!((found.written(), found.name()), (one.written(), one.name()), "he is the same wherever he is found");
    assert_ne!(found.place(), one.place());
}

#[test]
fn without_a_filter_another_as_tells_and_hears_nothing() {
    // RFC 8212.
    let config = config("neighbors: [{address: 10.0.0.2, remote-as: external, import: accept}]");
    let routes = &config.neighbors[0].peering.routes;
    assert_eq!((routes.import.default, routes.export.default), (Verdict::Accept, Verdict::Reject));
    assert!(routes.export.name.contains("RFC 8212"), "{}", routes.export.name);
    assert_eq!(config.neighbors[0].peering.session.prefix_limits, [Some(DEFAULT_PREFIX_LIMIT); 2]);
}

#[test]
fn networks_kernel_and_dumps() {
    let config = config(
        "networks:
  - {prefix: 10.1.0.0/26, kernel: blackhole, set: {communities: {add: ['64512:1']}, med: 7}}
kernel: {table: 100, metric: 20, export: only, direct: {interfaces: ['eth*', lo]}, learn: {import: only, protocols: [static, 77]}}
filters: [{name: only, rules: [{match: {source: [kernel]}, action: accept}]}]
mrt: {updates: /tmp/u, table: /tmp/t}
metrics: 127.0.0.1:9
control-socket: /tmp/c
listen: {addresses: [127.0.0.1], port: 1179}
decision: {maximum-paths: 4, multipath-relax: true}
",
    );
    assert_eq!((config.networks[0].rest, config.networks[0].change.med), (Rest::Blackhole, Some(7)));
    let direct = config.kernel.direct.expect("said");
    assert!(direct.means("eth7") && direct.means("lo") && !direct.means("lo0"));
    let learn = config.kernel.learn.expect("said");
    assert_eq!((learn.protocols, learn.import.name.as_str()), (vec![4, 77], "only"));
    assert_eq!((config.kernel.tables.table, config.kernel.tables.learn, config.kernel.metric), (100, true, 20));
    assert_eq!(config.kernel.export.map(|filter| filter.name.clone()).as_deref(), Some("only"));
    assert_eq!((config.options.maximum_paths, config.options.multipath_relax), (4, true));
    assert_eq!(config.mrt.table, Some(("/tmp/t".into(), Duration::from_secs(3600))));
}

#[test]
fn keys_of_tcp_ao_change_and_the_session_goes_on() {
    let with = |keys: &str| {
        let text = format!("neighbors: [{{address: 10.0.0.2, remote-as: 1, tcp-ao: [{keys}]}}]");
        config(&text).neighbors.remove(0).peering
    };
    let [one, two] =
        [1, 2].map(|n| format!("{{send-id: {n}, receive-id: {}, algorithm: hmac-sha-1-96, key: k{n}}}", n + 10));
    let old = with(&one);
    let key = AoKey { send_id: 1, receive_id: 11, algorithm: Algorithm::HmacSha1, secret: "k1".to_owned() };
    assert_eq!(old.authentication(), Some(&Authentication::Ao(vec![key])));
    for new in [format!("{one}, {two}"), format!("{two}, {one}"), two.clone()] {
        assert!(old.same_session(&with(&new)), "{new}");
    }
    for new in ["key: other", "algorithm: aes-128-cmac-96", "receive-id: 12"] {
        let (field, _) = new.split_once(':').expect("a field");
        let begin = one.find(field).expect("it is there");
        let end = one[begin..].find([',', '}']).expect("its end") + begin;
        let changed = format!("{}{new}{}", &one[..begin], &one[end..]);
        assert!(!old.same_session(&with(&changed)), "{changed}: one number is one key");
    }
    let file = with("{send-id: 0, receive-id: 255, algorithm: aes-128-cmac-96, key-file: secret}");
    assert!(matches!(file.authentication(), Some(Authentication::Ao(keys)) if keys[0].secret == "hush"));
    let plain = config("neighbors: [{address: 10.0.0.2, remote-as: 1}]").neighbors.remove(0).peering;
    assert!(!old.same_session(&plain) && !plain.same_session(&old));
}

#[test]
fn a_speaker_of_a_vrf_goes_by_its_table() {
    let of = |text: &str| {
        let config = config(text);
        assert_eq!(config.neighbors[0].peering.vrf, config.vrf, "his sockets");
        (config.kernel.tables.vrf, config.kernel.tables.table, config.kernel.tables.ways)
    };
    let him = "neighbors: [{address: 10.0.0.2, remote-as: 1}]";
    assert_eq!(of(him), (None, 254, 254));
    let (red, of_vrf) = (Some("red".to_owned()), crate::kernel::OF_VRF);
    assert_eq!(of(&format!("vrf: red\n{him}")), (red.clone(), of_vrf, of_vrf));
    assert_eq!(of(&format!("vrf: red\nkernel: {{table: 7}}\n{him}")), (red, 7, of_vrf));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let rows = [
        ("neighbours: []", "neighbours: there is no such field; is neighbors meant?"),
        ("neighbors: [{adress: 10.0.0.2}]", "neighbors[0].adress: there is no such field; is address meant?"),
        (
            "neighbors: [{address: 10.0.0.2, holdTime: 9s}]",
            "neighbors[0].holdTime: there is no such field; is hold-time",
        ),
        ("neighbors: [{address: 10.0.0.2}]", "neighbors[0].remote-as: is missing, here and in the group"),
        ("neighbors: [{remote-as: internal}]", "neighbors[0].address: is missing"),
        ("neighbors: [{remote-as: internal}]", "so is the interface of a neighbour without one (unnumbered)"),
        ("neighbors: [{address: '::', interface: a, remote-as: 1}]", "neighbors[0].address: :: is not the address"),
        (
            "neighbors: [{interface: a, remote-as: 1}, {interface: a, remote-as: 2}]",
            "neighbors[1].interface: the neighbour of a is neighbors[0] already",
        ),
        (
            "neighbors: [{interface: a, remote-as: 1}, {address: 'fe80::1', interface: a, remote-as: 1}]",
            "neighbors[1].address: fe80::1 is on a, where a neighbour without an address is",
        ),
        ("neighbors: [{interface: a, remote-as: 1, multihop: 2}]", "neighbors[0].multihop: he is on his link"),
        (
            "neighbors: [{interface: a, remote-as: 1}]\ndynamic: [{prefix: 'fe80::/10', remote-as: 1, password: x}]",
            "neighbors[0].password: is missing: the kernel asks everybody of the dynamic fe80::/10",
        ),
        ("neighbors: [{address: 10.0.0.2, remote-as: intern}]", "neighbors[0].remote-as: \"intern\" is not the number"),
        (
            "neighbors: [{address: 10.0.0.300, remote-as: 1}]",
            "neighbors[0].address: \"10.0.0.300\" is not an address, like",
        ),
        ("neighbors: [{address: 224.0.0.1, remote-as: 1}]", "224.0.0.1 is not the address of a neighbour"),
        ("neighbors: [{address: 'fe80::1', remote-as: 1}]", "neighbors[0].interface: is missing"),
        ("neighbors: [{address: 10.0.0.2, remote-as: 1, hold-time: 2s}]", "neighbors[0].hold-time: 2s is not 0, nor"),
        ("neighbors: [{address: 10.0.0.2, remote-as: 1, hold-time: -90}]", "-90 is not a duration such as 90s"),
        ("neighbors: [{address: 10.0.0.2, remote-as: 1, hold-time: 1.5}]", "1.5 is not a duration such as 90s, 5m or"),
        ("neighbors: [{address: 10.0.0.2, remote-as: 1, hold-time: 2}]", "neighbors[0].hold-time: 2s is not 0, nor"),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, port: 70000}]",
            "neighbors[0].port: 70000 is not a number from 0 to 65535",
        ),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, port: '179'}]",
            "port: \"179\" is not a number from 0 to 65535: without the quotes",
        ),
        ("cluster-id: 7", "cluster-id: 7 is not an IPv4 address, like 10.0.0.1"),
        ("cluster-id: 10.0.0.256", "cluster-id: \"10.0.0.256\" is not an IPv4 address, like 10.0.0.1"),
        ("metrics: here", "metrics: \"here\" is not an address with a port, like 127.0.0.1:9179"),
        ("metrics: 9179", "metrics: 9179 is not an address with a port, like 127.0.0.1:9179"),
        ("control-socket: 7", "control-socket: 7 is not a path: put it in quotes"),
        ("decision: {maximum-paths: 256}", "decision.maximum-paths: 256 is not a number from 0 to 255"),
        ("kernel: {table: -1}", "kernel.table: -1 is not a number from 0 to 4294967295"),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, password: 12345}]",
            "neighbors[0].password: is not text: put it in quotes",
        ),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, tcp-ao: secret}]",
            "neighbors[0].tcp-ao: is not a list of keys",
        ),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, tcp-ao: [secret]}]",
            "neighbors[0].tcp-ao[0]: is not a key with send-id",
        ),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, passive: maybe}]",
            "neighbors[0].passive: \"maybe\" is not true or false",
        ),
        ("neighbors: [{address: 10.0.0.2, remote-as: 1, group: x}]", "neighbors[0].group: there is no group \"x\""),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, import: x}]",
            "neighbors[0].import: there is no filter \"x\"; there are accept, reject",
        ),
        ("neighbors: [{address: 10.0.0.2, remote-as: 1, prefix: 10.0.0.0/8}]", "they are below \"dynamic\""),
        ("neighbors: [{address: 10.0.0.2, remote-as: 1, families: []}]", "neighbors[0].families: is empty"),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, families: [ipv5]}]",
            "neighbors[0].families[0]: \"ipv5\" is not one of ipv4, ipv6",
        ),
        ("neighbors: [{address: 10.0.0.2, remote-as: 1, route-reflector-client: true}]", "he must be of our AS"),
        ("neighbors: [{address: 10.0.0.2, remote-as: internal, role: peer}]", "roles are between ASes"),
        ("neighbors: [{address: 10.0.0.2, remote-as: 1, role: boss}]", "\"boss\" is not one of provider, customer"),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, strict-role: true}]",
            "neighbors[0].strict-role: goes with role",
        ),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, source-address: '::1'}]",
            "source-address: is not of the neighbour's family",
        ),
        ("neighbors: [{address: 10.0.0.2, remote-as: 1, password: a, password-file: secret}]", "one of both"),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, password-file: gone}]",
            "neighbors[0].password-file: is not there",
        ),
        ("neighbors: [{address: 10.0.0.2, remote-as: 1, password: ''}]", "neighbors[0].password: has 0 bytes"),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, graceful-restart: {restart-time: 2h}}]",
            "graceful-restart.restart-time",
        ),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, bfd: {interval: 1ms}}]",
            "neighbors[0].bfd.interval: 1ms is not from",
        ),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, prefix-limits: {ipv4: {most: 0}}}]",
            "prefix-limits.ipv4.most: 0 is not",
        ),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1}, {address: 10.0.0.2, remote-as: 1}]",
            "neighbors[1].address: 10.0.0.2 is neighbors[0] already",
        ),
        (
            "neighbors: [{address: 'fe80::1', interface: a, remote-as: 1, password: x}, {address: 'fe80::1', interface: b, remote-as: 1}]",
            "neighbors[1].password: is another than that of neighbors[0]",
        ),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1}]\ndynamic: [{prefix: 10.0.0.0/8, remote-as: 1, password: x}]",
            "neighbors[0].password: is missing: the kernel asks everybody of the dynamic 10.0.0.0/8",
        ),
        (
            "dynamic: [{prefix: 10.0.0.0/8, remote-as: 1, password: x}, {prefix: 10.1.0.0/16, remote-as: 1}]",
            "dynamic: 10.1.0.0/16: password is missing: the kernel asks everybody",
        ),
        ("dynamic: [{prefix: 10.0.0.0/8, remote-as: 1, port: 17}]", "dynamic[0].port: does nothing"),
        (
            "dynamic: [{prefix: 10.0.0.0/8, remote-as: 1, connect-retry-time: 9s}]",
            "dynamic[0].connect-retry-time: does nothing",
        ),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, bfd: {enabled: false, interval: 1s}}]",
            "neighbors[0].bfd.interval: does nothing with bfd.enabled: false",
        ),
        ("kernel: {routes: false, metric: 7}", "kernel.metric: does nothing without kernel.routes: true"),
        ("kernel: {routes: false, export: accept}", "kernel.export: does nothing without"),
        (
            "kernel: {routes: false}\nnetworks: [{prefix: 10.0.0.0/8, kernel: blackhole}]",
            "networks[0].kernel: does nothing without kernel.routes: true",
        ),
        ("groups: [{remote-as: 1}]", "groups[0].name: is missing"),
        ("groups: [{name: a, address: 10.0.0.1}]", "groups[0].address: is no field of a group"),
        (
            "dynamic: [{prefix: 10.0.0.1/8, remote-as: 1}]",
            "dynamic[0].prefix: 10.0.0.1/8 has bits behind its length: 10.0.0.0/8",
        ),
        ("dynamic: [{prefix: 10.0.0.0/8, remote-as: 1, passive: false}]", "dynamic[0].passive: they connect"),
        ("networks: [{prefix: 10.0.0.1/8}]", "networks[0].prefix: 10.0.0.1/8 has bits"),
        (
            "networks: [{prefix: 10.0.0.0/8, kernel: drop}]",
            "networks[0].kernel: \"drop\" is not one of none, blackhole, unreachable",
        ),
        ("networks: [{prefix: 10.0.0.0/8, set: {communities: {add: [nope]}}}]", "networks[0].set.communities.add[0]: "),
        ("filters: [{name: accept}]", "filters[0].name: \"accept\" is there already, or built in"),
        (
            "filters: [{name: a, rules: [{}, {match: {prefixs: []}}]}]",
            "filters[0].rules[1].match.prefixs: there is no such field; is prefixes",
        ),
        ("kernel: {learn: {protocols: [statisch]}}", "kernel.learn.protocols: \"statisch\" is not a number"),
        ("kernel: {protocol: 2}", "kernel.protocol: 2 is the number of the kernel itself"),
        ("kernel: {protocol: 16}", "kernel.protocol: 16 is the number of DHCP"),
        ("kernel: {protocol: 70}", "kernel.protocol: 70 is the number of the network of pods"),
        ("kernel: {protocol: 186}", "kernel.protocol: 186 is the number of FRR"),
        ("neighbors: [{address: 10.0.0.2, remote-as: 1, tcp-ao: []}]", "neighbors[0].tcp-ao: has 0 keys"),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, tcp-ao: [{send-id: 1, receive-id: 1, algorithm: md5, key: a}]}]",
            "neighbors[0].tcp-ao[0].algorithm: \"md5\" is not one of hmac-sha-1-96, aes-128-cmac-96",
        ),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, tcp-ao: [{send-id: 1, receive-id: 1, algorithm: hmac-sha-1-96}]}]",
            "neighbors[0].tcp-ao[0].key: is missing, and key-file",
        ),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, tcp-ao: [{send-id: 1, receive-id: 1, algorithm: hmac-sha-1-96, key: a}, {send-id: 2, receive-id: 1, algorithm: hmac-sha-1-96, key: b}]}]",
            "neighbors[0].tcp-ao[1].receive-id: 1 is that of tcp-ao[0] already",
        ),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, password: x, tcp-ao: [{send-id: 1, receive-id: 1, algorithm: hmac-sha-1-96, key: a}]}]",
            "neighbors[0].tcp-ao: and a password (TCP-MD5): one of both",
        ),
        (
            "neighbors: [{address: 10.0.0.2, remote-as: 1, password: x}]\ndynamic: [{prefix: 10.0.0.0/8, remote-as: 1, tcp-ao: [{send-id: 1, receive-id: 1, algorithm: hmac-sha-1-96, key: a}]}]",
            "neighbors[0].tcp-ao: is another than that of the dynamic 10.0.0.0/8",
        ),
        ("vrf: 'a/b'", "vrf: is not the name of a link"),
        ("vrf: a-name-of-16-bytes", "vrf: is not the name of a link: 1 to 15 bytes"),
        ("kernel: {table: 255}", "kernel.table: 255 is the kernel's own"),
        ("kernel: {table: 0}", "kernel.table: 0 is not a table"),
        ("kernel: {learn: {import: x}}", "kernel.learn.import: there is no filter \"x\""),
        ("decision: {maximum-paths: 0}", "decision.maximum-paths: 0 is not from 1"),
        ("mrt: {table-interval: 5m}", "mrt.table-interval: goes with mrt.table"),
        ("listen: {addresses: [127.0.0.1, 127.0.0.1]}", "listen.addresses[1]: 127.0.0.1 is there already"),
        ("as: 1", "as"),
        ("neighbors: 7", "neighbors: 7 is not a list: `- {address: 10.0.0.2, remote-as: 64512}` for each"),
        ("filters: {name: a}", "filters: a map of fields is not a list: `- {name: "),
        ("listen: {addresses: 10.0.0.1}", "listen.addresses: \"10.0.0.1\" is not a list: `[10.0.0.1, …]`"),
        ("kernel: yes", "kernel: \"yes\" is not a map of fields: `{table: "),
        (
            "filters: [{name: a, rules: [{match: {prefixes: [10.0.0.0/8]}}]}]",
            "filters[0].rules[0].match.prefixes[0]: \"10.0.0.0/8\" is not a map of fields: `{prefix: 10.0.0.0/8, lengths: {min: 16, max: 24}}`",
        ),
        (
            "filters: [{name: a, rules: [{set: {communities: ['1:2']}}]}]",
            "rules[0].set.communities: a list is not a map of fields: `{add: [\"64512:1\"]}`",
        ),
        (
            "filters: [{name: a, rules: [{match: {local-preference: 100}}]}]",
            "match.local-preference: 100 is not a map of fields: `{min: 100, max: 200}`",
        ),
    ];
    for (text, words) in rows {
        let told = refused(text);
        assert!(told.contains(words), "{text}\n  says     {told}\n  and not  {words}");
    }
    let told = |text: &str| parse(text, Kind::Speaker, &|_| Err(String::new())).expect_err("refused");
    assert_eq!(told("as: 1"), "router-id: is missing");
    assert!(told("{router-id: 0.0.0.0, as: 1}").contains("0.0.0.0 is nobody's"));
    assert!(told("{router-id: 10.0.0.1, as: 0}").starts_with("line 1: as: 0 is not"));
    assert!(told("a: [").contains("line"), "{}", told("a: ["));
    assert_eq!(told("hello"), "\"hello\" is not a map of fields: router-id: 10.0.0.1, as: 64512, neighbors: …");
    assert_eq!(told("as: 1\nas: 2"), "line 2, column 1: \"as\" is written twice in one map: one of both");
    let deep = format!("a: {}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    assert!(told(&deep).ends_with(": lists and maps lie more than 32 deep in each other"), "{}", told(&deep));
    let nodes = format!("a: [{}]", "1,".repeat(MAX_NODES));
    assert!(told(&nodes).ends_with(": there are more than 1000000 names and values, or too long ones"));
    let bombs = format!("a: &x 1\nb: [{}]", "*x,".repeat(60_000));
    assert!(told(&bombs).ends_with(": refers too often to other places of the file (& and *)"), "{}", told(&bombs));
    assert!(told("as: 1\n---\nas: 1").ends_with("has more than one document (---)"), "{}", told("as: 1\n---\nas: 1"));
}

#[test]
fn a_duration_without_a_unit_is_seconds() {
    let time = |text: &str| {
        let text = format!("neighbors: [{{address: 10.0.0.2, remote-as: 1, hold-time: {text}}}]");
        config(&text).neighbors[0].peering.session.hold_time
    };
    assert_eq!((time("90"), time("90s"), time("1m30s"), time("0")), (90, 90, 90, 0));
}

#[test]
fn two_readings_of_a_file_are_equal_and_a_change_is_seen() {
    let text = "neighbors: [{address: 10.0.0.2, remote-as: 1, hold-time: 9s}]";
    assert_eq!(config(text), config(text));
    let (old, new) = (config(text), config(&text.replace("9s", "30s")));
    assert!(!old.neighbors[0].peering.same_session(&new.neighbors[0].peering));
    let filtered = config(&text.replace("9s", "9s, export: accept"));
    assert!(old.neighbors[0].peering.same_session(&filtered.neighbors[0].peering), "of the routes alone");
    assert_ne!(old.neighbors[0].peering.routes, filtered.neighbors[0].peering.routes);
}

#[test]
fn secrets_are_in_no_debug() {
    let text = "{router-id: 10.0.0.1, as: 1, groups: [{name: g, password: s3cret}], neighbors: [{address: 10.0.0.2, group: g, \
                remote-as: 1}, {address: 10.0.0.3, remote-as: 1, tcp-ao: [{send-id: 1, receive-id: 2, algorithm: \
                hmac-sha-1-96, key: s3cret}]}]}";
    let config = parse(text, Kind::Speaker, &|_| Err(String::new())).expect("sound");
    let told = format!("{config:?}");
    assert!(!told.contains("s3cret") && told.contains("Md5(…)") && told.contains("AoKey(1, 2, HmacSha1, …)"), "{told}");
    let settings = Settings { password: Some(Secret("s3cret".to_owned())), ..Settings::default() };
    assert!(!format!("{settings:?}").contains("s3cret"));
}

#[test]
fn files_are_read_with_the_passwords_beside_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bgp.yaml");
    std::fs::write(folder.path().join("key"), "k3y\nmore\n").expect("written");
    let text = "{router-id: 10.0.0.1, as: 1, neighbors: [{address: 10.0.0.2, remote-as: 1, password-file: key}]}";
    std::fs::write(&file, text).expect("written");
    let config = read(&file, Kind::Speaker).expect("a file");
    assert_eq!(config.neighbors[0].peering.authentication(), Some(&Authentication::Md5("k3y".to_owned())));
    let as_read = File::read(&file, Kind::Speaker).expect("a file");
    let (once, _) = as_read.with(Others::default()).expect("sound");
    std::fs::remove_file(folder.path().join("key")).expect("removed");
    let (again, _) = as_read.with(Others::default()).expect("what was read counts until the file is read again");
    assert_eq!(once, again);
    let told = read(&file, Kind::Speaker).expect_err("refused").to_string();
    assert!(told.contains("bgp.yaml: line 1: neighbors[0].password-file: key: "), "{told}");
    // What could only be told when the first dump is due.
    for (field, dump, why) in [
        ("table", folder.path().join("none/table"), "none: No such file"),
        ("updates", file.join("updates"), "bgp.yaml is no directory"),
        ("table", folder.path().to_owned(), "is a directory, where a file is wanted"),
    ] {
        std::fs::write(&file, format!("{{router-id: 10.0.0.1, as: 1, mrt: {{{field}: {}}}}}", dump.display()))
            .expect("written");
        let told = read(&file, Kind::Speaker).expect_err("refused").to_string();
        assert!(told.contains(&format!("bgp.yaml: mrt.{field}: ")) && told.contains(why), "{told}");
    }
    let gone = read(&folder.path().join("none"), Kind::Speaker).expect_err("refused").to_string();
    assert!(gone.contains("none: No such file"), "{gone}");
    let from = |bytes: &mut dyn std::io::Read| {
        let read = File::read_from(bytes, "stdin", Kind::Speaker).and_then(|file| file.with(Others::default()));
        read.map(|(config, _)| config).map_err(|why| why.to_string())
    };
    assert_eq!(from(&mut "{router-id: 10.0.0.1, as: 7}".as_bytes()).expect("a file").number, 7);
    assert_eq!(
        from(&mut "as: x".as_bytes()).expect_err("refused"),
        "stdin: router-id: is missing\nstdin: line 1: as: \"x\" is not a number from 0 to 4294967295"
    );
    assert_eq!(from(&mut std::io::repeat(b'#')).expect_err("refused"), "stdin: has more than 16777216 bytes");
}

/// The blocks of the README that are files: what people copy must be taken, and mean what stands beside it.
#[test]
fn the_files_of_the_readme_are_taken() {
    let readme = include_str!("../../../../README.md");
    let chapter = readme.split("\n## ").find(|chapter| chapter.starts_with("BGP\n")).expect("a chapter");
    let between = |begin: &str, end: &str| {
        let (_, rest) = chapter.split_once(begin).expect("where it begins");
        rest.split_once(end).expect("where it ends").0
    };
    let read = |text: &str| parse(text, Kind::Speaker, &|_| Err(String::new())).unwrap_or_else(|why| panic!("{why}"));
    let first = read(between("<<END\n", "\nEND\n"));
    assert_eq!(first.neighbors[0].peering.session.remote_as, RemoteAs::Internal);

    let config = read(between("```yaml\n", "```"));
    let routes = &config.neighbors[0].peering.routes;
    let v4 = IpAddr::from([10, 0, 0, 2]);
    let judge = |filter: &Filter, prefix: &str, source, communities: &[&str]| {
        let route = bgp::policy::Route {
            prefix: prefix.parse().expect("a prefix"),
            source,
            peer: None,
            peer_type: None,
            interface: None,
            own_address: None,
        };
        let mut set = bgp::attribute::Attributes::local(bgp::attribute::NextHop::new(v4));
        communities.iter().for_each(|text| set.add_community(text.parse().expect("a community")));
        let verdict = filter.judge(&route, 64512, &mut set);
        let told: Vec<String> = set.communities.iter().map(ToString::to_string).collect();
        (verdict, set.local_preference, told.join(" "), set.as_path.length())
    };
    let import = |prefix: &str, communities: &[&str]| judge(&routes.import, prefix, Source::External, communities);
    let reject = |told: (Verdict, Option<u32>, String, usize)| told.0 == Verdict::Reject;
    assert!(reject(import("192.168.7.0/24", &[])), "ours");
    assert!(reject(import("10.7.0.0/25", &[])), "too long");
    assert_eq!(import("10.7.0.0/24", &[]), (Verdict::Accept, None, "64512:1".to_owned(), 0));
    let far = import("10.7.0.0/24", &["65001:80"]);
    assert_eq!((far.0, far.1), (Verdict::Accept, Some(80)));
    let export = |prefix: &str, source| judge(&routes.export, prefix, source, &[]);
    assert_eq!(export("192.168.0.0/20", Source::Static), (Verdict::Accept, None, "65001:100".to_owned(), 2));
    assert!(reject(export("192.168.0.0/25", Source::Static)) && reject(export("192.168.0.0/20", Source::External)));
}
