//! The commands that only print: `kubeconfig`, `completion`, `version`.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::cli::Cli;
use crate::config::Which;
use crate::fault::Fault;

pub fn kubeconfig(which: &Which) -> Result<()> {
    let host = which.load()?.ok_or_else(|| no_cluster(which))?;
    let path = host.kubeconfig();
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    print(&text)
}

pub fn completion(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ferrokube", &mut script);
    print(&String::from_utf8_lossy(&script))
}

pub fn version() -> Result<()> {
    print(&format!("ferrokube {} (Kubernetes {})\n", env!("CARGO_PKG_VERSION"), meta::version::RELEASE))
}

/// The error of every command that needs a cluster where there is none.
pub fn no_cluster(which: &Which) -> Fault {
    Fault::failed(format!("there is no cluster {:?}: `ferrokube up` makes one", which.name()))
}

/// Prints to standard output; a reader that has seen enough (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}
