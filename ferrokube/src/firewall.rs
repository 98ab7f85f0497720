//! The host's own firewall and the pods: what it would drop is told before a start, and opened where `--open-firewall`
//! asks for it; what was opened is written down, so that `reset` closes it again. Walls and what opens them are found by
//! [`cni::firewall`]. I/O: nftables, the tools' own programs, a file. Callers: `preflight`, the daemon's watch, `status`,
//! `reset`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use cni::firewall::{Tool, Wall, advice, diagnose};
use meta::Prefix;

use crate::config::{Host, write_private};

/// What every table of every cluster of this host begins with.
const OURS: &str = "ferrokube";

fn pods(host: &Host) -> Prefix {
    host.cluster.pod_cidr
}

/// The chains of others that drop what pods send.
pub fn walls(host: &Host) -> Result<Vec<Wall>> {
    let found = diagnose(&host.bridge(), pods(host), |table| table.starts_with(OURS));
    found.context("looking at the host's firewall")
}

/// A sentence for each tool that drops, with the lines that open it.
pub fn told(host: &Host, walls: &[Wall]) -> Vec<String> {
    advice(walls, pods(host))
}

/// Opens these walls for pods, and writes down that we did.
pub fn open(host: &Host, walls: &[Wall]) -> Result<()> {
    let mut opened = opened(host);
    // First the note: a line too many to take back does no harm.
    opened.extend(walls.iter().filter(|wall| !opened.contains(wall)).cloned().collect::<Vec<_>>());
    write_private(&file(host), &serde_json::to_vec_pretty(&opened)?)?;
    for wall in walls {
        match wall.tool {
            Tool::Nftables => wall.open_directly(pods(host)).context("opening the host's firewall")?,
            _ => wall.opening(pods(host)).iter().try_for_each(|line| put(line))?,
        }
    }
    Ok(())
}

/// Takes back whatever was opened. A tool that is gone, or a rule that somebody took out, is no failure.
pub fn close(host: &Host) -> Result<()> {
    for wall in opened(host) {
        let closed = match wall.tool {
            Tool::Nftables => wall.close_directly().map_err(Into::into),
            _ => run_all(&wall.closing(pods(host))),
        };
        if let Err(error) = closed {
            tracing::debug!(error = format!("{error:#}"), "nothing to close");
        }
    }
    Ok(())
}

fn file(host: &Host) -> PathBuf {
    host.data_dir.join("firewall.json")
}

fn opened(host: &Host) -> Vec<Wall> {
    std::fs::read(file(host)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Has a tool open something, once: iptables alone takes the same rule again and again.
fn put(line: &[String]) -> Result<()> {
    if asking(line).is_some_and(|ask| run(&ask).is_ok()) { Ok(()) } else { run(line) }
}

/// The line that asks iptables whether it has the rule that another puts in.
fn asking(line: &[String]) -> Option<Vec<String>> {
    let puts = line.first().is_some_and(|program| program == "iptables") && line.iter().any(|word| word == "-I");
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
        let pods = Prefix::new([10, 42, 0, 0], 16);
        let asked = asking(&docker.opening(pods)[0]).expect("asked");
        assert_eq!(asked, words("iptables -C DOCKER-USER -s 10.42.0.0/16 -j ACCEPT"));
        let ufw = Wall { tool: Tool::Ufw, ..docker };
        assert!(ufw.opening(pods).iter().all(|line| asking(line).is_none()), "it looks by itself");
    }
}
