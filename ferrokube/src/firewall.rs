//! The host's own firewall and the pods, and further nodes of the host: what it would drop is told before a start, and
//! opened where `--open-firewall` asks for it; what was opened is written down, so that `reset` closes it again. Walls and
//! what opens them are found by [`cni::firewall`]. I/O: nftables, the tools' own programs, a file. Callers: `preflight`,
//! the daemon's watch, `status`, `reset`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use cni::firewall::{Tool, Wall, advice, diagnose};
use meta::Ranges;

use crate::config::{Host, Network, record, write_private};
use crate::nodes::underlay;

/// What every table of every cluster of this host begins with.
const OURS: &str = "ferrokube";

/// Whose packets the firewall must let through: those of pods, and of the nodes that are namespaces of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Senders {
    bridge: String,
    range: Ranges,
    /// What was opened for them.
    file: PathBuf,
}

fn pods(host: &Host) -> Senders {
    Senders { bridge: host.bridge(), range: host.cluster.pod_cidr, file: host.data_dir.join("firewall.json") }
}

fn senders(host: &Host) -> Vec<Senders> {
    // What connects pods by CNI opens for them what it needs, by links of its own.
    let pods = (host.cluster.network() != Network::Cni).then(|| pods(host));
    // One that can't be read is told by who starts nodes.
    let record = record::read(host).ok().flatten();
    let nodes = record.map(|record| Senders {
        bridge: underlay::bridge(host),
        range: record.ranges(),
        file: record::dir(host).join(".firewall.json"),
    });
    pods.into_iter().chain(nodes).collect()
}

/// The chains of others that drop what somebody of ours sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    senders: Senders,
    walls: Vec<Wall>,
}

/// What is closed to whom; empty when nothing is.
pub fn walls(host: &Host) -> Result<Vec<Closed>> {
    let mut closed = Vec::new();
    for senders in senders(host) {
        let found = diagnose(&senders.bridge, senders.range, |table| table.starts_with(OURS));
        let walls = found.context("looking at the host's firewall")?;
        if !walls.is_empty() {
            closed.push(Closed { senders, walls });
        }
    }
    Ok(closed)
}

/// A sentence for each tool that drops, with the lines that open it.
pub fn told(closed: &[Closed]) -> Vec<String> {
    closed.iter().flat_map(|closed| advice(&closed.walls, closed.senders.range)).collect()
}

/// Opens these walls, and writes down that we did.
pub fn open(closed: &[Closed]) -> Result<()> {
    for Closed { senders, walls } in closed {
        let mut opened = opened(senders);
        // First the note: a line too many to take back does no harm.
        opened.extend(walls.iter().filter(|wall| !opened.contains(wall)).cloned().collect::<Vec<_>>());
        write_private(&senders.file, &serde_json::to_vec_pretty(&opened)?)?;
        for wall in walls {
            match wall.tool {
                Tool::Nftables => wall.open_directly(senders.range).context("opening the host's firewall")?,
                _ => wall.opening(senders.range).iter().try_for_each(|line| put(line))?,
            }
        }
    }
    Ok(())
}

/// Takes back whatever was opened. A tool that is gone, or a rule that somebody took out, is no failure.
pub fn close(host: &Host) -> Result<()> {
    // A cluster may have had another network when they were opened.
    let had = (host.cluster.network() == Network::Cni).then(|| pods(host));
    for senders in had.into_iter().chain(senders(host)) {
        for wall in opened(&senders) {
            let closed = match wall.tool {
                Tool::Nftables => wall.close_directly().map_err(Into::into),
                _ => run_all(&wall.closing(senders.range)),
            };
            if let Err(error) = closed {
                tracing::debug!(error = format!("{error:#}"), "nothing to close");
            }
        }
    }
    Ok(())
}

fn opened(senders: &Senders) -> Vec<Wall> {
    std::fs::read(&senders.file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Has a tool open something, once: iptables alone takes the same rule again and again.
fn put(line: &[String]) -> Result<()> {
    if asking(line).is_some_and(|ask| run(&ask).is_ok()) { Ok(()) } else { run(line) }
}

/// The line that asks iptables whether it has the rule that another puts in.
fn asking(line: &[String]) -> Option<Vec<String>> {
    let puts = line.first().is_some_and(|program| program == "iptables" || program == "ip6tables")
        && line.iter().any(|word| word == "-I");
    let ask = |word: &String| if word == "-I" { "-C".to_owned() } else { word.clone() };
    puts.then(|| line.iter().map(ask).collect())
}

/// Each by itself: that one rule is gone already is no reason to leave the next. The first failure is told.
fn run_all(lines: &[Vec<String>]) -> Result<()> {
    let all: Vec<Result<()>> = lines.iter().map(|line| run(line)).collect();
    all.into_iter().collect()
}

fn run(line: &[String]) -> Result<()> {
    let Some((program, args)) = line.split_first() else { return Ok(()) };
    let out = Command::new(program).args(args).output().with_context(|| line.join(" "))?;
    if !out.status.success() {
        bail!("{}: {}", line.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn further_nodes_are_let_through_like_pods() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = crate::config::tests::host(dir.path());
        assert_eq!(senders(&host).len(), 1);
        let range: meta::Prefix = "10.202.0.0/24".parse().expect("a range");
        record::write(&host, &record::Record::new(range)).expect("written");
        let both = senders(&host);
        assert_eq!((both[0].range, both[1].range), (host.cluster.pod_cidr, range.into()));
        assert_ne!(both[0].file, both[1].file);
    }

    /// One that somebody had taken out left all that came after it open.
    #[test]
    fn every_rule_is_taken_back_though_one_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let lines = ["false".to_owned(), format!("mkdir {}", dir.path().join("second").display())];
        assert!(run_all(&lines.map(|line| words(&line))).is_err());
        assert!(dir.path().join("second").is_dir());
    }

    /// A wall that stayed one, on a host with both kinds of iptables, got the same two rules every ten seconds.
    #[test]
    fn iptables_is_asked_before_it_is_given_a_rule() {
        let docker = Wall {
            family: "ip".into(),
            table: "filter".into(),
            chain: "FORWARD".into(),
            way: cni::firewall::Way::Forward,
            tool: Tool::Docker,
        };
        let pods = "10.42.0.0/16".parse().expect("a range");
        let asked = asking(&docker.opening(pods)[0]).expect("asked");
        assert_eq!(asked, words("iptables -C DOCKER-USER -s 10.42.0.0/16 -j ACCEPT"));
        let ufw = Wall { tool: Tool::Ufw, ..docker };
        assert!(ufw.opening(pods).iter().all(|line| asking(line).is_none()), "it looks by itself");
    }
}
