//! The ranges of pods and Services as flags and files write them: what a list of them must be, family by family, and what
//! the two must be to each other. Pure. The one place of these rules; what a list is, is [`Ranges`].

use std::ops::RangeInclusive;

use meta::{Prefix, Ranges};
use serde::{Deserialize, Deserializer};

use super::Cluster;

/// What a range may be long, of each family.
#[derive(Debug)]
struct Rule {
    v4: RangeInclusive<u8>,
    v6: RangeInclusive<u8>,
    like: &'static str,
}

/// IPv4: a larger range takes addresses of other networks; a smaller one has not enough for a node. IPv6: a node has a
/// /64, and upstream cuts no range into more than 2^16.
const PODS: Rule = Rule { v4: 8..=24, v6: 48..=64, like: "10.42.0.0/16 or 10.42.0.0/16,fd42::/56" };
/// IPv6: upstream has no more than 20 bits; ours are no fewer than those of the smallest of IPv4.
const SERVICES: Rule = Rule { v4: 8..=24, v6: 108..=120, like: "10.43.0.0/16 or 10.43.0.0/16,fd43::/112" };

/// The same of the link between a host's nodes.
const LINK_LENGTHS: RangeInclusive<u8> = 16..=29;

/// What `--pod-cidr` says.
pub fn pods(text: &str) -> Result<Ranges, String> {
    PODS.read(text)
}

/// What `--service-cidr` says.
pub fn services(text: &str) -> Result<Ranges, String> {
    SERVICES.read(text)
}

impl Rule {
    fn read(&self, text: &str) -> Result<Ranges, String> {
        let like = |why: String| format!("{why}: write it like {}", self.like);
        let bounds = || {
            let ends = |lengths: &RangeInclusive<u8>| format!("between /{} and /{}", lengths.start(), lengths.end());
            format!("IPv4 {}, IPv6 {}", ends(&self.v4), ends(&self.v6))
        };
        let read = text.parse();
        let ranges: Ranges = read.map_err(|e: meta::RangesError| format!("{}; {}", like(e.to_string()), bounds()))?;
        let lengths = |range: &Prefix| if range.is_ipv6() { &self.v6 } else { &self.v4 };
        match ranges.iter().find(|range| !lengths(range).contains(&range.len)) {
            None => Ok(ranges),
            Some(range) => {
                let family = if range.is_ipv6() { "IPv6" } else { "IPv4" };
                let (longest, shortest) = (lengths(&range).start(), lengths(&range).end());
                Err(like(format!("{range} is not an {family} range between /{longest} and /{shortest}")))
            }
        }
    }
}

/// No address may mean two things, and who has a Service of a family has pods of it.
pub fn fit(pods: &Ranges, services: &Ranges) -> Result<(), String> {
    if !pods.is_like(services) {
        return Err(format!(
            "--pod-cidr {pods} and --service-cidr {services} are not of the same families in the same order: say for both a \
             range of one family, or for both one of each, like {} and {}",
            "10.42.0.0/16,fd42::/56", "10.43.0.0/16,fd43::/112"
        ));
    }
    match pods.overlap(services) {
        None => Ok(()),
        Some((pods, services)) => {
            Err(format!("--pod-cidr {pods} and --service-cidr {services} overlap: choose two ranges that don't"))
        }
    }
}

/// What ranges of a cluster that is there may become, for who has said others.
pub fn stay(cluster: &Cluster) -> String {
    let Cluster { name, pod_cidr: pods, service_cidr: services, .. } = cluster;
    let has = format!("the cluster {name:?} has pods in {pods} and Services in {services}");
    if pods.second().is_some() {
        return format!(
            "{has}: they can't change, for nodes keep the ranges that they were given; `ferrokube reset` first"
        );
    }
    let (more_pods, more_services) = match pods.primary().is_ipv6() {
        true => ("10.42.0.0/16", "10.43.0.0/16"),
        false => ("fd42::/56", "fd43::/112"),
    };
    format!(
        "{has}: they stay, and a range of the other family may be said behind each, like --pod-cidr {pods},{more_pods} \
         --service-cidr {services},{more_services}; for other ranges `ferrokube reset` first"
    )
}

/// The range of the link between a host's nodes, its host bits cleared.
pub fn link_range(text: &str) -> Result<Prefix, String> {
    let fits = |range: &Prefix| !range.is_ipv6() && LINK_LENGTHS.contains(&range.len);
    let range = text.parse().ok().filter(fits).ok_or_else(|| {
        let (longest, shortest) = (LINK_LENGTHS.start(), LINK_LENGTHS.end());
        format!("{text:?} is not an IPv4 range between /{longest} and /{shortest}: write it like 10.202.0.0/24")
    })?;
    Ok(range.network())
}

/// Pods' ranges of a document.
pub fn read_pods<'de, D: Deserializer<'de>>(d: D) -> Result<Ranges, D::Error> {
    pods(&String::deserialize(d)?).map_err(serde::de::Error::custom)
}

