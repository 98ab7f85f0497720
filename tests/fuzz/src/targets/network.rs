//! The network's languages: DNS, netlink (as the kernel and whoever fills its tables answer), CNI.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use announcer::frame;
use cni::list::NetworkList;
use cni::{AddResult, PortMapping};
use dns::{Asked, Cache, Facts, Files, Hit, Live, Name, Question, Responder, Step, Table};
use flannel::{Attributes, NetConf, Subnets};
use linux::netlink::{Mac, event, message, refusal, wireguard};
use linux::{conntrack, nft};

use crate::input::{join, parts, text, texts};
use crate::table::{DEEP, FLAT, JSON, Target};

pub const TARGETS: &[Target] = &[
    Target {
        name: "dns-question",
        what: "questions to cluster DNS",
        run: question,
        seeds: questions,
        memory: 64,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "dns-answer",
        what: "answers of other DNS servers",
        run: answer,
        seeds: answers,
        memory: 64,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "corefile",
        what: "configurations of cluster DNS",
        run: corefile,
        seeds: corefiles,
        // Expressions of a few bytes compile to many: what one may take is bounded, and how many there are.
        memory: 20_000,
        nests: &[(". {\n", "errors\n", "}\n"), ("import x\n", "", "")],
        depth: 2_000,
    },
    Target {
        name: "dns-chain",
        what: "questions and other servers' answers, rewritten, by templates and from hosts files",
        run: chain,
        seeds: chains,
        memory: 20_000,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "resolv-conf",
        what: "resolv.conf",
        run: resolv_conf,
        seeds: resolv_confs,
        memory: 64,
        nests: &[("nameserver 1.2.3.4\n", "", "")],
        depth: 2_000,
    },
    Target {
        name: "netlink",
        what: "dumps of links, routes, neighbours, rules, sets, connections and WireGuard peers",
        run: netlink,
        seeds: dumps,
        memory: 64,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "neighbours",
        what: "frames of strangers: ARP and neighbour discovery",
        run: neighbour,
        seeds: neighbours,
        memory: 64,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "flannel",
        what: "flannel's configuration and other hosts' leases",
        run: flannel,
        seeds: flannels,
        memory: 600,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "cni-config",
        what: "network configurations",
        run: config,
        seeds: configs,
        memory: 600,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "cni-result",
        what: "what plugins answer",
        run: result,
        seeds: results,
        memory: 600,
        nests: JSON,
        depth: DEEP,
    },
];

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let zone = Name::parse("cluster.local").expect("a zone");
    let mut table = Table::new(zone, 30, &[IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10))]);
    table.set_namespace("default", true);
    table.set_synced();
    table
});

fn message(name: &[&str], kind: u16, end: &[u8]) -> Vec<u8> {
    let mut out = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(!end.is_empty())];
    for label in name {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out.extend_from_slice(end);
    out
}

const EDNS: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 128, 0, 0, 0];

fn questions() -> Vec<Vec<u8>> {
    vec![
        message(&["ns", "dns", "cluster", "local"], 1, &[]),
        message(&["10-0-0-1", "default", "pod", "cluster", "local"], 1, EDNS),
        message(&["cluster", "local"], 255, EDNS),
        message(&["10", "0", "43", "10", "in-addr", "arpa"], 12, &[]),
        message(&["dns-version", "cluster", "local"], 16, &[]),
        message(&["example", "com"], 28, &[]),
        message(&[], 252, &[]),
    ]
}

/// Over UDP nobody gets more than three and a half times what was asked, or what the question allows.
const LEAST_UDP: usize = 512;

fn question(input: &[u8]) {
    for udp in [true, false] {
        let mut out = Vec::new();
        let _ = Responder::new().respond(&TABLE, input, udp, &mut out);
        if udp {
            assert!(out.len() <= 4096.max(LEAST_UDP), "an answer fits a packet");
        }
        if !out.is_empty() {
            assert!(out.len() >= 12 && out[2] & 0x80 != 0, "an answer says that it is one");
            assert_eq!(out[..2], input[..2], "with the question's number");
        }
    }
}

fn answers() -> Vec<Vec<u8>> {
    let ask = message(&["example", "com"], 1, EDNS);
    let mut reply = message(&["example", "com"], 1, &[]);
    reply[2] = 0x81;
    reply[7] = 2;
    reply.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, b'a', 0xc0, 20]);
    reply.extend_from_slice(&[0xc0, 41, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4]);
    // What separates parts may be in a message: the length of the question comes first.
    vec![[vec![ask.len() as u8], ask, reply].concat()]
}

