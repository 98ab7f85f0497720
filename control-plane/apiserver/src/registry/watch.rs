//! GET with watch: the stream of events of a resource through a client's selectors.
//! I/O: waits on tokio's channels and clock.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use meta::Status;
use tokio::time::{Instant, Sleep};

use super::Served;
use super::convert::BATCH;
use super::options::{ListOptions, Match};
use super::selection::Selection;
use super::verbs::Verbs;
use crate::cache::{Entry, Event, EventType, FrameKey, Watcher, WindowError};
use crate::http::answer::Answer;
use crate::http::body::{BoxError, Frames};
use crate::http::call::Call;
use crate::http::encode::EventEncoder;

/// How often a watch that wants bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long before a watch ends it gets its last bookmark.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Text of the annotation that ends the initial events of a streaming list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

impl Verbs {
    /// Opens a watch; the answer streams until timeout, shutdown or a client too slow.
    pub async fn watch(&self, call: &Call, served: &Arc<Served>) -> Result<Answer, Status> {
        let options = ListOptions::parse(&call.query, true)?;
        let namespace = if served.namespaced() { call.info.namespace.as_str() } else { "" };
        let fields = options.fields_for(&call.info.name)?;
        let selection = Selection::new(served, namespace, &options.labels, &fields)?;
        let accepted = call.accepted(served.custom, true)?;
        let encoder = EventEncoder::new(served.clone(), accepted, call);
        let (initial, watcher, mark_end, start) = match self.open_watch(served, &options, &selection).await {
            Ok(opened) => opened,
            // As upstream: who asked for what is forgotten hears it in the stream, and clients list again. Refused outright,
            // some try the same for ever.
            Err(status) if status.reason == meta::Reason::Expired => {
                return Ok(Answer::Watch(Box::new(Single(Some(encoder.error(&status))))));
            }
            Err(status) => return Err(status),
        };
        let timeout = match options.timeout_seconds {
            Some(seconds) => Duration::from_secs(seconds),
            None => self.min_watch.mul_f64(1.0 + rand::random::<f64>()),
        };
        let now = Instant::now();
        let stream = WatchBody {
            initial: initial.into_iter(),
            watcher,
            selection,
            encoder,
            served: served.clone(),
            converting: None,
            bookmarks: options.bookmarks,
            mark_end: mark_end.then_some(start),
            last: start,
            end: Box::pin(tokio::time::sleep_until(now + timeout)),
            bookmark: Box::pin(tokio::time::sleep_until(next_bookmark(now, now + timeout))),
            shutdown: Box::pin(self.stopping.clone().cancelled_owned()),
            ready: VecDeque::new(),
            done: false,
        };
        Ok(Answer::Watch(Box::new(stream)))
    }

    /// Initial objects, the events after them, whether an end mark is due, and the revision where events begin.
    async fn open_watch(
        &self,
        served: &Arc<Served>,
        options: &ListOptions,
        selection: &Selection,
    ) -> Result<(Vec<Arc<Entry>>, Watcher, bool, i64), Status> {
        let cache = &self.objects.stored(served)?.cache;
        let scope = selection.scope(cache, served.namespaced());
        let revision = options.revision()?;
        let streaming = options.send_initial_events == Some(true);
        let synthetic = match options.send_initial_events {
            Some(wanted) => wanted,
            // Without a revision, and from "any", the state comes first as ADDED events.
            None => matches!(revision, None | Some(0)),
        };
        if synthetic {
            match revision {
                Some(revision) if streaming && options.matching == Match::NotOlderThan => {
                    self.objects.reach(served, revision).await?
                }
                Some(_) => {}
                None => drop(self.objects.catch_up(served).await?),
            }
            let (snapshot, watcher) = cache.snapshot_and_watch(scope);
            let all = snapshot.range(&selection.prefix(cache), &Bytes::new());
            let initial: Vec<_> = all.filter(|entry| selection.matches(entry)).cloned().collect();
            return Ok((initial, watcher, streaming, snapshot.revision));
        }
        let from = match revision {
            Some(revision) if revision > 0 => revision,
            _ => self.objects.catch_up(served).await?,
        };
        match cache.watch(from, scope) {
            Ok(watcher) => Ok((Vec::new(), watcher, false, from)),
            Err(WindowError::TooNew { current }) => {
                Err(Status::too_large_resource_version(from as u64, current as u64, 1))
            }
            Err(WindowError::TooOld { oldest }) => {
                Err(Status::expired(format!("too old resource version: {from} ({oldest})")))
            }
        }
    }
}

fn next_bookmark(now: Instant, end: Instant) -> Instant {
    let last = end.checked_sub(BOOKMARK_BEFORE_END).filter(|last| *last > now).unwrap_or(end);
    (now + BOOKMARK_EVERY).min(last)
}

struct WatchBody {
    initial: std::vec::IntoIter<Arc<Entry>>,
    watcher: Watcher,
    selection: Selection,
    encoder: EventEncoder,
    served: Arc<Served>,
    /// Nothing else is sent before it: events keep their order.
    converting: Option<Pending>,
    bookmarks: bool,
    /// Send the bookmark that ends the initial events, at this revision.
    mark_end: Option<i64>,
    /// Revision of the last event sent.
    last: i64,
    end: Pin<Box<Sleep>>,
    bookmark: Pin<Box<Sleep>>,
    shutdown: Pin<Box<tokio_util::sync::WaitForCancellationFutureOwned>>,
    ready: VecDeque<Bytes>,
    done: bool,
}

type Shown = Result<Vec<Arc<Entry>>, Status>;

