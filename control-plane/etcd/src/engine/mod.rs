//! The store as a running thing: one writer thread proposes batches of commands to the log, a frame each, readers run
//! beside it on what is committed, a keeper thread frees old history and writes checkpoints. [`Etcd`] is the handle.
//! I/O lives in the modules below; the deciding is done by `txn`, `query`, `mvcc`.

mod checkpoint;
mod files;
mod hub;
mod keeper;
mod log;
#[cfg(test)]
mod log_tests;
mod membership;
mod pending;
mod recover;
pub mod restore;
mod wal;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};
use wire::etcd::{
    DeleteRangeRequest, DeleteRangeResponse, LeaseGrantResponse, LeaseTimeToLiveResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};

use crate::cluster::{Leadership, Member, Members};
use crate::error::{Error, OpenError};
use crate::hash::HashKv;
use crate::metrics::Metrics;
use crate::mvcc::Store;
use crate::query::{self, Query};
use crate::txn::{self, Command, Reply};
pub use files::Disk;
use files::{DataFile, Files};
use hub::Hub;
pub use hub::{Signal, WatchMessage, WatchOptions, Watcher};
use keeper::Task;
use log::{Alone, Log};
use wal::Wal;
use writer::{Job, Message};

/// How a store is opened. [`Options::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Options {
    pub data_dir: PathBuf,
    /// Bytes of keys and values (with their index) beyond which writes are refused.
    pub quota_bytes: u64,
    /// Largest request, in bytes.
    pub max_request_bytes: usize,
    /// Most operations in one list of a transaction.
    pub max_txn_ops: usize,
    /// Leases at once: about 200 bytes each, and no key's bytes, so that no quota stops them. A cluster has thousands.
    pub max_leases: usize,
    /// Size of a log segment, a multiple of 4096.
    pub segment_bytes: u64,
    /// Log bytes after which a checkpoint is due, if the last one was not larger.
    pub checkpoint_bytes: u64,
    /// Commands after which a checkpoint is due; 0 is never for this reason.
    pub checkpoint_commands: u64,
    /// Bytes of the newest changes kept in memory.
    pub recent_bytes: usize,
    pub disk: Disk,
}

impl Options {
    pub fn new(data_dir: impl Into<PathBuf>) -> Options {
        Options {
            data_dir: data_dir.into(),
            // Upstream's defaults.
            quota_bytes: 2 << 30,
            max_request_bytes: 3 << 19,
            max_txn_ops: 128,
            max_leases: 1_000_000,
            // A quarter second of writes at 64 MB/s: small enough to make at start, large enough to change rarely.
            segment_bytes: 16 << 20,
            // Replayed in about 0.1 s at start.
            checkpoint_bytes: 64 << 20,
            checkpoint_commands: 0,
            // Some thousand changes: what a watcher misses while it reconnects.
            recent_bytes: 8 << 20,
            disk: Disk::Awaited,
        }
    }
}

/// Who this member is; made at the first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: u64,
    pub member_id: u64,
}

/// Sizes and positions, for status and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub revision: i64,
    pub compact_revision: i64,
    /// Bytes of the data files on disk.
    pub disk_bytes: u64,
    /// Bytes of the keys and values kept, with their index: what the quota bounds.
    pub used_bytes: u64,
    pub quota_bytes: u64,
    /// Commands committed since the store was made.
    pub applied_index: u64,
    pub leadership: Leadership,
    /// This member only follows.
    pub learner: bool,
    /// The quota is used up: writes that add are refused.
    pub no_space: bool,
    /// Keys with any version kept.
    pub keys: usize,
    /// Open watches.
    pub watchers: usize,
    /// Commands that wait for the writer.
    pub waiting: usize,
}

pub(crate) struct State {
    pub store: Store,
    pub files: Files,
}

