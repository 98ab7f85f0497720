//! I/O: the keeper thread: frees compacted history, writes checkpoints and snapshots. One after the other, so that
//! history stays as it is while a checkpoint copies it.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Shared;
use super::checkpoint::{self, Head, Written, checkpoint_path};
use super::files::DataFile;
use super::recover::OpenFiles;
use super::writer::Message;
use crate::error::Error;
use crate::mvcc::Place;
use crate::span::Span;

/// The state that a checkpoint is to hold, and the files that it replaces.
pub struct CheckpointJob {
    pub head: Head,
    /// (ID, time to live in seconds)
    pub leases: Vec<(i64, i64)>,
    pub replaced: OpenFiles,
}

/// What the keeper is asked to do.
pub enum Task {
    /// Free what compaction left behind.
    Collect {
        done: Option<oneshot::Sender<()>>,
    },
    Checkpoint(CheckpointJob),
    /// Write the store to an unlinked file.
    Snapshot {
        done: oneshot::Sender<Result<File, Error>>,
    },
    Close,
}

/// Keys freed, or moved to a new checkpoint, while readers are kept out once.
const KEYS_AT_ONCE: usize = 256;

/// See the module's head.
pub struct Keeper {
    shared: Arc<Shared>,
    tasks: Receiver<Task>,
    writer: Sender<Message>,
}

impl Keeper {
    pub fn new(shared: Arc<Shared>, tasks: Receiver<Task>, writer: Sender<Message>) -> Keeper {
        Keeper { shared, tasks, writer }
    }

    /// Runs until told to close.
    pub fn run(self) {
        while let Ok(task) = self.tasks.recv() {
            match task {
                Task::Collect { done } => {
                    self.collect();
                    let _ = self.writer.send(Message::Look);
                    if let Some(done) = done {
                        let _ = done.send(());
                    }
                }
                Task::Checkpoint(job) => {
                    let result = self.checkpoint(&job);
                    let _ = self.writer.send(Message::Checkpointed { result });
                }
                Task::Snapshot { done } => drop(done.send(self.snapshot())),
                Task::Close => return,
            }
        }
    }

    fn collect(&self) {
        // What a command compacts that is not committed yet may come back.
        let upto = self.shared.compacted.load(Ordering::Acquire);
        loop {
            let mut state = self.shared.state.write();
            let more = state.store.collect(upto, KEYS_AT_ONCE);
            state.store.recent.forget(upto);
            if !more {
                return;
            }
        }
    }

    fn checkpoint(&self, job: &CheckpointJob) -> Result<OpenFiles, Error> {
        let path = checkpoint_path(&self.shared.options.data_dir, job.head.segment);
        let draft = path.with_extension("tmp");
        let written = checkpoint::write(&self.shared, job.head, &job.leases, &draft)
            .inspect_err(|_| drop(std::fs::remove_file(&draft)))?;
        let failed = |e: std::io::Error| Error::LogFailed(format!("{}: {e}", path.display()));
        checkpoint::publish(&draft, &path, self.shared.options.disk).map_err(failed)?;
        let file = Arc::new(DataFile::open(&path).map_err(failed)?);
        let number = self.shared.state.write().files.add(file);
        self.move_values(&written, number, job.head.revision);
        self.remove(&job.replaced);
        let segments = job.replaced.segments.clone();
        Ok(OpenFiles { checkpoint: Some((number, path, written.size)), segments })
    }

    /// Makes every version that the checkpoint holds lie there.
    fn move_values(&self, written: &Written, file: u16, upto: i64) {
        let everything = Span::new(Bytes::new(), Bytes::from_static(b"\0"));
        let mut offsets = written.offsets.iter();
        let mut after: Option<Bytes> = None;
        loop {
            let mut state = self.shared.state.write();
            let bounds = everything.bounds(after.as_deref()).expect("an open range is never empty");
            let mut last = None;
            for (key, history) in state.store.keys.range_mut::<[u8], _>(bounds).take(KEYS_AT_ONCE) {
                // A newer version may have been written with the value of the one before it, and lies where that lay.
                let mut moved = None;
                for version in history.all_mut().iter_mut().filter(|v| v.len > 0) {
                    if version.modified <= upto {
                        let offset = offsets.next().expect("history up to a checkpoint's revision does not change");
                        let place = Place::new(file, *offset);
                        moved = Some((std::mem::replace(&mut version.place, place), place));
                    } else if let Some((_, now)) = moved.filter(|(before, _)| version.place == *before) {
                        version.place = now;
                    }
                }
                last = Some(key.clone());
            }
            drop(state);
            match last {
                Some(key) => after = Some(key),
                None => return,
            }
        }
    }

    fn remove(&self, replaced: &OpenFiles) {
        let checkpoint = replaced.checkpoint.iter().map(|(number, path, _)| (*number, path));
        let segments = replaced.segments.iter().map(|(number, _, path)| (*number, path));
        for (number, path) in checkpoint.chain(segments) {
            self.shared.state.write().files.remove(number);
            if let Err(e) = std::fs::remove_file(path) {
                tracing::warn!(file = %path.display(), error = %e, "a file that is not needed any more stays");
            }
        }
    }

    /// Writes the store as it is now to a file without a name.
    fn snapshot(&self) -> Result<File, Error> {
        let (head, leases) = {
            let state = self.shared.state.read();
            let store = &state.store;
            let head = Head {
                cluster_id: self.shared.identity.cluster_id,
                member_id: self.shared.identity.member_id,
                segment: 1,
                next_index: 1,
                revision: self.shared.durable(),
                compacted: self.shared.compacted.load(Ordering::Acquire),
                applied_index: self.shared.applied.load(Ordering::Relaxed),
                term: self.shared.leadership().term,
            };
            (head, store.leases.iter().map(|(id, lease)| (id, lease.ttl)).collect::<Vec<_>>())
        };
        let draft = self.shared.options.data_dir.join("snapshot.tmp");
        let written = checkpoint::write(&self.shared, head, &leases, &draft);
        let file = File::open(&draft);
        let _ = std::fs::remove_file(&draft);
        written?;
        file.map_err(|e| Error::LogFailed(format!("{}: {e}", draft.display())))
    }
}
