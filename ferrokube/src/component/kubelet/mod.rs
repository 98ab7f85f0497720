//! `ferrokube kubelet`: over our container runtime or any other that speaks CRI.

mod bounds;
mod follow;
mod settings;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Arg, value_parser};
use kubelet::config::Config;
use tokio_util::sync::CancellationToken;

pub use self::follow::follow;
use self::settings::{KIND, SETTINGS};
use super::extra::{Own, line, refused};
use super::settings::{command, take};
use super::{exit_on, until_signal};
use crate::api::{Api, Identity};
use crate::config::host_name;
use crate::fault::{Fault, best_effort};
use crate::systemd;

const FLAG: &str = "--kubelet-arg";
const OWN: Own = &[
    ("kubeconfig", "it is in the same process as the API server"),
    ("hostname-override", "say nodeName in --config"),
    ("node-ip", "say nodeIP in --config"),
    ("node-labels", "say --node-label"),
    ("register-with-taints", "say --node-taint"),
    ("container-runtime-endpoint", "the runtime is the cluster's own"),
    ("root-dir", "it is in --data-dir of the cluster"),
    ("cgroup-root", "it is named after the cluster"),
];

/// Sets what is given besides (`--kubelet-arg`) over what the cluster sets.
pub fn over(config: &mut Config, args: &[String]) -> Result<(), Fault> {
    if args.is_empty() {
        return Ok(());
    }
    let command = command("kubelet", "The node agent", &KIND, SETTINGS);
    let line = line(FLAG, &command, args, OWN)?;
    let matches = command.clone().try_get_matches_from(line).map_err(|error| refused(FLAG, &error))?;
    take(&command, &matches, config, &KIND, SETTINGS).map_err(|why| Fault::usage(format!("{FLAG} {why}")))
}

/// Taints of a new node (`--node-taint`).
pub fn taints(config: &mut Config, taints: &[String]) -> Result<(), Fault> {
    let read = taints.iter().map(|taint| values::taint(&taint.as_str().into())).collect::<Result<Vec<_>, _>>();
    config.register_with_taints.extend(read.map_err(|why| Fault::usage(format!("--node-taint: {why}")))?);
    Ok(())
}

pub fn run(args: &[OsString]) -> Result<()> {
    let kubeconfig = Arg::new("kubeconfig").long("kubeconfig").value_name("FILE").value_parser(value_parser!(PathBuf));
    let command = command("kubelet", "The node agent", &KIND, SETTINGS)
        .arg(kubeconfig.required(true).help("How to reach the API server"));
    let matches = exit_on(command.clone().try_get_matches_from(args));
    let mut config = Config::new(&host_name().to_lowercase());
    take(&command, &matches, &mut config, &KIND, SETTINGS)?;
    if config.server.tls_cert_file.is_some() != config.server.tls_private_key_file.is_some() {
        return Err(Fault::usage("--tls-cert-file and --tls-private-key-file are given together or not at all").into());
    }
    let kubeconfig = matches.get_one::<PathBuf>("kubeconfig").cloned().unwrap_or_default();
    until_signal(|shutdown| async move {
        let client = Api::at(&kubeconfig).client(&Identity::Node(config.node_name.clone())).await?;
        let stop = CancellationToken::new();
        tokio::spawn(leave(shutdown, config.clone(), stop.clone()));
        kubelet::run(config, client, stop).await?;
        Ok(())
    })
}

/// What ending pods by groups takes beside their times.
const SLACK: Duration = Duration::from_secs(2);

/// Stops the kubelet; pods end before if it is because the machine stops, and they were given time for it.
async fn leave(told: CancellationToken, config: Config, stop: CancellationToken) {
    told.cancelled().await;
    let grace = kubelet::shutdown::longest(&config);
    if !grace.is_zero() && tokio::task::spawn_blocking(systemd::machine_stops).await.unwrap_or(false) {
        config.leaving.set();
        best_effort("a graceful end of pods", tokio::time::timeout(grace + SLACK, config.left.wait()).await);
    }
    stop.cancel();
}
