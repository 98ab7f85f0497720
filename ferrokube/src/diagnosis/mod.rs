//! `check`: what of this host and of the ways between hosts is at fault, with the cure. Pure: [`facts`] looks, and
//! [`ROWS`] judges, a row a kind of fault. Called by `commands::check`.
//!
//! ```text
//!   this host        kernel, cgroups, firewall, disk, clock, MTU, DNS upstreams     also before a first `up`
//!   other hosts      ready, clock, the way there, the way there for whole packets   once there is a cluster
//!   names            cluster DNS, by what a pod would ask                           while it runs here
//! ```

pub mod facts;

use std::time::Duration;

use serde::Serialize;

use self::facts::{Facts, Reach};

/// Clocks further apart than this break certificates, tokens and leases at their edges.
const CLOCKS_APART: i64 = 5;
/// A lease is renewed every ten seconds; one that looks older by this, of a node that is ready, was written by another
/// clock.
const LEASE_APART: i64 = 40;
/// A name that takes longer makes every connection slow.
const SLOW_NAME: Duration = Duration::from_millis(500);
/// Below this share of the disk the kubelet evicts pods (upstream's `nodefs.available`), in percent.
const LEAST_DISK: u64 = 10;
/// The kernel's own default; a watch for each pod's logs and files uses it up.
const FEW_WATCHES: u64 = 8192;
/// The IPv6 minimum: no link that carries pods' packets may have less.
const LEAST_MTU: u32 = 1280;

/// What came of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Good,
    /// It works, and will cost somebody an evening.
    Warning,
    Fault,
    /// It could not be looked at, or there is nothing to look at.
    Unknown,
}

impl State {
    pub fn mark(self) -> &'static str {
        match self {
            State::Good => "✓",
            State::Warning => "!",
            State::Fault => "✗",
            State::Unknown => "-",
        }
    }
}

/// A look and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub what: &'static str,
    pub state: State,
    pub why: String,
    /// What to do, where there is something.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cure: String,
}

struct Verdict(State, String, String);

fn good(why: impl Into<String>) -> Verdict {
    Verdict(State::Good, why.into(), String::new())
}

fn unknown(why: impl Into<String>) -> Verdict {
    Verdict(State::Unknown, why.into(), String::new())
}

fn warning(why: impl Into<String>, cure: impl Into<String>) -> Verdict {
    Verdict(State::Warning, why.into(), cure.into())
}

fn fault(why: impl Into<String>, cure: impl Into<String>) -> Verdict {
    Verdict(State::Fault, why.into(), cure.into())
}

type Judge = fn(&Facts) -> Verdict;

/// Every look, in the order in which one fault explains the next.
const ROWS: [(&str, Judge); 14] = [
    ("kernel", kernel),
    ("cgroups", cgroups),
    ("limits", limits),
    ("disk", disk),
    ("clock", clock),
    ("firewall", firewall),
    ("forwarding", forwarding),
    ("MTU", mtu),
    ("nodes", nodes),
    ("other clocks", clocks),
    ("way to other nodes", way),
    ("cluster DNS", cluster_dns),
    ("DNS servers of the host", upstreams),
    ("a start", start),
];

/// Judges everything.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let found = |(what, judge): &(&'static str, Judge)| {
        let Verdict(state, why, cure) = judge(facts);
        Finding { what, state, why, cure }
    };
    ROWS.iter().map(found).collect()
}

fn kernel(facts: &Facts) -> Verdict {
    match &facts.kernel_lacks {
        None => good(format!("Linux {}: overlayfs, namespaces, nftables", facts.kernel_version)),
        Some(sentence) => fault(sentence, "another kernel, or its modules: see the sentence"),
    }
}

fn cgroups(facts: &Facts) -> Verdict {
    match facts.cgroup_v2 {
        Some(true) => good("version 2"),
        Some(false) => warning(
            "version 1: it works, but no container is limited in memory as a whole, and Kubernetes is about to leave it",
            "boot with systemd.unified_cgroup_hierarchy=1",
        ),
        None => fault("none is mounted on /sys/fs/cgroup", "mount cgroup2 there: what boots this host did not"),
    }
}

