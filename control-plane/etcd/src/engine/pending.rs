//! What is applied and proposed to the log, and not known to be committed yet: nobody is told of it, and it may have to
//! be taken back. Pure. Caller: `engine::writer`, which has one batch here at a time as long as the log is [`super::log::Alone`].

use std::collections::VecDeque;
use std::sync::Arc;

use super::writer::Job;
use crate::error::Error;
use crate::mvcc::Undo;
use crate::recent::Change;
use crate::txn::{Command, Reply};

/// How far the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub revision: i64,
    /// Commands applied.
    pub applied: u64,
}

/// A batch on its way.
pub struct Proposal {
    /// Of its frame; one that wrote nothing has that of the newest frame, whose effects it may have seen.
    pub index: u64,
    /// The store before it and after it.
    pub before: Mark,
    pub after: Mark,
    pub jobs: Vec<Job>,
    pub replies: Vec<Result<Reply, Error>>,
    pub changes: Vec<Arc<Change>>,
    pub undo: Vec<Undo>,
}

impl Proposal {
    /// Up to where it compacts history, when it does.
    pub fn compacts(&self) -> Option<i64> {
        let done = self.jobs.iter().zip(&self.replies).filter(|(_, reply)| reply.is_ok());
        let revision = |job: &Job| if let Command::Compact { revision } = job.command { Some(revision) } else { None };
        done.filter_map(|(job, _)| revision(job)).max()
    }

    /// Tells those who wait.
    pub fn answer(self) {
        for (job, reply) in self.jobs.into_iter().zip(self.replies) {
            if let Some(answer) = job.answer {
                // Whoever does not wait any more does not care.
                let _ = answer.send(reply);
            }
        }
    }
}

/// What has to be taken back: the store as it was before, what leads there, and whose work it was.
pub struct Overruled {
    pub before: Mark,
    pub undo: Vec<Undo>,
    pub jobs: Vec<Job>,
}

/// Proposals, oldest first.
#[derive(Default)]
pub struct Pending(VecDeque<Proposal>);

impl Pending {
    pub fn push(&mut self, proposal: Proposal) {
        debug_assert!(self.0.back().is_none_or(|last| last.index <= proposal.index));
        self.0.push_back(proposal);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The oldest, when all that it did or saw is committed.
    pub fn next_committed(&mut self, committed: u64) -> Option<Proposal> {
        self.0.pop_front_if(|oldest| oldest.index <= committed)
    }

    /// Those after `kept`, when there are any.
    pub fn overruled(&mut self, kept: u64) -> Option<Overruled> {
        let first = self.0.partition_point(|proposal| proposal.index <= kept);
        let before = self.0.get(first)?.before;
        let mut overruled = Overruled { before, undo: Vec::new(), jobs: Vec::new() };
        for proposal in self.0.split_off(first) {
            overruled.undo.extend(proposal.undo);
            overruled.jobs.extend(proposal.jobs);
        }
        Some(overruled)
    }
}