/// What the threads and the handles share.
pub(crate) struct Shared {
    pub options: Options,
    pub identity: Identity,
    pub state: RwLock<State>,
    /// Newest revision that the log has committed: what readers may see.
    pub durable: AtomicI64,
    /// Commands applied up to there.
    pub applied: AtomicU64,
    /// Newest revision that a committed command compacted to: what the keeper may free.
    pub compacted: AtomicI64,
    /// Set by the writer, as the log says.
    pub leadership: watch::Sender<Leadership>,
    pub members: RwLock<Members>,
    pub hub: Hub,
    pub no_space: AtomicBool,
    pub disk_bytes: AtomicU64,
    /// Commands and bytes that wait for the writer.
    pub waiting: AtomicUsize,
    pub waiting_bytes: AtomicUsize,
    pub metrics: Metrics,
    started: Instant,
    /// Set once the writer is gone.
    stopped: AtomicBool,
}

impl Shared {
    /// Milliseconds since the store was opened: the clock of leases.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub fn durable(&self) -> i64 {
        self.durable.load(Ordering::Acquire)
    }
}

struct Handle {
    shared: Arc<Shared>,
    writer: Sender<Message>,
    keeper: Sender<Task>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    /// The data directory's; released when the store is closed.
    lock: Mutex<Option<std::fs::File>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        stop(self);
    }
}

fn stop(handle: &Handle) {
    let _ = handle.writer.send(Message::Close);
    let threads = std::mem::take(&mut *handle.threads.lock());
    for (at, thread) in threads.into_iter().enumerate() {
        if at == 1 {
            let _ = handle.keeper.send(Task::Close);
        }
        if thread.join().is_err() {
            tracing::error!("a thread of the store panicked");
        }
    }
    handle.shared.stopped.store(true, Ordering::Release);
    handle.shared.hub.close();
    handle.lock.lock().take();
}

/// The store. Clones share it; it closes when the last one is dropped, or by [`Etcd::close`].
#[derive(Clone)]
pub struct Etcd(Arc<Handle>);

/// Keys looked at while readers hold the store once: about 0.1 ms.
const KEYS_AT_ONCE: usize = 1024;
/// More values than this to read from disk are read on a thread that may block.
const LOADS_INLINE: usize = 32;
/// Commands that may wait for the writer; upstream's bound on what is proposed but not applied is 5,000.
const MAX_WAITING: usize = 20_000;
/// Bytes that may wait for the writer.
const MAX_WAITING_BYTES: usize = 256 << 20;

impl Etcd {
    /// Opens the store, or makes it. Blocks on the disk.
    pub fn open(options: Options) -> Result<Etcd, OpenError> {
        Etcd::open_over(options, |wal, member, _| Box::new(Alone::new(wal, member)))
    }

