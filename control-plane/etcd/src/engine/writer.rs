//! I/O: the writer thread, the only one that changes the store. It takes what has gathered, applies it, proposes one
//! frame to the log and, once that is committed, publishes to watchers and answers; meanwhile the next batch gathers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::checkpoint::Head;
use super::keeper::{CheckpointJob, Task};
use super::log::Log;
use super::pending::{Mark, Pending, Proposal};
use super::recover::OpenFiles;
use super::{REQUEST_SLACK, Shared, State};
use crate::error::Error;
use crate::frame::{FRAME_HEADER, Frame, LED_BYTES};
use crate::mvcc::Undo;
use crate::recent::Change;
use crate::txn::{self, Applied, Command, Reply};

type Answer = oneshot::Sender<Result<Reply, Error>>;

/// A command and who waits for it; nobody does for expired leases.
pub struct Job {
    pub command: Command,
    pub bytes: usize,
    pub answer: Option<Answer>,
}

/// What the writer is told.
pub enum Message {
    Job(Job),
    /// Write a checkpoint now.
    Checkpoint {
        done: Option<oneshot::Sender<Result<(), Error>>>,
    },
    /// A checkpoint is done (or failed): these files are what the store lies in now.
    Checkpointed {
        result: Result<OpenFiles, Error>,
    },
    /// Something changed elsewhere, history was freed or the log has news: look at the quota and at the log again.
    Look,
    Close,
}

/// Commands in one batch: bounds how long the first waits for the last.
const BATCH_COMMANDS: usize = 4096;
/// Bytes in one batch, if the segment is large enough: about what a disk writes in 10 ms.
const BATCH_BYTES: usize = 4 << 20;
/// Commands applied while readers are kept out once.
const APPLIED_AT_ONCE: usize = 64;
/// Batches proposed and not committed at a time: what their commands hold of memory, and what losing leadership takes
/// back, is bounded by it. The log of a lone member commits as it writes.
pub const MOST_PENDING: usize = 16;
/// Expired leases ended in one batch; upstream revokes at most 1,000 a second.
const EXPIRED_AT_ONCE: usize = 500;
/// Wait before ending leases is tried again after the log could not be written.
const EXPIRY_RETRY_MS: u64 = 1000;
/// A buffer larger than this is not kept for the next frame.
const KEPT_BUFFER: usize = 1 << 20;

/// See the module's head.
pub struct Writer {
    shared: Arc<Shared>,
    log: Box<dyn Log>,
    pending: Pending,
    /// Jobs taken off the channel that wait for their batch; `waiting` in [`Shared`] counts and bounds them.
    taken: VecDeque<Job>,
    /// Number of the current segment in `Files`.
    file: u16,
    open: OpenFiles,
    jobs: Receiver<Message>,
    keeper: Sender<Task>,
    /// Log bytes and commands since the last checkpoint.
    since_checkpoint: u64,
    commands_at_checkpoint: u64,
    checkpointing: bool,
    wanted_checkpoint: Vec<oneshot::Sender<Result<(), Error>>>,
    waiting_checkpoint: Vec<oneshot::Sender<Result<(), Error>>>,
    /// No lease is ended before this.
    expiry_not_before: u64,
    /// The alarm was raised for a request of this many bytes.
    refused_bytes: u64,
    buffer: Vec<u8>,
    closing: bool,
}

impl Writer {
    pub fn new(
        shared: Arc<Shared>,
        mut log: Box<dyn Log>,
        open: OpenFiles,
        jobs: Receiver<Message>,
        keeper: Sender<Task>,
    ) -> Writer {
        let file = open.segments.last().expect("recovery opened a segment").0;
        let segments = open.segments.len() as u64 - 1;
        let since_checkpoint = segments * shared.options.segment_bytes + log.wal().tail();
        let commands_at_checkpoint = shared.state.read().store.applied_index;
        let mut writer = Writer {
            shared,
            log,
            pending: Pending::default(),
            taken: VecDeque::new(),
            file,
            open,
            jobs,
            keeper,
            since_checkpoint,
            commands_at_checkpoint,
            checkpointing: false,
            wanted_checkpoint: Vec::new(),
            waiting_checkpoint: Vec::new(),
            expiry_not_before: 0,
            refused_bytes: 0,
            buffer: Vec::new(),
            closing: false,
        };
        writer.measure();
        writer.look();
        writer
    }

