//! Commands that run beside the test: a watch, a port-forward, a shell on a terminal. What they print is read while
//! they run; they are killed when the value is dropped. I/O: processes and terminals.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::eventually;

/// See the module's head.
pub struct Running {
    shown: String,
    child: Child,
    /// Standard output and error, in the order in which they came.
    said: Arc<Mutex<Vec<u8>>>,
    input: Option<Box<dyn Write>>,
    /// Our end of the command's terminal, when it has one.
    terminal: Option<File>,
}

impl Running {
    /// Starts a command with pipes.
    pub fn start(command: &mut Command) -> Result<Running> {
        let shown = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| shown.clone())?;
        let said = Arc::default();
        collect(child.stdout.take().context("stdout")?, &said);
        collect(child.stderr.take().context("stderr")?, &said);
        let input = child.stdin.take().map(|stdin| Box::new(stdin) as Box<dyn Write>);
        Ok(Running { shown, child, said, input, terminal: None })
    }

    /// Starts a command on a terminal of this size.
    pub fn on_terminal(command: &mut Command, rows: u16, columns: u16) -> Result<Running> {
        let shown = format!("{command:?}");
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?.into_string()?;
        let slave = File::options().read(true).write(true).open(path)?;
        let terminal = File::from(master);
        resize(&terminal, rows, columns)?;
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        let child = command.spawn().with_context(|| shown.clone())?;
        // The command keeps its ends of the terminal open for as long as it lives.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let said = Arc::default();
        collect(terminal.try_clone()?, &said);
        let input = Some(Box::new(terminal.try_clone()?) as Box<dyn Write>);
        Ok(Running { shown, child, said, input, terminal: Some(terminal) })
    }

    /// Changes the size of the terminal and tells the command, as a terminal emulator would.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        resize(self.terminal.as_ref().context("no terminal")?, rows, columns)?;
        self.signal(Signal::WINCH)
    }

    /// The process: what `nsenter` became, where it was started inside.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Types text.
    pub fn send(&mut self, text: &str) -> Result<()> {
        let input = self.input.as_mut().context("its input is closed")?;
        input.write_all(text.as_bytes())?;
        Ok(input.flush()?)
    }

    /// What it has printed up to now.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until it has printed `text`; gives everything it has printed.
    pub fn expect(&self, patience: Duration, text: &str) -> Result<String> {
        self.expect_that(patience, text, |said| said.contains(text))
    }

    /// Waits until what it has printed satisfies `holds`.
    pub fn expect_that(&self, patience: Duration, what: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
        eventually(patience, || {
            let said = self.said();
            ensure!(holds(&said), "{} has not said {what:?} but {said:?}", self.shown);
            Ok(said)
        })
    }

    /// Presses Enter until a shell on the terminal shows its prompt: the first one may come before anybody listens.
    pub fn prompt(&mut self, patience: Duration) -> Result<()> {
        eventually(patience, || {
            self.send("\r")?;
            self.expect(Duration::from_secs(1), "# ").map(|_| ())
        })
    }

    /// Waits for its end: exit code and everything it has printed.
    pub fn end(&mut self, patience: Duration) -> Result<(i32, String)> {
        let code = eventually(patience, || {
            let ended = self.child.try_wait()?;
            let status = ended.with_context(|| format!("{} goes on: {:?}", self.shown, self.said()))?;
            Ok(status.code().unwrap_or(-1))
        })?;
        // A reader ends, and lets go of what it filled, when the last writer is gone: then nothing more comes.
        eventually(Duration::from_secs(5), || {
            ensure!(Arc::strong_count(&self.said) == 1, "the output of {} is still open", self.shown);
            Ok(())
        })?;
        Ok((code, self.said()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &File, rows: u16, columns: u16) -> Result<()> {
    Ok(tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
}

/// Reads to the end in a thread, which holds a reference to `said` until then.
fn collect(mut from: impl Read + Send + 'static, said: &Arc<Mutex<Vec<u8>>>) {
    let said = said.clone();
    std::thread::spawn(move || {
        let mut block = [0; 4096];
        // A terminal whose last user is gone answers EIO.
        while let Ok(size @ 1..) = from.read(&mut block) {
            said.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&block[..size]);
        }
    });
}
