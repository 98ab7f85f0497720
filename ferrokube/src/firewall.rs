//! The host's own firewall and the pods: what it would drop is told before a start, and opened where `--open-firewall`
//! asks for it; what was opened is written down, so that `reset` closes it again. Walls and what opens them are found by
//! [`cni::firewall`]. I/O: nftables, the tools' own programs, a file. Callers: `preflight`, the daemon's watch, `status`,
//! `reset`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use cni::Prefix;
use cni::firewall::{Tool, Wall, advice, diagnose};

use crate::config::{Cluster, write_private};

/// What every table of every cluster of this host begins with.
const OURS: &str = "ferrokube";

fn pods(cluster: &Cluster) -> Prefix {
    Prefix::new(cluster.pod_cidr.address, cluster.pod_cidr.bits)
}

/// The chains of others that drop what pods send.
pub fn walls(cluster: &Cluster) -> Result<Vec<Wall>> {
    let found = diagnose(&cluster.bridge(), pods(cluster), |table| table.starts_with(OURS));
    found.context("looking at the host's firewall")
}

/// A sentence for each tool that drops, with the lines that open it.
pub fn told(cluster: &Cluster, walls: &[Wall]) -> Vec<String> {
    advice(walls, pods(cluster))
}

/// Opens these walls for pods, and writes down that we did.
pub fn open(cluster: &Cluster, walls: &[Wall]) -> Result<()> {
    let mut opened = opened(cluster);
    // First the note: a line too many to take back does no harm.
    opened.extend(walls.iter().filter(|wall| !opened.contains(wall)).cloned().collect::<Vec<_>>());
    write_private(&file(cluster), &serde_json::to_vec_pretty(&opened)?)?;
    for wall in walls {
        match wall.tool {
            Tool::Nftables => wall.open_directly(pods(cluster)).context("opening the host's firewall")?,
            _ => wall.opening(pods(cluster)).iter().try_for_each(|line| run(line))?,
        }
    }
    Ok(())
}

/// Takes back whatever was opened. A tool that is gone, or a rule that somebody took out, is no failure.
pub fn close(cluster: &Cluster) -> Result<()> {
    for wall in opened(cluster) {
        let closed = match wall.tool {
            Tool::Nftables => wall.close_directly().map_err(Into::into),
            _ => wall.closing(pods(cluster)).iter().try_for_each(|line| run(line)),
        };
        if let Err(error) = closed {
            tracing::debug!(error = format!("{error:#}"), "nothing to close");
        }
    }
    Ok(())
}

fn file(cluster: &Cluster) -> PathBuf {
    cluster.data_dir.join("firewall.json")
}

fn opened(cluster: &Cluster) -> Vec<Wall> {
    std::fs::read(file(cluster)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn run(line: &[String]) -> Result<()> {
    let Some((program, args)) = line.split_first() else { return Ok(()) };
    let out = Command::new(program).args(args).output().with_context(|| line.join(" "))?;
    if !out.status.success() {
        bail!("{}: {}", line.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}
