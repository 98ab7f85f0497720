//! `server`: runs the cluster in the foreground until a signal. `up` starts the same in the background and listens to
//! its steps.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Assembly;
use crate::commands::down::POD_GRACE;
use crate::commands::up::{Claim, Claimed, claim, undo};
use crate::config::{Cluster, Shape, Which};
use crate::crash;
use crate::fault::Fault;
use crate::preflight;
use crate::process::Daemon;
use crate::progress::{Audience, Steps, Told, duration};
use crate::systemd;
use crate::threads;

/// Worker threads: more than the two that small machines have gain nothing, fewer let one slow task delay others.
const WORKERS: usize = 4;

pub fn run(which: &Which, shape: &Shape, told_to_parent: bool) -> Result<()> {
    preflight::root("server")?;
    crate::logging::init();
    if told_to_parent {
        let steps = Steps { audience: Audience::Parent };
        let result = which.resolve(shape).and_then(|cluster| live(cluster, steps));
        if let Err(error) = &result {
            let code = error.downcast_ref::<Fault>().map_or(1, |f| f.code);
            steps.tell(&Told::Failed { sentence: format!("{error:#}"), code });
        }
        return result;
    }
    let Claimed { cluster, fresh, lock } = match claim(which, shape)? {
        Claim::New(claimed) => claimed,
        Claim::Runs(cluster, daemon) => return Err(runs_already(&cluster, daemon).into()),
    };
    let myself = Daemon::current().context("this process is not in /proc")?;
    myself.register(&cluster, false)?;
    drop(lock);
    let result = live(cluster.clone(), Steps { audience: Audience::Person });
    if result.is_err() {
        undo(&cluster, fresh);
    }
    result
}

fn runs_already(cluster: &Cluster, daemon: Daemon) -> Fault {
    Fault::failed(format!("the cluster {:?} runs already (pid {}): `ferrokube down` ends it", cluster.name, daemon.pid))
}

/// The whole life of the daemon.
fn live(cluster: Cluster, steps: Steps) -> Result<()> {
    let myself = Daemon::current().context("this process is not in /proc")?;
    if let Some(daemon) = Daemon::find(&cluster).filter(|daemon| *daemon != myself) {
        return Err(runs_already(&cluster, daemon).into());
    }
    myself.register(&cluster, false)?;
    // `down` and `reset` end the supervisor, then whom they find registered: nobody may come after them.
    if steps.audience == Audience::Parent && Daemon::supervisor(&cluster).is_none() {
        return Err(Fault::failed("its supervisor is gone").into());
    }
    crash::watch(&cluster).context("starting threads")?;
    let pid_file = cluster.pid_file();
    let runtime = threads::runtime(Some(WORKERS.min(std::thread::available_parallelism().map_or(2, |n| n.get()))))?;
    let result = threads::run(&runtime, serve(cluster, steps, myself));
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    // After a failure the supervisor still reads how far it had come.
    if result.is_ok() {
        let _ = std::fs::remove_file(pid_file);
    }
    result
}

async fn serve(cluster: Cluster, steps: Steps, myself: Daemon) -> Result<()> {
    let began = Instant::now();
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    // In the background nobody has a terminal to hang up: the signal is taken, and forgotten.
    let mut hangup = signal(SignalKind::hangup()).context("signals")?;
    let in_front = steps.audience == Audience::Person;
    let name = cluster.name.clone();
    let mut assembly = tokio::select! {
        started = Assembly::start(cluster.clone(), steps) => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    if let Err(error) = myself.register(&assembly.cluster, true) {
        assembly.stop_parts().await;
        return Err(error);
    }
    steps.tell(&Told::Ready);
    systemd::tell("READY=1");
    tracing::info!(cluster = name, after = duration(began.elapsed()), "ready");
    if in_front {
        // Nobody may be listening any more.
        let config = cluster.kubeconfig();
        let _ = writeln!(std::io::stdout(), "Ready. KUBECONFIG={} kubectl get nodes", config.display());
    }
    let end = tokio::select! {
        _ = terminate.recv() => End::Asked,
        _ = interrupt.recv() => End::Asked,
        Some(()) = hangup.recv(), if in_front => End::Passing,
        error = assembly.tend() => End::Broke(error),
    };
    let end = match end {
        End::Asked if in_front && comes_again().await => End::Passing,
        end => end,
    };
    tracing::info!(cluster = name, "stopping");
    systemd::tell("STOPPING=1");
    match end {
        End::Asked => {
            assembly.stop(POD_GRACE).await;
            Ok(())
        }
        End::Passing => {
            assembly.stop_parts().await;
            Ok(())
        }
        End::Broke(error) => {
            assembly.stop_parts().await;
            Err(error)
        }
    }
}

/// Why the daemon ends.
enum End {
    /// Somebody wants the cluster to stop: its pods, too.
    Asked,
    /// This life ends, not the cluster: pods go on, and the next start takes them up.
    Passing,
    /// The same, but nobody asked for it.
    Broke(anyhow::Error),
}

/// Whether systemd ends this process only to start it anew.
async fn comes_again() -> bool {
    let asked = tokio::task::spawn_blocking(|| systemd::own_unit().is_some_and(|unit| systemd::restarts(&unit)));
    asked.await.unwrap_or(false)
}