fn answer(input: &[u8]) {
    let Some((length, rest)) = input.split_first() else { return };
    let Some((ask, reply)) = rest.split_at_checked(usize::from(*length)) else { return };
    let Ok(question) = Question::parse(ask) else { return };
    let mut cache = Cache::default();
    let now = Duration::from_secs(1);
    if let Some((mut message, ttls)) = dns::without_opt(reply) {
        cache.insert(&question, &mut message, &ttls, now);
    }
    let mut out = Vec::new();
    if cache.answer(ask, &question, false, now, &mut out) != Hit::Miss {
        assert_eq!(out.get(..2), ask.get(..2), "with the question's number");
    }
}

fn corefiles() -> Vec<Vec<u8>> {
    let texts: [(&[u8], &[u8]); 3] = [
        (
            b".:53 {\n errors\n kubernetes cluster.local in-addr.arpa {\n  pods verified\n  fallthrough\n }\n forward . \
              /etc/resolv.conf tls://9.9.9.9%q {\n  policy random\n }\n cache 30 {\n  prefetch 2 1m 10%\n }\n}\n",
            b"",
        ),
        (
            b"import /etc/coredns/custom/*\na b {\n rewrite name regex (.*)\\.a {1}.b answer auto\n rewrite ttl x 1-2\n}\n",
            b"(s) {\n hosts {\n  ::1 a\n }\n log . \"{name}\"\n}\nc {\n import s\n}\n",
        ),
        (b"10.0.0.0/9 {\n template IN ANY {\n  match ^a\n  answer \"{{ .Name }} 1 IN TXT x\"\n }\n}\n", b""),
    ];
    texts.iter().map(|(own, custom)| join(&[own, custom])).collect()
}

fn corefile(input: &[u8]) {
    let [own, custom] = parts(input);
    let named = |name: &str, bytes: &[u8]| [(name.to_owned(), text(bytes).into_owned())].into();
    let files = Files { own: named("Corefile", own), custom: named("a", custom) };
    let facts = Facts { port: 53, domain: Name::parse("cluster.local").expect("a zone") };
    if let Err(wrong) = dns::parse(&files, &facts) {
        assert!(wrong.line > 0 && !wrong.reason.is_empty(), "a fault has a place and a reason");
    }
}

/// Everything that a question may meet on its way, in few words.
const CHAIN: &str = ". {\n log\n loadbalance\n cache\n rewrite continue name regex (.*)\\.example\\.com {1}.example.org answer auto \
answer value (.*)\\.org {1}.com\n rewrite continue ttl suffix org. 5-60\n rewrite rcode exact x NXDOMAIN NOERROR\n \
rewrite type ANY A\n hosts /etc/coredns/NodeHosts {\n  10.0.0.1 a.b *.c\n  fallthrough\n }\n template IN TXT t {\n  match ^(?P<a>.*)\\.t\\.$\n  \
answer \"{{ .Name }} 60 IN TXT \\\"{{ .Group.a }}{{ index .Match 1 }}\\\"\"\n  additional \"x.{{ .Zone }} SOA a. b. (1 2 3 4 5)\"\n  fallthrough\n }\n \
kubernetes cluster.local in-addr.arpa {\n  fallthrough in-addr.arpa\n }\n}\n";

fn chains() -> Vec<Vec<u8>> {
    let hosts = "# x\n10.0.0.2 a.b b.b # c\nfe80::1%eth0 a.b *.d\n0.0.0.0 x y\n0.0.0.0 x\nx y\n";
    let facts = Facts { port: 53, domain: Name::parse("cluster.local").expect("a zone") };
    let own = [("Corefile", CHAIN), ("NodeHosts", hosts)].map(|(name, text)| (name.to_owned(), text.to_owned()));
    dns::parse(&Files { own: own.into(), custom: [].into() }, &facts).expect("a configuration");
    let with = |corefile: &str, ask: Vec<u8>, reply: &[u8]| {
        let messages = [&[ask.len() as u8][..], &ask, reply].concat();
        join(&[corefile.as_bytes(), hosts.as_bytes(), &messages])
    };
    // An alias and its address, from another server.
    let mut reply = message(&["a", "example", "org"], 1, &[]);
    reply[2] = 0x81;
    reply[7] = 2;
    reply.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, b'b', 0xc0, 14]);
    reply.extend_from_slice(&[0xc0, 43, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4]);
    vec![
        with(CHAIN, message(&["a", "example", "com"], 1, EDNS), &reply),
        with(CHAIN, message(&["a", "b"], 28, &[]), &[]),
        with(CHAIN, message(&["x", "d"], 1, &[]), &[]),
        with(CHAIN, message(&["0", "0", "0", "0", "in-addr", "arpa"], 12, EDNS), &[]),
        with(CHAIN, message(&["u", "v", "t"], 16, EDNS), &[]),
        with(CHAIN, message(&["a", "default", "svc", "cluster", "local"], 1, &[]), &[]),
        // More names of an address than a message counts.
        join(&[
            b". {\n hosts /etc/coredns/NodeHosts\n}\n",
            (0..70_000).map(|n| format!("0.0.0.0 {n:x}\n")).collect::<String>().as_bytes(),
            &[&[38][..], &message(&["0", "0", "0", "0", "in-addr", "arpa"], 12, &[])].concat(),
        ]),
    ]
}

