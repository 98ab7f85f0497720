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
    ready: usize,
    gone: usize,
    /// Nodes a second; zero for none.
    rate: f64,
    next: Option<Timestamp>,
}

/// All zones and when each may have its next node tainted. Nodes are counted as they change: a cluster may have
/// thousands, and each is looked at whenever it is heard of.
#[derive(Debug, Default)]
pub struct Zones {
    /// The zone of each node, and whether it was ready there.
    nodes: HashMap<String, (String, bool)>,
    zones: HashMap<String, Zone>,
    everything_gone: bool,
}

impl Zones {
    /// A node as it is now; true if the rate of any zone changed.
    pub fn see(&mut self, node: &Node, rates: &Rates) -> bool {
        let seen = (zone(node), nodes::status(node, nodes::READY) == "True");
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if self.nodes.get(name) == Some(&seen) {
            return false;
        }
        self.count(&seen, |count| *count += 1);
        let before = self.nodes.insert(name.to_owned(), seen);
        self.left(before, rates)
    }

    /// A node is no more; true if the rate of any zone changed.
    pub fn forget(&mut self, name: &str, rates: &Rates) -> bool {
        let before = self.nodes.remove(name);
        before.is_some() && self.left(before, rates)
    }

    fn count(&mut self, (zone, ready): &(String, bool), change: impl FnOnce(&mut usize)) {
        let zone = self.zones.entry(zone.clone()).or_default();
        change(if *ready { &mut zone.ready } else { &mut zone.gone });
    }

    /// A node is no longer what it was, if it was anything; what follows for all zones.
    fn left(&mut self, before: Option<(String, bool)>, rates: &Rates) -> bool {
        if let Some(before) = before {
            self.count(&before, |count| *count -= 1);
        }
        self.zones.retain(|_, zone| zone.ready + zone.gone > 0);
        let full = |zone: &Zone| state(zone.ready, zone.gone, rates) == State::Full;
        let everything_gone = !self.zones.is_empty() && self.zones.values().all(full);
        let mut changed = everything_gone != self.everything_gone;
        self.everything_gone = everything_gone;
        for zone in self.zones.values_mut() {
            let rate = match state(zone.ready, zone.gone, rates) {
                State::Normal | State::Full => rates.normal,
                State::Partial if zone.ready + zone.gone > rates.large => rates.secondary,
                State::Partial => 0.0,
            };
            changed |= zone.rate != rate;
            zone.rate = rate;
        }
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
