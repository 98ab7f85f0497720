//! `install` and `uninstall`: makes the cluster a service that starts when this host boots, and takes that back. The
//! cluster itself is `up`'s and `reset`'s.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::commands::down;
use crate::commands::misc::{no_cluster, print};
use crate::config::{Cluster, Shape, Which, differs, lock_host};
use crate::fault::Fault;
use crate::preflight;
use crate::process::Daemon;
use crate::systemd;

/// Directories that are empty after a boot, or that others write to.
const PASSING: [&str; 5] = ["/tmp", "/var/tmp", "/run", "/dev", "/proc"];

pub fn install(which: &Which, shape: &Shape, now: bool) -> Result<()> {
    preflight::root("install")?;
    here("install")?;
    let program = program()?;
    let lock = lock_host()?;
    let cluster = which.resolve(shape)?;
    let runs = which.load()?.filter(|_| Daemon::any(&cluster).is_some());
    if let Some(sentence) = runs.and_then(|runs| differs(&runs, &cluster)) {
        return Err(Fault::usage(sentence).into());
    }
    super::component::check_arguments(&cluster)?;
    cluster.save()?;
    drop(lock);
    let files = systemd::install(&cluster, &program)?;
    let [unit, environment] = files.map(|file| file.display().to_string());
    print(&format!("The cluster {:?} starts when this host boots ({unit}).\n", cluster.name))?;
    print(&format!("Its environment (proxies, FERROKUBE_LOG) is set in {environment}.\n"))?;
    if !now {
        let name = systemd::unit_of(&cluster);
        return match Daemon::any(&cluster) {
            Some(_) => print("It runs already, outside of the service: `ferrokube install --now` hands it over.\n"),
            None => print(&format!("Start it now with `systemctl start {name}` or `ferrokube up`.\n")),
        };
    }
    hand_over(&cluster)?;
    super::up::run(which, &Shape::default(), false)
}

/// Ends a daemon that `up` has started, so that systemd starts the next one. Its pods go on meanwhile.
fn hand_over(cluster: &Cluster) -> Result<()> {
    if systemd::is_active(cluster) || Daemon::any(cluster).is_none() {
        return Ok(());
    }
    // By KILL, which a daemon takes for no wish to stop its pods.
    down::stop_daemon(cluster, Signal::KILL, std::time::Duration::ZERO)
}

pub fn uninstall(which: &Which) -> Result<()> {
    preflight::root("uninstall")?;
    let cluster = which.load()?.ok_or_else(|| no_cluster(which))?;
    if !systemd::is_installed(&cluster) {
        return print(&format!("The cluster {:?} is no service: nothing to remove.\n", cluster.name));
    }
    let left = systemd::uninstall(&cluster)?;
    print(&format!("The cluster {:?} is stopped, and starts no more when this host boots.\n", cluster.name))?;
    if let Some(left) = left {
        print(&format!("Left, because somebody wrote into it: {}\n", left.display()))?;
    }
    print("`ferrokube up` starts it by hand; `ferrokube reset` removes it.\n")
}

fn here(command: &str) -> Result<()> {
    if systemd::is_here() {
        return Ok(());
    }
    let sentence = format!(
        "`ferrokube {command}` is for hosts with systemd: elsewhere have your init system run `ferrokube server` in the \
         foreground, stop it with TERM, and start it again when it fails"
    );
    Err(Fault::failed(sentence).into())
}

/// Where this program will still be after a boot.
fn program() -> Result<PathBuf> {
    let program = std::env::current_exe().context("where this program is")?;
    stays(&program).map(|()| program)
}

fn stays(program: &Path) -> Result<()> {
    if !PASSING.iter().any(|dir| program.starts_with(dir)) && !program.to_string_lossy().ends_with(" (deleted)") {
        return Ok(());
    }
    let sentence = format!(
        "{} may be gone after a boot: put the program in a lasting place first, for example `install {} \
         /usr/local/bin/ferrokube`, and run that",
        program.display(),
        program.display()
    );
    Err(Fault::failed(sentence).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_a_boot_takes_away_is_no_service() {
        for good in ["/usr/local/bin/ferrokube", "/root/ferrokube", "/opt/run/ferrokube"] {
            assert!(stays(good.as_ref()).is_ok(), "{good}");
        }
        for bad in ["/tmp/ferrokube", "/run/user/0/ferrokube", "/usr/bin/ferrokube (deleted)"] {
            let told = stays(bad.as_ref()).expect_err(bad).to_string();
            assert!(told.contains("/usr/local/bin"), "{told}");
        }
    }
}
