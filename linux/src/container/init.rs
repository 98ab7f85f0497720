//! Builds a container around the calling process and becomes its program. Does I/O; runs in the forked child.
//!
//! Called by the monitor: first [`Prepared::new`] in the monitor itself (host mount namespace), then
//! [`Prepared::become_container`] in the child.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::files;
use super::program;
use super::spec::{Bind, BindSource, PidNamespace, Spec};
use crate::failure::{Doing, Failure};
use crate::mount::{self, Attributes};
use crate::namespaces::{self, Kind};
use crate::process::{self, Fresh};

/// What must be opened on the host before the child leaves it.
#[derive(Debug)]
pub struct Prepared {
    /// One detached mount a bind; none for images and tmpfs, which are made later.
    trees: Vec<Option<OwnedFd>>,
    shm: Option<OwnedFd>,
    pid_namespace: Option<OwnedFd>,
}

/// Where the program's standard streams come from.
#[derive(Debug)]
pub enum Stdio<'a> {
    Files {
        stdin: BorrowedFd<'a>,
        stdout: BorrowedFd<'a>,
        stderr: BorrowedFd<'a>,
    },
    /// The child opens a terminal in the container and sends its master end here.
    Terminal {
        send_to: BorrowedFd<'a>,
    },
}

impl Prepared {
    /// Opens all that lies on the host. Directories that are missing are made, as runtimes do for host paths.
    pub fn new(spec: &Spec) -> Result<Self, Failure> {
        let tree = |bind: &Bind| match &bind.source {
            BindSource::Host(path) => {
                if !path.exists() {
                    std::fs::create_dir_all(path).doing(format_args!("make the host path {}", path.display()))?;
                }
                let doing = format!("open the host path {}", path.display());
                mount::clone_tree(path, true).doing(doing).map(Some)
            }
            _ => Ok(None),
        };
        let trees = spec.binds.iter().map(tree).collect::<Result<Vec<_>, _>>()?;
        let shm = match &spec.shm {
            Some(path) => Some(mount::clone_tree(path, false).doing("open the pod's shared memory")?),
            None => None,
        };
        let pid_namespace = match &spec.namespaces.pid {
            PidNamespace::At(path) => Some(namespaces::open(path)?),
            _ => None,
        };
        Ok(Prepared { trees, shm, pid_namespace })
    }

    /// What the fork must make new; the caller's future children are put into a shared PID namespace here.
    pub fn before_fork(&self, spec: &Spec) -> Result<Fresh, Failure> {
        if let Some(namespace) = &self.pid_namespace {
            namespaces::enter(namespace, Kind::Pid)?;
        }
        Ok(Fresh { mounts: true, pids: spec.namespaces.pid == PidNamespace::New })
    }

    /// Turns the calling process, a fresh fork with its own mount namespace, into the container's program.
    /// Returns only on failure.
    pub fn become_container(self, spec: &Spec, stdio: &Stdio<'_>) -> Failure {
        match self.build(spec, stdio) {
            Ok(()) => program::run(&spec.program),
            Err(failure) => failure,
        }
    }

    fn build(self, spec: &Spec, stdio: &Stdio<'_>) -> Result<(), Failure> {
        process::hide().doing("hide from the container")?;
        process::new_session().doing("start a session")?;
        join_cgroups(&spec.cgroup.join)?;
        program::set_oom_score(spec.program.oom_score_adj)?;
        join_namespaces(spec)?;
        mount::make_private().doing("make mounts private")?;
        files::build_root(spec, self)?;
        match stdio {
            Stdio::Files { stdin, stdout, stderr } => {
                process::set_stdio(stdin, stdout, stderr).doing("set the standard streams")
            }
            Stdio::Terminal { send_to } => open_terminal(send_to.as_fd(), true),
        }
    }

    pub(super) fn into_trees(self) -> (Vec<Option<OwnedFd>>, Option<OwnedFd>) {
        (self.trees, self.shm)
    }
}

/// "0" means the writer, whatever its number in which namespace.
pub(super) fn join_cgroups(files: &[std::path::PathBuf]) -> Result<(), Failure> {
    for path in files {
        let doing = || format!("join cgroup {}", path.display());
        File::options().write(true).open(path).and_then(|mut f| f.write_all(b"0")).doing(doing())?;
    }
    Ok(())
}

fn join_namespaces(spec: &Spec) -> Result<(), Failure> {
    let wanted =
        [(&spec.namespaces.ipc, Kind::Ipc), (&spec.namespaces.uts, Kind::Uts), (&spec.namespaces.net, Kind::Net)];
    for (path, kind) in wanted {
        if let Some(path) = path {
            namespaces::enter(namespaces::open(path)?, kind)?;
        }
    }
    namespaces::unshare_cgroup()
}

/// Opens a terminal in the container, gives its master away and makes the other end the standard streams; `console`
/// puts it at /dev/console too, as for a container's first process.
pub(super) fn open_terminal(send_to: BorrowedFd<'_>, console: bool) -> Result<(), Failure> {
    let pair = crate::pty::open_in_container()?;
    crate::fdpass::send(send_to, b"t", &[pair.master.as_fd()]).doing("hand over the terminal")?;
    if console {
        files::bind_console(&pair.slave)?;
    }
    process::set_stdio(&pair.slave, &pair.slave, &pair.slave).doing("set the standard streams")?;
    process::take_terminal().doing("take the terminal")
}

/// A read-only mount's attributes for a bind.
pub(super) fn attributes_of(bind: &Bind) -> Attributes {
    Attributes { readonly: bind.readonly, nosuid: bind.nosuid, nodev: bind.nodev, noexec: bind.noexec, noatime: false }
}
