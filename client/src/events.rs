//! Events, as `kubectl describe` shows them: core/v1, one object per (regarding, reason, note), counted when it
//! happens again. Recording never fails a decision: what can't be written is logged and forgotten. I/O. Who calls:
//! [`crate::Executor`] for what plans tell, the kubelet, and the binary for what it tells of its host.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::api::{Api, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::rate::Rate;

/// Events remembered for counting; upstream's correlator keeps as many.
const REMEMBERED: usize = 4096;

/// Events that wait in the queue of [`EventRecorder::tell`]; upstream's broadcaster holds as many before it drops.
const WAITING: usize = 1000;

/// How an event is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// For information.
    Normal,
    /// Something that a person may have to look after.
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

/// What events and target references say of an object.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
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

/// Writes events as one component. Cheap to clone; clones share one memory of what was written, and one queue.
#[derive(Clone)]
pub struct EventRecorder {
    client: kube::Client,
    component: String,
    host: Option<String>,
    rate: Option<Rate>,
    memory: Arc<Mutex<Memory>>,
    queue: Arc<OnceLock<mpsc::Sender<Queued>>>,
}

struct Queued {
    regarding: ObjectReference,
    kind: EventType,
    reason: String,
    note: String,
}

impl EventRecorder {
    /// Events come from `component`.
    pub fn new(client: kube::Client, component: &str) -> EventRecorder {
        EventRecorder {
            client,
            component: component.to_owned(),
            host: None,
            rate: None,
            memory: Arc::default(),
            queue: Arc::default(),
        }
    }

    /// The node that events come from (kubelet, kube-proxy).
    pub fn on_host(mut self, host: &str) -> EventRecorder {
        self.host = Some(host.to_owned());
        self
    }

    /// The queue is written no faster than this; None is without a limit. To be said before the first event.
    pub fn at_rate(mut self, rate: Option<Rate>) -> EventRecorder {
        self.rate = rate;
        self
    }

    /// Writes an event and waits for it, past the queue: for who ends right after it.
    pub async fn record(&self, regarding: &ObjectReference, kind: EventType, reason: &str, note: &str) {
        if let Err(error) = self.write(regarding, kind, reason, note).await {
            tracing::debug!(%error, reason, "event not recorded");
        }
    }

    /// Writes an event without waiting, as client-go's `Event`: one after the other in the order of the calls, by a task
    /// that begins with the first of them and ends with the last clone. What does not fit into the queue is dropped, the
    /// newest first.
    pub fn event(&self, regarding: &ObjectReference, kind: EventType, reason: &str, note: &str) {
        let queue = self.queue.get_or_init(|| {
            let (sender, receiver) = mpsc::channel(WAITING);
            // The writer must not hold the sender: it ends when the last recorder is gone.
            let writer = EventRecorder { queue: Arc::default(), ..self.clone() };
            tokio::spawn(writer.write_queued(receiver));
            sender
        });
        let queued = Queued { regarding: regarding.clone(), kind, reason: reason.to_owned(), note: note.to_owned() };
        if queue.try_send(queued).is_err() {
            tracing::debug!(reason, "too many events waiting, one dropped");
        }
    }

    async fn write_queued(mut self, mut queue: mpsc::Receiver<Queued>) {
        let began = Instant::now();
        while let Some(event) = queue.recv().await {
            if let Some(rate) = &mut self.rate {
                tokio::time::sleep(rate.take(began.elapsed())).await;
            }
            self.record(&event.regarding, event.kind, &event.reason, &event.note).await;
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
        let event = self.object(about, kind, reason, note, namespace, &name);
        api.create(&PostParams::default(), &event).await?;
        self.remember(same, name);
        Ok(())
    }

    fn object(
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use http::{Method, Request, Response};
    use kube::client::Body;
    use serde_json::Value;

    use super::*;

    type Requests = Arc<Mutex<Vec<(Method, Value)>>>;

    /// A server that takes every event, and what it was sent.
    fn server() -> (kube::Client, Requests) {
        let requests = Requests::default();
        let seen = requests.clone();
        let client = crate::in_process(tower::service_fn(move |request: Request<Body>| {
            let seen = seen.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body: Value = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap();
                seen.lock().push((parts.method, body));
                let answer = json!({"metadata": {"name": "e"}, "involvedObject": {}}).to_string();
                Ok::<_, Infallible>(Response::new(http_body_util::Full::new(bytes::Bytes::from(answer))))
            }
        }));
        (client, requests)
    }

    fn pod() -> ObjectReference {
        ObjectReference { kind: Some("Pod".into()), name: Some("p".into()), ..ObjectReference::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_happens_again_is_counted() {
        let (client, requests) = server();
        let recorder = EventRecorder::new(client, "part").on_host("n1");
        for _ in 0..3 {
            recorder.record(&pod(), EventType::Warning, "BackOff", "restarting").await;
        }
        recorder.record(&pod(), EventType::Warning, "BackOff", "another").await;
        let requests = requests.lock();
        let methods: Vec<&Method> = requests.iter().map(|(method, _)| method).collect();
        assert_eq!(methods, [Method::POST, Method::PATCH, Method::PATCH, Method::POST]);
        assert_eq!(requests[2].1["count"], 3);
        assert_eq!(requests[0].1["source"], json!({"component": "part", "host": "n1"}));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_keeps_the_order_and_the_rate_and_drops_what_is_too_much() {
        let (client, requests) = server();
        let recorder = EventRecorder::new(client, "part").at_rate(Rate::new(10, 5));
        for n in 0..WAITING + 50 {
            recorder.event(&pod(), EventType::Normal, "Recorded", &n.to_string());
        }
        tokio::time::sleep(Duration::from_millis(1050)).await;
        assert_eq!(requests.lock().len(), 5 + 10, "a burst of five, then ten a second");
        tokio::time::sleep(Duration::from_secs(200)).await;
        let notes: Vec<String> = requests.lock().iter().map(|(_, e)| e["message"].as_str().unwrap().into()).collect();
        let wanted: Vec<String> = (0..WAITING).map(|n| n.to_string()).collect();
        assert_eq!(notes, wanted, "the newest were dropped");
    }
}
