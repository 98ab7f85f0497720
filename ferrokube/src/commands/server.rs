//! `server`: runs the cluster in the foreground until a signal. `up` starts the same in the background and listens to
//! its steps.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Assembly;
use crate::commands::down::POD_GRACE;
use crate::commands::join::Join;
use crate::commands::up::{Claim, Claimed, claim, undo};
use crate::components::COMPONENTS;
use crate::config::{Host, Roles, Shape, Which};
use crate::crash;
use crate::fault::{Fault, best_effort};
use crate::nodes;
use crate::preflight;
use crate::process::{ANEW, Anew, Daemon, become_next};
use crate::progress::{Audience, Progress, Steps, duration};
use crate::systemd;
use crate::threads;

/// Nodes of a start that is given up have hardly begun.
const NODE_GRACE: Duration = Duration::from_secs(2);
/// Worker threads: more than the two that small machines have gain nothing, fewer let one slow task delay others.
const WORKERS: usize = 4;

pub fn run(which: &Which, shape: &Shape, join: &Join, told_to_parent: bool) -> Result<()> {
    preflight::root("server")?;
    let shape = &shape.read()?;
    crate::logging::init();
    if told_to_parent {
        let steps = Steps { audience: Audience::Parent };
        let result = which.resolve(shape).and_then(|host| live(host, steps));
        if result.as_ref().is_err_and(|error| error.is::<Anew>()) {
            return Err(Fault { sentence: Anew.to_string(), code: ANEW }.into());
        }
        if let Err(error) = &result {
            let code = error.downcast_ref::<Fault>().map_or(1, |f| f.code);
            steps.report(&Progress::Failed { sentence: format!("{error:#}"), code });
        }
        return result;
    }
    super::join::server(which, shape, join)?;
    run_claimed(which, shape)
}

/// Runs what is on this host, or something new.
pub fn run_claimed(which: &Which, shape: &Shape) -> Result<()> {
    let Claimed { host, fresh, lock } = match claim(which, shape)? {
        Claim::New(claimed) => claimed,
        Claim::Runs(host, daemon) | Claim::Gains(host, daemon, _) => return Err(runs_already(&host, daemon).into()),
    };
    let myself = Daemon::current().context("this process is not in /proc")?;
    myself.register(&host, false)?;
    drop(lock);
    let result = live(host.clone(), Steps { audience: Audience::Person });
    if result.as_ref().is_err_and(|error| error.is::<Anew>()) {
        return Err(become_next(&host)).context("starting anew");
    }
    if result.is_err() {
        undo(&host, fresh);
    }
    result
}

fn runs_already(host: &Host, daemon: Daemon) -> Fault {
    Fault::failed(format!(
        "the cluster {:?} runs already (pid {}): `ferrokube down` ends it",
        host.cluster.name, daemon.pid
    ))
}

/// The whole life of the daemon.
fn live(host: Host, steps: Steps) -> Result<()> {
    let myself = Daemon::current().context("this process is not in /proc")?;
    if let Some(daemon) = Daemon::find(&host).filter(|daemon| *daemon != myself) {
        return Err(runs_already(&host, daemon).into());
    }
    myself.register(&host, false)?;
    // `down` and `reset` end the supervisor, then whom they find registered: nobody may come after them.
    if steps.audience == Audience::Parent && Daemon::supervisor(&host).is_none() {
        return Err(Fault::failed("its supervisor is gone").into());
    }
    crash::watch(&host).context("starting threads")?;
    let pid_file = host.pid_file();
    let runtime = threads::runtime(Some(WORKERS.min(std::thread::available_parallelism().map_or(2, |n| n.get()))))?;
    let result = threads::run(&runtime, serve(host, steps, myself));
    runtime.shutdown_timeout(Duration::from_millis(200));
    // After a failure the supervisor still reads how far it had come.
    if result.is_ok() {
        best_effort("the pid file", std::fs::remove_file(pid_file));
    }
    result
}

async fn serve(host: Host, steps: Steps, myself: Daemon) -> Result<()> {
    let began = Instant::now();
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    let mut anew = signal(SignalKind::user_defined1()).context("signals")?;
    // In the background nobody has a terminal to hang up: the signal is taken, and forgotten.
    let mut hangup = signal(SignalKind::hangup()).context("signals")?;
    let in_front = steps.audience == Audience::Person;
    let name = host.cluster.name.clone();
    let mut assembly = tokio::select! {
        started = Assembly::start(host.clone(), COMPONENTS, steps) => started?,
        _ = terminate.recv() => return give_up(host).await,
        _ = interrupt.recv() => return give_up(host).await,
    };
    if let Err(error) = myself.register(&assembly.host, true) {
        assembly.stop_parts().await;
        return Err(error);
    }
    steps.report(&Progress::Ready);
    systemd::notify("READY=1");
    tracing::info!(cluster = name, after = duration(began.elapsed()), "ready");
    if in_front {
        // Nobody may be listening any more.
        best_effort("standard output", writeln!(std::io::stdout(), "{}", ready_line(&host)));
    }
    let end = tokio::select! {
        _ = terminate.recv() => End::Asked,
        _ = interrupt.recv() => End::Asked,
        Some(()) = hangup.recv(), if in_front => End::Passing,
        _ = anew.recv() => End::Broke(Anew.into()),
        error = assembly.tend() => End::Broke(error),
    };
    let end = match end {
        End::Asked if in_front && comes_again().await => End::Passing,
        end => end,
    };
    tracing::info!(cluster = name, "stopping");
    // To systemd a daemon that starts anew as the same process goes on.
    if !matches!(&end, End::Broke(error) if error.is::<Anew>()) {
        systemd::notify("STOPPING=1");
    }
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

/// After a start that was to end: what it had started beside this process ends, too.
async fn give_up(host: Host) -> Result<()> {
    let closed = tokio::task::spawn_blocking(move || nodes::close(&host, NODE_GRACE)).await;
    closed.map_err(anyhow::Error::from).flatten().map(drop)
}

/// What a person can do now.
fn ready_line(host: &Host) -> String {
    match host.roles().has(Roles::CONTROL_PLANE) {
        true if !host.roles().has(Roles::NODE) => {
            format!("Ready. KUBECONFIG={} kubectl get namespaces; this host is no node", host.kubeconfig().display())
        }
        true => format!("Ready. KUBECONFIG={} kubectl get nodes", host.kubeconfig().display()),
        false => format!("Ready. The node {} is in the cluster", host.node_name),
    }
}

/// Why the daemon ends.
enum End {
    /// Somebody wants the cluster to stop: its pods, too.
    Asked,
    /// This life ends, not the cluster: pods go on, and the next start takes them up.
    Passing,
    /// The same, but nobody asked for it, or the next life is to know more of its host ([`Anew`]).
    Broke(anyhow::Error),
}

/// Whether systemd ends this process only to start it anew.
async fn comes_again() -> bool {
    let asked = tokio::task::spawn_blocking(|| systemd::own_unit().is_some_and(|unit| systemd::restarts(&unit)));
    asked.await.unwrap_or(false)
}
