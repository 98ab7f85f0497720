//! The helper of one exec: puts a program into a container and tells how it ended. Does I/O.
//!
//! It lives as long as the program. When the daemon closes the control socket (a timeout, the viewer has gone), the
//! program is killed with its process group.

use std::os::fd::{AsFd, OwnedFd};

use linux::container::exec::{Exec, Target};
use linux::container::init::Stdio;
use linux::process;
use rustix::event::{PollFd, PollFlags};

use super::{Fds, answer, read_spec};

/// Runs one exec from start to end.
pub fn main(fds: Fds) -> i32 {
    process::set_name("fk-exec");
    let Fds { control, spec, rest } = fds;
    match run(&control, spec, rest) {
        Ok(code) => answer(&control, &format!("exit {code}")),
        Err(reason) => answer(&control, &format!("err {reason}")),
    }
    0
}

fn run(control: &OwnedFd, spec: OwnedFd, streams: Vec<OwnedFd>) -> Result<i32, String> {
    let exec: Exec = read_spec(spec)?;
    let target = Target::open(exec.pid, exec.started).map_err(|e| e.to_string())?;
    let children = process::child_signal().map_err(|e| e.to_string())?;
    let stdio = match streams.as_slice() {
        [stdin, stdout, stderr] => {
            Stdio::Files { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() }
        }
        _ => Stdio::Terminal { send_to: control.as_fd() },
    };
    let pid = target.run(&exec, &stdio)?;
    // The reader must see the end of the streams when the program ends, not when this helper does.
    drop(streams);
    answer(control, &format!("ok {pid} 0"));
    Ok(wait(control, &children, pid))
}

fn wait(control: &OwnedFd, children: &OwnedFd, pid: i32) -> i32 {
    let mut listening = true;
    loop {
        if let Ok(Some(end)) = process::wait_child(pid, false) {
            return end.code();
        }
        let mut fds = vec![PollFd::new(children, PollFlags::IN)];
        if listening {
            fds.push(PollFd::new(control, PollFlags::IN));
        }
        let _ = rustix::event::poll(&mut fds, None);
        let hung_up = listening && !fds[1].revents().is_empty();
        let mut drop_signals = [0u8; 512];
        if !fds[0].revents().is_empty() {
            let _ = rustix::io::read(children, &mut drop_signals[..]);
        }
        if hung_up {
            listening = false;
            process::kill_group(pid, rustix::process::Signal::KILL.as_raw());
            let _ = process::kill(pid, rustix::process::Signal::KILL.as_raw());
        }
    }
}
