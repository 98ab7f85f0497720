//! What a group has used: CPU, memory, processes, pressure; read when asked, kept nowhere.

use std::path::Path;

use super::Group;

/// Counters and gauges; zero where the kernel doesn't tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time since the group was made.
    pub cpu_nanoseconds: u64,
    /// Bytes, the file cache included.
    pub memory_usage: u64,
    /// Usage without the file cache that could be dropped at once: what eviction looks at.
    pub memory_working_set: u64,
    /// Bytes of memory that no file is behind.
    pub memory_rss: u64,
    /// `None` when unlimited.
    pub memory_limit: Option<u64>,
    /// Faults since the group was made, minor and major.
    pub page_faults: u64,
    /// Those of them that waited for a disk.
    pub major_page_faults: u64,
    /// Bytes.
    pub swap_usage: u64,
    /// Processes and threads (`pids.current`).
    pub processes: u64,
}

/// v1 shows "no limit" as the highest page-aligned number; anything near it is none.
const V1_UNLIMITED: u64 = 1 << 60;

pub(super) fn read(group: &Group) -> Stats {
    if group.cgroups.is_v2() { read_v2(group) } else { read_v1(group) }
}

/// How many processes the OOM killer took from the group whose [`Group::oom_file`] this is.
pub fn oom_kills(file: &Path) -> u64 {
    field(&std::fs::read_to_string(file).unwrap_or_default(), "oom_kill")
}

fn number(dir: &Path, name: &str) -> u64 {
    std::fs::read_to_string(dir.join(name)).ok().and_then(|s| s.trim().parse().ok()).unwrap_or(0)
}

/// The number after a word at the start of a line.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn read_v2(group: &Group) -> Stats {
    let Some(dir) = group.dir_of("") else { return Stats::default() };
    let text = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    let (cpu, memory) = (text("cpu.stat"), text("memory.stat"));
    let usage = number(&dir, "memory.current");
    Stats {
        cpu_nanoseconds: field(&cpu, "usage_usec") * 1000,
        memory_usage: usage,
        memory_working_set: usage.saturating_sub(field(&memory, "inactive_file")),
        memory_rss: field(&memory, "anon"),
        memory_limit: text("memory.max").trim().parse().ok(),
        page_faults: field(&memory, "pgfault"),
        major_page_faults: field(&memory, "pgmajfault"),
        swap_usage: number(&dir, "memory.swap.current"),
        processes: number(&dir, "pids.current"),
    }
}

fn read_v1(group: &Group) -> Stats {
    let mut stats = Stats::default();
    if let Some(dir) = group.dir_of("cpuacct") {
        stats.cpu_nanoseconds = number(&dir, "cpuacct.usage");
    }
    if let Some(dir) = group.dir_of("memory") {
        let memory = std::fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
        stats.memory_usage = number(&dir, "memory.usage_in_bytes");
        stats.memory_working_set = stats.memory_usage.saturating_sub(field(&memory, "total_inactive_file"));
        stats.memory_rss = field(&memory, "total_rss");
        stats.memory_limit = Some(number(&dir, "memory.limit_in_bytes")).filter(|l| *l < V1_UNLIMITED && *l > 0);
        stats.page_faults = field(&memory, "total_pgfault");
        stats.major_page_faults = field(&memory, "total_pgmajfault");
        stats.swap_usage = field(&memory, "total_swap");
    }
    if let Some(dir) = group.dir_of("pids") {
        stats.processes = number(&dir, "pids.current");
    }
    stats
}
