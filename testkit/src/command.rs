//! Commands and what they said.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A finished command.
#[derive(Debug, Clone)]
pub struct Output {
    pub shown: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output of a command that must succeed.
    pub fn ok(self) -> Result<String> {
        if self.code != 0 {
            bail!("{} ended with {}: {}{}", self.shown, self.code, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }

    /// Standard error of a command that must fail.
    pub fn fails(self) -> Result<String> {
        if self.code == 0 {
            bail!("{} should have failed, but said: {}", self.shown, self.stdout);
        }
        Ok(self.stderr)
    }
}

/// Runs a command to its end, with `input` on its standard input.
pub fn output(command: &mut Command, input: &str) -> Result<Output> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| shown.clone())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that doesn't read its input may close it early.
        let _ = stdin.write_all(input.as_bytes());
    }
    let out = child.wait_with_output().with_context(|| shown.clone())?;
    Ok(Output {
        shown,
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    })
}
