//! The connections that a port holds at this moment: a [`Crowd`] with the means to close one. I/O: waits on tokio's
//! clock. Called by `listener` and `http`.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::crowd::{Crowd, Entry, From, Id, Stage};
use crate::shares::{self, Port};

/// A newcomer waits this long for one of those that were told to close.
const MAKE_ROOM: Duration = Duration::from_millis(500);
/// So many are closed at a time when the process has no descriptors: enough for those who wait.
const SHED: usize = 16;
/// A full port is told of so often at most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The connections of a port, or of several that share one limit.
#[derive(Debug)]
pub struct Connections {
    port: Port,
    inner: Mutex<Inner>,
    freed: Notify,
}

#[derive(Debug)]
struct Inner {
    crowd: Crowd,
    leave: HashMap<Id, CancellationToken>,
    told: Option<Instant>,
}

impl Connections {
    /// As many as this port may hold in this process.
    pub fn of(port: Port) -> Arc<Connections> {
        Connections::with_limit(port, shares::limit(port))
    }

    /// As [`Connections::of`], with another number of places: for tests, and for ports whose number is a flag.
    pub fn with_limit(port: Port, limit: usize) -> Arc<Connections> {
        let inner = Inner { crowd: Crowd::new(limit), leave: HashMap::new(), told: None };
        Arc::new(Connections { port, inner: Mutex::new(inner), freed: Notify::new() })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.inner.lock().crowd.len()
    }

    /// A place for a connection, where another that is missed less gives way for it. None: there is no place.
    pub async fn enter(self: &Arc<Self>, from: From) -> Option<Arc<Slot>> {
        let late = Instant::now() + MAKE_ROOM;
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            match self.try_enter(from) {
                Poll::Ready(slot) => return slot,
                Poll::Pending => tokio::time::timeout_at(late, freed).await.ok()?,
            }
        }
    }

    /// Pending: enough were told to close.
    fn try_enter(self: &Arc<Self>, from: From) -> Poll<Option<Arc<Slot>>> {
        let mut inner = self.inner.lock();
        let entry = inner.crowd.enter(from);
        if !matches!(entry, Entry::Admitted(_)) {
            inner.tell(self.port);
        }
        let id = match entry {
            Entry::Admitted(id) => id,
            Entry::Instead(id, other) => {
                inner.close(other);
                id
            }
            Entry::Wait => return Poll::Pending,
            Entry::Full => return Poll::Ready(None),
        };
        let leave = CancellationToken::new();
        inner.leave.insert(id, leave.clone());
        let state = Mutex::new(State { running: 0, asked: false, since: Instant::now() });
        Poll::Ready(Some(Arc::new(Slot { table: self.clone(), id, leave, heard: AtomicBool::new(false), state })))
    }

    /// Closes the connections that are missed least: the process has no descriptor left.
    pub fn shed(&self) {
        let mut inner = self.inner.lock();
        for _ in 0..SHED {
            let Some(id) = inner.crowd.shed() else { return };
            inner.close(id);
        }
    }
}

impl Inner {
    fn close(&mut self, id: Id) {
        if let Some(leave) = self.leave.get(&id) {
            leave.cancel();
        }
    }

    fn tell(&mut self, port: Port) {
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            let connections = self.crowd.len();
            tracing::warn!(?port, connections, "the port is full: connections that ask nothing are closed");
        }
    }
}

/// A connection's place; dropping it frees it.
#[derive(Debug)]
pub struct Slot {
    table: Arc<Connections>,
    id: Id,
    leave: CancellationToken,
    heard: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Requests that run.
    running: usize,
    /// There was one.
    asked: bool,
    /// When it last changed between working and not.
    since: Instant,
}

/// A connection without a running request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quiet {
    /// It had one before.
    pub asked: bool,
    pub since: Instant,
}

impl Slot {
    /// Resolves when the connection has to be closed to make room.
    pub async fn must_close(&self) {
        self.leave.cancelled().await;
    }

    /// A byte came.
    pub(crate) fn heard(&self) {
        if !self.heard.load(Ordering::Relaxed) && !self.heard.swap(true, Ordering::Relaxed) {
            self.stage(Stage::Silent);
        }
    }

    /// The peer is known.
    pub fn know(&self) {
        self.table.inner.lock().crowd.know(self.id);
    }

    /// A request runs until what is given back is dropped.
    pub fn begin(self: &Arc<Self>) -> Turn {
        let mut state = self.state.lock();
        state.running += 1;
        state.asked = true;
        if state.running == 1 {
            state.since = Instant::now();
            self.stage(Stage::Busy);
        }
        Turn(Some(self.clone()))
    }

    /// Whether no request runs, and since when.
    pub(crate) fn quiet(&self) -> Option<Quiet> {
        let state = self.state.lock();
        (state.running == 0).then_some(Quiet { asked: state.asked, since: state.since })
    }

    fn stage(&self, stage: Stage) {
        self.table.inner.lock().crowd.stage(self.id, stage);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inner = self.table.inner.lock();
        inner.crowd.leave(self.id);
        inner.leave.remove(&self.id);
        drop(inner);
        self.table.freed.notify_waiters();
    }
}

/// A running request.
#[derive(Debug)]
pub struct Turn(Option<Arc<Slot>>);

impl Turn {
    /// It runs as long as the connection is open.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(slot) = &self.0 else { return };
        let mut state = slot.state.lock();
        state.running -= 1;
        if state.running == 0 {
            state.since = Instant::now();
            slot.stage(Stage::Idle);
        }
    }
}
