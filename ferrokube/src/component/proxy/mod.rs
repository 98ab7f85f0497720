//! `ferrokube kube-proxy`.

mod settings;

use std::ffi::OsString;

use anyhow::Result;
use clap::{Arg, ArgAction};

use self::settings::{KIND, SETTINGS, Told};
use super::extra::{Own, line, refused};
use super::settings::{command, take};
use super::{exit_on, until_signal};
use crate::api::{Api, Identity};
use crate::config::host_name;
use crate::fault::Fault;

const FLAG: &str = "--kube-proxy-arg";
const OWN: Own = &[
    ("kubeconfig", "it is in the same process as the API server"),
    ("hostname-override", "say nodeName in --config"),
    ("cluster-cidr", "say --pod-cidr"),
    ("cleanup", "`ferrokube reset` removes its rules"),
];

/// Sets what is given besides (`--kube-proxy-arg`) over what the cluster sets.
pub fn over(config: &mut proxy::Config, args: &[String]) -> Result<(), Fault> {
    if args.is_empty() {
        return Ok(());
    }
    let command = command("kube-proxy", "The Kubernetes network proxy", &KIND, SETTINGS);
    let line = line(FLAG, &command, args, OWN)?;
    let matches = command.clone().try_get_matches_from(line).map_err(|error| refused(FLAG, &error))?;
    let mut told = Told::default();
    told.config = config.clone();
    let wrong = |why: &dyn std::fmt::Display| Fault::usage(format!("{FLAG} {why}"));
    take(&command, &matches, &mut told, &KIND, SETTINGS).map_err(|why| wrong(&why))?;
    *config = told.config().map_err(|why| wrong(&why))?;
    Ok(())
}

pub fn run(args: &[OsString]) -> Result<()> {
    let cleanup = Arg::new("cleanup").long("cleanup").action(ArgAction::SetTrue).help("Remove our rules and end");
    let command = command("kube-proxy", "The Kubernetes network proxy", &KIND, SETTINGS).arg(cleanup);
    let matches = exit_on(command.clone().try_get_matches_from(args));
    let mut told = Told::default();
    told.config.hostname_override = host_name().to_lowercase();
    take(&command, &matches, &mut told, &KIND, SETTINGS)?;
    let config = told.config().map_err(Fault::usage)?;
    if matches.get_flag("cleanup") {
        return proxy::remove(&config.table).map_err(Into::into);
    }
    let asked = || Fault::usage("--kubeconfig FILE is missing: it says how to reach the API server");
    let kubeconfig = told.kubeconfig.ok_or_else(asked)?;
    until_signal(|shutdown| async move {
        let client = Api::at(&kubeconfig).client(&Identity::Proxy).await?;
        proxy::run(config, client, shutdown).await?;
        Ok(())
    })
}
