//! I/O: the Watch service: one task a stream, which owns its watches and tells them in turn.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming, async_trait};
use wire::etcd::watch_create_request::FilterType;
use wire::etcd::watch_request::RequestUnion;
use wire::etcd::watch_server::Watch;
use wire::etcd::{Event, EventType, WatchCreateRequest, WatchRequest, WatchResponse};

use super::{Server, stopped};
use crate::engine::{Signal, WatchMessage, WatchOptions, Watcher};
use crate::recent::Change;

/// Answers that may wait for a slow client before its watches do.
const ANSWERS: usize = 16;
/// Messages told before the stream looks at requests again: a busy watch must not keep a cancellation out.
const TOLD_AT_ONCE: usize = 64;
/// Watches of all clients at once: half a kilobyte each, far above what the resources of a cluster need.
const MOST_WATCHES: usize = 200_000;
/// The ID of answers that concern no single watch.
const NO_WATCH: i64 = -1;

type Answers = mpsc::Sender<Result<WatchResponse, Status>>;

#[async_trait]
impl Watch for Server {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, mut waiting) = mpsc::channel(ANSWERS);
        let watches = Watches {
            server: self.clone(),
            answers,
            signal: Arc::new(Signal::default()),
            open: BTreeMap::new(),
            next_id: 0,
            progress: None,
        };
        tokio::spawn(watches.run(request.into_inner()));
        Ok(Response::new(Box::pin(futures::stream::poll_fn(move |cx| waiting.poll_recv(cx)))))
    }
}

/// A place among [`MOST_WATCHES`], given back when the watch ends.
struct Place(Server);

