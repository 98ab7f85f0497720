//! image
use crate::config::Which;
pub fn run(_w: &Which, _i: &crate::cli::Image) -> anyhow::Result<()> {
    Ok(())
}
