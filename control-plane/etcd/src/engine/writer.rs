//! I/O: the writer thread, the only one that changes the store. It takes what has gathered, applies it, writes and
//! syncs one log frame, publishes to watchers, then answers; meanwhile the next batch gathers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::checkpoint::Head;
use super::keeper::{CheckpointJob, Task};
use super::recover::OpenFiles;
use super::wal::Wal;
use super::{Shared, State};
use crate::error::Error;
use crate::frame::{FRAME_HEADER, Frame};
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
    /// Something was freed: look at the quota and at the files again.
    Collected,
    Close,
}

/// Commands in one batch: bounds how long the first waits for the last.
const BATCH_COMMANDS: usize = 4096;
/// Bytes in one batch, if the segment is large enough: about what a disk writes in 10 ms.
const BATCH_BYTES: usize = 4 << 20;
/// Commands applied while readers are kept out once.
const APPLIED_AT_ONCE: usize = 64;
/// Expired leases ended in one batch; upstream revokes at most 1,000 a second.
const EXPIRED_AT_ONCE: usize = 500;
/// Wait before ending leases is tried again after the log could not be written.
const EXPIRY_RETRY_MS: u64 = 1000;
/// A buffer larger than this is not kept for the next frame.
const KEPT_BUFFER: usize = 1 << 20;

