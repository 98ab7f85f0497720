//! A cluster of ours for a benchmark: started with `up`, and reset when it goes out of scope, whatever happened.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use testkit::Cluster;

use crate::api::Api;

const NAME: &str = "bench";

/// See the module's head.
pub struct Ours {
    pub cluster: Cluster,
}

impl Ours {
    /// A name that holds nothing: what an interrupted run has left is removed.
    pub fn fresh() -> Result<Ours> {
        let ours = Ours { cluster: Cluster::new(NAME)? };
        ours.cluster.run(&["reset", "--yes"])?.ok().context("removing what an earlier run has left")?;
        Ok(ours)
    }

    pub fn up() -> Result<Ours> {
        Ours::up_with(&[])
    }

    /// With these flags of `up`.
    pub fn up_with(flags: &[&str]) -> Result<Ours> {
        let ours = Ours::fresh()?;
        ours.cluster.run(&[&["up"], flags].concat())?.ok()?;
        Ok(ours)
    }

    pub fn api(&self) -> Result<Api> {
        Api::read(&self.cluster.kubeconfig())
    }

    /// Every process of the cluster; the daemon first.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let pids = ["daemon", "monitor"].map(|role| self.cluster.pids(role));
        let [daemon, monitors] = pids;
        Ok(daemon?.into_iter().chain(monitors?).map(i32::cast_unsigned).collect())
    }

    /// The address of the cluster's DNS: the tenth of the Services' range.
    pub fn dns(&self) -> Result<Ipv4Addr> {
        let status = self.cluster.status()?;
        let range = status["serviceCIDR"].as_str().and_then(|r| r.split('/').next()).context("no serviceCIDR")?;
        let first: Ipv4Addr = range.parse()?;
        Ok(Ipv4Addr::from(u32::from(first) + 10))
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if let Err(error) = self.cluster.reset() {
            eprintln!("the cluster {NAME:?} could not be removed: {error:#}");
        }
    }
}