fn chain(input: &[u8]) {
    let [corefile, hosts, messages] = parts(input);
    let Some((length, rest)) = messages.split_first() else { return };
    let Some((ask, reply)) = rest.split_at_checked(usize::from(*length)) else { return };
    let own = [("Corefile", corefile), ("NodeHosts", hosts)];
    let own = own.map(|(name, bytes)| (name.to_owned(), text(bytes).into_owned())).into();
    let zone = Name::parse("cluster.local").expect("a zone");
    let facts = Facts { port: 53, domain: zone.clone() };
    let Ok(mut parsed) = dns::parse(&Files { own, custom: [].into() }, &facts) else { return };
    for server in &mut parsed.servers {
        // No other server is asked here, and no file of this machine is read.
        server.forwards.clear();
        if let Some(hosts) = &mut server.hosts {
            hosts.file = None;
        }
    }
    let Ok(question) = Question::parse(ask) else { return };
    let live = Arc::new(Live::new(parsed, &zone, &[]).expect("it names no files"));
    let addr = SocketAddr::from(([127, 0, 0, 1], 53));
    for server in live.servers() {
        let Some(cache) = &server.cache else { continue };
        let asked = match dns::request(&server.server.rewrites, &question) {
            Ok(changed) => changed.map_or(question, |changed| changed.question),
            Err(_) => continue,
        };
        if let Some((mut message, ttls)) = dns::without_opt(reply) {
            cache.lock().insert(&asked, &mut message, &ttls, Duration::ZERO);
        }
    }
    for (udp, most) in [(true, 4096), (false, usize::from(u16::MAX))] {
        let mut out = Vec::new();
        let asked = Asked { message: ask, question: &question, udp, peer: addr, local: addr };
        // What waits for others is not waited for.
        if let Step::Wait(_) = dns::answer(&live, &mut Responder::new(), &TABLE, asked, &mut out) {
            continue;
        }
        if !out.is_empty() {
            assert!(out.len() <= most, "an answer fits a packet: {} bytes", out.len());
            assert!(out.len() >= 12 && out[2] & 0x80 != 0, "an answer says that it is one");
            assert_eq!(out[..2], ask[..2], "with the question's number");
            assert!(dns::without_opt(&out).is_some(), "and holds what it says");
        }
    }
}

fn resolv_confs() -> Vec<Vec<u8>> {
    vec![
        join(&[
            b"# x\nnameserver 127.0.0.53\nsearch a b\noptions ndots:5\nnameserver fe80::1%eth0\n",
            b"nameserver 9.9.9.9\n",
        ]),
        join(&[b"nameserver\t1.1.1.1 \r\nnameserver x", b""]),
    ]
}

fn resolv_conf(input: &[u8]) {
    let [conf, resolved] = parts(input);
    let own: Vec<SocketAddr> = vec![SocketAddr::from(([1, 1, 1, 1], 53))];
    let found = dns::upstreams(&text(conf), Some(&text(resolved)), &own);
    assert!(found.servers.iter().all(|server| !own.contains(server)), "never itself");
}

