//! The addresses that Services of type LoadBalancer are given (`--load-balancer-pool`): how they are written, and what they
//! may not meet. An address that somebody has already would be taken from him on the network. Pure.

use std::net::IpAddr;

use meta::{Prefix, Span};

use super::record::{MOST, Record};
use super::{Cluster, list};

const FLAG: &str = "--load-balancer-pool";
/// Ranges of a pool: each address is looked for in all of them.
const MOST_RANGES: usize = 64;

/// What no host has for itself alone, and why.
const NOBODYS: [(&str, &str); 9] = [
    ("0.0.0.0/8", "no host's addresses"),
    ("127.0.0.0/8", "each host's own loopback"),
    ("169.254.0.0/16", "addresses of one link alone"),
    ("224.0.0.0/4", "groups"),
    ("240.0.0.0/4", "no host's addresses"),
    ("::/127", "each host's own loopback"),
    ("::ffff:0:0/96", "IPv4 addresses in other words: write them as IPv4"),
    ("fe80::/10", "addresses of one link alone"),
    ("ff00::/8", "groups"),
];

/// What the flag says, each part of it.
pub fn read(texts: &[String]) -> Result<Vec<Span>, String> {
    let mut pool: Vec<Span> = Vec::with_capacity(texts.len().min(MOST_RANGES));
    for text in texts {
        let span: Span = text.parse().map_err(|why: meta::SpanError| format!("{FLAG} {text}: {why}"))?;
        if let Some(other) = pool.iter().find(|other| other.overlaps(&span)) {
            return Err(format!("{FLAG}: {other} and {span} overlap: say each address once"));
        }
        if let Some((range, why)) = NOBODYS.iter().find(|(range, _)| meets(&span, range)) {
            return Err(format!(
                "{FLAG} {text}: {range} are {why}; say addresses of the network that the nodes are on"
            ));
        }
        if pool.len() >= MOST_RANGES {
            return Err(format!("{FLAG}: it has more than {MOST_RANGES} ranges: write those beside each other as one"));
        }
        pool.push(span);
    }
    Ok(pool)
}

fn meets(span: &Span, range: &str) -> bool {
    range.parse::<Prefix>().is_ok_and(|range| span.overlaps(&range.into()))
}

/// Against what the cluster has itself.
pub fn fit(cluster: &Cluster) -> Result<(), String> {
    let pods = cluster.pod_cidr.iter().map(|range| (range, "--pod-cidr"));
    let own: Vec<(Prefix, &str)> =
        pods.chain(cluster.service_cidr.iter().map(|range| (range, "--service-cidr"))).collect();
    for span in cluster.load_balancer_pool() {
        if let Some((range, flag)) = own.iter().find(|(range, _)| span.overlaps(&(*range).into())) {
            let from = "choose addresses of the network that the nodes are on";
            return Err(format!("{FLAG} {span} overlaps {flag} {range}: {from}"));
        }
        if !cluster.has_family(span.first()) {
            let (family, pods) = (if span.is_ipv6() { "IPv6" } else { "IPv4" }, cluster.pod_cidr);
            return Err(format!("{FLAG} {span}: Services have no {family} addresses, for --pod-cidr is {pods}"));
        }
    }
    Ok(())
}

/// Against the addresses that nodes of the host have on the link between them, and those that further ones will get. The
/// rest of the link's range is free for a pool.
pub fn beside_nodes(cluster: &Cluster, record: &Record) -> Result<(), String> {
    let last = u128::from(MOST);
    for span in cluster.load_balancer_pool() {
        for range in record.ranges().iter() {
            let end = range.nth(last).unwrap_or(range.last());
            // Both are of the range, in order.
            let nodes = Span::new(range.network().addr, end).map_err(|e| e.to_string())?;
            if span.overlaps(&nodes) {
                return Err(format!(
                    "{FLAG} {span}: nodes of this host have or get the addresses {nodes}; say later ones"
                ));
            }
            if !range.is_ipv6() && span.contains(range.last()) {
                return Err(format!("{FLAG} {span}: {} is for all nodes of this host; leave it out", range.last()));
            }
        }
    }
    Ok(())
}

