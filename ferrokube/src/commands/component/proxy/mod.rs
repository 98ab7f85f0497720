//! `ferrokube kube-proxy`.

mod settings;

use std::ffi::OsString;

use anyhow::Result;
use clap::{Arg, ArgAction};

use self::settings::{KIND, SETTINGS, Told};
use super::settings::{command, take};
use super::{connect, exit_on, until_signal};
use crate::config::host_name;
use crate::fault::Fault;

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
        let client = connect(&kubeconfig).await?;
        proxy::run(config, client, shutdown).await?;
        Ok(())
    })
}
