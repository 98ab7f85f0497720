//! Each component alone, under its upstream name and with upstream's flag names: `ferrokube kube-scheduler
//! --kubeconfig …`, or by a link of that name. A flag that isn't here isn't done: it is refused, never ignored.

mod controller_manager;
mod scheduler;

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::fault::Fault;

type Run = fn(&[OsString]) -> Result<()>;

/// Upstream's name of each component that runs alone.
const COMPONENTS: &[(&str, Run)] =
    &[("kube-controller-manager", controller_manager::run), ("kube-scheduler", scheduler::run)];

pub fn is_component(name: &str) -> bool {
    COMPONENTS.iter().any(|(n, _)| *n == name)
}

/// Runs the component that the first word names.
pub fn run(args: &[OsString]) -> Result<()> {
    let name = args.first().and_then(|a| a.to_str()).unwrap_or_default();
    match COMPONENTS.iter().find(|(n, _)| *n == name) {
        Some((_, run)) => run(args),
        None => {
            let names: Vec<_> = COMPONENTS.iter().map(|(n, _)| *n).collect();
            let sentence =
                format!("there is no command {name:?}: see `ferrokube --help`; components are {}", names.join(", "));
            Err(Fault::usage(sentence).into())
        }
    }
}

/// Parses a component's flags; a wrong one ends the process with clap's message and code 2.
fn parse<F: Parser>(args: &[OsString]) -> F {
    F::parse_from(args)
}

/// Runs a component until a signal, with logs on standard error.
fn until_signal<F>(run: impl FnOnce(CancellationToken) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    crate::logging::init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting threads")?;
    let result = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stop.cancel();
        });
        run(shutdown).await
    });
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    result
}

/// Who this process is among the candidates of an election: the host and a random number, as upstream.
fn candidate() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    format!("{}_{}", host.trim(), id.trim())
}

async fn connect(kubeconfig: &Path) -> Result<kube::Client> {
    client::from_kubeconfig(kubeconfig).await.map_err(|e| Fault::failed(format!("--kubeconfig: {e}")).into())
}
