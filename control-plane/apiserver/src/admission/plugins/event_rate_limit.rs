//! EventRateLimit: events are counted against token buckets (of the server, of a namespace, of a user, of what an event
//! is about), so that a flood of them fills neither the store nor the log. Off by default, as upstream has it; its limits
//! stand in the file of `--admission-control-config-file`. I/O: reads the clock.

use std::collections::HashMap;
use std::time::Instant;

use async_trait::async_trait;
use meta::Status;
use parking_lot::Mutex;
use serde_json::Value;

use crate::admission::{Parts, Plugin, Request, Validating, World};
use crate::error::Error;

/// The plugin's name, under which its configuration stands.
pub const NAME: &str = "EventRateLimit";
/// Buckets kept for one limit that sets no `cacheSize`: upstream's number.
const DEFAULT_BUCKETS: usize = 4096;

/// The limits of the configuration, each with what it has counted.
pub struct EventRateLimit(Vec<Limit>);

impl EventRateLimit {
    pub fn new(parts: &Parts<'_>) -> Result<EventRateLimit, Error> {
        parts.configuration.of(NAME, limits).map(EventRateLimit)
    }
}

impl Plugin for EventRateLimit {
    fn handles(&self, request: &Request<'_>) -> bool {
        // Events of either group are the same objects.
        request.writes()
            && request.kind.kind == "Event"
            && matches!(request.kind.group.as_ref(), "" | "events.k8s.io")
            && !request.dry_run()
    }
}

#[async_trait]
impl Validating for EventRateLimit {
    async fn validate(&self, request: &Request<'_>, _world: &dyn World) -> Result<(), Status> {
        let now = Instant::now();
        let refused = self.0.iter().filter_map(|limit| limit.refuse(request, now)).collect::<Vec<_>>();
        match refused.as_slice() {
            [] => Ok(()),
            [one] => Err(Status::too_many_requests(one.clone(), 0)),
            all => Err(Status::too_many_requests(format!("[{}]", all.join(", ")), 0)),
        }
    }
}

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

impl By {
    const ALL: [(&str, By); 4] = [
        ("Server", By::Server),
        ("Namespace", By::Namespace),
        ("User", By::User),
        ("SourceAndObject", By::SourceAndObject),
    ];

    fn word(self) -> &'static str {
        By::ALL.into_iter().find(|(_, by)| *by == self).map_or("", |(word, _)| word)
    }

    fn key(self, request: &Request<'_>) -> String {
        match self {
            By::Server => String::new(),
            By::Namespace => request.namespace.to_owned(),
            By::User => request.user.name.clone(),
            By::SourceAndObject => source_and_object(request.object),
        }
    }
}

/// Upstream's key, of the fields of either group's form.
fn source_and_object(event: &Value) -> String {
    let either = |a: &Value, b: &Value| a.as_str().or(b.as_str()).unwrap_or_default().to_owned();
    let source = &event["source"];
    let old = &event["deprecatedSource"];
    let about = if event["regarding"].is_object() { &event["regarding"] } else { &event["involvedObject"] };
    let mut key = either(&source["component"], &old["component"]);
    key.push_str(&either(&source["host"], &old["host"]));
    for field in ["kind", "namespace", "name", "uid", "apiVersion"] {
        key.push_str(about[field].as_str().unwrap_or_default());
    }
    key
}

