//! Running one more program in a container: with its output collected (ExecSync), or with streams. Does I/O.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use linux::container::{Exec, Text};
use rustix::pipe::PipeFlags;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, SemaphorePermit};
use wire::cri;

use crate::error::{Error, Result};
use crate::monitor::protocol::{self, Answer};
use crate::runtime::{Container, Runtime};
use crate::zygote::Control;

/// Output of an ExecSync beyond this is dropped: what containerd and CRI-O hold to.
const MAX_OUTPUT: usize = 16 << 20;
/// Output that all ExecSyncs together hold: what every pod's probes may say at once must not be the node's memory.
const MAX_OUTPUTS: usize = 64 << 20;
static OUTPUTS: Semaphore = Semaphore::const_new(MAX_OUTPUTS);
/// After the program's end, how long output is awaited from what it left running with its streams open.
const DRAIN: Duration = Duration::from_secs(1);

/// A program that was started, with our ends of its streams.
#[derive(Debug)]
pub struct Running {
    pub control: Control,
    pub stdin: Option<pipe::Sender>,
    pub stdout: Option<pipe::Receiver>,
    pub stderr: Option<pipe::Receiver>,
    /// The master end, instead of the three.
    pub terminal: Option<OwnedFd>,
}

impl Running {
    /// Waits for the end and answers the exit code. Dropping `self` kills the program.
    pub async fn wait(&self) -> i32 {
        loop {
            match self.control.next().await.0 {
                Answer::Exit(code) => return code,
                Answer::Failed(_) => return 255,
                _ => {}
            }
        }
    }
}

impl Runtime {
    /// Starts a program in a running container.
    pub async fn exec(&self, container: &Container, command: &[String], tty: bool, stdin: bool) -> Result<Running> {
        if command.is_empty() {
            return Err(Error::Invalid("exec: no command specified".into()));
        }
        if !container.is_running() {
            return Err(Error::State(format!("container {:?} is not running", container.id)));
        }
        let mut program = self.program_of(container)?;
        program.args = command.iter().map(|a| Text::from(a.as_str())).collect();
        program.terminal = tty;
        if tty && !program.env.iter().any(|e| e.bytes().starts_with(b"TERM=")) {
            program.env.push(Text::from("TERM=xterm"));
        }
        let record = container.record();
        let spec = Exec {
            pid: record.pid,
            started: record.pid_started,
            cgroup_join: self.cgroups.group(&record.cgroup).join_files(),
            program,
        };
        let failed = |e: String| Error::Failed(format!("failed to exec in container {:?}: {e}", container.id));
        if tty {
            let control = self.zygote.order(protocol::EXEC, &spec, &[])?;
            let terminal = match control.next().await {
                (Answer::Terminal, mut fds) => fds.pop(),
                (Answer::Failed(reason), _) => return Err(failed(reason)),
                _ => None,
            };
            let terminal = terminal.ok_or_else(|| failed("it sent no terminal".into()))?;
            control.started().await.map_err(failed)?;
            return Ok(Running { control, stdin: None, stdout: None, stderr: None, terminal: Some(terminal) });
        }
        self.exec_with_pipes(&spec, stdin).await.map_err(|e| failed(e.to_string()))
    }

    async fn exec_with_pipes(&self, spec: &Exec, stdin: bool) -> Result<Running> {
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::failed("make a pipe")(e.into()));
        let (input, ours) = if stdin {
            let (read, write) = pipe()?;
            (read, Some(write))
        } else {
            let null = std::fs::File::open("/dev/null").map_err(Error::failed("open /dev/null"))?;
            (OwnedFd::from(null), None)
        };
        let ((out, out_write), (err, err_write)) = (pipe()?, pipe()?);
        let fds = [input.as_fd(), out_write.as_fd(), err_write.as_fd()];
        let control = self.zygote.order(protocol::EXEC, spec, &fds)?;
        drop((input, out_write, err_write));
        control.started().await.map_err(Error::Failed)?;
        let receiver = |fd: OwnedFd| pipe::Receiver::from_owned_fd(fd).map_err(Error::failed("watch a pipe"));
        let sender = |fd: OwnedFd| pipe::Sender::from_owned_fd(fd).map_err(Error::failed("watch a pipe"));
        Ok(Running {
            control,
            stdin: ours.map(sender).transpose()?,
            stdout: Some(receiver(out)?),
            stderr: Some(receiver(err)?),
            terminal: None,
        })
    }

    /// Runs a program to its end and collects its output; after `timeout` seconds (if any) it is killed.
    pub async fn exec_sync(self: &Arc<Self>, request: cri::ExecSyncRequest) -> Result<cri::ExecSyncResponse> {
        let container = self.container(&request.container_id)?;
        let mut running = self.exec(&container, &request.cmd, false, false).await?;
        let (out, err) = (running.stdout.take(), running.stderr.take());
        let (out, err) = (tokio::spawn(collect(out)), tokio::spawn(collect(err)));
        let exit_code = if request.timeout > 0 {
            let limit = Duration::from_secs(request.timeout.unsigned_abs());
            match tokio::time::timeout(limit, running.wait()).await {
                Ok(code) => code,
                Err(_) => {
                    let (cmd, seconds) = (request.cmd.join(" "), request.timeout);
                    return Err(Error::Deadline(format!(
                        "failed to exec in container: timeout {seconds}s exceeded: {cmd:?}"
                    )));
                }
            }
        } else {
            running.wait().await
        };
        let output = |task: tokio::task::JoinHandle<Output>| async move {
            tokio::time::timeout(DRAIN, task).await.ok().and_then(|r| r.ok()).unwrap_or_default()
        };
        let (stdout, stderr) = tokio::join!(output(out), output(err));
        Ok(cri::ExecSyncResponse { stdout: stdout.bytes.into(), stderr: stderr.bytes.into(), exit_code })
    }
}

/// Collected output, with its share of what all may hold.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    held: Option<SemaphorePermit<'static>>,
}

impl Output {
    /// Keeps what there is room for.
    fn add(&mut self, data: &[u8]) {
        let data = &data[..data.len().min(MAX_OUTPUT - self.bytes.len())];
        let Ok(share) = OUTPUTS.try_acquire_many(data.len() as u32) else { return };
        match &mut self.held {
            Some(held) => held.merge(share),
            None => self.held = Some(share),
        }
        self.bytes.extend_from_slice(data);
    }
}

async fn collect(pipe: Option<pipe::Receiver>) -> Output {
    let mut all = Output::default();
    let Some(mut pipe) = pipe else { return all };
    let mut buffer = vec![0u8; 16 << 10];
    while let Ok(n) = pipe.read(&mut buffer).await {
        if n == 0 {
            break;
        }
        all.add(&buffer[..n]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_outputs_together_are_bounded() {
        let mebibyte = vec![b'x'; 1 << 20];
        let fill = |output: &mut Output| (0..20).for_each(|_| output.add(&mebibyte));
        let mut outputs: Vec<Output> = (0..6).map(|_| Output::default()).collect();
        outputs.iter_mut().for_each(fill);
        assert!(outputs.iter().all(|o| o.bytes.len() <= MAX_OUTPUT));
        assert_eq!(outputs.iter().map(|o| o.bytes.len()).sum::<usize>(), MAX_OUTPUTS);
        drop(outputs);
        let mut next = Output::default();
        fill(&mut next);
        assert_eq!(next.bytes.len(), MAX_OUTPUT, "given back when they are sent");
    }
}
