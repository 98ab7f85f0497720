//! `server`: runs the cluster in the foreground until a signal. `up` starts the same in the background and listens to
//! its steps.

use std::time::Instant;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Assembly;
use crate::commands::down::POD_GRACE;
use crate::config::{Cluster, Shape, Which};
use crate::fault::Fault;
use crate::preflight;
use crate::process::Daemon;
use crate::progress::{Audience, Steps, Told, duration};

/// Worker threads: more than the two that small machines have gain nothing, fewer let one slow task delay others.
const WORKERS: usize = 4;

pub fn run(which: &Which, shape: &Shape, told_to_parent: bool) -> Result<()> {
    preflight::root("server")?;
    let audience = if told_to_parent { Audience::Parent } else { Audience::Person };
    let steps = Steps::new(audience);
    let result = prepare(which, shape, told_to_parent).and_then(|cluster| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS.min(std::thread::available_parallelism().map_or(2, |n| n.get())))
            .enable_all()
            .build()
            .context("starting threads")?;
        let result = runtime.block_on(serve(cluster, audience));
        runtime.shutdown_timeout(std::time::Duration::from_millis(200));
        result
    });
    if let Err(error) = &result {
        let code = error.downcast_ref::<Fault>().map_or(1, |f| f.code);
        steps.tell(&Told::Failed { sentence: format!("{error:#}"), code });
    }
    result
}

fn prepare(which: &Which, shape: &Shape, told_to_parent: bool) -> Result<Cluster> {
    crate::logging::init();
    let cluster = which.resolve(shape)?;
    if let Some(daemon) = Daemon::find(&cluster) {
        let sentence = format!("the cluster {:?} runs already (pid {})", cluster.name, daemon.pid);
        return Err(Fault::failed(sentence).into());
    }
    if !told_to_parent {
        preflight::check(&cluster)?;
        cluster.save()?;
    }
    if let Some(daemon) = Daemon::current() {
        daemon.register(&cluster)?;
    }
    Ok(cluster)
}

async fn serve(cluster: Cluster, audience: Audience) -> Result<()> {
    let began = Instant::now();
    let mut steps = Steps::new(audience);
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    let name = cluster.name.clone();
    let mut assembly = tokio::select! {
        started = Assembly::start(cluster.clone(), &mut steps) => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    steps.tell(&Told::Ready);
    tracing::info!(cluster = name, after = duration(began.elapsed()), "ready");
    if audience == Audience::Person {
        println!("Ready. KUBECONFIG={} kubectl get nodes", cluster.kubeconfig().display());
    }
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        error = assembly.failed() => Some(error),
    };
    tracing::info!(cluster = name, "stopping");
    assembly.stop(POD_GRACE).await;
    let _ = std::fs::remove_file(cluster.pid_file());
    failure.map_or(Ok(()), Err)
}
