//! `reset`: removes the cluster and everything it made on this host: processes, mounts, namespaces, links, routes,
//! rules, cgroups, files, the kubeconfig entry; sysctls get their old values. Succeeds when nothing is there, and touches
//! nothing that isn't known to be the cluster's ([`Which::load_or_remains`], [`layout`]).

use std::io::{BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::Signal;

use crate::cluster;
use crate::commands::misc::print;
use crate::config::{Host, Which};
use crate::fault::Fault;
use crate::kubeconfig;
use crate::layout;
use crate::preflight;
use crate::progress::{duration, step_line};
use crate::systemd;

/// Pods of a cluster that is going away need no long farewell.
const POD_GRACE: Duration = Duration::from_secs(2);

pub fn run(which: &Which, yes: bool) -> Result<()> {
    preflight::root("reset")?;
    let host = which.load_or_remains()?;
    let Some(host) = host else {
        let (name, dir) = (which.name(), which.dir());
        let place = if dir.exists() { format!(" in {}", dir.display()) } else { String::new() };
        return print(&format!("There is no cluster {name:?}{place}: nothing to remove.\n"));
    };
    if !yes && !confirmed(&host, std::io::stdin().is_terminal())? {
        return print("Nothing was removed.\n");
    }
    let began = Instant::now();
    if systemd::is_installed(&host) {
        step("Service removed", || systemd::uninstall(&host).map(drop))?;
    }
    // What the daemon would still keep is about to be removed.
    super::down::stop(&host, Signal::KILL, POD_GRACE)?;
    step("Kubeconfig entry removed", || kubeconfig::remove_from_user(&host))?;
    step("Mounts, namespaces, network and cgroups removed", || cluster::remove_kernel_objects(&host))?;
    let mut left = Vec::new();
    step("Files removed", || layout::remove(&host).map(|rest| left = rest))?;
    if !left.is_empty() {
        print(&layout::told(&left))?;
    }
    print(&format!("The cluster {:?} is gone ({}).\n", host.cluster.name, duration(began.elapsed())))
}

/// Removes all of a cluster whose daemon doesn't run.
pub fn remove(host: &Host) -> Result<()> {
    kubeconfig::remove_from_user(host)?;
    cluster::remove_kernel_objects(host)?;
    layout::remove(host).map(drop)
}

fn step(what: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    act()?;
    print(&(step_line(what, began.elapsed().as_millis() as u64) + "\n"))
}

fn confirmed(host: &Host, terminal: bool) -> Result<bool> {
    if !terminal {
        let (name, dir) = (&host.cluster.name, host.data_dir.display());
        let sentence =
            format!("nobody can be asked whether the cluster {name:?} with all its data in {dir} may go: say --yes");
        return Err(Fault::usage(sentence).into());
    }
    let mut out = std::io::stdout().lock();
    write!(out, "Remove the cluster {:?} and all its data in {}? [y/N] ", host.cluster.name, host.data_dir.display())?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_nobody_is_asked_and_nothing_goes() {
        let host = crate::config::tests::host(std::path::Path::new("/d"));
        let refused = confirmed(&host, false).expect_err("refused");
        assert_eq!(refused.downcast_ref::<Fault>().map(|fault| fault.code), Some(2));
        assert!(refused.to_string().ends_with("with all its data in /d may go: say --yes"), "{refused}");
    }
}
