//! What of the shell that called `up` reaches the cluster: its proxies and what is meant for us, nothing else. A limit, a
//! priority or a library that somebody set for himself would hold for every container, until the next `up` from
//! another shell. Its control group is a unit's or a session's, which ends all that is in it when it ends. The umask is
//! `main`'s, signals are the supervisor's. A service manager's settings are meant for us: `server` keeps them. I/O:
//! changes this process. Callers: `up` and the supervisor.

use std::ffi::OsString;

use linux::cgroup::Cgroups;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};

use crate::config::Host;
use crate::fault::best_effort;
use crate::logging::print_line;

/// Variables that image pulls heed, in either case of letters.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"];
/// Ours.
const OWN: &str = "FERROKUBE_";
/// The daemon's and its supervisor's group, beside those of pods and monitors.
const GROUP: &str = "daemon";
const TEST_PRELOAD: &str = "FERROKUBE_TEST_PRELOAD";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The daemon's environment.
pub fn environment() -> Vec<(OsString, OsString)> {
    kept(std::env::vars_os())
}

fn kept(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let ours = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with(OWN) || PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy))
    };
    let mut kept: Vec<_> = all.filter(|(name, _)| ours(name)).collect();
    kept.push(("PATH".into(), PATH.into()));
    // In debug builds a test may give the daemon a library, such as one with a clock that jumps.
    if cfg!(debug_assertions)
        && let Some((_, library)) = kept.iter().find(|(name, _)| name == TEST_PRELOAD)
    {
        kept.push(("LD_PRELOAD".into(), library.clone()));
    }
    kept
}

/// Gives this process what one has that was started at boot. What it may not change stays: the cluster says so where it
/// matters.
pub fn forget() {
    for resource in ALL {
        best_effort("a limit of the caller", setrlimit(resource, fresh(resource, getrlimit(resource))));
    }
    best_effort("the priority of the caller", setpriority_process(None, 0));
    best_effort("the caller's place for the OOM killer", std::fs::write("/proc/self/oom_score_adj", "0"));
}

/// Moves this process into a group of the cluster's. One that can't be had is told: the cluster may end with its caller.
pub fn leave_group(host: &Host) {
    let own = Cgroups::detect().and_then(|cgroups| cgroups.group(&host.cgroup()).child(GROUP).enter());
    if let Err(error) = own {
        print_line(format_args!("the daemon stays in its caller's control group ({error})"));
    }
}

const ALL: [Resource; 15] = [
    Resource::Cpu,
    Resource::Fsize,
    Resource::Data,
    Resource::Stack,
    Resource::Core,
    Resource::Rss,
    Resource::Nproc,
    Resource::Nofile,
    Resource::Memlock,
    Resource::As,
    Resource::Locks,
    Resource::Sigpending,
    Resource::Msgqueue,
    Resource::Rtprio,
    Resource::Rttime,
];

/// As a unit of k3s or containerd has them.
fn fresh(resource: Resource, now: Rlimit) -> Rlimit {
    const OPEN_FILES: u64 = 1 << 20;
    /// Without a limit the kernel lays out a process's memory in the old way.
    const STACK: u64 = 8 << 20;
    match resource {
        Resource::Nofile => {
            let most = now.maximum.map(|most| most.max(OPEN_FILES));
            Rlimit { current: most.or(Some(OPEN_FILES)), maximum: most }
        }
        Resource::Stack => Rlimit { current: Some(STACK), maximum: None },
        // What hands out priorities stays the host's.
        Resource::Rtprio | Resource::Msgqueue | Resource::Sigpending => Rlimit { current: now.maximum, ..now },
        _ => Rlimit { current: None, maximum: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_environment_stays_with_him() {
        let all =
            [("LD_PRELOAD", "x.so"), ("https_proxy", "http://p:1"), ("PATH", "/home/me"), ("FERROKUBE_LOG", "debug")];
        let kept = kept(all.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        let names: Vec<_> = kept.iter().filter_map(|(name, _)| name.to_str()).collect();
        assert_eq!(names, ["https_proxy", "FERROKUBE_LOG", "PATH"]);
        assert_eq!(kept[2].1, PATH);
    }

    #[test]
    fn a_callers_limits_end_with_him() {
        let low = Rlimit { current: Some(1024), maximum: Some(4096) };
        assert_eq!(fresh(Resource::Nofile, low).current, Some(1 << 20));
        let high = Rlimit { current: Some(1024), maximum: Some(1 << 30) };
        assert_eq!(fresh(Resource::Nofile, high).current, Some(1 << 30));
        assert_eq!(fresh(Resource::Fsize, low), Rlimit { current: None, maximum: None });
        assert_eq!(fresh(Resource::Stack, low).current, Some(8 << 20));
    }
}
