//! What the kernel knows of this process, under the names that every Prometheus client uses, and which build it is.
//! I/O: reads /proc/self.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::registry::{Registry, Samples};

/// Ticks of a second in /proc/self/stat: the same on every Linux that we run on.
const TICKS: f64 = 100.0;
/// Bytes of a page of /proc/self/stat's resident size.
const PAGE: f64 = 4096.0;

/// Panics and restarts of the components of this process. Whoever catches them counts them, every page shows them.
static ENDS: Mutex<BTreeMap<(Count, &'static str), u64>> = Mutex::new(BTreeMap::new());

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Count {
    Panics,
    Restarts,
}

/// A panic in code or a task of this component.
pub fn count_panic(component: &'static str) {
    *ENDS.lock().entry((Count::Panics, component)).or_default() += 1;
}

/// This component was started anew because it had ended.
pub fn count_restart(component: &'static str) {
    *ENDS.lock().entry((Count::Restarts, component)).or_default() += 1;
}

fn declare_ends(registry: &Registry) {
    let rows = [
        ("component_panics_total", "Panics in a component of this process.", Count::Panics),
        ("component_restarts_total", "Starts of a component after it had ended by itself.", Count::Restarts),
    ];
    for (name, help, what) in rows {
        registry.collect(name, help, "counter", move |out| {
            for ((_, component), number) in ENDS.lock().iter().filter(|((kind, _), _)| *kind == what) {
                out.add(["name"], [*component], *number as f64);
            }
        });
    }
}

/// Declares `kubernetes_build_info` of this version (`v1.37.2+...`).
pub fn declare_build(registry: &Registry, version: &'static str) {
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
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    registry.collect("kubernetes_build_info", "Which build this is.", "gauge", move |out| {
        let platform = format!("{}/{}", std::env::consts::OS, architecture());
        out.add(LABELS, ["", "rustc", "", "clean", version, "", major, minor, &platform], 1.0);
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
    declare_ends(registry);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_and_restarts_are_counted_by_component() {
        let registry = Registry::default();
        declare(&registry);
        assert!(!registry.text().contains("component_panics_total{"), "nothing broke yet");
        count_panic("kube-scheduler");
        count_panic("kube-scheduler");
        count_restart("dns");
        let text = registry.text();
        assert!(text.contains("component_panics_total{name=\"kube-scheduler\"} 2\n"), "{text}");
        assert!(text.contains("component_restarts_total{name=\"dns\"} 1\n"), "{text}");
    }
}
