//! Configurations as people have them, and what is refused with its line and word.

use std::time::Duration;

use super::*;

fn read(text: &str) -> Result<Corefile, String> {
    let own = [("Corefile", text), ("NodeHosts", "192.0.2.7 node-a\n")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let files = Files { own: own.into(), ..Files::default() };
    let facts = Facts { port: 53, domain: Name::parse("cluster.local").unwrap() };
    parse(&files, &facts).map_err(|wrong| wrong.to_string())
}

/// As kubeadm writes it.
const KUBEADM: &str = "\
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
";

#[test]
fn kubeadms_configuration_is_read() {
    let read = read(KUBEADM).unwrap();
    assert_eq!(read.records, Some(Records::plain(30)));
    let pages = Pages { health: Some((None, 8080)), ready: Some((None, 8181)), metrics: Some((None, 9153)) };
    assert_eq!(read.pages, pages);
    let server = &read.servers[0];
    assert!(server.errors && server.loadbalance && server.zones == [Name::root()]);
    let kubernetes = server.kubernetes.as_ref().unwrap();
    assert!(!kubernetes.fall.through(Name::parse("a.cluster.local").unwrap().as_bytes()));
    let cache = server.cache.as_ref().unwrap();
    assert_eq!((cache.success.most, cache.denial.most, cache.success.without.len()), (30, 30, 1));
    let forward = &server.forwards[0];
    assert_eq!((forward.to.len(), forward.max_concurrent, forward.policy), (1, Some(1000), Policy::Random));
}

#[test]
fn every_option_of_a_plugin_is_read() {
    let read = read(
        "corp.example:53 10.0.0.0/8 {\n forward . 10.0.0.1 tls://9.9.9.9%dns.quad9.net:8853 [fd00::1]:5353 {\n  \
         except a.corp.example\n  policy sequential\n  max_fails 3\n  expire 20s\n  health_check 1s no_rec domain x.y\n  \
         force_tcp\n  prefer_udp\n  tls /cert /key /ca\n  failover SERVFAIL REFUSED\n  next NXDOMAIN\n }\n hosts \
         /etc/coredns/NodeHosts {\n  192.0.2.1 a.corp.example b\n  ttl 60\n  no_reverse\n  reload 0\n  fallthrough\n }\n \
         cache 60 corp.example {\n  success 5000 30 2\n  denial 2500\n  prefetch 10 1m 20%\n  serve_stale 1h verify \
         100ms 30s\n  servfail 1s\n  keepttl\n }\n template IN A x.corp.example {\n  match ^x(?P<n>[0-9]+)\\.\n  answer \
         \"{{ .Name }} 60 IN A 192.0.2.{{ .Group.n }}\"\n  fallthrough\n }\n log corp.example {common} {\n  class denial \
         error\n }\n}\n",
    )
    .unwrap();
    let server = &read.servers[0];
    assert_eq!(server.zones.iter().map(Name::to_string).collect::<Vec<_>>(), ["corp.example.", "10.in-addr.arpa."]);
    let forward = &server.forwards[0];
    let To::Server(tls) = &forward.to[1] else { panic!("{:?}", forward.to) };
    assert_eq!((tls.address.to_string(), tls.tls_name.as_deref()), ("9.9.9.9:8853".to_owned(), Some("dns.quad9.net")));
    assert_eq!((forward.max_fails, forward.check_recursion, forward.force_tcp), (3, false, true));
    assert_eq!((forward.expire, forward.check_every), (Duration::from_secs(20), Duration::from_secs(1)));
    assert_eq!((&forward.failover[..], &forward.next[..]), (&[2, 5][..], &[3][..]));
    let hosts = server.hosts.as_ref().unwrap();
    assert_eq!((hosts.inline.len(), hosts.given.len(), hosts.ttl, hosts.reverse), (2, 1, 60, false));
    let cache = server.cache.as_ref().unwrap();
    assert_eq!((cache.success.capacity, cache.success.most, cache.success.least), (5000, 30, 2));
    assert_eq!(cache.stale.unwrap().verify, Some(Some(Duration::from_millis(100))));
    assert_eq!((server.log[0].classes.len(), server.templates[0].records.len()), (2, 1));
}

#[test]
fn what_is_not_known_is_refused_with_line_and_word() {
    for (text, told) in [
        (". {\n whoami\n}", "Corefile:2: \"whoami\": this server has no such plugin"),
        (". {\n forward . 1.1.1.1 {\n  polcy random\n }\n}", "Corefile:3: \"polcy\": no option of forward"),
        (". {\n forward . 1.1.1.1 {\n  policy best\n }\n}", "Corefile:3: \"best\": a policy is"),
        (". {\n forward . dns.example\n}", "Corefile:2: \"dns.example\": an address of a server"),
        (". {\n forward .\n}", "Corefile:2: \".\": servers are wanted"),
        (".:5353 {\n}", "Corefile:1: \".:5353\": this server answers on port 53"),
        ("tls://. {\n}", "Corefile:1: \"tls://.\": this server speaks dns://"),
        ("a {\n}\nb A {\n}", "Corefile:3: \"A\": another block has this zone"),
        (". {\n cache 0\n}", "Corefile:2: \"0\": a number from 1"),
        (". {\n cache {\n  prefetch 1 1m 5%\n }\n}", "Corefile:3: \"5%\": a share"),
        (". {\n cache\n cache\n}", "Corefile:3: \"cache\": stands in this block already"),
        (
            ". {\n kubernetes other.local\n}",
            "Corefile:2: \"other.local\": the cluster's names are under cluster.local.",
        ),
        (". {\n kubernetes cluster.local {\n  pods maybe\n }\n}", "Corefile:3: \"maybe\": pods is"),
        (
            ". {\n kubernetes cluster.local {\n  kubeconfig x\n }\n}",
            "Corefile:3: \"kubeconfig\": this server has its own",
        ),
        (
            "a {\n kubernetes cluster.local\n}\nb {\n kubernetes cluster.local {\n  ttl 9\n }\n}",
            "Corefile:5: \"kubernetes\"",
        ),
        (". {\n hosts {\n  1.2.3 a\n }\n}", "Corefile:3: \"1.2.3\": neither an address nor an option"),
        (". {\n hosts relative\n}", "Corefile:2: \"relative\": a file is named by its whole path"),
        (". {\n hosts /etc/coredns/Gone\n}", "Corefile:2: \"/etc/coredns/Gone\": the ConfigMap has no such key"),
        (". {\n rewrite name regex ( x\n}", "Corefile:2: \"(\": no expression"),
        (". {\n rewrite name regex (a) {2}\n}", "Corefile:2: \"{2}\": the expression has no group 2"),
        (". {\n rewrite edns0 local set 0xffee x\n}", "Corefile:2: \"edns0\": what can be rewritten"),
        (". {\n errors x\n}", "Corefile:2: \"x\": errors takes nothing more"),
        (
            ". {\n template IN A {\n  answer \"{{ .Remote }}\"\n }\n}",
            "Corefile:3: \"{{ .Remote }}\": \" .Remote \" can't be",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.starts_with(told), "{text:?}\n  {error}\n  {told}");
    }
}

#[test]
fn nothing_is_without_a_bound() {
    let many = |line: &str, n: usize| format!(". {{\n{}}}\n", line.repeat(n));
    assert!(read(&many("rewrite name regex a b\n", 1001)).unwrap_err().contains("more than 1000"));
    assert!(read(&many("forward . 1.1.1.1\n", 1001)).unwrap_err().contains("more than 1000"));
    let blocks: String = (0..501).map(|i| format!("z{i} {{\n}}\n")).collect();
    assert!(read(&blocks).unwrap_err().contains("more than 500 server blocks"));
    let servers = "1.1.1.1 ".repeat(16);
    assert!(read(&format!(". {{\nforward . {servers}\n}}")).unwrap_err().contains("more than 15"));
    let zones: String = (0..1001).map(|i| format!("z{i} ")).collect();
    assert!(read(&format!(". {{\nlog {zones}\n}}")).unwrap_err().contains("more than 1000 zones"));
}