fn limits(facts: &Facts) -> Verdict {
    match facts.watches {
        Some(few) if few <= FEW_WATCHES => warning(
            format!("fs.inotify.max_user_watches is {few}: programs in pods that watch files run out of it"),
            "echo fs.inotify.max_user_watches=524288 > /etc/sysctl.d/90-inotify.conf; sysctl --system",
        ),
        Some(watches) => good(format!("{watches} inotify watches")),
        None => unknown("fs.inotify.max_user_watches can't be read"),
    }
}

fn disk(facts: &Facts) -> Verdict {
    let Some(disk) = &facts.disk else { return unknown("the data directory isn't there yet") };
    let place = disk.path.display();
    for (free, what) in [(disk.free, "space"), (disk.free_inodes, "inodes")] {
        if free < LEAST_DISK {
            return fault(
                format!("{free} % of the {what} of {place} is free: the node evicts pods below {LEAST_DISK} %"),
                "ferrokube image rm what no pod uses, or a larger disk",
            );
        }
    }
    good(format!("{} % of {place} is free", disk.free))
}

fn clock(facts: &Facts) -> Verdict {
    match facts.future {
        Some(seconds) if seconds > CLOCKS_APART => fault(
            format!("the cluster was written {seconds} s from now: this host's clock went back"),
            "set it (timedatectl set-ntp true; chronyc makestep): what was signed since is not valid yet",
        ),
        Some(_) => good("after all that the cluster has written"),
        None => unknown("nothing is written yet"),
    }
}

fn firewall(facts: &Facts) -> Verdict {
    match &facts.firewall {
        Ok(walls) if walls.is_empty() => good("nothing drops what pods send"),
        Ok(walls) => fault(walls.join("; and "), "the lines above, or `ferrokube up --open-firewall`"),
        Err(why) => unknown(why),
    }
}

fn forwarding(facts: &Facts) -> Verdict {
    if !facts.runs {
        return unknown("`up` turns it on");
    }
    match facts.forwarding.as_deref() {
        Some("1") => good("packets go from pods to elsewhere"),
        Some(_) => fault(
            "net.ipv4.ip_forward is off: pods reach their own node alone; somebody turned it off after `up`",
            "sysctl -w net.ipv4.ip_forward=1, and take the other line out of /etc/sysctl.d",
        ),
        None => unknown("net.ipv4.ip_forward can't be read"),
    }
}

fn mtu(facts: &Facts) -> Verdict {
    let Some(outer) = &facts.outer else { return unknown("no link leads out") };
    if outer.mtu < LEAST_MTU {
        return fault(
            format!("{} carries packets of {} bytes", outer.name, outer.mtu),
            format!("ip link set {} mtu 1500, or what its network can", outer.name),
        );
    }
    let Some(inner) = &facts.inner else { return good(format!("{} carries {} bytes", outer.name, outer.mtu)) };
    let most = outer.mtu.saturating_sub(facts.overhead);
    if inner.mtu > most {
        return fault(
            format!(
                "{} carries {} bytes and {} takes {}: with {} of header large packets of pods are lost, small ones not",
                outer.name, outer.mtu, inner.name, inner.mtu, facts.overhead
            ),
            "restart the cluster on this host (down, up): flannel measures the link when it starts",
        );
    }
    good(format!("{} of {} bytes, {} of {}", outer.name, outer.mtu, inner.name, inner.mtu))
}

fn nodes(facts: &Facts) -> Verdict {
    let Ok(nodes) = &facts.nodes else { return unknown(why_not(&facts.nodes)) };
    let bad: Vec<_> = nodes.iter().filter(|node| !node.ready).map(|node| node.name.as_str()).collect();
    match bad.is_empty() {
        true => good(format!("{} ready", nodes.len())),
        false => fault(
            format!("not ready: {}", bad.join(", ")),
            "kubectl describe node says why; on that machine: ferrokube check",
        ),
    }
}

