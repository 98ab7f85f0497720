//! Firewalls of others that would stop pods are told, with what to do; they are not touched.

use cni::firewall::diagnose;
use linux::nft::{Batch, Chain, Expr, Family, Hook, Meta, Nft, Policy, RejectWith, Verdict, hook, rule};

use crate::world::World;

/// Another's table with a base chain at a hook.
fn filter(table: &str, family: Family, name: &str, number: u32, policy: Policy, rules: &[Vec<Expr>]) {
    let mut batch = Batch::new(family, table);
    batch.add_table();
    let hook = Hook { kind: "filter", number, priority: 0, policy };
    batch.add_chain(&Chain { name, hook: Some(hook) });
    for exprs in rules {
        batch.add_rule(name, exprs, None);
    }
    Nft::open().unwrap().commit(batch).unwrap();
}

#[test]
fn a_firewall_that_drops_what_pods_send_is_told_until_it_knows_them() {
    let world = World::new();
    world.on_host(|| {
        let diagnose = || diagnose("fk-test", world.config.subnet).unwrap();
        cni::Network::new(world.config.clone()).unwrap();
        assert_eq!(diagnose(), Vec::<String>::new(), "our own rules are no obstacle");
        filter("nat", Family::Ip, "FORWARD", hook::FORWARD, Policy::Accept, &[]);
        assert_eq!(diagnose(), Vec::<String>::new());

        filter("filter", Family::Ip, "FORWARD", hook::FORWARD, Policy::Drop, &[]);
        let told = diagnose();
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("the host's firewall drops forwarded packets (nftables chain ip filter FORWARD)"));
        assert!(told[0].contains("nft insert rule ip filter FORWARD iifname fk-test accept"));

        let reject = vec![vec![Expr::Counter, Expr::Reject(RejectWith::Icmpx(3))]];
        filter("firewalld", Family::Inet, "filter_INPUT", hook::INPUT, Policy::Accept, &reject);
        assert!(diagnose().iter().any(|t| t.contains("inet firewalld filter_INPUT")), "a last rule refuses all");

        for (table, family, chain) in [("filter", Family::Ip, "FORWARD"), ("firewalld", Family::Inet, "filter_INPUT")] {
            let mut batch = Batch::new(family, table);
            let accept = vec![Expr::Verdict(Verdict::Accept)];
            batch.add_rule(chain, &rule::all([rule::interface_is(Meta::IifName, "fk-test", true), accept]), None);
            Nft::open().unwrap().commit(batch).unwrap();
        }
        assert_eq!(diagnose(), Vec::<String>::new());
    });
}
