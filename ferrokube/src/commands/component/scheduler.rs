//! `ferrokube kube-scheduler`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use super::{DELEGATED, LOGGING, Serving, candidate, connect, parse, until_signal};

/// The Kubernetes scheduler
#[derive(Debug, Parser)]
#[command(name = "kube-scheduler")]
struct Flags {
    /// How to reach the API server
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Run only while holding the Lease kube-system/kube-scheduler
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    leader_elect: bool,
    #[command(flatten)]
    serving: Serving,
}

pub fn run(args: &[OsString]) -> Result<()> {
    let flags: Flags = parse(args, &[&DELEGATED, &LOGGING]);
    let config = scheduler::Config {
        leader_election: flags.leader_elect.then(|| client::lease::Election::new("kube-scheduler", &candidate())),
        serving: flags.serving.config("kube-scheduler", 10259)?,
        ..scheduler::Config::default()
    };
    until_signal(|shutdown| async move {
        let client = connect(&flags.kubeconfig).await?;
        scheduler::run(config, client, shutdown).await?;
        Ok(())
    })
}
