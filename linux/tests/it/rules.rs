//! nftables transactions: what is sent is what is there, all or nothing, and errors name what was refused.

use linux::netns::NetNs;
use linux::nft::{
    Batch, Chain, Data, Element, Expr, Family, Hook, Key, Nft, Policy, Reg, Set, Verdict, hook, kind, priority, rule,
};

fn base(batch: &mut Batch) {
    let hook = Hook { kind: "nat", number: hook::PREROUTING, priority: priority::DSTNAT, policy: Policy::Accept };
    batch.add_table();
    batch.add_chain(&Chain { name: "pre", hook: Some(hook) });
    batch.add_chain(&Chain { name: "go", hook: None });
    batch.add_set(&Set::verdict_map("services", &[kind::IPV4, kind::PROTOCOL, kind::SERVICE]));
}

#[test]
fn maps_chains_and_rules_are_listed_as_they_were_added() {
    let ns = NetNs::create().unwrap();
    let mut nft = Nft::open_in(&ns).unwrap();
    let mut batch = Batch::new(Family::Ip, "t");
    base(&mut batch);
    batch.add_rule(
        "pre",
        &[
            rule::load_destination(false, Reg(0)),
            rule::load_protocol(Reg(1)),
            rule::load_destination_port(Reg(2)),
            Expr::VerdictMap { set: "services".into(), sreg: Reg(0) },
        ],
        Some("to services"),
    );
    let goto = Data::Verdict(Verdict::Goto("go".into()));
    let key = Key::new().addr("10.0.0.1".parse().unwrap()).protocol(6).port(80);
    batch.add_elements("services", [Element { comment: Some("a/b"), ..Element::with(key, &goto) }]);
    nft.commit(batch).unwrap();

    let elements = nft.elements(Family::Ip, "t", "services").unwrap();
    assert_eq!(elements.len(), 1);
    assert_eq!(elements[0].key, key.as_bytes());
    assert_eq!((elements[0].data.as_ref(), elements[0].comment.as_deref()), (Some(&goto), Some("a/b")));
    let rules = nft.rules(Family::Ip, "t").unwrap();
    assert_eq!((rules.len(), rules[0].comment.as_deref()), (1, Some("to services")));
    let chain = nft.chains().unwrap().into_iter().find(|c| c.name == "pre").unwrap();
    assert_eq!((chain.hook, chain.priority, chain.policy), (Some(0), Some(-100), Some(Policy::Accept)));

    nft.remove_table(Family::Ip, "t").unwrap();
    nft.remove_table(Family::Ip, "t").unwrap();
    assert!(!nft.has_table(Family::Ip, "t").unwrap());
}

#[test]
fn a_refused_message_is_named_and_nothing_changes() {
    let ns = NetNs::create().unwrap();
    let mut nft = Nft::open_in(&ns).unwrap();
    let mut batch = Batch::new(Family::Ip, "t");
    base(&mut batch);
    batch.delete_elements("services", [Element::new(Key::new().addr("10.0.0.1".parse().unwrap()).protocol(6).port(1))]);
    let e = nft.commit(batch).unwrap_err();
    assert!(e.is_missing());
    assert!(e.to_string().starts_with("removing elements from set services of nftables table ip t: "), "{e}");
    assert!(!nft.has_table(Family::Ip, "t").unwrap());

    let mut batch = Batch::new(Family::Ip, "t");
    batch.add_table();
    batch.add_rule("nowhere", &[Expr::Counter], None);
    let e = nft.commit(batch).unwrap_err();
    assert!(e.to_string().starts_with("adding a rule to chain nowhere of nftables table ip t: "), "{e}");
}

#[test]
fn a_hundred_thousand_elements_are_one_transaction() {
    let ns = NetNs::create().unwrap();
    let mut nft = Nft::open_in(&ns).unwrap();
    let mut batch = Batch::new(Family::Ip, "t");
    base(&mut batch);
    let goto = Data::Verdict(Verdict::Goto("go".into()));
    let key = |i: u32| Key::new().addr(std::net::Ipv4Addr::from(0x0a00_0000 + i).into()).protocol(6).port(80);
    batch.add_elements("services", (0..100_000).map(|i| Element::with(key(i), &goto)));
    nft.commit(batch).unwrap();
    // Removing is refused when one of them is not there.
    let mut batch = Batch::new(Family::Ip, "t");
    batch.delete_elements("services", (0..99_999).map(|i| Element::new(key(i))));
    nft.commit(batch).unwrap();
    let left = nft.elements(Family::Ip, "t", "services").unwrap();
    assert_eq!(left.iter().map(|e| e.key.as_slice()).collect::<Vec<_>>(), [key(99_999).as_bytes()]);
}

