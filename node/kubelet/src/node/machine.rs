//! What the machine is: processors, memory, disks, kernel, identifiers. Does I/O: reads /proc and /sys.

use std::fs;
use std::path::Path;

/// Facts that do not change while the kubelet runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Machine {
    pub hostname: String,
    pub cpus: u64,
    pub memory: u64,
    pub swap: u64,
    pub kernel: String,
    pub os_image: String,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub arch: &'static str,
    /// Page size in bytes to total bytes.
    pub hugepages: Vec<(u64, u64)>,
    pub pid_max: u64,
}

/// A file system as statvfs sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Disk {
    pub capacity: u64,
    pub available: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// A value of /proc/meminfo in bytes.
pub fn meminfo(name: &str) -> u64 {
    let file = text("/proc/meminfo");
    let line = file.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

impl Machine {
    pub fn read() -> Machine {
        let uname = rustix::system::uname();
        let release = text("/etc/os-release");
        let pretty = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
        Machine {
            hostname: uname.nodename().to_string_lossy().to_lowercase(),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory: meminfo("MemTotal"),
            swap: meminfo("SwapTotal"),
            kernel: uname.release().to_string_lossy().into_owned(),
            os_image: pretty.map_or("Linux", |p| p.trim_matches('"')).to_owned(),
            machine_id: text("/etc/machine-id"),
            system_uuid: Some(text("/sys/class/dmi/id/product_uuid").to_lowercase())
                .filter(|u| !u.is_empty())
                .unwrap_or_else(|| text("/etc/machine-id")),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            arch: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
            hugepages: hugepages(),
            pid_max: text("/proc/sys/kernel/pid_max").parse().unwrap_or(0),
        }
    }
}

fn hugepages() -> Vec<(u64, u64)> {
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<(u64, u64)> = entries
        .filter_map(|e| {
            let name = e.file_name().to_string_lossy().into_owned();
            let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count: u64 = text(&format!("{}/nr_hugepages", e.path().display())).parse().ok()?;
            Some((kib * 1024, kib * 1024 * count))
        })
        .collect();
    sizes.sort_unstable();
    sizes
}

/// Processes and threads that exist now: the second number of the fourth field of loadavg.
pub fn processes() -> u64 {
    let file = text("/proc/loadavg");
    file.split_whitespace().nth(3).and_then(|f| f.split('/').nth(1)?.parse().ok()).unwrap_or(0)
}

pub fn disk(path: &Path) -> Disk {
    let Ok(stat) = rustix::fs::statvfs(path) else { return Disk::default() };
    Disk {
        capacity: stat.f_blocks * stat.f_frsize,
        available: stat.f_bavail * stat.f_frsize,
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    }
}
