//! A virtual machine that boots a disk, and is driven over ssh from loopback. Its changes go into a layer of their own,
//! which goes with it. I/O: qemu, ssh.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use testkit::command::{Output, output};

use crate::image::{Disk, ok};

/// An emulated machine takes minutes to boot, on a host that does other things too.
const BOOT: Duration = Duration::from_secs(900);

pub struct Machine {
    disk: Disk,
    port: u16,
    qemu: std::cell::RefCell<Child>,
}

/// Who a command runs as.
pub const ROOT: &str = "root";
pub const USER: &str = "user";

impl Machine {
    /// Boots a fresh one, with these words more on the kernel's command line.
    pub fn boot(disk: Disk, words: &str) -> Result<Machine> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let layer = disk.file("qcow2");
        let _ = fs::remove_file(&layer);
        let mut create = Command::new("qemu-img");
        ok(create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(disk.file("img")).arg(&layer))?;
        let qemu = std::cell::RefCell::new(start(&disk, port, words)?);
        let machine = Machine { disk, port, qemu };
        machine.wait()?;
        Ok(machine)
    }

    /// The same disk once more, after [`Machine::stop`].
    pub fn boot_again(&self, words: &str) -> Result<()> {
        *self.qemu.borrow_mut() = start(&self.disk, self.port, words)?;
        self.wait()
    }

    fn wait(&self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < BOOT {
            if let Some(status) = self.qemu.borrow_mut().try_wait()? {
                bail!("qemu ended ({status}): {}", self.console());
            }
            if self.run(ROOT, "true").is_ok_and(|out| out.code == 0) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs(3));
        }
        bail!("it did not boot within {} s: {}", BOOT.as_secs(), self.console())
    }

    fn console(&self) -> String {
        let text = fs::read(self.disk.file("console")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned()
    }

    fn ssh(&self, user: &str) -> Command {
        let mut command = Command::new("ssh");
        command.args(self.options()).args(["-p", &self.port.to_string()]).arg(format!("{user}@127.0.0.1"));
        command
    }

    fn options(&self) -> Vec<String> {
        let key = self.disk.key().display().to_string();
        let options = [
            "-i",
            &key,
            "-oBatchMode=yes",
            "-oStrictHostKeyChecking=no",
            "-oUserKnownHostsFile=/dev/null",
            "-oLogLevel=ERROR",
            "-oConnectTimeout=30",
            "-oServerAliveInterval=15",
        ];
        options.map(str::to_owned).into()
    }

    /// The command line that gets one in.
    pub fn entrance(&self) -> String {
        format!("ssh {} -p {} root@127.0.0.1", self.options().join(" "), self.port)
    }

    /// Runs a command of the shell in a session of its own.
    pub fn run(&self, user: &str, command: &str) -> Result<Output> {
        output(self.ssh(user).arg(command), "")
    }

    /// The same from a terminal that goes away when the returned process is killed.
    pub fn terminal(&self, user: &str, command: &str) -> Result<Child> {
        let mut ssh = self.ssh(user);
        ssh.arg("-tt").arg(command).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        ssh.spawn().context("ssh")
    }

    pub fn put(&self, file: &std::path::Path, place: &str) -> Result<()> {
        let mut command = Command::new("scp");
        command.args(self.options()).args(["-q", "-P", &self.port.to_string()]).arg(file);
        ok(command.arg(format!("root@127.0.0.1:{place}"))).map(drop)
    }

    /// Shuts down in order, and waits.
    pub fn stop(&self) -> Result<()> {
        let _ = self.run(ROOT, "systemctl poweroff");
        let began = Instant::now();
        while began.elapsed() < BOOT {
            if self.qemu.borrow_mut().try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        bail!("it did not shut down: {}", self.console())
    }

    /// Shuts down and boots again.
    pub fn reboot(&self, words: &str) -> Result<()> {
        self.stop()?;
        self.boot_again(words)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let mut qemu = self.qemu.borrow_mut();
        let _ = qemu.kill();
        let _ = qemu.wait();
        let _ = fs::remove_file(self.disk.file("qcow2"));
    }
}

fn start(disk: &Disk, port: u16, words: &str) -> Result<Child> {
    let console = fs::File::create(disk.file("console"))?;
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get().min(2)).to_string();
    let drive = format!("file={},if=virtio,format=qcow2,cache=unsafe", disk.file("qcow2").display());
    let net = format!("user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22");
    let line = format!("console=ttyS0 root=/dev/vda rw systemd.unified_cgroup_hierarchy=1 {words}");
    let file = |end: &str| -> PathBuf { disk.file(end) };
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "max", "-m", "3G", "-smp", &cores]);
    qemu.arg("-kernel").arg(file("vmlinuz")).arg("-initrd").arg(file("initrd")).args(["-append", &line]);
    qemu.args(["-drive", &drive, "-netdev", &net, "-device", "virtio-net-pci,netdev=n"]);
    qemu.args(["-device", "virtio-rng-pci", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    qemu.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console).spawn().context("qemu-system-x86_64")
}
