//! The binary: every part of a Kubernetes cluster, and the commands that run it.
//!
//! [`cli`] is the command line; [`config`] what a cluster is; [`cluster`] the start order and supervision of
//! [`components::COMPONENTS`]; [`pki`] and [`kubeconfig`] who may speak as whom; [`commands`] one file a command.

mod cli;
mod cluster;
mod commands;
mod config;
mod fault;
mod kubeconfig;
mod logging;
mod pki;
mod preflight;
mod process;
mod progress;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let code = error.downcast_ref::<fault::Fault>().map_or(1, |f| f.code);
    eprintln!("ferrokube: {error:#}");
    ExitCode::from(code)
}