impl Place {
    fn take(server: &Server) -> Option<Place> {
        let place = Place(server.clone());
        (server.0.watches.fetch_add(1, Ordering::Relaxed) < MOST_WATCHES).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One watch of a stream.
struct Open {
    _place: Place,
    watcher: Watcher,
    fragment: bool,
    prev_kv: bool,
    /// When an idle watch is next told the revision, if it asked for it.
    progress_at: Option<Instant>,
}

/// The watches of one stream.
struct Watches {
    server: Server,
    answers: Answers,
    signal: Arc<Signal>,
    open: BTreeMap<i64, Open>,
    next_id: i64,
    /// The revision that a client asked to be told once everything up to it has been.
    progress: Option<i64>,
}

/// The client is gone.
struct Gone;

impl Watches {
    async fn run(mut self, mut requests: Streaming<WatchRequest>) {
        let ending = self.server.0.ending.clone();
        loop {
            let progress = self.open.values().filter_map(|o| o.progress_at).min();
            let outcome = tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(request)) => self.request(request).await,
                    _ => return,
                },
                () = self.signal.wait() => Ok(()),
                () = sleep_until(progress), if progress.is_some() => self.tell_idle().await,
                () = self.answers.closed() => return,
                () = ending.cancelled() => {
                    let _ = self.answers.send(Err(stopped())).await;
                    return;
                }
            };
            if outcome.is_err() || self.tell().await.is_err() {
                return;
            }
        }
    }

    async fn send(&self, answer: WatchResponse) -> Result<(), Gone> {
        self.answers.send(Ok(answer)).await.map_err(|_| Gone)
    }

    async fn request(&mut self, request: WatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                if self.open.remove(&cancel.watch_id).is_none() {
                    return Ok(());
                }
                let header = self.server.header_now();
                self.send(WatchResponse { header, watch_id: cancel.watch_id, canceled: true, ..Default::default() })
                    .await
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress = Some(self.server.etcd().published());
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, create: WatchCreateRequest) -> Result<(), Gone> {
        let key = if create.key.is_empty() { Bytes::from_static(&[0]) } else { create.key };
        let from_key = create.range_end.as_ref() == [0];
        let empty = !create.range_end.is_empty() && !from_key && key >= create.range_end;
        let taken = create.watch_id != 0 && self.open.contains_key(&create.watch_id);
        let header = self.server.header_now();
        let place = Place::take(&self.server);
        let refusal = match &place {
            _ if empty => Some("mvcc: watcher range is empty"),
            _ if taken => Some("mvcc: duplicate watch ID provided on the WatchStream"),
            None => Some("etcdserver: too many requests"),
            Some(_) => None,
        };
        let (None, Some(place)) = (refusal, place) else {
            let reason = refusal.unwrap_or_default();
            let refused =
                WatchResponse { header, watch_id: NO_WATCH, created: true, canceled: true, ..Default::default() };
            return self.send(WatchResponse { cancel_reason: reason.to_owned(), ..refused }).await;
        };
        let id = if create.watch_id != 0 { create.watch_id } else { self.free_id() };
        let filtered = |kind: FilterType| create.filters.contains(&(kind as i32));
        let options = WatchOptions {
            key,
            range_end: create.range_end,
            start_revision: create.start_revision,
            prev_kv: create.prev_kv,
            no_put: filtered(FilterType::Noput),
            no_delete: filtered(FilterType::Nodelete),
            progress: false,
        };
        self.send(WatchResponse { header, watch_id: id, created: true, ..Default::default() }).await?;
        let watcher = self.server.etcd().watch_with(options, self.signal.clone(), id);
        let progress_at = create.progress_notify.then(|| Instant::now() + self.interval());
        let (fragment, prev_kv) = (create.fragment, create.prev_kv);
        self.open.insert(id, Open { _place: place, watcher, fragment, prev_kv, progress_at });
        Ok(())
    }

    fn interval(&self) -> Duration {
        self.server.0.progress_interval
    }

    fn free_id(&mut self) -> i64 {
        while self.open.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Tells what there is, up to a bound; then what was asked for once everything before it has been told.
    async fn tell(&mut self) -> Result<(), Gone> {
        let mut left = TOLD_AT_ONCE;
        while let Some(id) = self.signal.pop() {
            while let Some(open) = self.open.get_mut(&id) {
                if left == 0 {
                    // Comes back after requests had their turn.
                    self.signal.raise(id);
                    return self.tell_progress().await;
                }
                left -= 1;
                let Some(message) = open.watcher.try_next() else { break };
                if open.progress_at.is_some() {
                    open.progress_at = Some(Instant::now() + self.server.0.progress_interval);
                }
                let (fragment, prev_kv) = (open.fragment, open.prev_kv);
                self.message(id, message, fragment, prev_kv).await?;
            }
        }
        self.tell_progress().await
    }

    async fn tell_progress(&mut self) -> Result<(), Gone> {
        let Some(revision) = self.progress.filter(|r| self.open.values().all(|o| o.watcher.has_told(*r))) else {
            return Ok(());
        };
        self.progress = None;
        let header = self.server.header(revision);
        self.send(WatchResponse { header, watch_id: NO_WATCH, ..Default::default() }).await
    }

    async fn message(&mut self, id: i64, message: WatchMessage, fragment: bool, prev_kv: bool) -> Result<(), Gone> {
        match message {
            WatchMessage::Changes { revision, changes } => {
                let header = self.server.header(revision);
                let events = changes.iter().map(|c| event(c, prev_kv)).collect();
                let answer = WatchResponse { header, watch_id: id, events, ..Default::default() };
                if !fragment {
                    return self.send(answer).await;
                }
                for piece in fragments(answer, self.server.receive_limit()) {
                    self.send(piece).await?;
                }
                Ok(())
            }
            WatchMessage::Progress { revision } => {
                let header = self.server.header(revision);
                self.send(WatchResponse { header, watch_id: id, ..Default::default() }).await
            }
            WatchMessage::Compacted { compact_revision } => {
                self.open.remove(&id);
                let header = self.server.header_now();
                let over =
                    WatchResponse { header, watch_id: id, canceled: true, compact_revision, ..Default::default() };
                self.send(over).await
            }
            WatchMessage::Failed(error) => {
                self.open.remove(&id);
                let header = self.server.header_now();
                let over = WatchResponse { header, watch_id: id, canceled: true, ..Default::default() };
                self.send(WatchResponse { cancel_reason: error.to_string(), ..over }).await
            }
        }
    }

    /// Tells the revision to watches that asked for it and had nothing to tell for long.
    async fn tell_idle(&mut self) -> Result<(), Gone> {
        let now = Instant::now();
        let revision = self.server.etcd().published();
        let interval = self.interval();
        let due = |o: &Open| o.progress_at.is_some_and(|at| at <= now) && o.watcher.has_told(revision);
        let ids: Vec<i64> = self.open.iter().filter(|(_, o)| due(o)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(open) = self.open.get_mut(&id) {
                open.progress_at = Some(now + interval);
            }
            let header = self.server.header(revision);
            self.send(WatchResponse { header, watch_id: id, ..Default::default() }).await?;
        }
        // One that is busy gets its next turn later: its changes tell the revision.
        for open in self.open.values_mut().filter(|o| o.progress_at.is_some_and(|at| at <= now)) {
            open.progress_at = Some(now + interval);
        }
        Ok(())
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The event of a change; what the key held before is told only to those who asked: others share the change.
fn event(change: &Change, prev_kv: bool) -> Event {
    let previous = if prev_kv { change.prev_kv.get().cloned().flatten() } else { None };
    Event {
        r#type: if change.deleted { EventType::Delete } else { EventType::Put } as i32,
        kv: Some(change.kv.clone()),
        prev_kv: previous,
    }
}

/// Splits an answer so that each piece is smaller than `limit`, unless a single event is not.
fn fragments(answer: WatchResponse, limit: usize) -> Vec<WatchResponse> {
    if answer.encoded_len() < limit || answer.events.len() < 2 {
        return vec![answer];
    }
    let empty = WatchResponse { events: Vec::new(), fragment: true, ..answer.clone() };
    let mut pieces: Vec<WatchResponse> = Vec::new();
    let mut size = 0;
    for event in answer.events {
        let bytes = event.encoded_len();
        match pieces.last_mut().filter(|_| size + bytes < limit) {
            Some(piece) => {
                size += bytes;
                piece.events.push(event);
            }
            None => {
                size = bytes;
                pieces.push(WatchResponse { events: vec![event], ..empty.clone() });
            }
        }
    }
    if let Some(last) = pieces.last_mut() {
        last.fragment = false;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::etcd::KeyValue;

    #[test]
    fn watches_of_all_clients_are_bounded_and_places_come_back() {
        let dir = tempfile::tempdir().expect("dir");
        let etcd = crate::Etcd::open(crate::Options::new(dir.path())).expect("open");
        let server = Server::new(etcd, Duration::from_secs(1));
        server.0.watches.store(MOST_WATCHES - 1, Ordering::Relaxed);
        let last = Place::take(&server).expect("a place");
        assert!(Place::take(&server).is_none());
        drop(last);
        assert!(Place::take(&server).is_some());
    }

    #[test]
    fn fragments_stay_below_the_limit_and_keep_order() {
        let event = |n: u8| Event {
            kv: Some(KeyValue { key: vec![n].into(), value: vec![n; 100].into(), ..KeyValue::default() }),
            ..Event::default()
        };
        let answer = WatchResponse { watch_id: 3, events: (0..10).map(event).collect(), ..WatchResponse::default() };
        let pieces = fragments(answer.clone(), 300);
        assert!(pieces.len() > 3 && pieces.iter().all(|p| p.encoded_len() < 330 && p.watch_id == 3));
        let marks: Vec<bool> = pieces.iter().map(|p| p.fragment).collect();
        assert!(marks[..marks.len() - 1].iter().all(|m| *m) && !marks[marks.len() - 1]);
        let joined: Vec<Event> = pieces.into_iter().flat_map(|p| p.events).collect();
        assert_eq!(joined, answer.events);
        assert_eq!(fragments(answer.clone(), 1 << 20), [answer]);
    }
}
