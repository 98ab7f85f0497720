//! Values that only a kubelet is told, read and judged: thresholds of eviction, reserved resources, taints. The error is a
//! sentence about the value alone; who calls names the field or flag. Pure. Called by the table of `settings` and by `up`
//! for the taints of its node.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use kubelet::config::Threshold;
use kubelet::shutdown::Group;
use serde_json::Value;

use crate::component::settings::{number, pairs};

/// A count, where upstream's message for a negative one is kept.
pub fn not_negative(value: &Value) -> Result<u32, String> {
    number(value).map_err(|_| format!("{value} must not be a negative number"))
}

/// 0 to 100.
pub fn percent(value: &Value) -> Result<u8, String> {
    number(value).ok().filter(|n| *n <= 100).ok_or_else(|| format!("{value} is not a number from 0 to 100"))
}

/// Resources and amounts, none below zero: `cpu=200m,memory=500Mi`.
pub fn reserved(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let checked = |(name, amount): (&str, String)| match amount.parse::<meta::Quantity>() {
        Ok(quantity) if quantity.sign() >= 0 => Ok((name.to_owned(), amount)),
        _ => Err(format!("{name}: {amount:?} is not a quantity such as 500Mi")),
    };
    pairs(value)?.map(checked).collect()
}

/// What pods can be evicted for.
const SIGNALS: [&str; 5] =
    ["imagefs.available", "memory.available", "nodefs.available", "nodefs.inodesFree", "pid.available"];

/// Signals of eviction and what must be left: `memory.available<100Mi,nodefs.available<10%`.
pub fn thresholds(value: &Value) -> Result<BTreeMap<String, Threshold>, String> {
    let read = |(signal, amount): (&str, String)| {
        if !SIGNALS.contains(&signal) {
            return Err(format!("{signal:?} can't be watched; allowed are {}", SIGNALS.join(", ")));
        }
        Ok((signal.to_owned(), amount.parse()?))
    };
    pairs(value)?.map(read).collect()
}

/// Groups of priority, with the seconds that each has when the machine stops.
pub fn shutdown_groups(value: &Value) -> Result<Vec<Group>, String> {
    let wrong =
        |entry: &Value| format!("{entry} is not a group such as {{priority: 1000, shutdownGracePeriodSeconds: 30}}");
    let read = |entry: &Value| {
        let field = |name: &str| entry.get(name).and_then(Value::as_i64);
        let priority = field("priority").and_then(|n| i32::try_from(n).ok());
        let seconds = field("shutdownGracePeriodSeconds").and_then(|n| u64::try_from(n).ok());
        let (priority, seconds) = priority.zip(seconds).ok_or_else(|| wrong(entry))?;
        Ok(Group { priority, period: Duration::from_secs(seconds) })
    };
    value.as_array().ok_or_else(|| format!("{value} is not a list"))?.iter().map(read).collect()
}

/// As an object in a file, as `key=value:effect` in a flag.
pub fn taint(value: &Value) -> Result<Taint, String> {
    let wrong = || format!("{value} is not a taint such as key=value:NoSchedule");
    let taint = match value {
        Value::String(text) => {
            let (key, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
            let (key, value) = key.split_once('=').map_or((key, None), |(key, value)| (key, Some(value.to_owned())));
            Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None }
        }
        object => serde_json::from_value(object.clone()).map_err(|_| wrong())?,
    };
    let named = meta::names::qualified_name(&taint.key).is_empty();
    let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&taint.effect.as_str());
    if named && known { Ok(taint) } else { Err(wrong()) }
}
