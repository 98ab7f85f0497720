//! The cluster as a service of systemd: what `install` writes and `uninstall` and `reset` take away, how a cluster that
//! has a unit is started and stopped, and what the daemon and systemd tell each other while it runs.
//!
//! ```text
//! install ──► /etc/systemd/system/ferrokube.service ──► systemd ──starts──► ferrokube server
//!                                                          ▲  READY=1, STOPPING=1 │
//!                                                          └──────────────────────┘
//! ```
//!
//! The unit holds the daemon alone: monitors and pods are in groups of the cluster's own, so that a restart of the unit
//! leaves them running. What is asked for is told apart by systemd's own job ([`restarts`]). I/O: files, `systemctl`, the
//! socket of notifications. Callers: `install`, `uninstall`, `up`, `down`, `reset`, `status`, `server`, a kubelet alone.

mod unit;

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use self::unit::{Unit, is_runnable};
use crate::config::{Host, write_shared};
use crate::fault::best_effort;

/// Where an administrator's own units are.
const UNITS: &str = "/etc/systemd/system";
/// Where distributions keep what a service's environment is set with: the first one is Debian's.
const ENVIRONMENTS: [&str; 2] = ["/etc/default", "/etc/sysconfig"];
/// How long a unit may take to stop, where nothing gives pods more time.
const STOP_SECONDS: u64 = 60;
/// It is there for as long as systemd manages this host: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";

/// Whether systemd is this host's service manager.
pub fn is_here() -> bool {
    Path::new(BOOTED).is_dir()
}

/// The name of the cluster's unit.
pub fn unit_of(host: &Host) -> String {
    if host.cluster.name == "ferrokube" {
        "ferrokube.service".into()
    } else {
        format!("ferrokube-{}.service", host.cluster.name)
    }
}

fn unit_file(host: &Host) -> PathBuf {
    Path::new(UNITS).join(unit_of(host))
}

fn environment_file(host: &Host) -> PathBuf {
    let dir = ENVIRONMENTS.into_iter().find(|dir| Path::new(dir).is_dir()).unwrap_or(ENVIRONMENTS[0]);
    Path::new(dir).join(unit_of(host).trim_end_matches(".service"))
}

/// Whether `install` has made the cluster a service.
pub fn is_installed(host: &Host) -> bool {
    is_here() && unit_file(host).is_file()
}

/// Whether the unit runs, or is about to.
pub fn is_active(host: &Host) -> bool {
    let shown = || systemctl(&["show", "--property", "ActiveState,Job", &unit_of(host)]);
    is_installed(host) && shown().is_ok_and(|shown| unit::is_active(&String::from_utf8_lossy(&shown.stdout)))
}

/// Whether the unit has ended, for good or until systemd tries once more.
pub fn has_ended(host: &Host) -> bool {
    !is_active(host) || property(&unit_of(host), "SubState").as_deref() == Some("auto-restart")
}

/// Writes the unit and its environment file, and has systemd start it at boot. `pods` is how long pods may take to end.
/// Answers the two files.
pub fn install(host: &Host, program: &Path, pods: Duration) -> Result<[PathBuf; 2]> {
    let (unit, environment) = (unit_file(host), environment_file(host));
    let stop_seconds = STOP_SECONDS.max(pods.as_secs() + STOP_SECONDS / 2);
    let text = Unit { host, program, environment: &environment, stop_seconds }.to_string();
    // A person's own settings stay.
    if !environment.exists() {
        if let Some(dir) = environment.parent() {
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        write_shared(&environment, unit::ENVIRONMENT.as_bytes())?;
    }
    write_shared(&unit, text.as_bytes())?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["--quiet", "enable", &unit_of(host)])?;
    Ok([unit, environment])
}

/// Takes the unit away, stopped before. The environment file stays when a person wrote into it: its path is answered.
pub fn uninstall(host: &Host) -> Result<Option<PathBuf>> {
    let (unit, environment) = (unit_file(host), environment_file(host));
    if unit.exists() && is_here() {
        systemctl(&["--quiet", "disable", "--now", &unit_of(host)])?;
    }
    remove(&unit)?;
    let ours = fs::read(&environment).is_ok_and(|text| text == unit::ENVIRONMENT.as_bytes());
    if ours {
        remove(&environment)?;
    }
    if is_here() {
        systemctl(&["daemon-reload"])?;
        // A unit that failed is shown until somebody says that he knows.
        best_effort("forgetting that the unit failed", systemctl(&["--quiet", "reset-failed", &unit_of(host)]));
    }
    Ok((!ours && environment.exists()).then_some(environment))
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).with_context(|| format!("removing {}", file.display())),
        _ => Ok(()),
    }
}

/// Asks systemd to start the unit, and does not wait.
pub fn start(host: &Host) -> Result<()> {
    let unit = unit_of(host);
    // One that failed too often is started all the same: a person asks.
    best_effort("forgetting that the unit failed", systemctl(&["--quiet", "reset-failed", &unit]));
    systemctl(&["--no-block", "start", &unit]).map(drop)
}

/// Has systemd stop the unit, and waits until it is.
pub fn stop(host: &Host) -> Result<()> {
    systemctl(&["stop", &unit_of(host)]).map(drop)
}

/// The unit whose main process this is, if systemd started it.
pub fn own_unit() -> Option<String> {
    std::env::var_os("INVOCATION_ID")?;
    let unit = unit::of_groups(&fs::read_to_string("/proc/self/cgroup").ok()?)?;
    let main = property(&unit, "MainPID")?;
    (main == std::process::id().to_string()).then_some(unit)
}

/// Whether systemd is ending this unit only to start it again: then containers go on, as over any life of the daemon.
/// Where that can't be found out, the unit is taken to be stopped.
pub fn restarts(unit: &str) -> bool {
    let jobs = systemctl(&["list-jobs", "--no-legend", "--plain"]);
    jobs.is_ok_and(|jobs| unit::is_restarted(unit, &String::from_utf8_lossy(&jobs.stdout)))
}

/// Whether systemd is stopping the whole machine.
pub fn machine_stops() -> bool {
    // It ends with an error whenever it says anything but `running`.
    let said = || Command::new("systemctl").arg("is-system-running").output();
    is_here() && said().is_ok_and(|said| String::from_utf8_lossy(&said.stdout).trim() == "stopping")
}

/// Tells systemd of a unit of `Type=notify` how far it is: `READY=1`, `STOPPING=1`, `STATUS=…`; sd_notify(3).
pub fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = address(path.as_bytes()).and_then(|to| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &to));
    if let Err(error) = sent {
        tracing::warn!(%error, "systemd could not be told {state}");
    }
}

/// A name that begins with `@` is no file's.
fn address(path: &[u8]) -> std::io::Result<SocketAddr> {
    match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(OsStr::from_bytes(path)),
    }
}

fn property(unit: &str, name: &str) -> Option<String> {
    let shown = systemctl(&["show", "--property", name, "--value", unit]).ok()?;
    Some(String::from_utf8_lossy(&shown.stdout).trim().to_owned())
}

fn systemctl(args: &[&str]) -> Result<Output> {
    let shown = || format!("systemctl {}", args.join(" "));
    let out = Command::new("systemctl").args(args).output().with_context(shown)?;
    if !out.status.success() {
        bail!("{}: {}", shown(), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(out)
}
