//! Warnings about Services and addresses as events of `events.k8s.io`, as `kubectl describe` shows them. One that is told
//! again is counted (its series). What can't be written is logged and forgotten. I/O: reads the clock. Called by
//! [`super::daemon`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use meta::Status;
use object::meta_text;
use serde_json::{Value, json};

use super::Told;
use crate::registry::own::{own_call, own_options};
use crate::registry::verbs::Verbs;

/// Told again within this time, it is the same event; upstream ends a series that was quiet for as long.
const SERIES: Duration = Duration::from_secs(6 * 60);
/// Warnings remembered for counting: forgetting one costs an event more.
const REMEMBERED: usize = 4096;

/// Writes warnings, and remembers which.
pub struct Teller {
    verbs: Arc<Verbs>,
    /// What tells one server from another.
    instance: String,
    known: HashMap<(String, Told), (String, Timestamp)>,
}

impl Teller {
    pub fn new(verbs: Arc<Verbs>, instance: String) -> Teller {
        Teller { verbs, instance, known: HashMap::new() }
    }

    /// Tells of an object as `controller`.
    pub async fn tell(&mut self, controller: &str, regarding: &Value, told: Told) {
        let now = Timestamp::now();
        let key = (meta_text(regarding, "uid").to_owned(), told);
        if self.known.len() >= REMEMBERED {
            self.known.retain(|_, (_, last)| now.duration_since(*last).unsigned_abs() < SERIES);
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        let namespace = match meta_text(regarding, "namespace") {
            "" => "default",
            namespace => namespace,
        };
        let before =
            self.known.get(&key).filter(|(_, last)| now.duration_since(*last).unsigned_abs() < SERIES).cloned();
        if let Some((name, _)) = before
            && self.again(namespace, &name, now).await
        {
            self.known.insert(key, (name, now));
            return;
        }
        let name = format!("{}.{:x}", meta_text(regarding, "name"), now.as_nanosecond());
        match self.first(controller, regarding, namespace, &name, &key.1, now).await {
            Ok(()) => drop(self.known.insert(key, (name, now))),
            Err(status) => tracing::debug!(%status, note = key.1.note, "an event could not be written"),
        }
    }

    async fn first(
        &self,
        controller: &str,
        regarding: &Value,
        namespace: &str,
        name: &str,
        told: &Told,
        now: Timestamp,
    ) -> Result<(), Status> {
        let of = |field| meta_text(regarding, field);
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": regarding["apiVersion"], "kind": regarding["kind"], "namespace": of("namespace"),
                "name": of("name"), "uid": of("uid"), "resourceVersion": of("resourceVersion"),
            },
            "eventTime": meta::time::format_micro(now),
            "type": "Warning", "reason": told.reason, "action": told.action, "message": told.note,
            "reportingComponent": controller, "reportingInstance": format!("{controller}-{}", self.instance),
        });
        let Some(served) = self.verbs.served_of(&event) else { return Ok(()) };
        self.verbs.create_object(&own_call(namespace, ""), &served, "", event, &own_options(), false).await.map(drop)
    }

    /// Counts an event that is there; whether it is.
    async fn again(&self, namespace: &str, name: &str, now: Timestamp) -> bool {
        if self.verbs.objects.lookup("", "events", namespace, name).is_none() {
            return false;
        }
        let counted = |old: &Value| {
            let mut new = old.clone();
            let count = old["series"]["count"].as_i64().unwrap_or(1).saturating_add(1);
            new["series"] = json!({"count": count, "lastObservedTime": meta::time::format_micro(now)});
            Ok(new)
        };
        self.verbs.amend("", "events", namespace, name, counted).await.is_ok()
    }
}
