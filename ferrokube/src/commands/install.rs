//! `install` and `uninstall`: makes the cluster a service that starts when this host boots, and takes that back. The
//! cluster itself is `up`'s and `reset`'s.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::commands::down;
use crate::commands::join::Join;
use crate::commands::misc::{no_cluster, print};
use crate::config::{Host, Shape, Which, differs_until_up, lock_host};
use crate::fault::Fault;
use crate::nodes::wish::Wish;
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
    let mut host = which.resolve(shape)?;
    let runs = which.load()?.filter(|_| Daemon::any(&host).is_some());
    if let Some(sentence) = runs.and_then(|runs| differs_until_up(&runs, &host)) {
        return Err(Fault::usage(sentence).into());
    }
    crate::component::check_arguments(&host)?;
    crate::cluster::flannel::settle(&mut host)?;
    let wish = Wish::judge(&host, shape)?;
    host.save()?;
    wish.write(&host)?;
    drop(lock);
    let files = systemd::install(&host, &program, crate::cluster::shutdown_grace(&host))?;
    let [unit, environment] = files.map(|file| file.display().to_string());
    print(&format!("The cluster {:?} starts when this host boots ({unit}).\n", host.cluster.name))?;
    print(&format!("Its environment (proxies, FERROKUBE_LOG) is set in {environment}.\n"))?;
    if !now {
        let name = systemd::unit_of(&host);
        return match Daemon::any(&host) {
            Some(_) => print("It runs already, outside of the service: `ferrokube install --now` hands it over.\n"),
            None => print(&format!("Start it now with `systemctl start {name}` or `ferrokube up`.\n")),
        };
    }
    hand_over(&host)?;
    super::up::run(which, &Shape::default(), &Join::default(), false)
}

/// Ends a daemon that `up` has started, so that systemd starts the next one. Its pods go on meanwhile.
fn hand_over(host: &Host) -> Result<()> {
    if systemd::is_active(host) || Daemon::any(host).is_none() {
        return Ok(());
    }
    // By KILL, which a daemon takes for no wish to stop its pods.
    down::stop_daemon(host, Signal::KILL, std::time::Duration::ZERO)
}

pub fn uninstall(which: &Which) -> Result<()> {
    preflight::root("uninstall")?;
    let host = which.load()?.ok_or_else(|| no_cluster(which))?;
    if !systemd::is_installed(&host) {
        return print(&format!("The cluster {:?} is no service: nothing to remove.\n", host.cluster.name));
    }
    let left = systemd::uninstall(&host)?;
    print(&format!("The cluster {:?} is stopped, and starts no more when this host boots.\n", host.cluster.name))?;
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
    let lasts =
        !PASSING.iter().any(|dir| program.starts_with(dir)) && !program.to_string_lossy().ends_with(" (deleted)");
    let why = match (lasts, changed_by(program)) {
        (false, _) => "may be gone after a boot".to_owned(),
        (_, Some(who)) => format!("can be changed by {who}, and would run as root at each boot"),
        _ if !systemd::is_runnable(program) => "has a name that systemd does not run".to_owned(),
        _ => return Ok(()),
    };
    // As somebody can write it in a shell.
    let from = format!("'{}'", program.display().to_string().replace('\'', "'\\''"));
    let sentence = format!(
        "{} {why}: put the program in a lasting place of root's first, for example `install {from} \
         /usr/local/bin/ferrokube`, and run that",
        program.display()
    );
    Err(Fault::failed(sentence).into())
}

/// Who besides root may put another program in the place of this one.
fn changed_by(program: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    /// Of a directory in which all may write, but change their own alone.
    const STICKY: u32 = 0o1000;
    let parts = program.ancestors().filter_map(|part| part.symlink_metadata().ok());
    parts.into_iter().find_map(|about| match about.mode() {
        _ if about.uid() != 0 => Some(format!("user {}", about.uid())),
        mode if mode & STICKY != 0 => None,
        mode if mode & 0o002 != 0 => Some("everybody".to_owned()),
        _ => None,
    })
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
            assert!(told.contains("/usr/local/bin") && told.contains("may be gone"), "{told}");
        }
        assert!(stays("/opt/it's/ferrokube".as_ref()).expect_err("refused").to_string().contains("systemd"));
    }

    /// A program in somebody's home became a service that runs as root.
    #[test]
    fn a_program_that_somebody_else_may_change_is_no_service() {
        use std::os::unix::fs::{PermissionsExt, chown};
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: needs root");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("bin/ferrokube");
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).expect("a directory");
        std::fs::write(&program, "").expect("a file");
        let after = |path: &Path, uid: u32, mode: u32| {
            chown(path, Some(uid), Some(uid)).expect("an owner");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
            let told = changed_by(&program);
            chown(path, Some(0), Some(0)).expect("an owner");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
            told
        };
        assert_eq!(after(&program, 0, 0o755), None);
        assert_eq!(after(&bin, 0, 0o775), None, "Debian's /usr/local is its staff's, too");
        assert_eq!(after(&program, 1000, 0o755).as_deref(), Some("user 1000"));
        assert_eq!(after(&bin, 1000, 0o755).as_deref(), Some("user 1000"));
        assert_eq!(after(&bin, 0, 0o777).as_deref(), Some("everybody"));
    }
}