    /// Runs until told to close or every handle is gone.
    pub fn run(mut self) {
        while !self.closing {
            let was_pending = !self.pending.is_empty();
            self.gather();
            if was_pending || !self.wanted_checkpoint.is_empty() {
                // A checkpoint waits for the log to have committed all: it comes before more is proposed.
                self.consider_checkpoint();
            }
            let batch = self.next_batch();
            if !batch.is_empty() {
                self.commit(batch);
            }
            self.consider_checkpoint();
        }
        self.finish();
    }

    /// What is not committed by now is answered with [`Error::Stopped`]: whether it will be is unknown.
    fn finish(mut self) {
        let mut frame = self.frame();
        frame.closed();
        let (size, revision) = (frame.size(), self.shared.durable());
        let orderly = self.pending.is_empty() && self.shared.leadership().leads() && self.log.wal().has_room(size);
        if orderly && let Err(e) = self.log.propose(frame, revision) {
            tracing::warn!(error = %e, "the log was not closed in order; it will be checked at the next start");
        }
        self.shared.hub.close();
        self.log.wal().close();
    }

    /// Waits for something to do, takes the messages that have gathered, and looks at the log.
    fn gather(&mut self) {
        let limit = self.batch_bytes();
        let mut bytes = self.taken.iter().map(|job| job.bytes).sum::<usize>();
        if (self.taken.is_empty() || self.must_wait())
            && let Some(message) = self.wait()
        {
            bytes += self.take(message);
        }
        while self.taken.len() < BATCH_COMMANDS && bytes < limit && !self.closing {
            match self.jobs.try_recv() {
                Ok(message) => bytes += self.take(message),
                Err(_) => break,
            }
        }
        self.look();
    }

    fn batch_bytes(&self) -> usize {
        BATCH_BYTES.min(self.shared.options.segment_bytes as usize / 4)
    }

    /// Leases that end and the jobs that have gathered, up to a bound; none while what is pending must be settled first.
    fn next_batch(&mut self) -> Vec<Job> {
        if self.must_wait() {
            return Vec::new();
        }
        let limit = self.batch_bytes();
        let mut bytes = 0;
        let mut fits = |job: &Job| {
            let room = bytes < limit;
            bytes += job.bytes;
            room
        };
        let count = self.taken.iter().take(BATCH_COMMANDS).take_while(|job| fits(job)).count();
        let mut batch = self.expired(limit);
        for job in self.taken.drain(..count) {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            self.shared.waiting_bytes.fetch_sub(job.bytes, Ordering::Relaxed);
            batch.push(job);
        }
        batch
    }