fn dumps() -> Vec<Vec<u8>> {
    let mut writer = message::Writer::new();
    let open = writer.begin(16, 0, 1);
    writer.raw(&[0; 16]);
    writer.attr_str(3, "eth0");
    writer.attr(1, &[2, 0, 0, 0, 0, 1]);
    writer.attr_u32(4, 1500);
    let nest = writer.nest(18);
    writer.attr_str(1, "veth");
    writer.end_nest(nest);
    writer.end(open);
    let open = writer.begin(24, 0, 1);
    writer.raw(&[2, 24, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0]);
    writer.attr(1, &[10, 0, 0, 0]);
    writer.attr_u32(4, 3);
    writer.end(open);
    let open = writer.begin(24, 0, 1);
    writer.raw(&[2, 0, 0, 0, 254, 70, 0, 1, 0, 0, 0, 0]);
    writer.attr(9, &[16, 0, 4, 1, 3, 0, 0, 0, 8, 0, 5, 0, 10, 0, 0, 1, 8, 0, 0, 0, 4, 0, 0, 0]);
    writer.end(open);
    let open = writer.begin(28, 0, 1);
    writer.raw(&[7, 0, 0, 0, 3, 0, 0, 0, 0x80, 0, 2, 0]);
    writer.attr(1, &[10, 0, 0, 7]);
    writer.attr(2, &[2, 0, 0, 0, 0, 1]);
    writer.end(open);
    let open = writer.begin(32, 0, 1);
    writer.raw(&[2, 0, 16, 0, 254, 0, 0, 1, 0, 0, 0, 0]);
    writer.attr(2, &[10, 1, 0, 0]);
    writer.attr_str(3, "eth0");
    writer.end(open);
    // WireGuard's answer with a peer.
    let open = writer.begin(40, 2, 1);
    writer.raw(&[0, 1, 0, 0]);
    writer.attr(4, &[4; 32]);
    writer.attr(6, &51820u16.to_ne_bytes());
    let (peers, peer) = (writer.nest(8), writer.nest(0));
    writer.attr(1, &[9; 32]);
    writer.attr(4, &[2, 0, 0xca, 0x6c, 192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
    let (all, one) = (writer.nest(9), writer.nest(0));
    writer.attr(1, &2u16.to_ne_bytes());
    writer.attr(2, &[10, 5, 2, 0]);
    writer.attr(3, &[24]);
    [one, all, peer, peers].into_iter().for_each(|nest| writer.end_nest(nest));
    writer.end(open);
    let open = writer.begin(0xa0c, 0, 1);
    writer.raw(&[0; 4]);
    let key = writer.nest(1);
    writer.attr(1, &[10, 0, 0, 1, 0, 80]);
    writer.end_nest(key);
    let data = writer.nest(2);
    let verdict = writer.nest(2);
    writer.attr_be32(1, 0xffff_fffd);
    writer.attr_str(2, "chain");
    writer.end_nest(verdict);
    writer.end_nest(data);
    writer.attr(6, &[0, 2, b'a', 0]);
    writer.end(open);
    vec![writer.into_bytes(), tables(), refusals()]
}

/// A base chain and a rule with a comment.
fn tables() -> Vec<u8> {
    let mut writer = message::Writer::new();
    let open = writer.begin(0xa03, 0, 1);
    writer.raw(&[2, 0, 0, 0]);
    writer.attr_str(1, "table");
    writer.attr_str(3, "chain");
    let hook = writer.nest(4);
    writer.attr_be32(1, 3);
    writer.attr_be32(2, 0xffff_ff9c);
    writer.end_nest(hook);
    writer.attr_be32(5, 1);
    writer.attr_str(7, "filter");
    writer.end(open);
    let open = writer.begin(0xa06, 0, 1);
    writer.raw(&[2, 0, 0, 0]);
    writer.attr_str(1, "table");
    writer.attr_str(2, "chain");
    writer.attr(3, &[0, 0, 0, 0, 0, 0, 0, 9]);
    let all = writer.nest(4);
    writer.attr_str(1, "immediate");
    writer.end_nest(all);
    writer.attr(7, &[0, 2, b'a', 0]);
    writer.end(open);
    writer.into_bytes()
}

/// A refusal with the kernel's words, its request left out or given back.
fn refusals() -> Vec<u8> {
    let mut writer = message::Writer::new();
    for flags in [0x300, 0x200] {
        let open = writer.begin(2, flags, 1);
        writer.raw(&(-22i32).to_ne_bytes());
        writer.raw(&[20, 0, 0, 0, 0x10, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        if flags == 0x200 {
            writer.raw(&[0; 4]);
        }
        writer.attr_str(1, "no such link");
        writer.end(open);
    }
    writer.into_bytes()
}

fn netlink(input: &[u8]) {
    for message in message::messages(input) {
        let _ = (event(&message), refusal(&message));
        let _ = (nft::table(message.body), nft::chain(message.body), nft::listed_rule(message.body, "table"));
        if let Some((_, rest)) = message::split(message.body, 4) {
            let _ = (nft::element(rest), conntrack::flow(rest));
        }
        if let Some(device) = wireguard::decode(message.body) {
            let peers = device.peers.len();
            assert!(wireguard::merged(vec![device]).peers.len() <= peers, "no peer is made up");
        }
    }
}

/// Questions, claims and an answer, of both families.
fn neighbours() -> Vec<Vec<u8>> {
    let own = Mac([2, 0, 0, 0, 0, 1]);
    let mut frames = Vec::new();
    for (about, asker) in [("192.0.2.240", "192.0.2.7"), ("fd00::f0", "fd00::7"), ("fd00::f0", "::")] {
        let [about, asker] = [about, asker].map(|text| text.parse::<IpAddr>().expect("an address"));
        frames.extend(frame::announcements(about, own));
        frames.extend(frame::answer(&frame::Question { about, asker, mac: own }, own));
    }
    // A request, as who has no address yet sends it; and a solicitation whose sum is right.
    let head = [&[0xff; 6][..], &own.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &own.0, &[0; 10], &[192, 0, 2, 240]].concat();
    frames.push(head);
    frames.push(vec![
        0x33, 0x33, 0xff, 0, 0, 0xf0, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255, 0xfd, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0xf0, 135, 0, 0x7b, 0xb4, 0,
        0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0, 1, 1, 2, 0, 0, 0, 0, 2,
    ]);
    frames
}

fn neighbour(input: &[u8]) {
    let own = Mac([2, 0, 0, 0, 0, 1]);
    let Some(heard) = frame::read(input) else { return };
    let is_one = |mac: Mac| mac.0[0] & 1 == 0 && mac.0 != [0; 6];
    if let Some(claim) = heard.claim {
        assert!(is_one(claim.mac) && !claim.addr.is_multicast(), "one station has one address");
    }
    let Some(question) = heard.question else { return };
    assert!(is_one(question.mac) && !question.about.is_multicast(), "it is asked for one station's address");
    let Some(reply) = frame::answer(&question, own) else { panic!("a question of one family") };
    assert!(reply.len() <= 86, "an answer has no more than what it says");
    let claim = frame::read(&reply).and_then(|heard| heard.claim).expect("what was written is read");
    assert_eq!((claim.addr, claim.mac), (question.about, own), "as it was");
}

fn flannels() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"Network":"10.5.0.0/16","SubnetLen":24,"SubnetMin":"10.5.1.0","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan","VNI":1}}"#,
        r#"{"PublicIP":"192.0.2.7","PublicIPv6":"fd00::7","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:5b:0a:00:00:01"}}"#,
        "/coreos.com/network/subnets/10.5.34.0-24&fd00:5:0:22::-64",
    ])
}

