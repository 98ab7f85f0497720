//! What flannel reads: packets of either side of its link, etcd's answers, annotations of nodes, `subnet.env`.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::LazyLock;

use bytes::Bytes;
use flannel::backend::wireguard::Mode;
use flannel::backend::{Backend, External, hostgw, ipip, udp, vxlan, wireguard};
use flannel::{AnnotationNames, Attributes, Gatherer, Joiner, Lease, NetConf, News, Subnets};
use k8s_openapi::api::core::v1::Node;
use linux::datagrams::{MOST_BYTES, MOST_SEGMENTS};
use linux::netlink::wireguard::{Peer, PublicKey};
use linux::tun::{Cut, HEADER, Offload};
use prost::Message;
use wire::etcd::{Event, KeyValue, RangeResponse, ResponseHeader, WatchResponse};

use crate::input::{text, texts};
use crate::table::{DEEP, FLAT, JSON, Target};

pub const TARGETS: &[Target] = &[
    Target {
        name: "flannel-inbound",
        what: "datagrams of other hosts, joined",
        run: inbound,
        seeds: datagrams,
        memory: 64,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "flannel-outbound",
        what: "packets of pods with the headers of their link, cut",
        run: outbound,
        seeds: packets,
        memory: 600,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "etcd-login",
        what: "etcd's answer to a login",
        run: login,
        seeds: logins,
        memory: 64,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "flannel-leases",
        what: "etcd's lists and changes of leases, and where they lead",
        run: leases,
        seeds: answers,
        memory: 600,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "flannel-node",
        what: "leases in annotations of nodes",
        run: node,
        seeds: nodes,
        memory: 600,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "subnet-env",
        what: "flannel's subnet.env, as flannel and the CNI plug-in read it",
        run: subnet_env,
        seeds: subnet_envs,
        memory: 600,
        nests: &[("FLANNEL_NETWORK=10.0.0.0/8\n", "", "")],
        depth: 1_000,
    },
];

/// Of IPv4's header and TCP's.
const HEADERS: usize = 40;
const HOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 8285);

/// The internet checksum (RFC 1071) of these pieces, a word at a time.
fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in pieces.concat().chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The sum of TCP's pseudo header is over this.
fn pseudo(packet: &[u8]) -> Vec<u8> {
    let length = (packet.len() - 20) as u16;
    [&packet[12..20], &[0, 6], &length.to_be_bytes()].concat()
}

