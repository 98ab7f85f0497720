//! ImageLocality: a node that holds the pod's images already is better, less so when every node does.

use std::any::Any;

use crate::framework::{Cycle, Interest, MAX_SCORE, Plugin};
use crate::snapshot::{NodeInfo, image_size};

/// Below this sum of sizes an image is as good as not there.
const MIN: i64 = 23 * 1024 * 1024;
/// Above this per container, more makes no difference.
const MAX_PER_CONTAINER: i64 = 1000 * 1024 * 1024;

pub const PLUGIN: Plugin = Plugin {
    name: "ImageLocality",
    weight: 1,
    prepare: |cycle| Interest::when(false, !cycle.pod.images.is_empty()),
    score: Some(score),
    ..Plugin::NOTHING
};

fn score(cycle: Cycle, _: &dyn Any, node: &NodeInfo) -> i64 {
    if node.images.is_empty() {
        return 0;
    }
    let total = cycle.snapshot.len().max(1) as i64;
    let sum: i64 = cycle
        .pod
        .images
        .iter()
        .filter_map(|image| Some(image_size(node, image)? * cycle.snapshot.image_nodes(image) / total))
        .sum();
    let max = MAX_PER_CONTAINER * cycle.pod.images.len() as i64;
    (sum.clamp(MIN, max) - MIN) * MAX_SCORE / (max - MIN)
}
