//! demo
use crate::config::Cluster;
pub fn run(_c: &Cluster) -> anyhow::Result<()> {
    Ok(())
}