/// A TCP packet between two pods with right checksums.
fn tcp(sequence: u32, flags: u8, payload: usize) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 5, 1, 7, 10, 5, 2, 9, 0x1f, 0x90, 0, 0x50];
    bytes.extend(sequence.to_be_bytes());
    bytes.extend([0, 0, 0, 9, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    bytes.extend((0..payload).map(|n| (n % 251) as u8));
    let length = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let sum = checksum(&[&bytes[..20]]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    let sum = checksum(&[&pseudo(&bytes), &bytes[20..]]);
    bytes[36..38].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn datagrams() -> Vec<Vec<u8>> {
    let of = |segment: u8, packets: &[Vec<u8>]| [vec![segment], packets.concat()].concat();
    let udp = |mut packet: Vec<u8>| {
        packet[9] = 17;
        packet
    };
    vec![
        of(100, &[tcp(7, 0x10, 60), tcp(67, 0x10, 60), tcp(127, 0x18, 20)]),
        of(60, &[tcp(0, 0x10, 20), tcp(20, 0x11, 20), tcp(40, 0x10, 20)]),
        of(60, &[tcp(0, 0x10, 20), tcp(40, 0x10, 20), udp(tcp(60, 0x10, 20))]),
        of(41, &(0..140).map(|n| tcp(n, 0x10, 1)).collect::<Vec<_>>()),
        of(0, &[tcp(0, 0x10, 0)]),
    ]
}

/// Packets as they are written to the link, each with its header.
fn joined(message: &mut [u8], segment: usize) -> Vec<(Offload, Vec<u8>)> {
    let mut written = Vec::new();
    Joiner::default().join(
        message,
        segment,
        |packet| packet[16] != 0,
        |pieces| {
            let header: &[u8; HEADER] = pieces[0][..].try_into().expect("the link's header comes first");
            written
                .push((Offload::parse(header), pieces[1..].iter().flat_map(|piece| piece.iter().copied()).collect()));
        },
    );
    written
}

/// What goes out for one packet of the link, a datagram each.
fn cut(offload: Offload, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut gatherer = Gatherer::new(1);
    let room = gatherer.slot(0);
    let length = (HEADER + packet.len()).min(room.len());
    room[..HEADER].copy_from_slice(&offload.bytes());
    room[HEADER..length].copy_from_slice(&packet[..length - HEADER]);
    gatherer.filled(0, length);
    let mut all = Vec::new();
    // Each round takes a packet of the link or hundreds of its parts: of a byte at least.
    for _ in 0..=packet.len() {
        let done = gatherer.take(0, |_| Some(HOST));
        for message in gatherer.messages() {
            let datagrams: Vec<_> = gatherer.apart(message).collect();
            let bytes: usize = datagrams.iter().map(Vec::len).sum();
            assert_eq!(bytes, message.bytes, "a message has what it says");
            assert!(
                datagrams.len() == 1 || datagrams.len() <= MOST_SEGMENTS && bytes <= MOST_BYTES,
                "the kernel's bounds"
            );
            all.extend(datagrams);
        }
        gatherer.clear();
        if done {
            return all;
        }
    }
    panic!("a packet is taken in the end");
}

/// A datagram without what a joined packet may lose: IPv4's number, and with it its checksum; and which of two zeros it has.
fn essence(mut packet: Vec<u8>) -> Vec<u8> {
    packet[4..6].fill(0);
    packet[10..12].fill(0);
    if packet[9] == 6 && packet.get(36..38) == Some(&[0xff, 0xff]) {
        packet[36..38].fill(0);
    }
    packet
}

fn inbound(input: &[u8]) {
    let Some((segment, bytes)) = input.split_first() else { return };
    let segment = usize::from(*segment);
    let written = joined(&mut bytes.to_vec(), segment);
    for (offload, packet) in &written {
        let said = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        assert_eq!(said, packet.len(), "a packet is as long as it says");
        assert!(packet[16] != 0, "what is not for this host goes nowhere");
        let whole = offload.cut == Cut::Whole;
        assert!(whole || offload.segment > 0 && usize::from(offload.headers) < packet.len(), "it can be cut");
    }
    // Joined and cut again is what each would have been alone.
    let alone = bytes.chunks(segment.max(1)).flat_map(|one| joined(&mut one.to_vec(), one.len()));
    let alone: Vec<_> = alone.flat_map(|(offload, packet)| cut(offload, &packet)).map(essence).collect();
    let again: Vec<_> = written.into_iter().flat_map(|(offload, packet)| cut(offload, &packet)).map(essence).collect();
    assert!(again == alone, "{} packets, {} when cut again", alone.len(), again.len());
}

fn packets() -> Vec<Vec<u8>> {
    let long = |segment| Offload {
        needs_checksum: true,
        checksum_start: 20,
        checksum_offset: 16,
        cut: Cut::TcpIpv4,
        headers: 40,
        segment,
    };
    let of = |offload: Offload, packet: Vec<u8>| [offload.bytes().to_vec(), packet].concat();
    vec![
        of(Offload::default(), tcp(7, 0x18, 33)),
        of(Offload { cut: Cut::Whole, ..long(0) }, tcp(7, 0x18, 33)),
        of(long(48), tcp(u32::MAX - 9, 0x99, 1000)),
        of(long(1), tcp(7, 0x10, 1500)),
        of(long(0), tcp(7, 0x10, 10)),
        of(Offload { cut: Cut::Other(5), ..long(9) }, tcp(7, 0x10, 10)),
    ]
}

fn outbound(input: &[u8]) {
    let Some((header, packet)) = input.split_first_chunk::<HEADER>() else { return };
    let offload = Offload::parse(header);
    let datagrams = cut(offload, packet);
    for datagram in &datagrams {
        let said = usize::from(u16::from_be_bytes([datagram[2], datagram[3]]));
        assert_eq!(said, datagram.len(), "a packet is as long as it says");
    }
    if offload.cut != Cut::TcpIpv4 || datagrams.is_empty() {
        return;
    }
    let mut payload = Vec::new();
    for datagram in &datagrams {
        let headers = 20 + usize::from(datagram[32] >> 4) * 4;
        assert!(
            headers >= HEADERS && datagram.len() - headers <= usize::from(offload.segment),
            "no longer than it may be"
        );
        assert_eq!(checksum(&[&datagram[..20]]), 0, "IPv4's checksum is right");
        assert_eq!(checksum(&[&pseudo(datagram), &datagram[20..]]), 0, "TCP's checksum is right");
        payload.extend_from_slice(&datagram[headers..]);
    }
    let headers = 20 + usize::from(packet[32] >> 4) * 4;
    let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    assert!(payload == packet[headers..length], "nothing is lost or made up");
}

fn logins() -> Vec<Vec<u8>> {
    let long = [&[0x12, 0xac, 0x02][..], &[b'a'; 300]].concat();
    vec![b"\x0a\x03\x08\x96\x01\x12\x05abc.7".to_vec(), long, vec![0x12, 0], vec![0xff; 12]]
}

fn login(input: &[u8]) {
    let Some(token) = flannel::login_token(Bytes::copy_from_slice(input)) else { return };
    assert!(!token.is_empty(), "no token is none");
    assert!(input.windows(token.len()).any(|part| part == token.as_bytes()), "it was in the answer");
}

static CONF: LazyLock<NetConf> = LazyLock::new(|| {
    let text = br#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}"#;
    NetConf::parse(text).expect("a configuration")
});

fn own() -> Subnets {
    Subnets { v4: "10.5.1.0/24".parse().ok(), v6: "fd00:5:0:1::/64".parse().ok() }
}

const LEASES: [(&str, &str); 5] = [
    (
        "10.5.4.0-24&fd00:5:0:4::-64",
        r#"{"PublicIP":"192.0.2.11","PublicIPv6":"2001:db8::11","BackendType":"wireguard","BackendData":{"PublicKey":"un/YymCRqiehF6VdxdbyjeVUmERSE97xF/wTQoKn+1U=","Port":51820},"BackendV6Data":{"PublicKey":"un/YymCRqiehF6VdxdbyjeVUmERSE97xF/wTQoKn+1U=","Port":51821}}"#,
    ),
    (
        "10.5.34.0-24",
        r#"{"PublicIP":"192.0.2.7","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:5b:0a:00:00:01"}}"#,
    ),
    (
        "10.5.2.0-24&fd00:5:0:2::-64",
        r#"{"PublicIP":"192.0.2.8","PublicIPv6":"fd00::8","BackendType":"vxlan","BackendData":{"VtepMAC":"c6:5b:0a:00:00:02"},"BackendV6Data":{"VtepMAC":"c6-5b-0a-00-00-03"}}"#,
    ),
    ("10.5.3.0-24", r#"{"PublicIP":"192.0.2.9","BackendType":"host-gw"}"#),
    ("10.0.0.0-8", r#"{"PublicIP":"192.0.2.10"}"#),
];

fn answers() -> Vec<Vec<u8>> {
    let kv = |(key, value): (&str, &str)| KeyValue {
        key: format!("/coreos.com/network/subnets/{key}").into(),
        value: value.to_owned().into(),
        lease: 7,
        ..KeyValue::default()
    };
    let header = ResponseHeader { revision: 9, ..ResponseHeader::default() };
    let list = RangeResponse { header: Some(header), kvs: LEASES.map(kv).into(), ..RangeResponse::default() };
    let events = LEASES.iter().enumerate().map(|(at, lease)| Event {
        r#type: i32::from(at == 0),
        kv: Some(kv(*lease)),
        ..Event::default()
    });
    let changes = WatchResponse { header: Some(header), events: events.collect(), ..WatchResponse::default() };
    let cancelled = WatchResponse { canceled: true, compact_revision: 5, ..WatchResponse::default() };
    let with = |kind: u8, message: Vec<u8>| [vec![kind], message].concat();
    vec![with(0, list.encode_to_vec()), with(1, changes.encode_to_vec()), with(1, cancelled.encode_to_vec())]
}

fn leases(input: &[u8]) {
    let Some((kind, message)) = input.split_first() else { return };
    let told: Vec<(KeyValue, bool)> = if kind % 2 == 0 {
        let Ok(list) = RangeResponse::decode(message) else { return };
        list.kvs.into_iter().map(|kv| (kv, false)).collect()
    } else {
        let Ok(changes) = WatchResponse::decode(message) else { return };
        changes.events.into_iter().filter_map(|event| Some((event.kv?, event.r#type == 1))).collect()
    };
    let news = told.iter().filter_map(|(kv, gone)| flannel::lease_event(kv, *gone));
    let leases: Vec<Lease> =
        news.filter_map(|news| if let News::Set(lease) = news { Some(lease) } else { None }).collect();
    lead_nowhere_else(&leases);
}

/// Whatever other hosts say, routes lead to subnets of the network that are not this host's.
fn lead_nowhere_else(leases: &[Lease]) {
    let (conf, own) = (&*CONF, own());
    let external = External {
        index: 2,
        name: "eth0".into(),
        mtu: 1500,
        v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
        v6: None,
        public_v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
        public_v6: None,
    };
    let Ok(Backend::Vxlan(options)) = Backend::of(conf) else { panic!("the configuration's backend") };
    let plain = hostgw::wanted(conf, &own, &external, leases);
    let tunnel = vxlan::wanted((conf, &options), &own, &external, leases, |_| Some(9), |host| host.is_ipv6());
    let options = ipip::Options { direct_routing: false };
    let outer = ipip::wanted((conf, &options), &own, &external, leases, 9, |_| false);
    peers_have_their_own_alone(leases, &external);
    for route in plain.routes.iter().chain(&tunnel.routes).chain(&outer.routes) {
        let (v4, v6) = (conf.v4.map(|range| range.network), conf.v6.map(|range| range.network));
        assert!([v4, v6].into_iter().flatten().any(|network| network.covers(&route.dst)), "{} is outside", route.dst);
        assert!(own.each().all(|mine| !mine.overlaps(&route.dst)), "{} is this host's own", route.dst);
    }
    let (table, _) = udp::wanted((conf, &udp::Options { port: 8285 }), &own, leases);
    assert_eq!(table.host_of(Ipv4Addr::new(10, 5, 1, 7)), None, "this host's own pods are here");
    assert_eq!(table.host_of(Ipv4Addr::new(10, 6, 0, 1)), None, "what is outside of the network is elsewhere");
}

/// Of WireGuard's peers each has ranges of its own, and none has this host's.
fn peers_have_their_own_alone(leases: &[Lease], external: &External) {
    let (conf, own) = (&*CONF, own());
    for mode in [Mode::Separate, Mode::Auto] {
        let options = wireguard::Options { psk: None, port: 51820, port6: 51821, mtu: 0, mode, keepalive: 0 };
        let own_key = PublicKey([7; 32]);
        let (_, links) = wireguard::wanted((conf, &options), &own, external, own_key, leases, |_| Some(9));
        for peer in links.iter().flatten() {
            assert!(peer.key != own_key && peer.endpoint.is_some_and(|at| at.port() != 0), "somebody else, somewhere");
            for range in &peer.allowed {
                assert!(own.each().all(|mine| !mine.overlaps(range)), "{range} is this host's own");
                let networks = [conf.v4, conf.v6].into_iter().flatten().map(|range| range.network);
                assert!(networks.into_iter().any(|network| network.covers(range)), "{range} is outside");
            }
        }
        let keys = |link: &[Peer]| link.iter().map(|peer| peer.key).collect::<HashSet<_>>().len();
        assert!(links.iter().all(|link| keys(link) == link.len()), "a key is one peer");
    }
}

const NODE: &str = r#"{"metadata":{"name":"n","annotations":{"flannel.alpha.coreos.com/kube-subnet-manager":"true","flannel.alpha.coreos.com/backend-type":"vxlan","flannel.alpha.coreos.com/backend-data":"{\"VNI\":1,\"VtepMAC\":\"c6:5b:0a:00:00:01\"}","flannel.alpha.coreos.com/public-ip":"192.0.2.7","flannel.alpha.coreos.com/public-ip-overwrite":"203.0.113.7"}},"spec":{"podCIDR":"10.5.34.0/24","podCIDRs":["10.5.34.0/24","fd00:5:0:22::/64"]}}"#;

fn nodes() -> Vec<Vec<u8>> {
    texts(&[NODE, &NODE.replace("\"public-ip\":\"192.0.2.7\"", "\"public-ipv6\":\"fd00::7\""), "{}"])
}

fn node(input: &[u8]) {
    let Ok(mut node) = serde_json::from_slice::<Node>(input) else { return };
    let names = AnnotationNames::new("flannel.alpha.coreos.com").expect("a prefix");
    let _ = names.overwritten(&node, &Attributes::default());
    let Ok(Some(lease)) = names.lease(&node) else { return };
    lead_nowhere_else(std::slice::from_ref(&lease));
    let Some(patch) = names.patch(&node, &lease.attributes) else { return };
    let annotations = node.metadata.annotations.get_or_insert_default();
    for (name, value) in patch["metadata"]["annotations"].as_object().into_iter().flatten() {
        annotations.insert(name.clone(), value.as_str().expect("annotations are text").to_owned());
    }
    let told = names.lease(&node);
    if node.metadata.annotations.iter().flatten().all(|(_, value)| value.len() <= 16 << 10) {
        assert_eq!(told.ok().flatten(), Some(lease), "what is told is read as it was");
    }
}

fn subnet_envs() -> Vec<Vec<u8>> {
    texts(&[
        "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        "FLANNEL_IPV6_NETWORK=fd00:5::/48\r\nFLANNEL_IPV6_SUBNET=\"fd00:5:0:22::1/64\"\r\nFLANNEL_MTU=1430\n",
    ])
}

fn subnet_env(input: &[u8]) {
    let text = text(input);
    if let Some(subnets) = flannel::subnets_of_file(&text) {
        assert!(subnets.each().all(|subnet| subnet.network() == subnet), "a subnet is no address in it");
    }
    if let Ok(told) = cni::told(&text) {
        assert!(!told.subnets.is_empty() && told.mtu > 0, "what pods need is there");
    }
}