/// Services' ranges of a document.
pub fn read_services<'de, D: Deserializer<'de>>(d: D) -> Result<Ranges, D::Error> {
    services(&String::deserialize(d)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_what_is_wrong() {
        let said = |read: Result<Ranges, String>| read.unwrap_err();
        assert_eq!(pods("10.42.3.4/16").map(|c| c.to_string()), Ok("10.42.0.0/16".to_owned()));
        assert_eq!(pods("10.42.0.0/16,fd42::7/56").map(|c| c.to_string()), Ok("10.42.0.0/16,fd42::/56".to_owned()));
        assert!(said(pods("10.42.0.0")).contains("like 10.42.0.0/16 or 10.42.0.0/16,fd42::/56"));
        assert_eq!(pods("fd00::/56").map(|c| c.to_string()), Ok("fd00::/56".to_owned()));
        assert!(services("fd00::/112,10.43.0.0/16").is_ok_and(|ranges| ranges.primary().is_ipv6()));
        assert!(said(pods("10.42.0.0/33")).ends_with("; IPv4 between /8 and /24, IPv6 between /48 and /64"));
        assert!(said(pods("10.42.0.0/31")).contains("not an IPv4 range between /8 and /24"));
        assert!(said(pods("10.42.0.0/16,10.44.0.0/16")).contains("of one family"));
        assert!(said(pods("10.42.0.0/16,fd00::/56,fd01::/56")).contains("3 ranges are too many"));
        assert!(said(pods("10.42.0.0/16,fd42::/40")).starts_with("fd42::/40 is not an IPv6 range between /48 and /64"));
        assert!(said(services("10.43.0.0/16,fd43::/64")).contains("IPv6 range between /108 and /120"));
        assert_eq!(link_range("10.9.8.7/28").map(|c| c.to_string()), Ok("10.9.8.0/28".to_owned()));
        assert!(link_range("10.0.0.0/8").unwrap_err().contains("like 10.202.0.0/24"));
    }

    #[test]
    fn a_cluster_may_get_a_second_family_and_nothing_else() {
        let mut cluster = crate::config::tests::host("/nowhere".as_ref()).cluster;
        let gains = |cluster: &Cluster, a: &str, b: &str| cluster.gains(&pods(a).unwrap(), &services(b).unwrap());
        assert!(gains(&cluster, "10.42.0.0/16,fd42::/56", "10.43.0.0/16,fd43::/112"));
        for (pods, services) in [
            ("10.42.0.0/16", "10.43.0.0/16"),
            ("10.42.0.0/16,fd42::/56", "10.43.0.0/16"),
            ("10.44.0.0/16,fd42::/56", "10.43.0.0/16,fd43::/112"),
            ("fd42::/56,10.42.0.0/16", "fd43::/112,10.43.0.0/16"),
            ("fd42::/56", "fd43::/112"),
        ] {
            assert!(!gains(&cluster, pods, services), "{pods} {services}");
        }
        let said = stay(&cluster);
        assert!(said.contains("--pod-cidr 10.42.0.0/16,fd42::/56 --service-cidr 10.43.0.0/16,fd43::/112;"), "{said}");
        (cluster.pod_cidr, cluster.service_cidr) = (pods("fd42::/56").unwrap(), services("fd43::/112").unwrap());
        assert!(gains(&cluster, "fd42::/56,10.42.0.0/16", "fd43::/112,10.43.0.0/16"), "{}", stay(&cluster));
        assert!(stay(&cluster).contains("--pod-cidr fd42::/56,10.42.0.0/16 "));
        cluster.pod_cidr = pods("10.42.0.0/16,fd42::/56").unwrap();
        cluster.service_cidr = services("10.43.0.0/16,fd43::/112").unwrap();
        assert!(!gains(&cluster, "10.42.0.0/16,fd42::/48", "10.43.0.0/16,fd43::/112"));
        assert!(stay(&cluster).contains("they can't change"));
    }

    #[test]
    fn pods_and_services_have_the_same_families_and_no_address_in_common() {
        let fits = |a: &str, b: &str| fit(&pods(a).unwrap(), &services(b).unwrap());
        assert_eq!(fits("10.42.0.0/16,fd42::/56", "10.43.0.0/16,fd43::/112"), Ok(()));
        let said = fits("10.42.0.0/16,fd42::/56", "10.43.0.0/16").unwrap_err();
        assert!(said.contains("--service-cidr 10.43.0.0/16 are not of the same families in the same order"), "{said}");
        assert!(fits("fd42::/56,10.42.0.0/16", "10.43.0.0/16,fd43::/112").is_err());
        assert_eq!(fits("fd42::/56", "fd43::/112"), Ok(()));
        let said = fits("10.42.0.0/16,fd42::/56", "10.43.0.0/16,fd42::/112").unwrap_err();
        assert_eq!(said, "--pod-cidr fd42::/56 and --service-cidr fd42::/112 overlap: choose two ranges that don't");
    }
}
