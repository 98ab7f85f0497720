//! The cluster under test: its data on a small disk of its own, its programs with a clock that can be set. I/O.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use testkit::image::BUSYBOX;
use testkit::{Clock, output};

/// Large enough for the cluster and small enough to be filled in an instant.
const DISK: &str = "400m";
/// History is forgotten within a life of the daemon, which is some seconds here: five minutes of the writers' history would
/// fill the disk, and compaction is to be killed too.
const COMPACTION: &str = "etcd-compaction-interval=1s";

pub struct Cluster {
    pub testkit: testkit::Cluster,
    pub clock: Clock,
}

/// Standard output of a shell script that must succeed.
pub fn sh(script: &str) -> Result<String> {
    output(Command::new("sh").args(["-c", script]), "")?.ok()
}

impl Cluster {
    pub fn start(name: &str) -> Result<Cluster> {
        let testkit = testkit::Cluster::new(name)?;
        let data = testkit.data_dir();
        fs::create_dir_all(&data)?;
        sh(&format!("mount -t tmpfs -o size={DISK} tmpfs {}", data.display()))?;
        let cluster = Cluster { clock: Clock::new(&testkit.dir)?, testkit };
        cluster.up()?;
        cluster.testkit.import_busybox(BUSYBOX)?;
        Ok(cluster)
    }

    /// Removes the cluster, its disk and whatever the campaign wrote.
    pub fn end(&self) -> Result<()> {
        self.testkit.run(&["reset", "--yes"])?.ok()?;
        sh(&format!("umount {}", self.testkit.data_dir().display()))?;
        fs::remove_dir_all(&self.testkit.dir).context("removing the campaign's directory")
    }

    pub fn up(&self) -> Result<()> {
        let said =
            output(self.clock.worn_by(&mut self.testkit.command(&["up", "--kube-apiserver-arg", COMPACTION])), "")?;
        said.ok().map(drop).with_context(|| self.testkit.log_tail())
    }

    pub fn daemon(&self) -> Result<i32> {
        self.testkit.pids("daemon")?.first().copied().context("no daemon runs")
    }

    /// kill -9: the daemon, which its supervisor starts again, or both, which nobody does.
    pub fn kill(&self, daemon: i32, supervisor: bool) -> Result<()> {
        if supervisor {
            for pid in self.testkit.pids("supervisor")? {
                self.signal(pid, "KILL")?;
            }
        }
        self.signal(daemon, "KILL")
    }

    /// Ends or stops a process of the cluster.
    pub fn signal(&self, pid: i32, signal: &str) -> Result<()> {
        sh(&format!("kill -{signal} {pid}")).map(drop)
    }

    /// The newest segment of etcd's log.
    pub fn log(&self) -> Result<PathBuf> {
        let files = fs::read_dir(self.testkit.data_dir().join("etcd"))?.flatten().map(|entry| entry.path());
        let logs = files.filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // The one after it is made ahead and still empty.
            name.starts_with("wal-") && name.ends_with(".log") && holds_frames(path)
        });
        logs.max().context("no log")
    }

    pub fn fill_disk(&self) -> Result<()> {
        let file = self.testkit.data_dir().join("fill");
        sh(&format!("dd if=/dev/zero of={} bs=64k 2>/dev/null || true", file.display())).map(drop)
    }

    pub fn free_disk(&self) -> Result<()> {
        sh(&format!("rm -f {}/fill", self.testkit.data_dir().display())).map(drop)
    }
}

/// Whether there is anything behind the segment's head.
fn holds_frames(path: &std::path::Path) -> bool {
    /// As etcd writes it; what follows is zeros until a frame is written.
    const HEAD: usize = 64;
    fs::read(path).is_ok_and(|bytes| bytes.iter().skip(HEAD).any(|byte| *byte != 0))
}