    /// The same over another log, made of this member's files, its ID, and where to say `Message::Look`.
    fn open_over(
        options: Options,
        log: impl FnOnce(Wal, u64, &Sender<Message>) -> Box<dyn Log>,
    ) -> Result<Etcd, OpenError> {
        let recovered = recover::recover(&options)?;
        let state = recovered.state;
        let (revision, member) = (state.store.revision(), recovered.identity.member_id);
        let nobody = Leadership { term: recovered.wal.last_term(), leader: None, member };
        let mut members = Members::default();
        members.set(Member { id: member, ..Member::default() });
        let shared = Arc::new(Shared {
            identity: recovered.identity,
            durable: AtomicI64::new(revision),
            applied: AtomicU64::new(state.store.applied_index),
            compacted: AtomicI64::new(state.store.compacted()),
            leadership: watch::Sender::new(nobody),
            members: RwLock::new(members),
            state: RwLock::new(state),
            hub: Hub::new(revision),
            no_space: AtomicBool::new(false),
            disk_bytes: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            metrics: Metrics::default(),
            started: Instant::now(),
            stopped: AtomicBool::new(false),
            options,
        });
        let (writer, jobs) = channel();
        let (keeper, tasks) = channel();
        let log = log(recovered.wal, member, &writer);
        let write = writer::Writer::new(shared.clone(), log, recovered.open, jobs, keeper.clone());
        let keep = keeper::Keeper::new(shared.clone(), tasks, writer.clone());
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.into()).spawn(run);
            thread.map_err(OpenError::io("starting a thread for", &shared.options.data_dir))
        };
        let threads = vec![
            spawn("etcd-writer", Box::new(move || write.run()))?,
            spawn("etcd-keeper", Box::new(move || keep.run()))?,
        ];
        let handle =
            Handle { shared, writer, keeper, threads: Mutex::new(threads), lock: Mutex::new(Some(recovered.lock)) };
        Ok(Etcd(Arc::new(handle)))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// The page of metrics.
    pub fn metrics(&self) -> String {
        self.shared().metrics.text(&self.status())
    }

    /// The options that the store was opened with.
    pub fn options(&self) -> &Options {
        &self.0.shared.options
    }

    /// Newest revision that is committed, as far as this member knows; [`Etcd::read_index`] asks.
    pub fn revision(&self) -> i64 {
        self.0.shared.durable()
    }

    async fn submit(&self, command: Command) -> Result<Reply, Error> {
        let shared = self.shared();
        let bytes = txn::cost(&command);
        if bytes > shared.options.max_request_bytes + REQUEST_SLACK {
            return Err(Error::TooLarge);
        }
        if shared.waiting.load(Ordering::Relaxed) >= MAX_WAITING
            || shared.waiting_bytes.load(Ordering::Relaxed) >= MAX_WAITING_BYTES
        {
            return Err(Error::TooManyRequests);
        }
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let job = Job { command, bytes, answer: Some(answer) };
        self.0.writer.send(Message::Job(job)).map_err(|_| Error::Stopped)?;
        answered.await.unwrap_or(Err(Error::Stopped))
    }

    /// Reads a key or range at a revision (0: the newest durable one).
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        query::check(&request)?;
        let shared = self.shared();
        shared.metrics.ranges.inc();
        if !request.serializable {
            self.read_index().await?;
        }
        loop {
            let newest = shared.durable();
            let at = shared.state.read().store.readable(request.revision, newest)?;
            let mut query = Query::new(request.clone(), at);
            match collect(shared, &mut query).await {
                // Compacted under way: a read of the newest starts over, one of a named revision has lost it.
                Err(Error::Compacted { .. }) if request.revision <= 0 => continue,
                other => other?,
            }
            return Ok(query.finish(newest));
        }
    }

    /// Writes a key; returns when it is durable.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Error> {
        txn::check_put(&request)?;
        self.shared().metrics.puts.inc();
        match self.submit(Command::Put(request)).await? {
            Reply::Put(reply) => Ok(reply),
            _ => Err(Error::Stopped),
        }
    }

    /// Deletes a key or range; returns when it is durable.
    pub async fn delete(&self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Error> {
        txn::check_delete(&request)?;
        self.shared().metrics.deletes.inc();
        match self.submit(Command::Delete(request)).await? {
            Reply::Delete(reply) => Ok(reply),
            _ => Err(Error::Stopped),
        }
    }

    /// Runs a transaction; returns when what it wrote is durable.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        txn::check_txn(&request, self.options().max_txn_ops)?;
        self.shared().metrics.txns.inc();
        if txn::is_read_only(&request) {
            let durable = if txn::is_serializable(&request) { self.revision() } else { self.read_index().await? };
            let state = self.shared().state.read();
            return txn::read_txn(&state.store, &request, durable, &state.files);
        }
        match self.submit(Command::Txn(request)).await? {
            Reply::Txn(reply) => Ok(reply),
            _ => Err(Error::Stopped),
        }
    }

    /// Forgets history before `revision`. With `physical`, returns when its space is free again.
    pub async fn compact(&self, revision: i64, physical: bool) -> Result<i64, Error> {
        let reply = self.submit(Command::Compact { revision }).await?;
        if physical {
            self.keep(|done| Task::Collect { done: Some(done) }).await?;
        }
        match reply {
            Reply::Done { revision } => Ok(revision),
            _ => Err(Error::Stopped),
        }
    }

    async fn keep<T>(&self, task: impl FnOnce(oneshot::Sender<T>) -> Task) -> Result<T, Error> {
        let (done, wait) = oneshot::channel();
        self.0.keeper.send(task(done)).map_err(|_| Error::Stopped)?;
        wait.await.map_err(|_| Error::Stopped)
    }

    /// Frees what compaction left and writes the store anew, so that its files hold nothing else. Reads and writes go on.
    pub async fn defragment(&self) -> Result<(), Error> {
        self.keep(|done| Task::Collect { done: Some(done) }).await?;
        let (done, wait) = oneshot::channel();
        self.0.writer.send(Message::Checkpoint { done: Some(done) }).map_err(|_| Error::Stopped)?;
        wait.await.map_err(|_| Error::Stopped)?
    }

    /// The whole store as a file that [`restore::restore`] takes: removed already, it lasts as long as it is open.
    pub async fn snapshot(&self) -> Result<std::fs::File, Error> {
        self.keep(|done| Task::Snapshot { done }).await?
    }

    /// Watches a key or range. Without `start_revision`, from the next change on.
    pub fn watch(&self, options: WatchOptions) -> Watcher {
        self.watch_with(options, Arc::new(Signal::default()), 0)
    }

    /// The same for one of several watches that share a signal: `token` is put on its ready list.
    pub fn watch_with(&self, options: WatchOptions, signal: Arc<Signal>, token: i64) -> Watcher {
        Watcher::new(self.shared().clone(), options, signal, token)
    }

    /// Grants a lease of `ttl` seconds; `id` 0 chooses one.
    pub async fn lease_grant(&self, id: i64, ttl: i64) -> Result<LeaseGrantResponse, Error> {
        if ttl > crate::lease::MAX_TTL {
            return Err(Error::LeaseTtlTooLarge);
        }
        if self.shared().state.read().store.leases.len() >= self.options().max_leases {
            return Err(Error::TooManyRequests);
        }
        let id = if id == 0 { rand::random::<i64>() & i64::MAX | 1 } else { id };
        match self.submit(Command::Grant { id, ttl }).await? {
            Reply::Grant(reply) => Ok(reply),
            _ => Err(Error::Stopped),
        }
    }

    /// Ends a lease and deletes its keys; returns the revision after it.
    pub async fn lease_revoke(&self, id: i64) -> Result<i64, Error> {
        match self.submit(Command::Revoke { id }).await? {
            Reply::Done { revision } => Ok(revision),
            _ => Err(Error::Stopped),
        }
    }

    /// Starts a lease's time anew; returns its time to live in seconds. The leader's clock counts.
    pub fn lease_keep_alive(&self, id: i64) -> Result<i64, Error> {
        if !self.leadership().leads() {
            return Err(Error::NoLeader);
        }
        let now = self.shared().now_ms();
        self.shared().state.write().store.leases.renew(id, now)
    }

    /// What is left of a lease, and its keys when wanted. TTL -1: there is none.
    pub fn lease_time_to_live(&self, id: i64, keys: bool) -> LeaseTimeToLiveResponse {
        let now = self.shared().now_ms();
        let state = self.shared().state.read();
        let header = Some(self.header(self.revision()));
        let Some(lease) = state.store.leases.get(id) else {
            return LeaseTimeToLiveResponse { header, id, ttl: -1, ..LeaseTimeToLiveResponse::default() };
        };
        let left = lease.deadline_ms.saturating_sub(now) / 1000;
        let keys = if keys { lease.keys.iter().cloned().collect() } else { Vec::new() };
        LeaseTimeToLiveResponse { header, id, ttl: left.cast_signed(), granted_ttl: lease.ttl, keys }
    }

    /// IDs of all leases.
    pub fn leases(&self) -> Vec<i64> {
        self.shared().state.read().store.leases.ids().collect()
    }

    /// Sizes and positions.
    pub fn status(&self) -> Status {
        let shared = self.shared();
        let state = shared.state.read();
        Status {
            revision: shared.durable(),
            compact_revision: state.store.compacted(),
            disk_bytes: shared.disk_bytes.load(Ordering::Relaxed),
            used_bytes: state.store.used_bytes(),
            quota_bytes: shared.options.quota_bytes,
            applied_index: shared.applied.load(Ordering::Relaxed),
            leadership: shared.leadership(),
            learner: shared.members.read().get(shared.identity.member_id).is_some_and(|m| m.learner),
            no_space: shared.no_space.load(Ordering::Relaxed),
            keys: state.store.keys.len(),
            watchers: shared.hub.len(),
            waiting: shared.waiting.load(Ordering::Relaxed),
        }
    }

    /// Asks that every watch with [`WatchOptions::progress`] soon gets a message that carries the current revision.
    pub fn request_progress(&self) {
        self.shared().hub.request_progress();
    }

    /// Newest revision whose changes have been handed to watches.
    pub fn published(&self) -> i64 {
        self.shared().hub.published()
    }

    /// Raises or clears the alarm that refuses writes. It clears itself too when there is space again.
    pub fn set_no_space(&self, on: bool) {
        self.shared().no_space.store(on, Ordering::Relaxed);
    }

    /// Hash over the history up to `revision` (0: the newest), as upstream computes it.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKv, Error> {
        let newest = self.revision();
        let shared = self.shared().clone();
        let hash = tokio::task::spawn_blocking(move || {
            let state = shared.state.read();
            let at = state.store.readable(revision, newest)?;
            crate::hash::hash_kv(&state.store, at, &state.files)
        });
        hash.await.unwrap_or(Err(Error::Stopped))
    }

    /// Answers when everything submitted before is durable.
    pub async fn barrier(&self) -> Result<i64, Error> {
        match self.submit(Command::Barrier).await? {
            Reply::Done { revision } => Ok(revision),
            _ => Err(Error::Stopped),
        }
    }

    /// Stops the store: what was accepted is finished, later calls answer [`Error::Stopped`]. Blocks on the disk.
    pub fn close(&self) {
        stop(&self.0);
    }
}

