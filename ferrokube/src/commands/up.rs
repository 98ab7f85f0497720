//! `up`: starts the daemon in the background, shows its steps, and returns when the cluster is ready.

use std::process::Child;
use std::time::Instant;

use anyhow::Result;

use crate::commands::misc::print;
use crate::config::{Cluster, Shape, Which};
use crate::fault::Fault;
use crate::kubeconfig;
use crate::preflight;
use crate::process::{Daemon, spawn_daemon};
use crate::progress::{Told, duration, listen, step_line};

pub fn run(which: &Which, shape: &Shape, demo: bool) -> Result<()> {
    preflight::root("up")?;
    let cluster = which.resolve(shape)?;
    if Daemon::find(&cluster).is_some() {
        print(&format!("The cluster {:?} runs already: {}\n", cluster.name, cluster.server_url()))?;
        return if demo { super::up::demo(&cluster) } else { Ok(()) };
    }
    kubeconfig::check_user_file()?;
    preflight::check(&cluster)?;
    cluster.save()?;
    let began = Instant::now();
    print(&format!("Starting the cluster {:?}\n", cluster.name))?;
    wait_until_ready(spawn_daemon(&cluster)?, &cluster)?;
    let admin = kubeconfig::read_admin(&cluster)?;
    let merged = kubeconfig::merge_into_user(&cluster, &admin)?;
    print(&format!("Ready after {}.\n", duration(began.elapsed())))?;
    if let Some(path) = merged {
        print(&format!("The context {:?} is now current in {}.\n", cluster.name, path.display()))?;
    }
    if demo {
        return self::demo(&cluster);
    }
    print("Try:  kubectl get nodes\n")
}

fn wait_until_ready(mut child: Child, cluster: &Cluster) -> Result<()> {
    let Some(out) = child.stdout.take() else { return Err(ended(cluster).into()) };
    for told in listen(out) {
        match told {
            Told::Step { what, millis } => print(&(step_line(&what, millis) + "\n"))?,
            Told::Ready => return Ok(()),
            Told::Failed { sentence, code } => return Err(Fault { sentence, code }.into()),
        }
    }
    Err(ended(cluster).into())
}

fn ended(cluster: &Cluster) -> Fault {
    let log = std::fs::read_to_string(cluster.log()).unwrap_or_default();
    let last = log.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it left no word").trim().to_owned();
    Fault::failed(format!("the daemon ended while it started: {last} (see {})", cluster.log().display()))
}

fn demo(cluster: &Cluster) -> Result<()> {
    crate::commands::demo::run(cluster)
}
