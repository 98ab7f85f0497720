//! The table of plugins, in the order in which filters run: the cheap and the final ones first. Weights are upstream's.

pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources;
pub mod node_unschedulable;
pub mod pod_topology_spread;
pub mod taint_toleration;

use crate::framework::Profile;

/// Every plugin of the default profile that needs no volumes. `PrioritySort` is the queue's order, `SchedulingGates`
/// its door, `DefaultPreemption` and `DefaultBinder` are `preemption` and `plan`.
pub const PLUGINS: Profile = &[
    &node_unschedulable::PLUGIN,
    &node_name::PLUGIN,
    &taint_toleration::PLUGIN,
    &node_affinity::PLUGIN,
    &node_ports::PLUGIN,
    &node_resources::FIT,
    &pod_topology_spread::PLUGIN,
    &inter_pod_affinity::PLUGIN,
    &node_resources::BALANCED_ALLOCATION,
    &image_locality::PLUGIN,
];