/// See the module's head.
pub struct Writer {
    shared: Arc<Shared>,
    wal: Wal,
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
        wal: Wal,
        open: OpenFiles,
        jobs: Receiver<Message>,
        keeper: Sender<Task>,
    ) -> Writer {
        let file = open.segments.last().expect("recovery opened a segment").0;
        let segments = open.segments.len() as u64 - 1;
        let since_checkpoint = segments * shared.options.segment_bytes + wal.tail();
        let commands_at_checkpoint = shared.state.read().store.applied_index;
        let writer = Writer {
            shared,
            wal,
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
        writer
    }

    /// Runs until told to close or every handle is gone.
    pub fn run(mut self) {
        while !self.closing {
            let batch = self.gather();
            if !batch.is_empty() {
                self.commit(batch);
            }
            self.consider_checkpoint();
        }
        self.finish();
    }

    fn finish(mut self) {
        let mut frame = self.frame();
        frame.closed();
        let revision = self.shared.durable();
        let frame = frame.seal(self.wal.salt(), self.wal.next_index, revision);
        if self.wal.has_room(frame.len())
            && let Err(e) = self.wal.append(&frame)
        {
            tracing::warn!(error = %e, "the log was not closed in order; it will be checked at the next start");
        }
        self.shared.hub.close();
        self.wal.close();
    }

    /// Waits for something to do; returns the jobs that have gathered, none when the wait ended for another reason.
    fn gather(&mut self) -> Vec<Job> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let limit = BATCH_BYTES.min(self.shared.options.segment_bytes as usize / 4);
        match self.wait() {
            Some(message) => bytes += self.take(message, &mut batch),
            None => self.expire(&mut batch),
        }
        while batch.len() < BATCH_COMMANDS && bytes < limit && !self.closing {
            match self.jobs.try_recv() {
                Ok(message) => bytes += self.take(message, &mut batch),
                Err(_) => break,
            }
        }
        batch
    }

    /// The next message; `None` when a lease ends first.
    fn wait(&mut self) -> Option<Message> {
        let deadline = self.shared.state.read().store.leases.next_deadline();
        let Some(deadline) = deadline else { return Some(self.jobs.recv().unwrap_or(Message::Close)) };
        let left = deadline.max(self.expiry_not_before).saturating_sub(self.shared.now_ms());
        match self.jobs.recv_timeout(Duration::from_millis(left)) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Message::Close),
        }
    }

    fn take(&mut self, message: Message, batch: &mut Vec<Job>) -> usize {
        match message {
            Message::Job(job) => {
                self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                self.shared.waiting_bytes.fetch_sub(job.bytes, Ordering::Relaxed);
                let bytes = job.bytes;
                batch.push(job);
                return bytes;
            }
            Message::Checkpoint { done } => self.wanted_checkpoint.extend(done),
            Message::Checkpointed { result } => self.checkpointed(result),
            Message::Collected => self.collected(),
            Message::Close => self.closing = true,
        }
        0
    }

    fn expire(&mut self, batch: &mut Vec<Job>) {
        let now = self.shared.now_ms();
        if now < self.expiry_not_before {
            return;
        }
        let expired = self.shared.state.read().store.leases.expired(now, EXPIRED_AT_ONCE);
        batch.extend(expired.into_iter().map(|id| Job { command: Command::Revoke { id }, bytes: 0, answer: None }));
    }

    fn frame(&mut self) -> Frame {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() > KEPT_BUFFER {
            buffer = Vec::new();
        }
        Frame::new(buffer, self.file, self.wal.tail())
    }

    /// Makes room for a batch, going on in a new segment when the current one is full.
    fn make_room(&mut self, bytes: usize) -> Result<(), Error> {
        self.wal.mend()?;
        if self.wal.has_room(bytes) {
            return Ok(());
        }
        self.wal.rotate()?;
        self.file = self.shared.state.write().files.add(self.wal.reader().clone());
        self.open.segments.push((self.file, self.wal.segment(), self.wal.reader().path.clone()));
        self.measure();
        if self.wal.has_room(bytes) { Ok(()) } else { Err(Error::TooLarge) }
    }

    /// Commits a batch: apply, log, publish, answer.
    fn commit(&mut self, mut batch: Vec<Job>) {
        self.refuse_growth(&mut batch);
        let estimate = FRAME_HEADER + batch.iter().map(|j| txn::cost(&j.command)).sum::<usize>();
        if let Err(e) = self.make_room(estimate) {
            return self.fail(batch, &e);
        }
        let before = self.shared.durable();
        let mut applied = Applied { frame: self.frame(), changes: Vec::new(), undo: Vec::new() };
        let replies = self.apply(&batch, &mut applied, before);
        let Applied { frame, changes, undo } = applied;
        if frame.entries() == 0 {
            self.buffer = frame.abandon();
            return answer(batch, replies);
        }
        debug_assert!(frame.size() <= estimate, "the estimate of a batch is an upper bound");
        let sealed = frame.seal(self.wal.salt(), self.wal.next_index, before);
        let started = Instant::now();
        let appended = self.wal.append(&sealed);
        self.shared.metrics.log_sync.time(started.elapsed());
        if let Err(e) = appended {
            tracing::error!(error = %e, "a batch of writes was refused");
            self.shared.state.write().store.rollback(before, undo);
            return self.fail(batch, &e);
        }
        self.since_checkpoint += sealed.len() as u64;
        self.buffer = sealed;
        let durable = self.shared.state.read().store.revision();
        self.shared.durable.store(durable, Ordering::Release);
        self.shared.publish(changes, durable);
        let compacted = batch.iter().any(|j| matches!(j.command, Command::Compact { .. }));
        answer(batch, replies);
        if compacted {
            let _ = self.keeper.send(Task::Collect { done: None });
        }
    }

    fn apply(&self, batch: &[Job], applied: &mut Applied, durable: i64) -> Vec<Result<Reply, Error>> {
        let now = self.shared.now_ms();
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
        for job in batch {
            if let Some(answer) = job.answer {
                let _ = answer.send(Err(error.clone()));
            }
        }
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
        if self.checkpointing || self.closing {
            return;
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
        if grown || many || stale || !self.wanted_checkpoint.is_empty() {
            self.start_checkpoint(applied);
        }
    }

    /// Hands the keeper the state as of now; the log goes on in a new segment.
    fn start_checkpoint(&mut self, applied: u64) {
        let old = self.open.segments.len();
        let rotated = self.wal.rotate();
        let mut waiting = std::mem::take(&mut self.wanted_checkpoint);
        if let Err(e) = rotated {
            tracing::warn!(error = %e, "no checkpoint can be written now");
            // Tried again after as much log as made this one due.
            self.since_checkpoint = 0;
            waiting.into_iter().for_each(|w| drop(w.send(Err(e.clone()))));
            return;
        }
        let (head, leases) = {
            let mut state = self.shared.state.write();
            self.file = state.files.add(self.wal.reader().clone());
            let store = &state.store;
            let head = Head {
                cluster_id: self.shared.identity.cluster_id,
                member_id: self.shared.identity.member_id,
                segment: self.wal.segment(),
                next_index: self.wal.next_index,
                revision: store.revision(),
                compacted: store.compacted(),
                applied_index: store.applied_index,
            };
            (head, store.leases.iter().map(|(id, lease)| (id, lease.ttl)).collect())
        };
        self.open.segments.push((self.file, self.wal.segment(), self.wal.reader().path.clone()));
        self.measure();
        let replaced =
            OpenFiles { checkpoint: self.open.checkpoint.clone(), segments: self.open.segments[..old].to_vec() };
        self.since_checkpoint = 0;
        self.commands_at_checkpoint = applied;
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

fn answer(batch: Vec<Job>, replies: Vec<Result<Reply, Error>>) {
    for (job, reply) in batch.into_iter().zip(replies) {
        if let Some(answer) = job.answer {
            // Whoever does not wait any more does not care.
            let _ = answer.send(reply);
        }
    }
}
