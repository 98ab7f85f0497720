//! `reset`: removes the cluster and everything it made on this host: processes, mounts, namespaces, links, routes,
//! rules, cgroups, files, the kubeconfig entry; sysctls get their old values. Succeeds when nothing is there.

use std::fs;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::cluster;
use crate::commands::misc::print;
use crate::config::{Cluster, RUN_ROOT, STATE_ROOT, Which, lock_host, register};
use crate::kubeconfig;
use crate::preflight;
use crate::progress::{duration, step_line};

/// Pods of a cluster that is going away need no long farewell.
const POD_GRACE: Duration = Duration::from_secs(2);

pub fn run(which: &Which, yes: bool) -> Result<()> {
    preflight::root("reset")?;
    let cluster = which.load_or_remains()?;
    let Some(cluster) = cluster else {
        return print(&format!("There is no cluster {:?}: nothing to remove.\n", which.name));
    };
    if !yes && !confirmed(&cluster)? {
        return print("Nothing was removed.\n");
    }
    let began = Instant::now();
    // What the daemon would still keep is about to be removed.
    super::down::stop(&cluster, Signal::KILL, POD_GRACE)?;
    step("Kubeconfig entry removed", || kubeconfig::remove_from_user(&cluster))?;
    step("Mounts, namespaces, network and cgroups removed", || cluster::remove_kernel_objects(&cluster))?;
    step("Files removed", || remove_files(&cluster))?;
    print(&format!("The cluster {:?} is gone ({}).\n", cluster.name, duration(began.elapsed())))
}

/// Removes all of a cluster whose daemon doesn't run.
pub fn remove(cluster: &Cluster) -> Result<()> {
    kubeconfig::remove_from_user(cluster)?;
    cluster::remove_kernel_objects(cluster)?;
    remove_files(cluster)
}

fn step(what: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    act()?;
    print(&(step_line(what, began.elapsed().as_millis() as u64) + "\n"))
}

fn confirmed(cluster: &Cluster) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    let mut out = std::io::stdout().lock();
    write!(out, "Remove the cluster {:?} and all its data in {}? [y/N] ", cluster.name, cluster.data_dir.display())?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn remove_files(cluster: &Cluster) -> Result<()> {
    let _lock = lock_host()?;
    remove_dir(&cluster.data_dir)?;
    remove_dir(&cluster.run_dir())?;
    let _ = fs::remove_file(register().join(&cluster.name));
    // Shared parents go with the last cluster.
    for parent in [register(), STATE_ROOT.into(), RUN_ROOT.into()] {
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

fn remove_dir(path: &Path) -> Result<()> {
    use std::io::ErrorKind;
    match fs::remove_dir_all(path) {
        // A disk is mounted there: emptied, it stays.
        Err(e) if e.kind() == ErrorKind::ResourceBusy && fs::read_dir(path).is_ok_and(|mut d| d.next().is_none()) => {
            Ok(())
        }
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).with_context(|| format!("removing {}", path.display())),
        _ => Ok(()),
    }
}
