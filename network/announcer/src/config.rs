//! What the announcer is told. Pure.

use std::path::PathBuf;

use meta::Prefix;

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The Node object that stands for this host.
    pub node: String,
    /// Ranges of the cluster's own, pods' and Services': no neighbours of the host are there.
    pub own_ranges: Vec<Prefix>,
    /// The network namespace to work in; none: the process's own.
    pub netns: Option<PathBuf>,
}
