//! Taking away what the cluster made, daemon or no daemon: `down` stops what a killed daemon left running, `reset`
//! removes every object of ours in the kernel. All of it is found by the cluster's names, whoever made it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

use super::{node, pod_network, pods_door};
use crate::config::{Host, RUN_ROOT, known, lock_host};
use crate::cri;
use crate::fault::best_effort;

/// A killed process leaves its group a moment later: 2 seconds in all.
const GROUP_ATTEMPTS: usize = 100;

/// Stops every container that still runs. Returns how many there were.
pub fn stop_pods(host: &Host, grace: Duration) -> Result<usize> {
    with_runtime(host, grace, false)
}

/// A runtime of our own for the moment: it takes up what the last one left, and stops it in order.
fn with_runtime(host: &Host, grace: Duration, remove: bool) -> Result<usize> {
    if !host.runtime_root().exists() {
        return Ok(0);
    }
    let tokio = crate::threads::runtime(Some(2))?;
    let stopped = tokio.block_on(async {
        let shutdown = CancellationToken::new();
        let (config, network) = (node::runtime_config(host), pod_network::open(host)?);
        let running = tokio::spawn(runtime::run(config, network, shutdown.clone()));
        let channel = connect(host).await;
        let stopped = match channel {
            Ok(channel) => cri::stop_all(channel, grace, remove).await,
            Err(error) => Err(error),
        };
        shutdown.cancel();
        let ended = running.await.context("the runtime broke off")?;
        ended.map_err(|e| crate::fault::Fault::failed(e.to_string()))?;
        stopped
    });
    tokio.shutdown_timeout(Duration::from_millis(200));
    stopped
}

async fn connect(host: &Host) -> Result<tonic::transport::Channel> {
    let mut last = None;
    for _ in 0..100 {
        match cri::connect(&host.cri_socket()).await {
            Ok(channel) => return Ok(channel),
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("the runtime did not start")))
}

/// Removes sandboxes, mounts, namespaces, links, routes, rules, addresses and cgroups of the cluster.
pub fn remove_kernel_objects(host: &Host) -> Result<()> {
    crate::nodes::remove(host)?;
    if let Err(error) = with_runtime(host, Duration::ZERO, true) {
        // A damaged store must not keep the rest from being removed: what follows finds things by name.
        tracing::debug!(%error, "the runtime's records could not be used");
    }
    for address in host.cluster.tenth_of_services() {
        dns::release(node::DNS_LINK, address).context("the DNS address")?;
    }
    dns::release(node::DNS_LINK, host.cluster.service_cidr.primary().last())
        .context("the API server's address of pods")?;
    pods_door::open(host).context("the rule for the API server's address of pods")?;
    dns::track_again(&node::dns_table(host)).context("the rules of DNS")?;
    let lock = lock_host()?;
    pod_network::remove(host)?;
    drop(lock);
    crate::firewall::close(host).context("the host's firewall")?;
    proxy::remove(&node::proxy_table(host)).context("kube-proxy's rules")?;
    remove_cgroups(host).context("cgroups")?;
    take_controllers_back(host).context("the root of cgroups")?;
    crate::layout::mounted(host).iter().try_for_each(|dir| unmount_below(dir)).context("mounts")
}

/// Detaches every mount below a directory, the innermost first. A mount on the directory itself isn't ours: a person
/// may have given the data directory a disk of its own.
fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let ours: Vec<PathBuf> = targets.map(PathBuf::from).filter(|t| t.starts_with(dir) && t != dir).collect();
    for target in ours.iter().rev() {
        linux::mount::detach(target).with_context(|| target.display().to_string())?;
    }
    Ok(())
}

/// The kernel writes blanks and backslashes of paths as octal numbers.
fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (octal, plain)| path.replace(octal, plain))
}

/// What the root of the groups handed down before this host's first cluster asked it for more.
fn controllers_before() -> PathBuf {
    Path::new(RUN_ROOT).join("controllers")
}

/// Writes down what the root of the groups hands down, before a cluster changes it. A boot forgets both.
pub fn note_controllers() -> Result<()> {
    let file = controllers_before();
    if file.exists() {
        return Ok(());
    }
    crate::config::write_private(&file, linux::cgroup::Cgroups::detect()?.handed_down().join(" ").as_bytes())
}

/// The last cluster that goes gives the root back as it was.
fn take_controllers_back(host: &Host) -> Result<()> {
    let _lock = lock_host()?;
    if known().iter().any(|other| other.cluster.name != host.cluster.name) {
        return Ok(());
    }
    let file = controllers_before();
    let Ok(before) = fs::read_to_string(&file) else { return Ok(()) };
    let before: Vec<String> = before.split_whitespace().map(str::to_owned).collect();
    linux::cgroup::Cgroups::detect()?.take_back(&before);
    fs::remove_file(&file).with_context(|| file.display().to_string())
}

/// Kills what is left in the cluster's groups, and removes them, the innermost first.
fn remove_cgroups(host: &Host) -> Result<()> {
    for dir in linux::cgroup::Cgroups::detect()?.group(&host.cgroup()).dirs() {
        let mut groups = Vec::new();
        below(&dir, &mut groups);
        for group in groups.iter().rev() {
            remove_group(group).with_context(|| group.display().to_string())?;
        }
    }
    Ok(())
}

fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    found.push(dir.to_owned());
    let dirs = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    dirs.for_each(|e| below(&e.path(), found));
}

fn remove_group(dir: &Path) -> std::io::Result<()> {
    for _ in 0..GROUP_ATTEMPTS {
        let processes = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        for pid in processes.lines().filter_map(|p| rustix::process::Pid::from_raw(p.parse().ok()?)) {
            best_effort("killing a process", rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
        match fs::remove_dir(dir) {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
    fs::remove_dir(dir)
}
