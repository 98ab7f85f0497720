//! The process that becomes a node: started by the host's daemon, of one thread, it goes into the node's network and
//! groups, forks what will be process 1 in mounts and PIDs of its own, writes down who that is, and ends. Process 1 makes
//! its surroundings the node's and goes on as the node's init, the supervisor. I/O: processes, namespaces.
//!
//! ```text
//!   daemon ── spawn ──> this ── fork ──> process 1: settle, exec
//!      │                 │ writes <run-dir>/nodes/NAME        └ supervisor ── fork, exec ──> the node's daemon
//!      │                 └ ends                                                               │
//!      └<──────────────────────── steps, by the same pipe ────────────────────────────────────┘
//! ```

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result, anyhow};
use linux::cgroup::Cgroups;
use linux::machine::{Luggage, Machine, leave};
use linux::netns::NetNs;
use linux::process::{self, Fresh};
use rustix::pipe::PipeFlags;
use serde::{Deserialize, Serialize};

use super::{home, images, life};
use crate::config::{Host, STATE_ROOT};
use crate::fault::{Fault, best_effort};
use crate::process::Daemon;
use crate::progress::{Audience, Progress, Steps};
use crate::supervisor;

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "node-machine";
/// Where the program is, inside of a node.
const PROGRAM: &str = "/run/ferrokube-node/ferrokube";
/// Where resolvers of hosts keep the servers that they ask.
const RESOLVED: &str = "/run/systemd/resolve";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What an exec that failed leaves.
const NO_PROGRAM: i32 = 127;

/// What the process is told, as JSON in its first argument.
#[derive(Debug, Serialize, Deserialize)]
struct Boot {
    cluster: String,
    node: String,
    home: PathBuf,
    /// Where its init is written down.
    file: PathBuf,
    group: String,
    hidden: Vec<PathBuf>,
    /// Layers of images that all nodes share.
    layers: PathBuf,
    machine_id: String,
    boot_id: String,
}

/// Starts the process of a node that has this network. What becomes of it comes on its standard output.
pub fn spawn(host: &Host, inside: &Host, network: NetNs) -> Result<Child> {
    let name = &inside.node_name;
    let boot = Boot {
        cluster: host.cluster.name.clone(),
        node: name.clone(),
        home: inside.data_dir.clone(),
        file: life::file(host, name),
        group: life::group(host, name),
        hidden: hidden(&host.data_dir),
        layers: images::directory(host),
        machine_id: home::machine_id(host, name)?,
        boot_id: uuid(&home::number()?),
    };
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("ferrokube")
        .args([SUBCOMMAND, &serde_json::to_string(&boot)?])
        .env_clear()
        .envs(crate::caller::environment())
        .current_dir("/")
        .stdin(OwnedFd::from(network))
        .stdout(Stdio::piped())
        .stderr(home::log(host, name)?);
    command.spawn().context("starting a process for it")
}

/// What of the clusters of this host a node has no business with.
fn hidden(data_dir: &Path) -> Vec<PathBuf> {
    let root = PathBuf::from(STATE_ROOT);
    if data_dir.starts_with(&root) { vec![root] } else { vec![root, data_dir.to_owned()] }
}

/// 32 digits as the kernel writes a boot's number.
fn uuid(hex: &str) -> String {
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}\n", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// Called first thing in the program's `main`, before any thread is started.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    process::set_name("fk-node");
    match boot(args.collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let sentence = format!("{error:#}");
            crate::logging::print_line(format_args!("{sentence}"));
            Steps { audience: Audience::Parent }.report(&Progress::Failed { sentence, code: 1 });
            ExitCode::FAILURE
        }
    }
}

