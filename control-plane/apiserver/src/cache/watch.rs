//! Watchers of one resource: who gets which event, and what happens to one that does not keep up.
//!
//! Events are offered only to watchers whose [`Scope`] can match, found by index: ten thousand kubelets watching their
//! own pods cost one lookup an event. Queues are bounded. A watcher whose queue overflows continues from the event
//! window when it comes back, and is cut when the window has moved on; then its client relists.
//! I/O: waits on tokio's channels and clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;

use super::{Cache, Event};

/// Events queued per watcher before it is left to catch up from the window; slots are allocated as they fill.
const QUEUE: usize = 512;

/// The coarse part of what a watcher wants; the exact selectors are applied by its owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    All,
    /// Objects of one namespace.
    Namespace(String),
    /// The object at one store key.
    Object(Bytes),
    /// Objects whose selectable field (by index) has, or had before the event, this value.
    Field(usize, String),
}

impl Scope {
    pub(super) fn covers(&self, event: &Event) -> bool {
        match self {
            Scope::All => true,
            Scope::Namespace(namespace) => event.entry.namespace() == namespace,
            Scope::Object(key) => event.entry.key == *key,
            Scope::Field(index, value) => {
                event.entry.field(*index) == value
                    || event.previous.as_ref().is_some_and(|previous| previous.field(*index) == value)
            }
        }
    }
}

struct Slot {
    id: u64,
    sender: mpsc::Sender<Arc<Event>>,
}

/// Where a watcher begins.
pub(super) struct Start {
    /// Events to hand out first.
    pub backlog: VecDeque<Arc<Event>>,
    /// Events up to this revision are not wanted (it may lie in the future).
    pub after: i64,
    /// Sequence of the newest event at registration: the queue gets everything after it.
    pub sequence: u64,
}

#[derive(Default)]
pub(super) struct Watchers {
    next_id: u64,
    count: usize,
    by_scope: FxHashMap<Scope, Vec<Slot>>,
    /// Field indexes that some watcher uses, with their number of watchers.
    fields: Vec<(usize, usize)>,
}

impl Watchers {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn clear(&mut self) {
        self.by_scope.clear();
        self.fields.clear();
        self.count = 0;
    }

    pub(super) fn register(&mut self, cache: Arc<Cache>, start: Start, scope: Scope) -> Watcher {
        let (id, receiver) = self.insert(scope.clone());
        Watcher { cache, id, scope, receiver, backlog: start.backlog, after: start.after, sequence: start.sequence }
    }

    fn insert(&mut self, scope: Scope) -> (u64, mpsc::Receiver<Arc<Event>>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.next_id += 1;
        self.count += 1;
        if let Scope::Field(index, _) = scope {
            match self.fields.iter_mut().find(|(i, _)| *i == index) {
                Some((_, count)) => *count += 1,
                None => self.fields.push((index, 1)),
            }
        }
        self.by_scope.entry(scope).or_default().push(Slot { id: self.next_id, sender });
        (self.next_id, receiver)
    }

    fn remove(&mut self, scope: &Scope, id: u64) {
        let Some(slots) = self.by_scope.get_mut(scope) else { return };
        let Some(at) = slots.iter().position(|slot| slot.id == id) else { return };
        slots.swap_remove(at);
        let empty = slots.is_empty();
        self.forget(scope, empty);
    }

    fn forget(&mut self, scope: &Scope, empty: bool) {
        self.count -= 1;
        if empty {
            self.by_scope.remove(scope);
        }
        if let Scope::Field(index, _) = scope
            && let Some(at) = self.fields.iter().position(|(i, _)| i == index)
        {
            self.fields[at].1 -= 1;
            if self.fields[at].1 == 0 {
                self.fields.swap_remove(at);
            }
        }
    }

    pub(super) fn dispatch(&mut self, event: &Arc<Event>) {
        if self.count == 0 {
            return;
        }
        self.offer(&Scope::All, event);
        if !event.entry.namespace().is_empty() {
            self.offer(&Scope::Namespace(event.entry.namespace().to_owned()), event);
        }
        self.offer(&Scope::Object(event.entry.key.clone()), event);
        for at in 0..self.fields.len() {
            let Some(&(index, _)) = self.fields.get(at) else { break };
            let value = event.entry.field(index);
            self.offer(&Scope::Field(index, value.to_owned()), event);
            if let Some(before) = event.previous.as_ref().map(|p| p.field(index)).filter(|before| *before != value) {
                self.offer(&Scope::Field(index, before.to_owned()), event);
            }
        }
    }

    fn offer(&mut self, scope: &Scope, event: &Arc<Event>) {
        let Some(slots) = self.by_scope.get_mut(scope) else { return };
        // A full or closed queue loses its slot; a live watcher sees its channel end and catches up.
        let before = slots.len();
        slots.retain(|slot| slot.sender.try_send(event.clone()).is_ok());
        let (lost, empty) = (before - slots.len(), slots.is_empty());
        for _ in 0..lost {
            self.forget(scope, empty);
        }
    }
}

/// The receiving end. Ends when the window no longer reaches back to the last event taken.
pub struct Watcher {
    cache: Arc<Cache>,
    id: u64,
    scope: Scope,
    receiver: mpsc::Receiver<Arc<Event>>,
    backlog: VecDeque<Arc<Event>>,
    after: i64,
    /// Everything up to here has been handed out, or is in `backlog`.
    sequence: u64,
}

impl Watcher {
    /// The next event that the scope covers, in revision order.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arc<Event>>> {
        loop {
            let event = match self.backlog.pop_front() {
                Some(event) => event,
                None => match ready!(self.receiver.poll_recv(cx)) {
                    Some(event) => event,
                    None if self.catch_up() => continue,
                    None => return Poll::Ready(None),
                },
            };
            self.sequence = self.sequence.max(event.sequence);
            if event.revision() > self.after {
                return Poll::Ready(Some(event));
            }
        }
    }

    /// The next event, or `None` when the watcher was cut.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// A revision for a bookmark: everything up to it has been queued, so it is true once the queue is drained. Read
    /// it first, then drain.
    pub fn bookmark(&self) -> i64 {
        self.cache.revision()
    }

    fn catch_up(&mut self) -> bool {
        let cache = self.cache.clone();
        match cache.watch_after(self.sequence, self.after, self.scope.clone()) {
            Some(fresh) => *self = fresh,
            None => return false,
        }
        true
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.cache.watchers.lock().remove(&self.scope, self.id);
    }
}
