//! A host of its own on this one: a network namespace with an uplink that leads nowhere, and a mount namespace. What a
//! cluster leaves behind there is its own doing, whatever else runs on the real host.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::command::output;

const SETUP: &str = "set -e; ip link set lo up; ip link add uplink type veth peer name far; \
    ip link set far addrgenmode none up; ip link set uplink addrgenmode none; ip address add 192.0.2.2/24 dev uplink; \
    ip link set uplink up; ip route add default via 192.0.2.1; echo ready; exec sleep 86400";

/// See the module's head. Dropping it ends the process that holds the namespaces.
#[derive(Debug)]
pub struct Host {
    holder: Child,
}

impl Host {
    pub fn new() -> Result<Host> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--propagation", "private", "sh", "-c", SETUP]).stdout(Stdio::piped());
        let mut holder = command.spawn().context("unshare")?;
        let mut said = String::new();
        let out = holder.stdout.take().context("no output")?;
        BufReader::new(out).read_line(&mut said)?;
        let host = Host { holder };
        ensure!(said == "ready\n", "the namespaces were not set up: {said:?}");
        Ok(host)
    }

    /// A program inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--mount", "--"]).arg(program);
        command
    }

    /// Standard output of a shell script inside, which must succeed.
    pub fn sh(&self, script: &str) -> Result<String> {
        output(self.command("sh").args(["-c", script]), "")?.ok()
    }

    /// The process that holds the namespaces: by it a link is moved into them.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Processes that are in one of the namespaces, besides the one that holds them.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let namespaces = |pid: u32| ["net", "mnt"].map(|n| std::fs::read_link(format!("/proc/{pid}/ns/{n}")).ok());
        let ours = namespaces(self.holder.id());
        let inside = |pid: &u32| {
            let theirs = namespaces(*pid);
            *pid != self.holder.id() && (0..2).any(|i| theirs[i].is_some() && theirs[i] == ours[i])
        };
        let names = std::fs::read_dir(Path::new("/proc"))?.flatten();
        Ok(names.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(inside).collect())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
