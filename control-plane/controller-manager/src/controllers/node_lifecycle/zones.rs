//! How fast nodes of one zone may be given taints that evict their pods: one after the other while the zone is well,
//! slower or not at all while much of it is gone (then the network is the likelier fault), and not at all while
//! everything is gone. Pure; upstream's rates and thresholds.

use std::collections::HashMap;
use std::time::Duration;

use facts::nodes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use crate::config::Config;

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";

/// A zone with fewer nodes gone than this is not in trouble, whatever the share.
const FEW: usize = 2;

/// The flags that matter here.
#[derive(Debug, Clone)]
pub struct Rates {
    normal: f64,
    secondary: f64,
    large: usize,
    unhealthy: f64,
}

impl Rates {
    pub fn of(config: &Config) -> Rates {
        Rates {
            normal: config.node_eviction_rate,
            secondary: config.secondary_node_eviction_rate,
            large: config.large_cluster_size_threshold,
            unhealthy: config.unhealthy_zone_threshold,
        }
    }
}

/// Whether a node may be given its taint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Turn {
    Now,
    Later(Duration),
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Normal,
    Partial,
    Full,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Zone {
    /// Nodes a second; zero for none.
    rate: f64,
    next: Option<Timestamp>,
}

/// All zones and when each may have its next node tainted.
#[derive(Debug, Default)]
pub struct Zones {
    zones: HashMap<String, Zone>,
    everything_gone: bool,
}

impl Zones {
    /// Counts the nodes anew; true if the rate of any zone changed.
    pub fn update<'a>(&mut self, nodes: impl Iterator<Item = &'a Node>, rates: &Rates) -> bool {
        let mut counts: HashMap<String, (usize, usize)> = HashMap::new();
        for node in nodes {
            let (ready, gone) = counts.entry(zone(node)).or_default();
            if nodes::status(node, nodes::READY) == "True" {
                *ready += 1;
            } else {
                *gone += 1;
            }
        }
        let states: HashMap<&String, State> =
            counts.iter().map(|(z, (ready, gone))| (z, state(*ready, *gone, rates))).collect();
        let everything_gone = !states.is_empty() && states.values().all(|s| *s == State::Full);
        let mut changed = everything_gone != self.everything_gone;
        self.everything_gone = everything_gone;
        for (name, state) in &states {
            let (ready, gone) = counts[*name];
            let rate = match state {
                State::Normal | State::Full => rates.normal,
                State::Partial if ready + gone > rates.large => rates.secondary,
                State::Partial => 0.0,
            };
            let zone = self.zones.entry((*name).clone()).or_default();
            changed |= zone.rate != rate;
            zone.rate = rate;
        }
        self.zones.retain(|name, _| counts.contains_key(name));
        changed
    }

    /// Whether the node may be tainted now; asking with `Now` as the answer takes the zone's turn. A node that has
    /// the taint keeps it as long as its zone allows any.
    pub fn turn(&mut self, node: &Node, has: bool, now: Timestamp) -> Turn {
        let Some(zone) = self.zones.get_mut(&zone(node)).filter(|_| !self.everything_gone) else { return Turn::Never };
        if has {
            return Turn::Now;
        }
        if zone.rate <= 0.0 {
            return Turn::Never;
        }
        match zone.next {
            Some(next) if next > now => {
                let wait = next.as_millisecond() - now.as_millisecond();
                Turn::Later(Duration::from_millis(wait.max(1) as u64))
            }
            _ => {
                let gap = (1000.0 / zone.rate) as i64;
                zone.next = Timestamp::from_millisecond(now.as_millisecond() + gap).ok();
                Turn::Now
            }
        }
    }
}

fn state(ready: usize, gone: usize, rates: &Rates) -> State {
    if ready == 0 && gone > 0 {
        State::Full
    } else if gone > FEW && gone as f64 / (ready + gone) as f64 >= rates.unhealthy {
        State::Partial
    } else {
        State::Normal
    }
}

fn zone(node: &Node) -> String {
    let label = |name: &str| node.metadata.labels.as_ref().and_then(|l| l.get(name)).cloned().unwrap_or_default();
    format!("{}:{}", label(REGION), label(ZONE))
}
