//! Graceful node shutdown: in which order pods end when the machine does, and how long each has. Upstream's rules: pods go
//! by groups of priority, the least first; each group has its time. Pure. Called by `daemon::leaving`.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::config::Config;
use crate::pod::pods;
use crate::pod::verdict::Verdict;

/// Priority from which pods are the system's.
const CRITICAL: i32 = 2_000_000_000;

/// Pods from this priority up to the next group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    pub priority: i32,
    /// How long the group has in all.
    pub period: Duration,
}

/// The groups, the least priority first; none when pods are left as they are.
pub fn groups(config: &Config) -> Vec<Group> {
    let mut groups: Vec<Group> = match config.shutdown_grace_by_priority.is_empty() {
        false => config.shutdown_grace_by_priority.clone(),
        true if config.shutdown_grace_period.is_zero() => Vec::new(),
        true => {
            let critical = config.shutdown_grace_period_critical_pods.min(config.shutdown_grace_period);
            let period = config.shutdown_grace_period - critical;
            vec![Group { priority: 0, period }, Group { priority: CRITICAL, period: critical }]
        }
    };
    groups.sort_by_key(|group| group.priority);
    groups
}

/// How long all of it takes at most.
pub fn longest(config: &Config) -> Duration {
    groups(config).iter().map(|group| group.period).sum()
}

/// Which group a pod is in: that with the highest priority that isn't above its own, or the first.
pub fn group_of(groups: &[Group], pod: &Pod) -> usize {
    let priority = pods::spec(pod).priority.unwrap_or(0);
    groups.iter().rposition(|group| group.priority <= priority).unwrap_or(0)
}

/// The seconds that a pod of a group has: its own, if they are fewer.
pub fn grace(pod: &Pod, group: &Group) -> i64 {
    let period = i64::try_from(group.period.as_secs()).unwrap_or(i64::MAX);
    pods::spec(pod).termination_grace_period_seconds.map_or(period, |own| own.clamp(0, period))
}

/// Why it ends.
pub fn verdict() -> Verdict {
    let message = "Pod was terminated in response to imminent node shutdown.".to_owned();
    Verdict { reason: "Terminated".into(), disruption: Some(message.clone()), message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(all: u64, critical: u64) -> Config {
        let mut config = Config::new("n");
        config.shutdown_grace_period = Duration::from_secs(all);
        config.shutdown_grace_period_critical_pods = Duration::from_secs(critical);
        config
    }

    fn pod(priority: Option<i32>, grace: Option<i64>) -> Pod {
        let spec = json!({"containers": [], "priority": priority, "terminationGracePeriodSeconds": grace});
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a pod")
    }

    #[test]
    fn critical_pods_go_last_in_a_time_of_their_own() {
        let groups = groups(&config(30, 10));
        let seconds: Vec<_> = groups.iter().map(|group| (group.priority, group.period.as_secs())).collect();
        assert_eq!(seconds, [(0, 20), (CRITICAL, 10)]);
        let of = |priority| group_of(&groups, &pod(priority, None));
        assert_eq!(
            [of(None), of(Some(-5)), of(Some(1000)), of(Some(CRITICAL)), of(Some(CRITICAL + 1000))],
            [0, 0, 0, 1, 1]
        );
        assert_eq!(longest(&config(30, 10)).as_secs(), 30);
    }

    #[test]
    fn nothing_is_done_where_nobody_asked_for_it() {
        assert!(groups(&config(0, 0)).is_empty());
        let all_critical: Vec<_> = groups(&config(10, 20)).iter().map(|group| group.period.as_secs()).collect();
        assert_eq!(all_critical, [0, 10], "no more than there is in all");
    }

    #[test]
    fn groups_by_priority_take_the_place_of_the_two() {
        let mut config = config(30, 10);
        let group = |priority, seconds| Group { priority, period: Duration::from_secs(seconds) };
        config.shutdown_grace_by_priority = vec![group(1000, 5), group(0, 7), group(100, 9)];
        let groups = groups(&config);
        assert_eq!(groups.iter().map(|group| group.priority).collect::<Vec<_>>(), [0, 100, 1000]);
        let of = |priority| group_of(&groups, &pod(Some(priority), None));
        assert_eq!([of(-1), of(0), of(99), of(100), of(5000)], [0, 0, 0, 1, 2]);
    }

    #[test]
    fn a_pod_has_its_own_grace_within_the_groups() {
        let group = Group { priority: 0, period: Duration::from_secs(20) };
        let of = |own| grace(&pod(None, own), &group);
        assert_eq!([of(None), of(Some(5)), of(Some(30)), of(Some(-1))], [20, 5, 20, 0]);
    }
}
