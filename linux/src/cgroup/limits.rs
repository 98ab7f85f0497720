//! Limits of a group: what v1 calls shares, quota and limit_in_bytes, and their v2 forms.

use super::{Group, write_file};
use crate::failure::{Doing, Failure};

/// What to set; `None` leaves a file as it is. Units are those of the container runtime interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// 2 to 262144; 1024 is one CPU's worth.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time a period; -1 for none.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Bytes; -1 for none.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together; -1 for none.
    pub memory_swap: Option<i64>,
    /// Processes and threads; -1 for none.
    pub pids: Option<i64>,
    /// "0-3,7".
    pub cpus: Option<String>,
    /// NUMA nodes that memory is taken from, as `cpus`.
    pub mems: Option<String>,
    /// Files of v2 as they are, for example `memory.oom.group`; ignored on v1.
    pub unified: Vec<(String, String)>,
}

/// The CPU weight of v2 for shares of v1, on the curve that gives 100 for 1024 and keeps both ends (2 → 1,
/// 262144 → 10000), as container runtimes compute it since 2025.
pub fn shares_to_weight(shares: u64) -> u64 {
    if shares == 0 {
        return 0;
    }
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    10f64.powf(exponent).ceil() as u64
}

pub(super) fn set(group: &Group, limits: &Limits) -> Result<(), Failure> {
    if group.cgroups.is_v2() { set_v2(group, limits) } else { set_v1(group, limits) }
}

fn number(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn set_v2(group: &Group, limits: &Limits) -> Result<(), Failure> {
    let Some(dir) = group.dir_of("") else { return Ok(()) };
    let write = |name: &str, value: &str| write_file(&dir, name, value);
    if let Some(shares) = limits.cpu_shares {
        write("cpu.weight", &shares_to_weight(shares).to_string())?;
    }
    match (limits.cpu_quota, limits.cpu_period) {
        (Some(quota), period) => write("cpu.max", &format!("{} {}", number(quota), period.unwrap_or(100_000)))?,
        (None, Some(period)) => {
            let old = std::fs::read_to_string(dir.join("cpu.max")).unwrap_or_default();
            write("cpu.max", &format!("{} {period}", old.split(' ').next().unwrap_or("max").trim()))?;
        }
        _ => {}
    }
    if let Some(memory) = limits.memory {
        write("memory.max", &number(memory))?;
    }
    if let (Some(swap), memory) = (limits.memory_swap, limits.memory.unwrap_or(0)) {
        // v2 counts swap alone.
        let value = if swap < 0 { "max".to_owned() } else { (swap - memory.max(0)).max(0).to_string() };
        if dir.join("memory.swap.max").exists() {
            write("memory.swap.max", &value)?;
        }
    }
    if let Some(pids) = limits.pids {
        write("pids.max", &number(pids))?;
    }
    if let Some(cpus) = &limits.cpus {
        write("cpuset.cpus", cpus)?;
    }
    if let Some(mems) = &limits.mems {
        write("cpuset.mems", mems)?;
    }
    for (name, value) in &limits.unified {
        if name.contains('/') {
            return Err(Failure::new(format_args!("set cgroup file {name:?}"), "the name holds a slash"));
        }
        write(name, value)?;
    }
    Ok(())
}

fn set_v1(group: &Group, limits: &Limits) -> Result<(), Failure> {
    let write = |controller: &str, name: &str, value: &str| match group.dir_of(controller) {
        Some(dir) => write_file(&dir, name, value),
        None => Ok(()),
    };
    if let Some(shares) = limits.cpu_shares {
        write("cpu", "cpu.shares", &shares.to_string())?;
    }
    set_v1_quota(group, limits)?;
    if limits.memory.is_some() || limits.memory_swap.is_some() {
        set_v1_memory(group, limits)?;
    }
    if let Some(pids) = limits.pids {
        write("pids", "pids.max", &number(pids))?;
    }
    if let Some(cpus) = &limits.cpus {
        write("cpuset", "cpuset.cpus", cpus)?;
    }
    if let Some(mems) = &limits.mems {
        write("cpuset", "cpuset.mems", mems)?;
    }
    Ok(())
}

/// A parent's quota per period may be lower than a child's new period with the child's old quota, so the order that
/// works is tried second.
fn set_v1_quota(group: &Group, limits: &Limits) -> Result<(), Failure> {
    let Some(dir) = group.dir_of("cpu") else { return Ok(()) };
    let period = |()| limits.cpu_period.map_or(Ok(()), |p| write_file(&dir, "cpu.cfs_period_us", &p.to_string()));
    let quota = |()| limits.cpu_quota.map_or(Ok(()), |q| write_file(&dir, "cpu.cfs_quota_us", &q.to_string()));
    if period(()).and_then(quota).is_ok() {
        return Ok(());
    }
    quota(()).and_then(period)
}

/// memory.limit must never be above memory.memsw.limit, so which is written first depends on the direction.
fn set_v1_memory(group: &Group, limits: &Limits) -> Result<(), Failure> {
    let Some(dir) = group.dir_of("memory") else { return Ok(()) };
    const LIMIT: &str = "memory.limit_in_bytes";
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    let swap_counted = dir.join(SWAP).exists();
    let memory = limits.memory.map(|m| m.to_string());
    let swap = limits.memory_swap.filter(|_| swap_counted).map(|m| m.to_string());
    let write = |name: &str, value: &Option<String>| match value {
        Some(value) => write_file(&dir, name, value),
        None => Ok(()),
    };
    if write(LIMIT, &memory).is_ok() {
        return write(SWAP, &swap);
    }
    write(SWAP, &swap)?;
    let done = write(LIMIT, &memory);
    if done.is_err() {
        // The kernel answers EBUSY when more is in use than the new limit allows.
        let used = std::fs::read_to_string(dir.join("memory.usage_in_bytes")).unwrap_or_default();
        return done.map_err(|f| f.source).doing(format_args!(
            "set the memory limit of {} (in use: {} bytes)",
            group.path(),
            used.trim()
        ));
    }
    Ok(())
}