    /// Whether nothing more may be proposed before what is pending is settled: it is much, or the next thing to do is a
    /// new segment, which holds committed frames before it only, so that what is taken back is in one file.
    fn must_wait(&mut self) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        // Twice: of jobs, and of leases that end.
        let most = FRAME_HEADER + 2 * self.batch_bytes() + self.shared.options.max_request_bytes + REQUEST_SLACK;
        self.pending.len() >= MOST_PENDING || !self.log.wal().has_room(most) || self.is_checkpoint_due()
    }

    /// The next message; `None` when a lease ends first.
    fn wait(&mut self) -> Option<Message> {
        let may_expire = self.shared.leadership().leads() && !self.must_wait();
        let deadline = self.shared.state.read().store.leases.next_deadline().filter(|_| may_expire);
        let Some(deadline) = deadline else { return Some(self.jobs.recv().unwrap_or(Message::Close)) };
        let left = deadline.max(self.expiry_not_before).saturating_sub(self.shared.now_ms());
        match self.jobs.recv_timeout(Duration::from_millis(left)) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Message::Close),
        }
    }

    /// Takes a message; returns the bytes of a job.
    fn take(&mut self, message: Message) -> usize {
        match message {
            Message::Job(job) => {
                let bytes = job.bytes;
                self.taken.push_back(job);
                return bytes;
            }
            Message::Checkpoint { done } => self.wanted_checkpoint.extend(done),
            Message::Checkpointed { result } => self.checkpointed(result),
            // The log is looked at before the next batch anyway.
            Message::Look => self.collected(),
            Message::Close => self.closing = true,
        }
        0
    }

    /// Leases whose time is over. The leader ends them, once: others see it in the log.
    fn expired(&self, bytes: usize) -> Vec<Job> {
        let now = self.shared.now_ms();
        if now < self.expiry_not_before || !self.shared.leadership().leads() {
            return Vec::new();
        }
        let most = EXPIRED_AT_ONCE.min(bytes / txn::cost(&Command::Revoke { id: 0 }));
        let expired = self.shared.state.read().store.leases.expired(now, most);
        expired.into_iter().map(|id| Job { command: Command::Revoke { id }, bytes: 0, answer: None }).collect()
    }

    // ---- the log

    /// Follows the log: who leads, what is committed, what is overruled.
    fn look(&mut self) {
        if let Some(kept) = self.log.overruled() {
            self.take_back(kept);
        }
        self.settle();
        let (now, before) = (self.log.leadership(), self.shared.leadership());
        if now == before {
            return;
        }
        if now.leader.is_some() && now.leader != before.leader {
            self.shared.metrics.leader_changes.inc();
        }
        if now.leads() && (!before.leads() || now.term != before.term) {
            self.lead(now.member);
        }
        tracing::info!(term = now.term, leader = now.leader.unwrap_or(0), "who leads has changed");
        self.shared.leadership.send_replace(now);
    }

    /// The first frame of a term says who leads in it: so the term is on disk before anyone hears of it.
    fn lead(&mut self, member: u64) {
        // Nobody knows when clients last kept their leases alive.
        let now = self.shared.now_ms();
        self.shared.state.write().store.leases.renew_all(now);
        let mark = self.mark();
        let written = self.make_room(FRAME_HEADER + LED_BYTES).and_then(|()| {
            let mut frame = self.frame();
            frame.led(member);
            self.propose(frame, mark.revision)
        });
        match written {
            Ok(()) => self.push(mark, Vec::new(), Vec::new(), (Vec::new(), Vec::new())),
            Err(e) => {
                tracing::warn!(error = %e, "the new term can't be written yet; the first write after this does it")
            }
        }
    }

    /// Tells of what is committed: to readers, to watchers, to those who wait.
    fn settle(&mut self) {
        let committed = self.log.committed();
        while let Some(mut done) = self.pending.next_committed(committed) {
            self.shared.durable.store(done.after.revision, Ordering::Release);
            self.shared.applied.store(done.after.applied, Ordering::Relaxed);
            let changes = std::mem::take(&mut done.changes);
            if !changes.is_empty() {
                self.shared.publish(changes, done.after.revision);
            }
            let compacts = done.compacts();
            if let Some(revision) = compacts {
                self.shared.compacted.fetch_max(revision, Ordering::Release);
            }
            done.answer();
            if compacts.is_some() {
                let _ = self.keeper.send(Task::Collect { done: None });
            }
        }
    }

    /// Makes the store and the log as they were after the frame `kept`: what came later has another leader's in its place.
    fn take_back(&mut self, kept: u64) {
        if let Err(e) = self.log.truncate_after(kept) {
            tracing::error!(error = %e, "frames that are not committed can't be taken back");
        }
        let Some(overruled) = self.pending.overruled(kept) else { return };
        self.rollback(overruled.before, overruled.undo);
        fail(overruled.jobs, &Error::LeaderChanged);
    }

    fn rollback(&self, before: Mark, undo: Vec<Undo>) {
        let mut state = self.shared.state.write();
        state.store.rollback(before.revision, undo);
        state.store.applied_index = before.applied;
    }

    fn mark(&self) -> Mark {
        let state = self.shared.state.read();
        Mark { revision: state.store.revision(), applied: state.store.applied_index }
    }

    // ---- batches

    fn frame(&mut self) -> Frame {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() > KEPT_BUFFER {
            buffer = Vec::new();
        }
        Frame::new(buffer, self.file, self.log.wal().tail())
    }

    /// Makes room for a batch, going on in a new segment when the current one is full.
    fn make_room(&mut self, bytes: usize) -> Result<(), Error> {
        let wal = self.log.wal();
        wal.mend()?;
        if wal.has_room(bytes) {
            return Ok(());
        }
        if !self.pending.is_empty() {
            // See `must_wait`.
            return Err(Error::TooManyRequests);
        }
        wal.rotate()?;
        self.add_segment();
        self.measure();
        if self.log.wal().has_room(bytes) { Ok(()) } else { Err(Error::TooLarge) }
    }

    /// Notes the segment that the log goes on in.
    fn add_segment(&mut self) {
        let wal = self.log.wal();
        self.file = self.shared.state.write().files.add(wal.reader().clone());
        self.open.segments.push((self.file, wal.segment(), wal.reader().path.clone()));
    }

    /// Applies a batch and proposes it; what the log has committed is told.
    fn commit(&mut self, mut batch: Vec<Job>) {
        if !self.shared.leadership().leads() {
            return fail(batch, &Error::NoLeader);
        }
        self.refuse_growth(&mut batch);
        let estimate = FRAME_HEADER + batch.iter().map(|j| txn::cost(&j.command)).sum::<usize>();
        if let Err(e) = self.make_room(estimate) {
            return self.fail(batch, &e);
        }
        let before = self.mark();
        let mut applied = Applied { frame: self.frame(), changes: Vec::new(), undo: Vec::new() };
        let replies = self.apply(&batch, &mut applied);
        let Applied { frame, changes, undo } = applied;
        debug_assert!(frame.size() <= estimate, "the estimate of a batch is an upper bound");
        if frame.entries() == 0 {
            self.buffer = frame.abandon();
        } else if let Err(e) = self.propose(frame, before.revision) {
            tracing::error!(error = %e, "a batch of writes was refused");
            self.rollback(before, undo);
            return self.fail(batch, &e);
        }
        self.push(before, batch, replies, (changes, undo));
    }

    /// Adds what was just proposed to the pending, and tells of what the log has committed.
    fn push(
        &mut self,
        before: Mark,
        jobs: Vec<Job>,
        replies: Vec<Result<Reply, Error>>,
        (changes, undo): (Vec<Arc<Change>>, Vec<Undo>),
    ) {
        let (index, after) = (self.log.wal().last_index(), self.mark());
        self.pending.push(Proposal { index, before, after, jobs, replies, changes, undo });
        self.settle();
    }

    fn propose(&mut self, frame: Frame, revision: i64) -> Result<(), Error> {
        let started = Instant::now();
        let proposed = self.log.propose(frame, revision);
        self.shared.metrics.log_sync.time(started.elapsed());
        let frame = proposed?;
        self.since_checkpoint += frame.len() as u64;
        self.buffer = frame;
        Ok(())
    }

    fn apply(&self, batch: &[Job], applied: &mut Applied) -> Vec<Result<Reply, Error>> {
        let (now, durable) = (self.shared.now_ms(), self.shared.durable());
        let mut replies = Vec::with_capacity(batch.len());
        for jobs in batch.chunks(APPLIED_AT_ONCE) {
            let mut state = self.shared.state.write();
            let State { store, files } = &mut *state;
            store.recent.trim(durable);
            replies.extend(jobs.iter().map(|job| txn::apply(store, applied, &job.command, files, now)));
        }
        replies
    }

    /// Answers those that the quota refuses.
    fn refuse_growth(&mut self, batch: &mut Vec<Job>) {
        let used = self.shared.state.read().store.used_bytes();
        let quota = self.shared.options.quota_bytes;
        let mut coming = 0;
        if used + batch.iter().map(|j| j.bytes as u64).sum::<u64>() <= quota
            && !self.shared.no_space.load(Ordering::Relaxed)
        {
            return;
        }
        batch.retain_mut(|job| {
            if !txn::grows(&job.command) {
                return true;
            }
            let alarmed = self.shared.no_space.load(Ordering::Relaxed);
            if !alarmed && used + coming + job.bytes as u64 <= quota {
                coming += job.bytes as u64;
                return true;
            }
            if !alarmed {
                tracing::warn!(used, quota, "the quota is used up: writes are refused until space is freed");
                // A share of a small quota at most, or a large request would keep the alarm on.
                self.refused_bytes = (job.bytes as u64).min(quota / 16);
                self.shared.no_space.store(true, Ordering::Relaxed);
            }
            if let Some(answer) = job.answer.take() {
                let _ = answer.send(Err(Error::NoSpace));
            }
            false
        });
    }

    fn fail(&mut self, batch: Vec<Job>, error: &Error) {
        self.expiry_not_before = self.shared.now_ms() + EXPIRY_RETRY_MS;
        fail(batch, error);
    }

    /// The keeper freed old history.
    fn collected(&mut self) {
        let used = self.shared.state.read().store.used_bytes();
        if self.shared.no_space.load(Ordering::Relaxed) && used + self.refused_bytes <= self.shared.options.quota_bytes
        {
            tracing::info!(used, "there is space again: writes are taken");
            self.shared.no_space.store(false, Ordering::Relaxed);
        }
    }

    // ---- checkpoints

    fn consider_checkpoint(&mut self) {
        if !self.closing && self.pending.is_empty() && self.is_checkpoint_due() {
            self.start_checkpoint();
        }
    }

    fn is_checkpoint_due(&self) -> bool {
        if self.checkpointing {
            return false;
        }
        let (used, applied) = {
            let state = self.shared.state.read();
            (state.store.used_bytes(), state.store.applied_index)
        };
        let options = &self.shared.options;
        let last = self.open.checkpoint.as_ref().map_or(0, |(_, _, size)| *size);
        let grown = self.since_checkpoint >= options.checkpoint_bytes.max(last);
        let many =
            options.checkpoint_commands > 0 && applied - self.commands_at_checkpoint >= options.checkpoint_commands;
        // Mostly garbage: more than twice what is kept.
        let stale = last > 2 * used + options.checkpoint_bytes / 2;
        grown || many || stale || !self.wanted_checkpoint.is_empty()
    }

    /// Hands the keeper the state as of now; the log goes on in a new segment.
    fn start_checkpoint(&mut self) {
        let old = self.open.segments.len();
        let rotated = self.log.wal().rotate();
        let mut waiting = std::mem::take(&mut self.wanted_checkpoint);
        if let Err(e) = rotated {
            tracing::warn!(error = %e, "no checkpoint can be written now");
            // Tried again after as much log as made this one due.
            self.since_checkpoint = 0;
            waiting.into_iter().for_each(|w| drop(w.send(Err(e.clone()))));
            return;
        }
        self.add_segment();
        let wal = self.log.wal();
        let (head, leases) = {
            let state = self.shared.state.read();
            let store = &state.store;
            let head = Head {
                cluster_id: self.shared.identity.cluster_id,
                member_id: self.shared.identity.member_id,
                segment: wal.segment(),
                next_index: wal.last_index() + 1,
                revision: store.revision(),
                compacted: store.compacted(),
                applied_index: store.applied_index,
                term: wal.last_term(),
            };
            (head, store.leases.iter().map(|(id, lease)| (id, lease.ttl)).collect())
        };
        self.measure();
        let replaced =
            OpenFiles { checkpoint: self.open.checkpoint.clone(), segments: self.open.segments[..old].to_vec() };
        self.since_checkpoint = 0;
        self.commands_at_checkpoint = head.applied_index;
        self.checkpointing = true;
        self.waiting_checkpoint.append(&mut waiting);
        if self.keeper.send(Task::Checkpoint(CheckpointJob { head, leases, replaced })).is_err() {
            self.checkpointing = false;
        }
    }

    fn checkpointed(&mut self, result: Result<OpenFiles, Error>) {
        self.checkpointing = false;
        let outcome = match result {
            Ok(files) => {
                let first = files.checkpoint.as_ref().map(|(number, ..)| *number);
                debug_assert!(first.is_some());
                self.open.checkpoint = files.checkpoint;
                // Those that the checkpoint replaced are gone; they were the first ones.
                let gone: Vec<u64> = files.segments.iter().map(|(_, segment, _)| *segment).collect();
                self.open.segments.retain(|(_, segment, _)| !gone.contains(segment));
                Ok(())
            }
            Err(e) => {
                tracing::warn!(error = %e, "a checkpoint failed; the log keeps growing until one succeeds");
                Err(e)
            }
        };
        self.measure();
        for waiting in std::mem::take(&mut self.waiting_checkpoint) {
            let _ = waiting.send(outcome.clone());
        }
    }

    /// Notes how much disk the files take.
    fn measure(&self) {
        let segments = self.open.segments.len() as u64 * self.shared.options.segment_bytes;
        let checkpoint = self.open.checkpoint.as_ref().map_or(0, |(_, _, size)| *size);
        self.shared.disk_bytes.store(segments + checkpoint, Ordering::Relaxed);
    }
}

fn fail(batch: Vec<Job>, error: &Error) {
    for answer in batch.into_iter().filter_map(|job| job.answer) {
        let _ = answer.send(Err(error.clone()));
    }
}