/// One limit, and the buckets of those it counts.
#[derive(Debug)]
struct Limit {
    by: By,
    qps: f64,
    burst: f64,
    most: usize,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Limit {
    fn refuse(&self, request: &Request<'_>, now: Instant) -> Option<String> {
        let key = self.by.key(request);
        (!self.take(&key, now)).then(|| format!("limit reached on type {} for key {key}", self.by.word()))
    }

    /// Takes a token; the bucket that was asked least lately goes when there are too many.
    fn take(&self, key: &str, now: Instant) -> bool {
        let mut buckets = self.buckets.lock();
        if !buckets.contains_key(key) {
            if buckets.len() >= self.most
                && let Some(oldest) = buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(key, _)| key.clone())
            {
                buckets.remove(&oldest);
            }
            buckets.insert(key.to_owned(), Bucket { tokens: self.burst, at: now });
        }
        let Some(bucket) = buckets.get_mut(key) else { return false };
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * self.qps).min(self.burst);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

/// The limits of a configuration (`eventratelimit.admission.k8s.io/v1alpha1`); without one there is nothing to go by.
fn limits(configuration: Option<&Value>) -> Result<Vec<Limit>, String> {
    let nothing = Value::Null;
    let configuration = configuration.unwrap_or(&nothing);
    if !configuration.is_null() {
        let word = |field: &str| configuration[field].as_str().unwrap_or_default();
        let (version, kind) = (word("apiVersion"), word("kind"));
        if (version, kind) != ("eventratelimit.admission.k8s.io/v1alpha1", "Configuration") {
            return Err(format!(
                "{NAME}: {version} {kind} is no Configuration of eventratelimit.admission.k8s.io/v1alpha1"
            ));
        }
    }
    let limits = configuration["limits"].as_array().map_or(&[][..], Vec::as_slice);
    if limits.is_empty() {
        return Err(format!("{NAME}: limits: Invalid value: []: must not be empty"));
    }
    limits.iter().enumerate().map(|(at, limit)| one(at, limit)).collect()
}

fn one(at: usize, limit: &Value) -> Result<Limit, String> {
    let word = limit["type"].as_str().unwrap_or_default();
    let Some((_, by)) = By::ALL.into_iter().find(|(known, _)| *known == word) else {
        let known = By::ALL.map(|(known, _)| format!("{known:?}")).join(", ");
        return Err(format!("{NAME}: limits[{at}].type: Unsupported value: {word:?}: supported values: {known}"));
    };
    let number = |field: &str, least: i64| {
        let value = limit[field].as_i64().unwrap_or(0);
        let wrong = || format!("{NAME}: limits[{at}].{field}: Invalid value: {value}: must be {}", word_of(least));
        if value < least { Err(wrong()) } else { Ok(value) }
    };
    let (qps, burst, size) = (number("qps", 1)?, number("burst", 1)?, number("cacheSize", 0)?);
    let most = if size == 0 { DEFAULT_BUCKETS } else { usize::try_from(size).unwrap_or(DEFAULT_BUCKETS) };
    Ok(Limit { by, qps: qps as f64, burst: burst as f64, most, buckets: Mutex::default() })
}

fn word_of(least: i64) -> &'static str {
    if least > 0 { "positive" } else { "nonnegative" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    fn configuration(limits: Value) -> Value {
        json!({"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration", "limits": limits})
    }

    #[test]
    fn a_bucket_fills_again_and_the_oldest_goes() {
        let two = configuration(json!([{"type": "Namespace", "qps": 2, "burst": 3, "cacheSize": 2}]));
        let limit = limits(Some(&two)).expect("limits").remove(0);
        let begun = Instant::now();
        let at = |millis: u64| begun + Duration::from_millis(millis);
        assert_eq!([0, 0, 0, 0].map(|t| limit.take("a", at(t))), [true, true, true, false]);
        assert_eq!([400, 500, 600, 1100].map(|t| limit.take("a", at(t))), [false, true, false, true]);
        assert!(limit.take("b", at(1200)) && limit.take("c", at(1300)));
        assert_eq!(limit.buckets.lock().len(), 2);
        assert_eq!([0; 4].map(|_| limit.take("a", at(1300))), [true, true, true, false], "a was forgotten");
    }

    #[test]
    fn a_configuration_that_makes_no_sense_is_told() {
        let wrong = |value: Option<&Value>| limits(value).expect_err("refused");
        assert!(wrong(None).contains("limits: Invalid value: []: must not be empty"));
        assert!(wrong(Some(&json!({"kind": "Configuration"}))).contains("is no Configuration"));
        let one = |limit: Value| wrong(Some(&configuration(json!([limit]))));
        assert!(
            one(json!({"type": "Pod", "qps": 1, "burst": 1})).contains("limits[0].type: Unsupported value: \"Pod\"")
        );
        assert!(one(json!({"type": "User", "burst": 1})).contains("limits[0].qps: Invalid value: 0: must be positive"));
        let negative = json!({"type": "User", "qps": 1, "burst": 1, "cacheSize": -1});
        assert!(one(negative).contains("limits[0].cacheSize: Invalid value: -1: must be nonnegative"));
    }
}