fn clocks(facts: &Facts) -> Verdict {
    if let Some(apart) = facts.server_apart.filter(|apart| apart.abs() > CLOCKS_APART) {
        return fault(
            format!("the API server's clock is {apart} s from this host's"),
            "timedatectl set-ntp true on both: leases, tokens and certificates compare times",
        );
    }
    let Ok(nodes) = &facts.nodes else { return unknown(why_not(&facts.nodes)) };
    let off = |node: &&facts::Node| {
        node.ready && node.lease_age.is_some_and(|age| !(-CLOCKS_APART..LEASE_APART).contains(&age))
    };
    let bad: Vec<_> =
        nodes.iter().filter(off).map(|node| format!("{} ({} s)", node.name, node.lease_age.unwrap_or(0))).collect();
    match bad.is_empty() {
        true => good("as this host's, as far as leases tell"),
        false => fault(
            format!("leases that are ready and not of now: {}", bad.join(", ")),
            "timedatectl set-ntp true on those machines",
        ),
    }
}

fn way(facts: &Facts) -> Verdict {
    if facts.ways.is_empty() {
        return unknown("there is no other node that is ready");
    }
    let port = facts.tunnel.as_deref().unwrap_or("what carries pods' packets");
    for way in &facts.ways {
        let name = &way.node;
        match way.reach {
            Reach::Nothing => {
                return fault(
                    format!("{name} doesn't answer at its own address, {}", way.address),
                    "a route or a firewall between the machines: TCP 10250 and 10256 must be open from node to node",
                );
            }
            Reach::Direct => {
                return fault(
                    format!(
                        "{name} answers at {}, but not at its pods' side: packets in packets are lost",
                        way.address
                    ),
                    format!("open {port} between the machines, in both directions (security groups, too)"),
                );
            }
            Reach::Small => {
                return fault(
                    format!("small packets reach {name}, whole ones of {} bytes don't", way.size),
                    "a link between is narrower than the machines' own: set their MTU to its, then down and up",
                );
            }
            Reach::Whole => {}
        }
    }
    good(format!(
        "whole packets reach {}",
        facts.ways.iter().map(|way| way.node.as_str()).collect::<Vec<_>>().join(", ")
    ))
}

fn cluster_dns(facts: &Facts) -> Verdict {
    match &facts.cluster_dns {
        None => unknown("no node runs here"),
        Some(Ok(took)) if *took > SLOW_NAME => {
            warning(format!("an answer took {} ms", took.as_millis()), "kubectl top, or fewer pods on this machine")
        }
        Some(Ok(took)) => good(format!("answers in {} ms", took.as_millis().max(1))),
        Some(Err(why)) => {
            fault(why, "ferrokube status and logs; `kubectl get events -n kube-system` tells of its ConfigMap")
        }
    }
}

fn upstreams(facts: &Facts) -> Verdict {
    if facts.upstreams.is_empty() {
        return warning("/etc/resolv.conf names none: only names of the cluster are known to pods", "name one there");
    }
    let (well, ill): (Vec<_>, Vec<_>) = facts.upstreams.iter().partition(|(_, took)| took.is_some());
    let names = |some: &[&(String, Option<Duration>)]| {
        some.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    if well.is_empty() {
        return fault(
            format!("none of {} answers: names outside the cluster are unknown to pods", names(&ill)),
            "another server in /etc/resolv.conf, or in `forward` of the ConfigMap coredns",
        );
    }
    if !ill.is_empty() {
        return warning(
            format!("{} doesn't answer", names(&ill)),
            "take it out of /etc/resolv.conf: it is asked in turn",
        );
    }
    good(format!("{} answers", names(&well)))
}

fn start(facts: &Facts) -> Verdict {
    match &facts.start {
        None => good("it runs"),
        Some(Ok(())) => good("`ferrokube up` has all that it needs"),
        Some(Err(why)) => fault(why, "as the sentence says, then `ferrokube up`"),
    }
}

fn why_not<T>(outcome: &Result<T, String>) -> String {
    outcome.as_ref().err().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests;
