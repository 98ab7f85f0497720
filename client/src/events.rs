//! Events, as `kubectl describe` shows them: core/v1, one object per (regarding, reason, note), counted when it
//! happens again. Recording never fails a decision: what can't be written is logged and forgotten.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;

/// Events remembered for counting; upstream's correlator keeps as many.
const REMEMBERED: usize = 4096;

/// Events waiting to be written by [`EventRecorder::tell`]; upstream's broadcaster queues as many before it drops.
const WAITING: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Same {
    object: (String, String, String, String),
    reason: String,
    note: String,
}

#[derive(Debug, Clone)]
struct Known {
    name: String,
    count: i32,
}

#[derive(Debug, Default)]
struct Memory {
    known: HashMap<Same, Known>,
    order: VecDeque<Same>,
}

/// Writes events as one component. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    client: kube::Client,
    component: String,
    host: Option<String>,
    memory: Arc<Mutex<Memory>>,
    waiting: Arc<OnceLock<mpsc::Sender<Told>>>,
}

struct Told {
    regarding: ObjectReference,
    kind: EventType,
    reason: String,
    note: String,
}

impl EventRecorder {
    pub fn new(client: kube::Client, component: &str) -> EventRecorder {
        EventRecorder {
            client,
            component: component.to_owned(),
            host: None,
            memory: Arc::default(),
            waiting: Arc::default(),
        }
    }

    /// The node that events come from (kubelet, kube-proxy).
    pub fn on_host(mut self, host: &str) -> EventRecorder {
        self.host = Some(host.to_owned());
        self
    }

    pub async fn record(&self, regarding: &ObjectReference, kind: EventType, reason: &str, note: &str) {
        if let Err(error) = self.write(regarding, kind, reason, note).await {
            tracing::debug!(%error, reason, "event not recorded");
        }
    }

    /// As [`EventRecorder::record`], without waiting: written in order by a task of its own, dropped when too many wait.
    pub fn tell(&self, regarding: &ObjectReference, kind: EventType, reason: &str, note: &str) {
        let waiting = self.waiting.get_or_init(|| {
            let (sender, mut receiver) = mpsc::channel::<Told>(WAITING);
            // The writer must not hold the sender: it ends when the last recorder is gone.
            let writer = EventRecorder { waiting: Arc::default(), ..self.clone() };
            tokio::spawn(async move {
                while let Some(told) = receiver.recv().await {
                    writer.record(&told.regarding, told.kind, &told.reason, &told.note).await;
                }
            });
            sender
        });
        let told = Told { regarding: regarding.clone(), kind, reason: reason.to_owned(), note: note.to_owned() };
        if waiting.try_send(told).is_err() {
            tracing::debug!(reason, "too many events waiting, one dropped");
        }
    }

    async fn write(&self, about: &ObjectReference, kind: EventType, reason: &str, note: &str) -> kube::Result<()> {
        let namespace = about.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        let same = Same {
            object: (text(&about.kind), text(&about.namespace), text(&about.name), text(&about.field_path)),
            reason: reason.to_owned(),
            note: note.to_owned(),
        };
        if let Some(known) = self.again(&same) {
            let patch = json!({"count": known.count, "lastTimestamp": now()});
            match api.patch(&known.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                // Events expire: then this is a first one again.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => return other.map(|_| ()),
            }
        }
        let nanos = jiff::Timestamp::now().as_nanosecond();
        let name = format!("{}.{:x}", about.name.as_deref().unwrap_or("unknown"), nanos as u64);
        let event = self.event(about, kind, reason, note, namespace, &name);
        api.create(&PostParams::default(), &event).await?;
        self.remember(same, name);
        Ok(())
    }

    fn event(
        &self,
        about: &ObjectReference,
        kind: EventType,
        reason: &str,
        note: &str,
        namespace: &str,
        name: &str,
    ) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some(namespace.into()),
                ..ObjectMeta::default()
            },
            involved_object: about.clone(),
            type_: Some(kind.as_str().into()),
            reason: Some(reason.into()),
            message: Some(note.into()),
            source: Some(EventSource { component: Some(self.component.clone()), host: self.host.clone() }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: self.host.clone(),
            first_timestamp: Some(now()),
            last_timestamp: Some(now()),
            count: Some(1),
            ..Event::default()
        }
    }

    fn again(&self, same: &Same) -> Option<Known> {
        let mut memory = self.memory.lock();
        let known = memory.known.get_mut(same)?;
        known.count += 1;
        Some(known.clone())
    }

    fn remember(&self, same: Same, name: String) {
        let mut memory = self.memory.lock();
        if memory.known.insert(same.clone(), Known { name, count: 1 }).is_none() {
            memory.order.push_back(same);
        }
        if memory.order.len() > REMEMBERED
            && let Some(oldest) = memory.order.pop_front()
        {
            memory.known.remove(&oldest);
        }
    }
}

fn now() -> Time {
    let now = jiff::Timestamp::now();
    Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
}