fn boot(args: Vec<OsString>) -> Result<()> {
    let text = args.first().and_then(|text| text.to_str()).ok_or_else(|| anyhow!("wants what to start"))?;
    let boot: Boot = serde_json::from_str(text).context("what to start")?;
    process::new_session().context("a session of its own")?;
    let machine = machine(&boot);
    let luggage = machine.pack()?;
    Cgroups::detect()?.group(&boot.group).enter()?;
    leave(rustix::stdio::stdin())?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    process::set_stdio(&null, rustix::stdio::stdout(), rustix::stdio::stderr())?;
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("a pipe");
    let ((go, say_go), (failure, say_failure)) = (pipe()?, pipe()?);
    // What is written to at the end must not be open in the child, or it would wait for itself.
    let mut say_go = Some(say_go);
    let fresh = Fresh { mounts: true, pids: true, until_exec: false };
    let child = process::fork(fresh, || {
        drop(say_go.take());
        first(&machine, luggage, &boot, go, say_failure)
    });
    let child = child.context("forking")?;
    let init = Daemon::of_pid(child.pid).context("it ended at once")?;
    init.write_to(&boot.file, false)?;
    if let Some(say_go) = say_go {
        best_effort("going on", File::from(say_go).write_all(b"g"));
    }
    // From now on who starts nodes sees that this one is there.
    Steps { audience: Audience::Parent }.report(&Progress::Step { what: boot.node.clone(), millis: 0 });
    let mut said = String::new();
    best_effort("a failure", File::from(failure).read_to_string(&mut said));
    if said.is_empty() {
        return Ok(());
    }
    init.signal(rustix::process::Signal::KILL);
    Err(Fault::failed(said).into())
}

fn machine(boot: &Boot) -> Machine {
    let files = [
        ("/etc/machine-id", boot.machine_id.clone()),
        ("/proc/sys/kernel/random/boot_id", boot.boot_id.clone()),
        ("/sys/class/dmi/id/product_uuid", uuid(boot.machine_id.trim())),
    ];
    Machine {
        hostname: boot.node.clone(),
        home: boot.home.clone(),
        hidden: boot.hidden.clone(),
        kept: resolvers(),
        shared: vec![(boot.layers.clone(), images::place())],
        program: PROGRAM.into(),
        files: files.map(|(path, text)| (PathBuf::from(path), text)).into(),
    }
}

/// Directories below /run that the host's resolver configuration leads to.
fn resolvers() -> Vec<PathBuf> {
    let led = std::fs::canonicalize(RESOLV_CONF).ok().and_then(|path| path.parent().map(Path::to_owned));
    let mut dirs = vec![PathBuf::from(RESOLVED)];
    dirs.extend(led.filter(|dir| dir.starts_with("/run") && dir != Path::new("/run") && *dir != dirs[0]));
    dirs
}

/// Process 1. Returns only when it can't go on.
fn first(machine: &Machine, luggage: Luggage, boot: &Boot, go: OwnedFd, failure: OwnedFd) -> i32 {
    // Whoever was to write down who this is has ended.
    if File::from(go).read_exact(&mut [0]).is_err() {
        return NO_PROGRAM;
    }
    let failed = match machine.settle(luggage) {
        Ok(()) => become_init(boot),
        Err(error) => error.to_string(),
    };
    best_effort("telling a failure", File::from(failure).write_all(failed.as_bytes()));
    NO_PROGRAM
}

/// The program is run anew, from where it is read-only: what this process has of the host's is gone.
fn become_init(boot: &Boot) -> String {
    if let Err(error) = std::env::set_current_dir("/") {
        return format!("entering /: {error}");
    }
    let words = ["ferrokube", supervisor::SUBCOMMAND, &boot.cluster].map(OsStr::new);
    let words = words.into_iter().chain([boot.home.as_os_str()]);
    let args: Vec<Vec<u8>> = words.map(|word| word.as_bytes().to_vec()).collect();
    let variable = |(name, value): (OsString, OsString)| [name.into_vec(), value.into_vec()].join(&b'=');
    let env: Vec<Vec<u8>> = std::env::vars_os().map(variable).collect();
    format!("running {PROGRAM}: {}", process::exec(Path::new(PROGRAM), &args, &env))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_other_clusters_and_nodes_is_seen_inside() {
        assert_eq!(hidden("/var/lib/ferrokube/a".as_ref()), [PathBuf::from(STATE_ROOT)]);
        assert_eq!(hidden("/srv/a".as_ref()), [STATE_ROOT, "/srv/a"].map(PathBuf::from));
    }

    #[test]
    fn a_boot_has_a_number_as_the_kernel_writes_it() {
        assert_eq!(uuid("00112233445566778899aabbccddeeff"), "00112233-4455-6677-8899-aabbccddeeff\n");
    }
}