/// Objects that are of another version than the client wants, while they are converted.
struct Pending {
    shown: Pin<Box<dyn Future<Output = Shown> + Send>>,
    /// What they are shown in; none for initial objects.
    event: Option<(Arc<Event>, EventType)>,
}

impl WatchBody {
    /// What an event is to this client: entering and leaving the selection look like creation and deletion.
    fn seen(&self, event: &Event) -> Option<EventType> {
        let now = event.event != EventType::Deleted && self.selection.matches(&event.entry);
        let before = event.previous.as_ref().is_some_and(|previous| self.selection.matches(previous));
        match (before, now) {
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
            (false, false) => None,
        }
    }

    /// Sends the next of the initial objects, or begins to convert the next page of them.
    fn take_initial(&mut self) -> bool {
        let Some(next) = self.initial.as_slice().first() else { return false };
        if self.served.shows(next) {
            let frames = self.initial.next().map(|entry| self.encoder.event("ADDED", &entry));
            self.ready.extend(frames);
            return true;
        }
        let (served, page) = (self.served.clone(), self.initial.by_ref().take(BATCH).collect());
        let shown = Box::pin(async move { served.shown(page).await });
        self.converting = Some(Pending { shown, event: None });
        true
    }

    /// Sends an event, or begins to convert what it shows.
    fn take(&mut self, event: Arc<Event>) {
        let Some(kind) = self.seen(&event) else { return };
        // A deletion shows the last state that there was, or that matched. Converted, it is known by its own revision.
        let gone = kind == EventType::Deleted;
        let left = gone && (event.event != EventType::Deleted || !self.served.shows(&event.entry));
        let state = event.previous.as_ref().filter(|_| left).unwrap_or(&event.entry).clone();
        if self.served.shows(&state) {
            let frame = self.frame(&event, kind, &state);
            return self.ready.push_back(frame);
        }
        let sent = self.encoder.shared().then(|| event.framed(self.key(&event, kind))).flatten();
        if let Some(frame) = sent {
            return self.ready.push_back(frame);
        }
        let served = self.served.clone();
        let shown = Box::pin(async move { served.shown_one(&state).await.map(|state| vec![state]) });
        self.converting = Some(Pending { shown, event: Some((event, kind)) });
    }

    fn key(&self, event: &Event, kind: EventType) -> FrameKey {
        let previous = kind == EventType::Deleted && event.event != EventType::Deleted;
        FrameKey { event: kind, previous, format: self.encoder.format() }
    }

    /// The frame of an event that shows `state`: of a deletion, at the revision at which it ceased to match.
    fn frame(&self, event: &Event, kind: EventType, state: &Entry) -> Bytes {
        let encode = || {
            if state.revision == event.revision() {
                return self.encoder.event(kind.word(), state);
            }
            self.encoder.event(kind.word(), &state.at_revision(event.revision()))
        };
        if self.encoder.shared() { event.frame(self.key(event, kind), encode) } else { encode() }
    }

    /// Goes on with the conversion that is under way, if one is; whether it came to its end. An error is the last that a
    /// client hears, as upstream's is.
    fn poll_conversion(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(pending) = &mut self.converting else { return false };
        let Poll::Ready(outcome) = pending.shown.as_mut().poll(cx) else { return false };
        let event = self.converting.take().and_then(|pending| pending.event);
        match (outcome, event) {
            (Ok(shown), Some((event, kind))) => {
                let frames: Vec<_> = shown.iter().map(|state| self.frame(&event, kind, state)).collect();
                self.ready.extend(frames);
            }
            (Ok(shown), None) => {
                let encoder = &self.encoder;
                self.ready.extend(shown.iter().map(|entry| encoder.event("ADDED", entry)));
            }
            (Err(status), _) => {
                self.ready.push_back(self.encoder.error(&status));
                self.done = true;
            }
        }
        true
    }

    /// Takes what may come next, if anything did.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> bool {
        if self.take_initial() {
            return true;
        }
        if let Some(revision) = self.mark_end.take() {
            let frame = self.encoder.bookmark(revision, Some(INITIAL_EVENTS_END));
            self.ready.push_back(frame);
            return true;
        }
        match self.watcher.poll_next(cx) {
            Poll::Ready(Some(event)) => {
                self.last = self.last.max(event.revision());
                self.take(event);
                true
            }
            Poll::Ready(None) => {
                self.done = true;
                true
            }
            Poll::Pending => false,
        }
    }
}

/// A stream of one event.
struct Single(Option<Bytes>);

impl Frames for Single {
    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        Poll::Ready(self.0.take().map(Ok))
    }
}

impl Frames for WatchBody {
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        let this = &mut *self;
        loop {
            if let Some(frame) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if this.done {
                return Poll::Ready(None);
            }
            if this.poll_conversion(cx) {
                continue;
            }
            let converting = this.converting.is_some();
            // Read before the queue: everything up to here is in it.
            let complete = this.watcher.bookmark();
            if !converting && this.poll_source(cx) {
                continue;
            }
            if this.end.as_mut().poll(cx).is_ready() || this.shutdown.as_mut().poll(cx).is_ready() {
                this.done = true;
                continue;
            }
            if this.bookmarks && !converting && this.bookmark.as_mut().poll(cx).is_ready() {
                let (now, end) = (Instant::now(), this.end.deadline());
                this.bookmark.as_mut().reset(if now + BOOKMARK_BEFORE_END >= end {
                    end
                } else {
                    next_bookmark(now, end)
                });
                if now < end {
                    this.last = this.last.max(complete);
                    let frame = this.encoder.bookmark(this.last, None);
                    this.ready.push_back(frame);
                    continue;
                }
            }
            return Poll::Pending;
        }
    }
}
