//! What travels to the kubelet's loop, and the way in: whoever does something outside of it (informers, the executor, the
//! runtime's events, the HTTP API) knows this file and not the loop. Does no I/O; the channel is in memory.
//!
//! ```text
//! informers, files ──Pod, Synced, Static──┐
//! executor         ──Answer───────────────┤
//! runtime's events ──Runtime──────────────┼──► Mailbox ──► the loop (`daemon`), one message after the other
//! objects of pods  ──Changed──────────────┤
//! HTTP API         ──Query────────────────┘◄── oneshot ── its answer
//! ```

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use client::Delta;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

use crate::pod::verdict::Pressure;
use crate::worker::observation::LifecycleEvent;
use crate::worker::{Event, PodWorker};

/// Everything that the loop reacts to.
#[allow(clippy::large_enum_variant)]
pub enum Message {
    Pod(Delta<Pod>),
    /// The pods that files name now.
    Static(Vec<Pod>),
    /// All pods of the API are in the cache.
    Synced,
    /// What became of an action, or what else happened to a pod.
    Answer {
        uid: String,
        event: Event,
    },
    Runtime(LifecycleEvent),
    /// An object changed that these pods (by UID) refer to.
    Changed {
        pods: Vec<String>,
    },
    /// The node has other addresses now.
    HostIps(Vec<String>),
    Query(Query),
}

/// What the HTTP API and housekeeping ask of the loop.
pub enum Query {
    /// All pods with their status, in the order of their UIDs.
    Pods(oneshot::Sender<Vec<Arc<Pod>>>),
    /// One pod by namespace and name (and UID, if given).
    Pod { namespace: String, name: String, uid: Option<String>, reply: oneshot::Sender<Option<Box<PodWorker>>> },
    /// All workers as they are.
    Workers(oneshot::Sender<Vec<PodWorker>>),
    /// The loop is alive.
    Ping(oneshot::Sender<()>),
}

/// The way into the loop. Cheap to clone.
///
/// It has no bound, for none would be right. An informer's callback can't wait, and a word that is dropped is lost for
/// good: a worker waits for the answer to what it asked, and nobody repeats it. What can be in it is bounded by who
/// sends: a pod asks for each thing once until it is answered, the runtime has so many containers, a client of the HTTP
/// API waits for its answer before it asks again, and the loop itself never waits for anybody.
#[derive(Clone)]
pub struct Mailbox(UnboundedSender<Message>);

/// A mailbox, and the end of it that the loop reads.
pub fn mailbox() -> (Mailbox, UnboundedReceiver<Message>) {
    // See `Mailbox`.
    let (to, inbox) = unbounded_channel();
    (Mailbox(to), inbox)
}

impl Mailbox {
    /// False when the loop has ended, which is when the kubelet is being stopped: nobody wants to know any more.
    pub fn send(&self, message: Message) -> bool {
        self.0.send(message).is_ok()
    }

    /// The loop's answer to a question; `None` when the loop has ended.
    ///
    /// `mailbox.ask(Query::Workers).await`
    pub async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Query) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Query(question(reply)));
        answer.await.ok()
    }
}

/// What others find out of the node, for its status. Shared by all who find out or tell. Cheap to clone.
#[derive(Clone, Default)]
pub struct NodeSignals {
    pub pressure: Arc<Mutex<Pressure>>,
    /// The machine is about to stop.
    pub leaving: Arc<AtomicBool>,
    /// Something else than before is to be told: wakes the heartbeat.
    pub changed: Arc<Notify>,
}