/// Against addresses of which it is known whose they are.
pub fn beside(cluster: &Cluster, others: impl IntoIterator<Item = (IpAddr, &'static str)>) -> Result<(), String> {
    let pool = cluster.load_balancer_pool();
    let found = others.into_iter().find_map(|(addr, whose)| {
        let span = pool.iter().find(|span| span.contains(addr))?;
        Some(format!("{FLAG} {span}: {addr} is {whose}; leave it out"))
    });
    found.map_or(Ok(()), Err)
}

impl Cluster {
    /// The addresses that Services of type LoadBalancer are given; empty: they have the nodes'.
    pub fn load_balancer_pool(&self) -> Vec<Span> {
        // What is wrong was refused when it was said.
        list(&self.options.load_balancer_pool).iter().filter_map(|text| text.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|text| (*text).to_owned()).collect()
    }

    fn cluster(pool: &[&str]) -> Cluster {
        let mut cluster = crate::config::tests::host("/nowhere".as_ref()).cluster;
        cluster.options.load_balancer_pool = Some(texts(pool));
        cluster
    }

    #[test]
    fn what_is_no_pool_is_refused_with_what_would_be_right() {
        let said = |all: &[&str]| read(&texts(all)).unwrap_err();
        assert_eq!(read(&texts(&["192.168.1.240-192.168.1.250", "2001:db8::/120"])).map(|all| all.len()), Ok(2));
        assert_eq!(read(&[]), Ok(vec![]));
        let form = said(&["192.168.1.240-250"]);
        assert!(
            form.starts_with("--load-balancer-pool 192.168.1.240-250: ") && form.contains("write it like"),
            "{form}"
        );
        let twice = said(&["192.168.1.240-192.168.1.250", "192.168.1.248/29"]);
        assert!(twice.ends_with("192.168.1.248-192.168.1.255 overlap: say each address once"), "{twice}");
        for wrong in
            ["0.0.0.0/0", "127.0.0.9", "224.0.0.1", "::1", "fe80::/64", "ff02::1", "255.255.255.255", "::ffff:1.2.3.4"]
        {
            assert!(said(&[wrong]).contains("say addresses of the network that the nodes are on"), "{wrong}");
        }
        let many: Vec<String> = (0..=MOST_RANGES).map(|n| format!("192.168.1.{n}")).collect();
        assert!(read(&many).unwrap_err().contains("more than 64 ranges"));
    }

    #[test]
    fn a_pool_meets_nothing_of_the_cluster() {
        let says = |pool: &[&str]| fit(&cluster(pool)).err().unwrap_or_default();
        assert_eq!(says(&["192.168.1.240-192.168.1.250"]), "");
        assert!(
            says(&["10.42.9.0/24"])
                .starts_with("--load-balancer-pool 10.42.9.0-10.42.9.255 overlaps --pod-cidr 10.42.0.0/16: ")
        );
        assert!(says(&["10.43.255.0-10.44.0.9"]).contains("overlaps --service-cidr 10.43.0.0/16"));
        assert!(says(&["2001:db8::/120"]).contains("Services have no IPv6 addresses"));
        let mut both = cluster(&["2001:db8::/120"]);
        both.pod_cidr = "10.42.0.0/16,fd42::/56".parse().expect("ranges");
        assert_eq!(fit(&both), Ok(()));
    }

    #[test]
    fn nodes_keep_their_addresses_and_the_rest_of_their_range_is_free() {
        let record =
            Record { range6: "fd66:6b::/64".parse().ok(), ..Record::new("10.202.0.0/24".parse().expect("a range")) };
        let says = |pool: &[&str]| beside_nodes(&cluster(pool), &record).err().unwrap_or_default();
        assert_eq!(says(&["10.202.0.240-10.202.0.250", "fd66:6b::f000/120", "192.168.1.0/24"]), "");
        assert!(
            says(&["10.202.0.100"]).contains("nodes of this host have or get the addresses 10.202.0.0-10.202.0.100")
        );
        assert!(says(&["fd66:6b::2"]).contains("say later ones"));
        assert!(says(&["10.202.0.240/28"]).contains("10.202.0.255 is for all nodes"));
        let router = [("192.168.1.1".parse().expect("an address"), "a router's")];
        let said = beside(&cluster(&["192.168.1.0/24"]), router).unwrap_err();
        assert_eq!(said, "--load-balancer-pool 192.168.1.0-192.168.1.255: 192.168.1.1 is a router's; leave it out");
        assert_eq!(beside(&cluster(&["192.168.1.240"]), router), Ok(()));
    }
}
