//! `up`: starts the daemon in the background, shows its steps, and returns when the cluster is ready.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cluster::note_controllers;
use crate::commands::misc::print;
use crate::config::{Cluster, HostLock, Shape, Which, differs, lock_host};
use crate::fault::Fault;
use crate::interrupt::{self, Interrupts};
use crate::kubeconfig;
use crate::preflight;
use crate::process::{Daemon, spawn_supervisor};
use crate::progress::{Told, duration, listen, step_line};
use crate::systemd;

/// How often a daemon that another command has started is looked at.
const GLANCE: Duration = Duration::from_millis(50);
/// The same of a service: each look asks systemd.
const SERVICE_GLANCE: Duration = Duration::from_millis(200);

pub fn run(which: &Which, shape: &Shape, demo: bool) -> Result<()> {
    preflight::root("up")?;
    let Claimed { cluster, fresh, lock } = match claim(which, shape)? {
        Claim::New(claimed) => claimed,
        Claim::Runs(cluster, _) => {
            wait_for_other(&cluster)?;
            print(&format!("The cluster {:?} runs already: {}\n", cluster.name, cluster.server_url()))?;
            return if demo { super::demo::run(&cluster) } else { Ok(()) };
        }
    };
    let began = Instant::now();
    let installed = systemd::is_installed(&cluster);
    let by = if installed { format!(" by its service {}", systemd::unit_of(&cluster)) } else { String::new() };
    print(&format!("Starting the cluster {:?}{by}\n", cluster.name))?;
    let started = if installed { start_service(&cluster, lock) } else { start(&cluster, lock) };
    if let Err(error) = started {
        undo(&cluster, fresh);
        return Err(error);
    }
    print(&format!("Ready after {}.\n", duration(began.elapsed())))?;
    if fresh {
        print("NetworkPolicy objects are accepted, but not enforced yet.\n")?;
    }
    let merged = kubeconfig::read_admin(&cluster).and_then(|admin| kubeconfig::merge_into_user(&cluster, &admin));
    let merged = merged.with_context(|| {
        format!("the cluster runs, `kubectl --kubeconfig {}` reaches it, but", cluster.kubeconfig().display())
    })?;
    let flag = match &merged {
        Some(path) => {
            print(&format!("The context {:?} is now current in {}.\n", cluster.name, path.display()))?;
            String::new()
        }
        None => format!(" --kubeconfig {}", cluster.kubeconfig().display()),
    };
    if demo {
        return super::demo::run(&cluster);
    }
    print(&format!("Try:  kubectl{flag} get nodes\n"))
}

/// A cluster that may be started.
pub struct Claimed {
    pub cluster: Cluster,
    /// It wasn't there before.
    pub fresh: bool,
    /// To be held until the daemon is registered: another `up` at the same time then finds it.
    pub lock: HostLock,
}

/// What came of the wish to start a cluster.
pub enum Claim {
    New(Claimed),
    Runs(Cluster, Daemon),
}

/// Chooses ports and ranges, looks at the host, and writes the cluster down. Nothing was made when it fails.
pub fn claim(which: &Which, shape: &Shape) -> Result<Claim> {
    let lock = lock_host()?;
    let cluster = which.resolve(shape)?;
    if let Some(daemon) = Daemon::any(&cluster) {
        if let Some(sentence) = which.load()?.and_then(|runs| differs(&runs, &cluster)) {
            return Err(Fault::usage(sentence).into());
        }
        return Ok(Claim::Runs(cluster, daemon));
    }
    super::component::check_arguments(&cluster)?;
    kubeconfig::check_user_file()?;
    preflight::check(&cluster)?;
    let fresh = !cluster.exists();
    cluster.save()?;
    note_controllers()?;
    Ok(Claim::New(Claimed { cluster, fresh, lock }))
}

/// After a start that failed: a cluster that wasn't there before leaves nothing behind.
pub fn undo(cluster: &Cluster, fresh: bool) {
    if !fresh || Daemon::any(cluster).is_some() {
        return;
    }
    if let Err(error) = super::reset::remove(cluster) {
        eprintln!("ferrokube: what the start had made could not be removed ({error:#}): `ferrokube reset` again");
    }
}

/// Starts the daemon and waits until it is ready. Ctrl-C ends it again.
fn start(cluster: &Cluster, lock: HostLock) -> Result<()> {
    let interrupted = Interrupts::watch()?;
    let mut child = spawn_supervisor(cluster)?;
    if let Some(supervisor) = Daemon::of(&child) {
        supervisor.register_supervisor(cluster)?;
        interrupted.end(supervisor, cluster);
    }
    drop(child.stdin.take());
    drop(lock);
    wait_until_ready(child, cluster).map_err(|error| match interrupted.came() {
        true => {
            Fault { sentence: "interrupted: what had been started is stopped".into(), code: interrupt::CODE }.into()
        }
        false => error,
    })
}

fn is_ready(cluster: &Cluster) -> bool {
    Daemon::find(cluster).is_some_and(|daemon| daemon.is_ready(cluster))
}

/// Has systemd start the daemon and waits until it is ready: whoever ends the service then ends the cluster.
fn start_service(cluster: &Cluster, lock: HostLock) -> Result<()> {
    drop(lock);
    systemd::start(cluster)?;
    while !is_ready(cluster) {
        if systemd::has_ended(cluster) {
            let unit = systemd::unit_of(cluster);
            systemd::stop(cluster)?;
            return Err(
                Fault::failed(format!("the service {unit} ended while it started: `journalctl -u {unit}`")).into()
            );
        }
        std::thread::sleep(SERVICE_GLANCE);
    }
    Ok(())
}

/// Another `up` has started the daemon: it is waited for, so that this one keeps its promise too.
fn wait_for_other(cluster: &Cluster) -> Result<()> {
    if is_ready(cluster) {
        return Ok(());
    }
    print(&format!("The cluster {:?} is being started already: waiting for it\n", cluster.name))?;
    while !is_ready(cluster) {
        if Daemon::any(cluster).is_none() {
            return Err(ended(cluster).into());
        }
        std::thread::sleep(GLANCE);
    }
    Ok(())
}

fn wait_until_ready(mut child: Child, cluster: &Cluster) -> Result<()> {
    for told in child.stdout.take().into_iter().flat_map(listen) {
        match told {
            Told::Step { what, millis } => print(&(step_line(&what, millis) + "\n"))?,
            Told::Warning { sentence } => print(&format!("Warning: {sentence}\n"))?,
            Told::Ready => return Ok(()),
            Told::Failed { sentence, code } => {
                // It still stops what it had started.
                let _ = child.wait();
                return Err(Fault { sentence, code }.into());
            }
        }
    }
    let _ = child.wait();
    Err(ended(cluster).into())
}

fn ended(cluster: &Cluster) -> Fault {
    let log = std::fs::read_to_string(cluster.log()).unwrap_or_default();
    let last = log.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it left no word").trim().to_owned();
    Fault::failed(format!("the daemon ended while it started: {last} (see {})", cluster.log().display()))
}
