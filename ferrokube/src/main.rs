//! The binary: every part of a Kubernetes cluster, and the commands that run it.
//!
//! [`cli`] is the command line; [`config`] what a cluster is, and what a host of it; [`components`] the table of all that
//! runs; [`cluster`] how a host's components are started together and kept running, [`component`] the flags of each
//! alone; [`api`] how they reach the API server, [`balancer`] by which of several; [`pki`] and [`kubeconfig`] who may
//! speak as whom; [`commands`] one file a command; [`nodes`] further nodes on this host; [`diagnosis`] what is at fault.

mod api;
mod apply;
mod backoff;
mod balancer;
mod caller;
mod cis;
mod cli;
mod cluster;
mod commands;
mod component;
mod components;
mod config;
mod crash;
mod cri;
mod diagnosis;
mod fault;
mod firewall;
mod hardening;
mod interrupt;
mod joining;
mod kubeconfig;
mod layout;
mod logging;
mod node_address;
mod nodes;
mod pki;
mod preflight;
mod process;
mod progress;
mod signing;
mod supervisor;
mod systemd;
mod threads;
mod yaml;

use std::process::ExitCode;

/// A create makes hundreds of small allocations: with the C library's allocator they are an eighth of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the files and directories that we make for others let others do: the usual. A caller's own umask must neither
/// open what is private nor close what containers read.
const UMASK: u32 = 0o022;

fn main() -> ExitCode {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
    // A container monitor outlives the daemon and must stay tiny: it never gets as far as a thread or a parser.
    match std::env::args_os().nth(1) {
        Some(first) if first == runtime::monitor::SUBCOMMAND => runtime::monitor::main(std::env::args_os().skip(2)),
        Some(first) if first == supervisor::SUBCOMMAND => return supervisor::main(std::env::args_os().skip(2)),
        Some(first) if first == nodes::machine::SUBCOMMAND => return nodes::machine::main(std::env::args_os().skip(2)),
        Some(first) if first == supervisor::FAREWELL => return commands::down::farewell(std::env::args_os().skip(2)),
        Some(first) if first == commands::demo::SUBCOMMAND => return commands::demo::app(),
        _ => {}
    }
    serving::shares::raise_open_files();
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let code = error.downcast_ref::<fault::Fault>().map_or(1, |f| f.code);
    logging::print_line(format_args!("{error:#}"));
    ExitCode::from(code)
}
