//! The machine and the processes measured: load, CPU time, memory, other figures of `/proc`. I/O.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Ticks a second of `/proc/PID/stat`: 100 on every Linux of today.
const TICKS: f64 = 100.0;

/// The load averages of 1, 5 and 15 minutes: what tells a noisy run.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Date, commit, processors, kernel and load: the line above the tables.
pub fn described() -> String {
    let said = |program: &str, args: &[&str]| {
        let out = Command::new(program)
            .args(args)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .ok()
            .filter(|out| out.status.success());
        out.map_or_else(|| "unknown".into(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let commit = said("git", &["describe", "--always", "--dirty", "--exclude=*"]);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let date = said("date", &["-u", "+%F %H:%M UTC"]);
    format!("{date}, commit {commit}, {cores} cores, Linux {}, load {}", said("uname", &["-r"]), load())
}

/// CPU time that a process has used, all its threads, user and system, in seconds.
pub fn cpu(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).context("/proc/PID/stat");
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// Sum of [`cpu`].
pub fn cpu_of(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| cpu(*pid)).sum()
}

/// Resident memory of a process in MB.
pub fn rss(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("/proc/PID/status has no VmRSS")?;
    let kb: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kb / 1000.0)
}

/// Sum of [`rss`].
pub fn rss_of(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| rss(*pid)).sum()
}

/// Waits until the processes use less than a twentieth of a core for a second, a minute at most.
pub fn settle(pids: &[u32]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut before = cpu_of(pids)?;
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_secs(1));
        let now = cpu_of(pids)?;
        if now - before < 0.05 {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}

/// Sorted measurements by their percentiles.
pub struct Percentiles(Vec<f64>);

impl Percentiles {
    pub fn of(mut values: Vec<f64>) -> Result<Percentiles> {
        ensure!(!values.is_empty(), "nothing was measured");
        values.sort_unstable_by(f64::total_cmp);
        Ok(Percentiles(values))
    }

    /// The value below which this share (0 to 1) lies.
    pub fn at(&self, share: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * share).round() as usize]
    }
}

/// Every process whose command line contains the text, by pid: to find what a server of ours has left behind.
pub fn processes_with(text: &str) -> BTreeMap<u32, String> {
    let pids =
        fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let line = |pid: u32| {
        fs::read(format!("/proc/{pid}/cmdline")).ok().map(|c| String::from_utf8_lossy(&c).replace('\0', " "))
    };
    let own = std::process::id();
    pids.filter(|pid| *pid != own).filter_map(|pid| Some((pid, line(pid)?))).filter(|(_, l)| l.contains(text)).collect()
}
