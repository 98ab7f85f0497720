//! What of a cluster's KubeletConfiguration is followed on a node of ours: not what would open its kubelet to others from afar,
//! and no amount or time with which it could not run. Who wants such a thing here says so on this node (`--kubelet-arg`).
//! Pure. Called by `follow`.

use std::time::Duration;

use kubelet::config::Threshold;
use serde_json::Value;

use super::values::{reserved, shutdown_groups, thresholds};
use crate::component::settings::{duration, number};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The most that is kept of anything, 1 Pi: sums of amounts stay countable.
const MOST: i64 = 1 << 50;
/// A node that defends more than this of itself has no room for pods.
const HALF: f64 = 0.5;

/// Whether a field's value may come from afar. What is not read here is judged by the table of settings alone.
pub fn may(path: &str, value: &Value) -> bool {
    if is_nothing(value) {
        return true;
    }
    match path {
        // What opens it.
        "authentication.anonymous.enabled" => *value == Value::Bool(false),
        "authorization.mode" => value.as_str() == Some("Webhook"),
        "cgroupsPerQOS" => *value == Value::Bool(true),
        "allowedUnsafeSysctls" => false,
        "streamingConnectionIdleTimeout" => lasts(value, SECOND, 4 * HOUR),
        // With what it could not run, or would never stop.
        "nodeStatusUpdateFrequency" | "nodeStatusReportFrequency" => lasts(value, SECOND, HOUR),
        "nodeLeaseDurationSeconds" => number(value).is_ok_and(|seconds: u32| (4..=3600).contains(&seconds)),
        "shutdownGracePeriod" | "shutdownGracePeriodCriticalPods" => lasts(value, Duration::ZERO, HOUR),
        "shutdownGracePeriodByPodPriority" => {
            let groups = shutdown_groups(value).unwrap_or_default();
            let all = groups.iter().try_fold(Duration::ZERO, |all, group| all.checked_add(group.period));
            all.is_some_and(|all| all <= HOUR)
        }
        // As upstream has it.
        "crashLoopBackOff.maxContainerRestartPeriod" => lasts(value, SECOND, 300 * SECOND),
        // The kernel's.
        "cpuCFSQuotaPeriod" => lasts(value, Duration::from_millis(1), SECOND),
        "evictionPressureTransitionPeriod" => lasts(value, Duration::ZERO, DAY),
        "imageMinimumGCAge" => lasts(value, Duration::ZERO, 365 * DAY),
        "containerLogMaxFiles" => number(value).is_ok_and(|files: u32| files <= 1000),
        "evictionHard" => thresholds(value).is_ok_and(|all| {
            all.values().all(|threshold| match threshold {
                Threshold::Share(share) => *share <= HALF,
                Threshold::Amount(amount) => i64::try_from(*amount).is_ok_and(|amount| amount <= MOST),
            })
        }),
        "systemReserved" | "kubeReserved" => reserved(value).is_ok_and(|all| {
            let few = |amount: &String| amount.parse::<meta::Quantity>().is_ok_and(|amount| amount.value() <= MOST);
            all.values().all(few)
        }),
        _ => true,
    }
}

/// Says nothing: upstream's default is meant.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) => false,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty() || meta::duration::parse(text).is_ok_and(|time| time.is_zero()),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn lasts(value: &Value, least: Duration, most: Duration) -> bool {
    duration(value).is_ok_and(|time| (least..=most).contains(&time))
}
