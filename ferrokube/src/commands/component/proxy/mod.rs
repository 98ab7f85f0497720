//! `ferrokube kube-proxy`.

mod settings;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Arg, ArgAction, Command, value_parser};

use self::settings::{KIND, SETTINGS, Told};
use super::settings::{flags, take_file, take_flags};
use super::{LOGGING, connect, exit_on, hidden, host_name, until_signal, warn};
use crate::fault::Fault;

fn command() -> Command {
    let config = Arg::new("config").long("config").value_name("FILE").value_parser(value_parser!(PathBuf));
    let cleanup = Arg::new("cleanup").long("cleanup").action(ArgAction::SetTrue);
    let command = Command::new("kube-proxy")
        .about("The Kubernetes network proxy")
        .arg(config.help("A KubeProxyConfiguration; flags have the last word"))
        .arg(cleanup.help("Remove our rules and end"));
    hidden(flags(command, SETTINGS), &[&LOGGING])
}

pub fn run(args: &[OsString]) -> Result<()> {
    let matches = exit_on(command().try_get_matches_from(args));
    let mut warnings = LOGGING.given(&matches);
    let mut told = Told::default();
    told.config.hostname_override = host_name().to_lowercase();
    if let Some(file) = matches.get_one::<PathBuf>("config") {
        take_file(&mut told, file, &KIND, SETTINGS, &mut warnings)?;
    }
    take_flags(&mut told, &matches, SETTINGS, &mut warnings)?;
    warn("kube-proxy", &warnings);
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
