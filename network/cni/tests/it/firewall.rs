//! Firewalls of others that would stop pods are told, with what to do; they are not touched.

use cni::firewall::{Tool, Wall, Way, advice, diagnose};
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
        let walls = || diagnose("fk-test", world.config.subnets, |table| table == world.config.table).unwrap();
        let told = || advice(&walls(), world.config.subnets);
        cni::Network::new(world.config.clone()).unwrap();
        assert_eq!(told(), Vec::<String>::new(), "our own rules are no obstacle");
        filter("nat", Family::Ip, "FORWARD", hook::FORWARD, Policy::Accept, &[]);
        assert_eq!(told(), Vec::<String>::new());

        filter("filter", Family::Ip, "FORWARD", hook::FORWARD, Policy::Drop, &[]);
        let one = told();
        assert_eq!(one.len(), 1);
        assert!(one[0].starts_with("the host's firewall drops forwarded packets (nftables chain ip filter FORWARD)"));
        let line = format!("nft insert rule ip filter FORWARD ip saddr {} accept", world.config.subnets);
        assert!(one[0].contains(&line), "{}", one[0]);

        let reject = vec![vec![Expr::Counter, Expr::Reject(RejectWith::Icmpx(3))]];
        filter("guard", Family::Inet, "in", hook::INPUT, Policy::Accept, &reject);
        assert!(told()[0].contains("inet guard in"), "a last rule refuses all");

        for (table, family, chain) in [("filter", Family::Ip, "FORWARD"), ("guard", Family::Inet, "in")] {
            let mut batch = Batch::new(family, table);
            let accept = vec![Expr::Verdict(Verdict::Accept)];
            batch.add_rule(chain, &rule::all([rule::interface_is(Meta::IifName, "fk-test", true), accept]), None);
            Nft::open().unwrap().commit(batch).unwrap();
        }
        assert_eq!(told(), Vec::<String>::new());
    });
}

/// Whose table it is shows in the chains that its own lead to; a rule that nothing leads to opens nothing.
#[test]
fn a_tool_is_known_by_its_chains_and_taught_in_the_one_it_keeps() {
    let world = World::new();
    world.on_host(|| {
        let walls = || diagnose("fk-test", world.config.subnets, |_| false).unwrap();
        let jump = |to: &str| vec![vec![Expr::Counter, Expr::Verdict(Verdict::Jump(to.into()))]];
        let mut batch = Batch::new(Family::Ip, "filter");
        batch.add_table();
        for name in ["DOCKER-USER", "ufw-user-input", "ufw-before-input", "stray"] {
            batch.add_chain(&Chain { name, hook: None });
        }
        batch.add_rule("ufw-before-input", &jump("ufw-user-input")[0], None);
        Nft::open().unwrap().commit(batch).unwrap();
        filter("filter", Family::Ip, "FORWARD", hook::FORWARD, Policy::Drop, &jump("DOCKER-USER"));
        filter("filter", Family::Ip, "INPUT", hook::INPUT, Policy::Drop, &jump("ufw-before-input"));
        let tools: Vec<_> = walls().iter().map(|wall| (wall.chain.clone(), wall.tool)).collect();
        assert_eq!(tools, [("FORWARD".to_owned(), Tool::Docker), ("INPUT".to_owned(), Tool::Ufw)]);
        let told = advice(&walls(), world.config.subnets).join("\n");
        let pods = world.config.subnets;
        assert!(told.contains(&format!("`ufw allow from {pods}`")) && told.contains("ferrokube up --open-firewall"));
        assert!(told.contains(&format!("`iptables -I DOCKER-USER -d {pods} -j ACCEPT`")), "{told}");

        let teach = |chain: &str| {
            let mut batch = Batch::new(Family::Ip, "filter");
            let accept = vec![Expr::Verdict(Verdict::Accept)];
            batch.add_rule(chain, &rule::all([rule::source_in(pods.primary(), true), accept]), None);
            Nft::open().unwrap().commit(batch).unwrap();
        };
        teach("stray");
        assert_eq!(walls().len(), 2, "no packet comes there");
        teach("ufw-user-input");
        assert_eq!(walls().iter().map(|wall| wall.tool).collect::<Vec<_>>(), [Tool::Docker]);
    });
}

#[test]
fn what_is_opened_in_a_table_of_nobody_is_closed_again() {
    let world = World::new();
    world.on_host(|| {
        let walls = || diagnose("fk-test", world.config.subnets, |_| false).unwrap();
        filter("guard", Family::Inet, "fw", hook::FORWARD, Policy::Drop, &[vec![Expr::Counter]]);
        let rules = || Nft::open().unwrap().rules(Family::Inet, "guard").unwrap();
        let before = rules();
        let found = walls();
        found[0].open_directly(world.config.subnets).unwrap();
        assert_eq!(walls(), []);
        assert_eq!(rules().len(), 3, "from pods and to pods");
        let both = "10.42.0.0/24,fd42::/64".parse().unwrap();
        assert_eq!(diagnose("fk-test", both, |_| false).unwrap(), found, "of IPv4 alone");
        found[0].close_directly().unwrap();
        found[0].open_directly(both).unwrap();
        assert_eq!(diagnose("fk-test", both, |_| false).unwrap(), []);
        assert_eq!(rules().len(), 5);
        assert_eq!(rules().last(), before.last(), "before all others");
        found[0].close_directly().unwrap();
        assert_eq!(rules(), before);
        Nft::open().unwrap().remove_table(Family::Inet, "guard").unwrap();
        found[0].close_directly().unwrap();
    });
}

#[test]
fn each_tool_takes_back_what_it_was_told() {
    let pods = "10.42.0.0/16".parse().unwrap();
    let closing = |tool: Tool, way: Way| {
        let place = |word: &str| word.to_owned();
        let wall = Wall { family: place("ip"), table: place("filter"), chain: place("X"), way, tool };
        wall.closing(pods).iter().map(|line| line.join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(closing(Tool::Ufw, Way::Input), ["ufw delete allow from 10.42.0.0/16"]);
    let forward = ["ufw route delete allow from 10.42.0.0/16", "ufw route delete allow to 10.42.0.0/16"];
    assert_eq!(closing(Tool::Ufw, Way::Forward), forward);
    let zone = ["firewall-cmd --zone=trusted --remove-source=10.42.0.0/16"];
    assert_eq!(closing(Tool::Firewalld, Way::Input)[..1], zone);
    let permanent = "firewall-cmd --permanent --zone=trusted --remove-source=10.42.0.0/16";
    assert_eq!(closing(Tool::Firewalld, Way::Forward)[1], permanent);
    let docker =
        ["iptables -D DOCKER-USER -s 10.42.0.0/16 -j ACCEPT", "iptables -D DOCKER-USER -d 10.42.0.0/16 -j ACCEPT"];
    assert_eq!(closing(Tool::Docker, Way::Forward), docker);
    let of_v6 = |family: &str| {
        let (family, table, chain) = (family.to_owned(), "filter".to_owned(), "X".to_owned());
        let wall = Wall { family, table, chain, way: Way::Input, tool: Tool::Nftables };
        wall.opening("10.42.0.0/16,fd42::/56".parse().unwrap()).iter().map(|line| line.join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(of_v6("ip6"), ["nft insert rule ip6 filter X ip6 saddr fd42::/56 accept"]);
    assert_eq!((of_v6("ip").len(), of_v6("inet").len()), (1, 2));
    assert!(closing(Tool::Nftables, Way::Forward).is_empty(), "our own rules are known by their comment");
}