fn flannel(input: &[u8]) {
    if let Some(subnets) = Subnets::of_key(&text(input)) {
        assert_eq!(Subnets::of_key(&subnets.key()), Some(subnets), "what was written is read");
    }
    if let Ok(lease) = Attributes::parse(input) {
        let again = Attributes::parse(lease.to_json().as_bytes()).expect("what was written is read");
        assert_eq!(again, lease, "as it was");
    }
    let Ok(conf) = NetConf::parse(input) else { return };
    for range in [conf.v4, conf.v6].into_iter().flatten() {
        let first = range.subnets().next().expect("a network has a subnet");
        assert!(range.has(&first) && range.network.covers(&first), "which lies in it");
    }
}

fn configs() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"cniVersion":"1.1.0","cniVersions":["0.4.0","1.0.0"],"name":"n","disableCheck":"true","plugins":[{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24"}]]}},{"type":"portmap","capabilities":{"portMappings":true}}]}"#,
        r#"{"name":"single","type":"flannel"}"#,
    ])
}

fn config(input: &[u8]) {
    let Ok(list) = NetworkList::parse(&text(input)) else { return };
    assert!(!list.name.is_empty(), "a list has a name: files are called by it");
}

fn results() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","mac":"00:11:22:33:44:55","sandbox":"/n"}],"ips":[{"version":"4","address":"10.0.0.5/24","gateway":"10.0.0.1","interface":0}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["1.1.1.1"]}}"#,
        r#"[{"hostPort":80,"containerPort":8080,"protocol":"tcp","hostIP":""}]"#,
    ])
}

fn result(input: &[u8]) {
    let _ = serde_json::from_slice::<Vec<PortMapping>>(input);
    let Ok(result) = serde_json::from_slice::<AddResult>(input) else { return };
    let _ = result.ip();
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let again: AddResult = serde_json::from_value(result.to_json(version)).expect("what was written is read");
        assert_eq!(again.ip(), result.ip(), "as it was");
    }
}
