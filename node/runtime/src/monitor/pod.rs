//! Process 1 of a pod whose containers share PIDs: it inherits orphans and takes them away. Does I/O.
//!
//! Containers see it in their /proc, so nothing of the host may hang on it: it has the pod's namespaces, an empty root,
//! no capabilities and no descriptors.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use linux::container::exec::start_time;
use linux::failure::{Doing, Failure};
use linux::namespaces::{self, Kind};
use linux::process::{self, Fresh};
use linux::{caps, fdpass, mount};
use rustix::pipe::PipeFlags;

use super::protocol::PodSpec;
use super::{Fds, answer, read_failure, read_spec};

/// Starts process 1 of a pod, pins its PID namespace and ends.
pub fn main(fds: Fds) -> i32 {
    let Fds { control, spec, .. } = fds;
    match start(spec) {
        Ok((pid, started)) => answer(control, &format!("ok {pid} {started}")),
        Err(reason) => answer(control, &format!("err {reason}")),
    }
    0
}

fn start(spec: OwnedFd) -> Result<(i32, u64), String> {
    let spec: PodSpec = read_spec(spec)?;
    let (failure_read, failure_write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| e.to_string())?;
    let (proc_receive, proc_send) = fdpass::packet_pair().map_err(|e| format!("make a socket: {e}"))?;
    let fresh = Fresh { mounts: true, pids: true, until_exec: false };
    let child = process::fork(fresh, || {
        if let Err(failure) = settle(&spec, proc_send.as_fd()) {
            let _ = File::from(failure_write).write_all(failure.to_string().as_bytes());
            return 127;
        }
        process::close_from(3);
        live()
    })
    .map_err(|e| format!("fork: {e}"))?;
    if let Some(reason) = read_failure(failure_read) {
        return Err(reason);
    }
    namespaces::pin_of(child.pid, Kind::Pid, &spec.dir.join(Kind::Pid.name())).map_err(|e| e.to_string())?;
    let (_, mut proc) =
        fdpass::receive(&proc_receive, &mut [0u8; 8]).map_err(|e| format!("take the pod's /proc: {e}"))?;
    let proc = proc.pop().ok_or("the pod's first process sent no /proc")?;
    namespaces::pin_tree(proc, &spec.dir.join(namespaces::PROC)).map_err(|e| e.to_string())?;
    let started = start_time(child.pid).ok_or("the pod's first process has ended")?;
    let text = format!("{} {started}\n", child.pid);
    std::fs::write(spec.dir.join("init.pid"), text).map_err(|e| format!("write the PID file: {e}"))?;
    Ok((child.pid, started))
}

fn settle(spec: &PodSpec, proc_to: BorrowedFd<'_>) -> Result<(), Failure> {
    process::set_name("pod");
    process::hide().doing("hide")?;
    process::new_session().doing("start a session")?;
    for kind in [Kind::Ipc, Kind::Uts, Kind::Net] {
        if spec.join.iter().any(|name| name == kind.name()) {
            namespaces::enter(namespaces::open(&spec.dir.join(kind.name()))?, kind)?;
        }
    }
    // Containers that join these PIDs get their /proc from here: mounted by one of them it would show them to the others.
    let proc = mount::new_fs("proc", &[], mount::Attributes::default()).doing("mount the pod's /proc")?;
    fdpass::send(proc_to, b"p", &[proc.as_fd()]).doing("hand over the pod's /proc")?;
    mount::make_private().doing("make mounts private")?;
    // An empty, read-only root: any directory of the pod's own serves as mount point, in this namespace only.
    let readonly = mount::Attributes { readonly: true, nosuid: true, nodev: true, noexec: true, noatime: false };
    mount::mount("tmpfs", &spec.dir, "size=4k,mode=555", readonly).doing("mount an empty root")?;
    std::env::set_current_dir(&spec.dir).doing("enter the empty root")?;
    mount::pivot_here().doing("make it the root")?;
    process::reset_signals();
    caps::limit(0)?;
    caps::apply(caps::Sets::default())
}

/// Takes orphans away for ever. Only the host can kill it.
fn live() -> i32 {
    let Ok(children) = process::child_signal() else { return 1 };
    loop {
        process::reap(0);
        let mut fds = [rustix::event::PollFd::new(&children, rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut fds, None);
        let mut signals = [0u8; 512];
        let _ = rustix::io::read(&children, &mut signals[..]);
    }
}
