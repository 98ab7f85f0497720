//! `ferrokube kube-scheduler`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use super::{candidate, connect, parse, until_signal};

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
}

pub fn run(args: &[OsString]) -> Result<()> {
    let flags: Flags = parse(args);
    until_signal(|shutdown| async move {
        let client = connect(&flags.kubeconfig).await?;
        let mut held = shutdown.clone();
        if flags.leader_elect {
            let election = client::lease::Election::new("kube-scheduler", &candidate());
            match election.acquire(client.clone(), shutdown.clone()).await {
                Some(token) => held = token,
                None => return Ok(()),
            }
        }
        scheduler::run(scheduler::Config::default(), client, held).await?;
        Ok(())
    })
}
