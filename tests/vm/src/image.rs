//! A stock Debian as a disk: debootstrap, a kernel, and what users have beside it, switched off. Made once and kept. I/O: the disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use testkit::command::output;

/// What a server's installation has.
const BASE: &[&str] = &[
    "apparmor",
    "bind9-host",
    "busybox-static",
    "ca-certificates",
    "curl",
    "dbus",
    "dbus-user-session",
    "initramfs-tools",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libpam-systemd",
    "netbase",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
    "systemd",
    "systemd-resolved",
    "systemd-sysv",
    "udev",
];
/// What some have, and a case turns on.
const OFF: &[&str] = &["docker.io", "firewalld", "iptables", "ufw"];
const OFF_UNITS: &[&str] = &["docker", "docker.socket", "containerd", "firewalld", "ufw", "nftables"];
const SIZE: &str = "8G";

/// A disk with its kernel, and the key that opens it.
#[derive(Debug, Clone)]
pub struct Disk {
    pub dir: PathBuf,
    pub suite: String,
}

impl Disk {
    pub fn file(&self, end: &str) -> PathBuf {
        self.dir.join(format!("{}.{end}", self.suite))
    }

    pub fn key(&self) -> PathBuf {
        self.dir.join("key")
    }
}

/// Runs a command that must succeed.
pub fn ok(command: &mut Command) -> Result<String> {
    output(command, "")?.ok()
}

/// Makes the disk, or finds it.
pub fn make(dir: &Path, suite: &str) -> Result<Disk> {
    let disk = Disk { dir: dir.to_owned(), suite: suite.to_owned() };
    fs::create_dir_all(dir)?;
    if !disk.key().exists() {
        ok(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(disk.key()))?;
    }
    if disk.file("img").exists() {
        return Ok(disk);
    }
    println!("making a disk with Debian {suite}: some minutes");
    let root = disk.file("root");
    let _ = fs::remove_dir_all(&root);
    let include = format!("--include={}", BASE.join(","));
    ok(Command::new("debootstrap").args(["--variant=minbase", &include, suite]).arg(&root))?;
    let proc = root.join("proc");
    ok(Command::new("mount").args(["-t", "proc", "proc"]).arg(&proc))?;
    let filled = fill(&root, &disk);
    ok(Command::new("umount").arg(&proc))?;
    filled?;
    let draft = disk.file("img.new");
    let _ = fs::remove_file(&draft);
    ok(Command::new("truncate").args(["-s", SIZE]).arg(&draft))?;
    ok(Command::new("mkfs.ext4").args(["-q", "-F", "-d"]).arg(&root).arg(&draft))?;
    fs::rename(draft, disk.file("img"))?;
    fs::remove_dir_all(root)?;
    Ok(disk)
}

fn fill(root: &Path, disk: &Disk) -> Result<()> {
    let inside = |args: &[&str]| {
        let mut command = Command::new("chroot");
        ok(command.arg(root).args(args).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C"))
    };
    // Services of packages must not start on this host.
    let policy = root.join("usr/sbin/policy-rc.d");
    write(&policy, "#!/bin/sh\nexit 101\n", 0o755)?;
    // The package of resolved has put a link to its stub there, which answers nobody yet.
    for file in ["etc/resolv.conf", "etc/hosts"] {
        let _ = fs::remove_file(root.join(file));
        fs::copy(Path::new("/").join(file), root.join(file))?;
    }
    inside(&["apt-get", "-qq", "update"])?;
    let kernel = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", "linux-image-cloud-amd64"];
    inside(&[kernel.as_slice(), OFF].concat())?;
    inside(&["apt-get", "clean"])?;
    fs::remove_file(policy)?;
    for unit in OFF_UNITS {
        let _ = inside(&["systemctl", "-q", "disable", unit]);
    }
    inside(&["systemctl", "-q", "enable", "systemd-networkd", "systemd-resolved", "ssh"])?;
    inside(&["systemctl", "-q", "mask", "apt-daily.timer", "apt-daily-upgrade.timer"])?;
    inside(&["useradd", "-m", "-s", "/bin/bash", "user"])?;
    let files = [
        ("etc/hostname", "vm\n"),
        ("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 vm\n::1 localhost\n"),
        ("etc/fstab", "/dev/vda / ext4 defaults 0 1\n"),
        // What qemu's own network would give by DHCP; its default route and resolver lead nowhere.
        (
            "etc/systemd/network/10-wired.network",
            "[Match]\nName=en* eth*\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nDNS=10.0.2.3\nDomains=lan.example\n",
        ),
        ("etc/ssh/sshd_config.d/vm.conf", "PermitRootLogin yes\nUseDNS no\n"),
        ("etc/sudoers.d/user", "user ALL=(ALL) NOPASSWD: ALL\n"),
    ];
    for (file, text) in files {
        write(&root.join(file), text, 0o644)?;
    }
    fs::remove_file(root.join("etc/resolv.conf"))?;
    symlink("../run/systemd/resolve/stub-resolv.conf", root.join("etc/resolv.conf"))?;
    let key = fs::read_to_string(disk.key().with_extension("pub"))?;
    for (home, owner) in [("root", "0:0"), ("home/user", "1000:1000")] {
        let dir = root.join(home).join(".ssh");
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        write(&dir.join("authorized_keys"), &key, 0o600)?;
        ok(Command::new("chown").args(["-R", owner]).arg(&dir))?;
    }
    for (name, end) in [("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd")] {
        let boot = fs::read_dir(root.join("boot"))?.flatten().map(|e| e.path());
        let starts = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(name));
        let found = boot.filter(starts).max().with_context(|| format!("no {name} in /boot"))?;
        fs::copy(found, disk.file(end))?;
    }
    Ok(())
}

fn write(file: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(file, text).with_context(|| file.display().to_string())?;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(mode))?)
}
