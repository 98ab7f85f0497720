//! Builds a container around the calling process and becomes its program. Does I/O; runs in the forked child.
//!
//! Called by the monitor: first [`Prepared::new`] in the monitor itself (host mount namespace), then
//! [`Prepared::launch`], which forks.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::OFlags;

use super::exec::Target;
use super::files;
use super::launch::launch;
use super::program;
use super::spec::{Bind, BindSource, PidNamespace, Spec};
use crate::failure::{Doing, Failure};
use crate::mount::{self, Attributes};
use crate::namespaces::{self, Kind};
use crate::process::{self, Fresh};
use crate::root::Root;

/// What must be opened on the host before the child leaves it.
#[derive(Debug)]
pub struct Prepared {
    /// One detached mount a bind; none for images and tmpfs, which are made later.
    trees: Vec<Option<OwnedFd>>,
    shm: Option<OwnedFd>,
    pids: Option<Pids>,
}

/// A PID namespace that is joined. Its /proc must be brought: only a process that is seen in there could mount one.
#[derive(Debug)]
struct Pids {
    /// The namespace, or the pidfd of a process in it.
    namespace: OwnedFd,
    proc: OwnedFd,
}

/// Detached mounts that wait for their place in the container.
#[derive(Debug)]
pub(super) struct Trees {
    pub binds: Vec<Option<OwnedFd>>,
    pub shm: Option<OwnedFd>,
    /// None: the container's own process mounts it.
    pub proc: Option<OwnedFd>,
}

/// Where the program's standard streams come from.
#[derive(Debug)]
pub enum Stdio<'a> {
    /// Pipes or files of the caller's.
    Files {
        /// File descriptor 0.
        stdin: BorrowedFd<'a>,
        /// File descriptor 1.
        stdout: BorrowedFd<'a>,
        /// File descriptor 2.
        stderr: BorrowedFd<'a>,
    },
    /// The child opens a terminal in the container and sends its master end here.
    Terminal {
        /// A unix socket (see [`crate::fdpass`]).
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
        Ok(Prepared { trees, shm, pids: Pids::open(&spec.namespaces.pid)? })
    }

    /// Builds the container around a new process; answers its first process, a child of the caller, once its program
    /// runs.
    pub fn launch(self, spec: &Spec, stdio: &Stdio<'_>) -> Result<i32, String> {
        let fresh = Fresh { mounts: true, pids: spec.namespaces.pid == PidNamespace::New, until_exec: true };
        let (namespace, proc) = self.pids.map_or((None, None), |pids| (Some(pids.namespace), Some(pids.proc)));
        let trees = Trees { binds: self.trees, shm: self.shm, proc };
        launch(fresh, &spec.program, namespace.as_ref().map(AsFd::as_fd), || build(spec, trees, stdio))
    }
}

impl Pids {
    fn open(wanted: &PidNamespace) -> Result<Option<Self>, Failure> {
        match wanted {
            PidNamespace::New | PidNamespace::Host => Ok(None),
            PidNamespace::At(path) => {
                let namespace = namespaces::open(path)?;
                let proc = path.with_file_name(namespaces::PROC);
                let tree = mount::clone_tree(&proc, false).doing("open the pod's /proc")?;
                if !namespaces::is_proc(&proc) {
                    return Err(Failure::new("open the pod's /proc", "it is not mounted"));
                }
                Ok(Some(Pids { namespace, proc: tree }))
            }
            PidNamespace::Of { pid, started } => {
                let target = Target::open(*pid, *started)?;
                let proc = proc_of(&target, *pid)?;
                Ok(Some(Pids { namespace: target.into(), proc }))
            }
        }
    }
}

/// A copy of the mount at /proc of a container. The container may have put anything there, even the host's: it is
/// checked to show the processes of its own namespace.
fn proc_of(target: &Target, pid: i32) -> Result<OwnedFd, Failure> {
    const DOING: &str = "open the target's /proc";
    let tree = namespaces::among_mounts_of(target, || {
        let proc = Root::open("/").and_then(|root| root.get_plain("/proc", OFlags::PATH | OFlags::DIRECTORY));
        mount::clone_tree_at(proc.doing(DOING)?, false).doing(DOING)
    })?;
    let fs = rustix::fs::fstatfs(&tree).doing(DOING)?;
    let own = std::fs::read_link(format!("/proc/{pid}/ns/pid")).doing(DOING)?;
    let shown = rustix::fs::readlinkat(&tree, "1/ns/pid", Vec::new()).doing(DOING)?;
    if fs.f_type as u64 != namespaces::PROC_MAGIC || own.as_os_str().as_bytes() != shown.as_bytes() {
        return Err(Failure::new(DOING, "it does not show the target's own processes"));
    }
    Ok(tree)
}

fn build(spec: &Spec, trees: Trees, stdio: &Stdio<'_>) -> Result<(), Failure> {
    process::hide().doing("hide from the container")?;
    join_cgroups(&spec.cgroup.join)?;
    program::set_oom_score(spec.program.oom_score_adj)?;
    join_namespaces(spec)?;
    mount::make_private().doing("make mounts private")?;
    files::build_root(spec, trees)?;
    match stdio {
        Stdio::Files { stdin, stdout, stderr } => {
            process::set_stdio(stdin, stdout, stderr).doing("set the standard streams")
        }
        Stdio::Terminal { send_to } => open_terminal(send_to.as_fd(), true),
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
    process::set_stdio(&pair.slave, &pair.slave, &pair.slave).doing("set the standard streams")
}

/// A read-only mount's attributes for a bind.
pub(super) fn attributes_of(bind: &Bind) -> Attributes {
    Attributes { readonly: bind.readonly, nosuid: bind.nosuid, nodev: bind.nodev, noexec: bind.noexec, noatime: false }
}
