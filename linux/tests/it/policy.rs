//! Rules of policy routing are read back as they were put, beside the kernel's own.

use linux::netlink::{Mark, Rtnl, Rule, RuleAction};
use linux::netns::NetNs;

#[test]
fn rules_are_read_back_as_they_were_put() {
    let host = NetNs::create().unwrap();
    let mut rtnl = Rtnl::open_in(&host).unwrap();
    let own = rtnl.rules().unwrap();
    assert!(own.iter().any(|r| (r.v6, r.priority, r.action) == (false, 32766, RuleAction::Table(254))), "{own:?}");
    for (v6, range) in [(false, "10.7.0.0/16"), (true, "fd07::/48")] {
        let new = |action| Rule::new(v6, 100, action);
        let shapes = [
            Rule { from: range.parse().ok(), to: range.parse().ok(), ..new(RuleAction::Table(1000)) },
            Rule { mark: Some(Mark { value: 0x40, mask: 0xc0 }), invert: true, ..new(RuleAction::Table(7)) },
            Rule { incoming: Some("lo".into()), outgoing: Some("eth7".into()), ..new(RuleAction::Table(254)) },
            Rule { suppress_prefix_len: Some(0), ..new(RuleAction::Table(254)) },
            new(RuleAction::Blackhole),
            new(RuleAction::Unreachable),
            new(RuleAction::Prohibit),
        ];
        for shape in &shapes {
            rtnl.put_rule(shape).unwrap();
            rtnl.put_rule(shape).unwrap();
            let found: Vec<_> = rtnl.rules().unwrap().into_iter().filter(|r| !own.contains(r)).collect();
            assert_eq!(found, std::slice::from_ref(shape));
            rtnl.delete_rule(shape).unwrap();
            rtnl.delete_rule(shape).unwrap();
            assert_eq!(rtnl.rules().unwrap(), own);
        }
    }
}