/// What the entries of a transaction's operations add to its bytes, at most.
const REQUEST_SLACK: usize = 32 << 10;

/// A value to read from disk.
type Load = (Arc<DataFile>, u64, u32);

/// Collects a read in steps and loads what is not in memory.
async fn collect(shared: &Arc<Shared>, query: &mut Query) -> Result<(), Error> {
    let mut sources: Vec<Load> = Vec::new();
    while !step(shared, query, &mut sources)? {
        tokio::task::yield_now().await;
    }
    query.narrow();
    let wanted = |item: &&mut query::Item| item.missing.is_some();
    let loads: Vec<Load> = query.items.iter_mut().filter(wanted).map(|i| sources[i.source].clone()).collect();
    let values = if loads.len() <= LOADS_INLINE {
        load(loads)?
    } else {
        tokio::task::spawn_blocking(move || load(loads)).await.unwrap_or(Err(Error::Stopped))?
    };
    for (item, value) in query.items.iter_mut().filter(wanted).zip(values) {
        item.kv.value = value;
    }
    Ok(())
}

/// One step under the lock; notes the files of missing values, which stay readable even if replaced meanwhile.
fn step(shared: &Shared, query: &mut Query, sources: &mut Vec<Load>) -> Result<bool, Error> {
    let before = query.items.len();
    let state = shared.state.read();
    query.still_readable(&state.store)?;
    let done = query.step(&state.store, KEYS_AT_ONCE);
    for item in query.items.iter_mut().skip(before) {
        if let Some((place, len)) = item.missing {
            let file = state.files.get(place.file()).expect("a version's file is open as long as it exists");
            item.source = sources.len();
            sources.push((file.clone(), place.offset(), len));
        }
    }
    Ok(done)
}

fn load(loads: Vec<Load>) -> Result<Vec<Bytes>, Error> {
    loads.into_iter().map(|(file, offset, len)| file.value(offset, len)).collect()
}