#[test]
fn ranges_and_counters_and_every_expression_are_taken_by_the_kernel() {
    use linux::nft::{Ct, DynsetOp, Meta, NatKind, RejectWith, nat};
    let ns = NetNs::create().unwrap();
    let mut nft = Nft::open_in(&ns).unwrap();
    let mut batch = Batch::new(Family::Ip, "t");
    base(&mut batch);
    let post = Hook { kind: "nat", number: hook::POSTROUTING, priority: priority::SRCNAT, policy: Policy::Accept };
    batch.add_chain(&Chain { name: "post", hook: Some(post) });
    let fwd = Hook { kind: "filter", number: hook::FORWARD, priority: 0, policy: Policy::Accept };
    batch.add_chain(&Chain { name: "fwd", hook: Some(fwd) });
    let raw = Hook { kind: "filter", number: hook::PREROUTING, priority: priority::RAW, policy: Policy::Accept };
    batch.add_chain(&Chain { name: "raw", hook: Some(raw) });
    let ranges = Set { interval: true, ..Set::new("ranges", &[kind::IPV4]) };
    batch.add_set(&ranges);
    batch.add_elements("ranges", Element::range("10.0.0.0/8".parse().unwrap()));
    batch.add_elements("ranges", Element::range("224.0.0.0/3".parse().unwrap()));
    let affinity = Set {
        dynamic: true,
        timeout: Some(0),
        size: Some(65_535),
        ..Set::map("affinity", &[kind::IPV4, kind::IPV4], &[kind::IPV4, kind::SERVICE])
    };
    batch.add_set(&affinity);
    batch.add_counter("seen");
    batch.add_rule(
        "raw",
        &rule::all([rule::protocol_is(17), rule::destination_port_is(53), vec![Expr::Notrack]]),
        None,
    );
    batch.add_rule("fwd", &rule::all([rule::ct_state(1, true), vec![Expr::Reject(RejectWith::Icmp(3))]]), None);
    batch.add_rule("fwd", &rule::all([rule::protocol_is(6), vec![Expr::Reject(RejectWith::TcpReset)]]), None);
    batch.add_rule("fwd", &[Expr::NamedCounter("seen".into()), Expr::Counter], None);
    batch.add_rule(
        "pre",
        &rule::all([
            rule::destination_is_local(),
            rule::destination_in("127.0.0.0/8".parse().unwrap(), false),
            rule::interface_is(Meta::IifName, "br0", false),
            rule::set_mark(0x4000),
            vec![
                rule::load_source(false, Reg(0)),
                Expr::Jhash { sreg: Reg(0), len: 4, dreg: Reg(1), modulus: 7, seed: 3, offset: 0 },
                Expr::Random { dreg: Reg(1), modulus: 4, offset: 10 },
                Expr::Lookup { set: "affinity".into(), sreg: Reg(0), dreg: Some(Reg(2)), invert: false },
                Expr::Dynset {
                    set: "affinity".into(),
                    op: DynsetOp::Update,
                    key: Reg(0),
                    data: Some(Reg(2)),
                    timeout: Some(10_800_000),
                },
                Expr::Nat { kind: NatKind::Destination, family: 2, addr: Reg(2), port: Some(Reg(3)), flags: 0 },
            ],
        ]),
        None,
    );
    batch.add_rule(
        "post",
        &rule::all([
            rule::mark(0x4000, true),
            rule::clear_mark(0x4000),
            rule::ct_is_dnat(true),
            vec![Expr::Ct { key: Ct::DstIp, dreg: Reg(4), original: Some(true) }],
            rule::source_in_set(false, "ranges", true),
            vec![Expr::Masquerade { flags: nat::RANDOM_FULLY }],
        ]),
        None,
    );
    nft.commit(batch).unwrap();
    assert_eq!(nft.elements(Family::Ip, "t", "ranges").unwrap().iter().filter(|e| !e.interval_end).count(), 2);
    assert_eq!(nft.rules(Family::Ip, "t").unwrap().len(), 6);
}
