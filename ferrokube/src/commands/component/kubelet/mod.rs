//! `ferrokube kubelet`: over our container runtime or any other that speaks CRI.

mod settings;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Arg, value_parser};
use kubelet::config::Config;

use self::settings::{KIND, SETTINGS};
use super::settings::{command, take};
use super::{connect, exit_on, until_signal};
use crate::config::host_name;
use crate::fault::Fault;

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
        let client = connect(&kubeconfig).await?;
        kubelet::daemon::run(config, client, shutdown).await?;
        Ok(())
    })
}
