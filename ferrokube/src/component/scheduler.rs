//! `ferrokube kube-scheduler`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use super::election::{ELECTION, Election};
use super::extra::{Extra, Own};
use super::{DELEGATED, LOGGING, SERVING, Serving, parse, until_signal};
use crate::api::{Api, Identity};
use crate::fault::Fault;

/// The Kubernetes scheduler
#[derive(Debug, Parser)]
#[command(name = "kube-scheduler")]
struct Flags {
    /// How to reach the API server
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    #[command(flatten)]
    election: Election,
    #[command(flatten)]
    serving: Serving,
}

/// What who leads is called.
const LEASE: &str = "kube-scheduler";

const OWN: Own = &[("kubeconfig", "it is in the same process as the API server")];

/// Sets what is given besides (`--kube-scheduler-arg`) over what the cluster sets.
pub fn over(config: &mut scheduler::Config, args: &[String]) -> Result<(), Fault> {
    let ignored = [&DELEGATED, &LOGGING];
    let Some(extra) = Extra::<Flags>::read("--kube-scheduler-arg", args, OWN, &ignored)? else { return Ok(()) };
    extra.only(&[SERVING, ELECTION], &ignored)?;
    extra.flags.election.over(|field| extra.given(field), LEASE, &mut config.leader_election)?;
    extra.flags.serving.over(|field| extra.given(field), &mut config.serving);
    Ok(())
}

pub fn run(args: &[OsString]) -> Result<()> {
    let flags: Flags = parse(args, &[&DELEGATED, &LOGGING]);
    let config = scheduler::Config {
        leader_election: flags.election.candidate(LEASE)?,
        serving: flags.serving.config("kube-scheduler", 10259)?,
        ..scheduler::Config::default()
    };
    until_signal(|shutdown| async move {
        let client = Api::at(&flags.kubeconfig).client(&Identity::Scheduler).await?;
        scheduler::run(config, client, shutdown).await?;
        Ok(())
    })
}
