//! What the kernel knows of this process, under the names that every Prometheus client uses, and which build it is.
//! I/O: reads /proc/self.

use crate::registry::{Registry, Samples};

/// Ticks of a second in /proc/self/stat: the same on every Linux that we run on.
const TICKS: f64 = 100.0;
/// Bytes of a page of /proc/self/stat's resident size.
const PAGE: f64 = 4096.0;

/// What `kubectl version` and `kubernetes_build_info` show: upstream's version whose API this is, and ours as build
/// metadata.
pub const GIT_VERSION: &str = concat!("v1.37.2+ferrokube.", env!("CARGO_PKG_VERSION"));
/// Versions of the API.
pub const MAJOR: &str = "1";
pub const MINOR: &str = "37";

/// Declares `kubernetes_build_info`.
pub fn declare_build(registry: &Registry) {
    const LABELS: [&str; 9] = [
        "build_date",
        "compiler",
        "git_commit",
        "git_tree_state",
        "git_version",
        "go_version",
        "major",
        "minor",
        "platform",
    ];
    registry.collect("kubernetes_build_info", "Which build this is.", "gauge", |out| {
        let platform = format!("{}/{}", std::env::consts::OS, architecture());
        out.add(LABELS, ["", "rustc", "", "clean", GIT_VERSION, "", MAJOR, MINOR, &platform], 1.0);
    });
}

/// Declares `process_*`.
pub fn declare(registry: &Registry) {
    type Read = fn() -> Option<f64>;
    let rows: [(&str, &str, &str, Read); 7] = [
        ("process_cpu_seconds_total", "Processor time used, in seconds.", "counter", cpu_seconds),
        ("process_resident_memory_bytes", "Memory in use.", "gauge", || Some(stat(24)? * PAGE)),
        ("process_virtual_memory_bytes", "Address space in use.", "gauge", || stat(23)),
        ("process_virtual_memory_max_bytes", "Address space allowed.", "gauge", || limit("Max address space")),
        ("process_start_time_seconds", "When the process started, in seconds since 1970.", "gauge", start_time),
        ("process_open_fds", "Open file descriptors.", "gauge", open_files),
        ("process_max_fds", "File descriptors allowed.", "gauge", || limit("Max open files")),
    ];
    for (name, help, kind, read) in rows {
        registry.collect(name, help, kind, move |out: &mut Samples<'_>| {
            if let Some(value) = read() {
                out.add([], [], value);
            }
        });
    }
}

/// The architecture in Go's words, which clients compare with.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A field of /proc/self/stat, counted from 1 as its manual does.
fn stat(field: usize) -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name, which may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(field.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat(14)? + stat(15)?) / TICKS)
}

fn start_time() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + stat(22)? / TICKS)
}

fn open_files() -> Option<f64> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

fn limit(name: &str) -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(f64::from(u32::MAX) * f64::from(u32::MAX)),
        number => number.parse().ok(),
    }
}
