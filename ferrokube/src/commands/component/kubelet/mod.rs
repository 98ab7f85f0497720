//! `ferrokube kubelet`: over our container runtime or any other that speaks CRI.

mod settings;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Arg, Command, value_parser};
use kubelet::config::Config;

use self::settings::{KIND, SETTINGS};
use super::settings::{flags, take_file, take_flags};
use super::{LOGGING, connect, exit_on, hidden, host_name, until_signal, warn};

fn command() -> Command {
    let file = |name: &'static str| Arg::new(name).long(name).value_name("FILE").value_parser(value_parser!(PathBuf));
    let command = Command::new("kubelet")
        .about("The node agent")
        .arg(file("kubeconfig").required(true).help("How to reach the API server"))
        .arg(file("config").help("A KubeletConfiguration; flags have the last word"));
    hidden(flags(command, SETTINGS), &[&LOGGING])
}

pub fn run(args: &[OsString]) -> Result<()> {
    let matches = exit_on(command().try_get_matches_from(args));
    let mut warnings = LOGGING.given(&matches);
    let mut config = Config::new(&host_name().to_lowercase());
    if let Some(file) = matches.get_one::<PathBuf>("config") {
        take_file(&mut config, file, &KIND, SETTINGS, &mut warnings)?;
    }
    take_flags(&mut config, &matches, SETTINGS, &mut warnings)?;
    warn("kubelet", &warnings);
    let kubeconfig = matches.get_one::<PathBuf>("kubeconfig").cloned().unwrap_or_default();
    until_signal(|shutdown| async move {
        let client = connect(&kubeconfig).await?;
        kubelet::daemon::run(config, client, shutdown).await?;
        Ok(())
    })
}
