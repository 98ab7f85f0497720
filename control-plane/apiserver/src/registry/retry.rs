//! Optimistic concurrency: a change is tried on a state of its object, and tried again when that state was not the last.
//! The one loop of PUT, PATCH and DELETE, as upstream's GuaranteedUpdate. I/O: reads the store.
//!
//! ```text
//!               ┌───────────── Lost: another write won ◄─────────────┐
//!               ▼                                                    │
//! cache ──► a state ──► try ──► Done ──► the answer                  │
//!               ▲        │ └──────► the store: only if unchanged ────┘
//!               │        └─► refused ──► on a fresh state: the error
//!               └── the store ◄───────── on a state from the cache
//! ```
//!
//! The first try is on what the cache has, which saves the store a read nearly always. A refusal counts only on a state
//! that came from the store, since another server may have written what this cache has not heard of.

use std::sync::Arc;

use bytes::Bytes;
use meta::Status;

use super::Served;
use super::objects::Objects;
use crate::cache::Entry;
use crate::http::answer::Answer;

/// How often a write that lost a race is tried again before the client hears of it.
pub const MAX_RETRIES: usize = 16;

/// What came of a try.
pub enum Attempt {
    /// Nothing is left to try, though the answer may be that what was written can't be shown.
    Done(Result<Answer, Status>),
    /// Somebody else wrote first; the state after that, `None` when the object is gone.
    Lost(Option<Arc<Entry>>),
}

/// The tries of one change on one object.
///
/// ```ignore
/// let mut tries = Tries::begin(objects, served, name, key, pinned).await?;
/// loop {
///     let entry = tries.next()?;
///     if let Some(answer) = tries.settle(attempt(&entry).await).await? {
///         return Ok(answer);
///     }
/// }
/// ```
pub struct Tries<'a> {
    objects: &'a Objects,
    served: &'a Served,
    name: &'a str,
    key: Bytes,
    current: Option<Arc<Entry>>,
    /// The state came from the store.
    fresh: bool,
    /// The change is of one version of the object: when that is not the last, its client has to decide anew.
    pinned: bool,
    /// Revision of the state that is being tried.
    tried: i64,
    left: usize,
}

impl<'a> Tries<'a> {
    pub async fn begin(
        objects: &'a Objects,
        served: &'a Served,
        name: &'a str,
        key: Bytes,
        pinned: bool,
    ) -> Result<Tries<'a>, Status> {
        let current = objects.cached(served, &key).await;
        let fresh = current.is_none();
        let mut tries = Tries { objects, served, name, key, current, fresh, pinned, tried: 0, left: MAX_RETRIES };
        if fresh {
            tries.current = objects.live(served, &tries.key).await?;
        }
        Ok(tries)
    }

    /// The state to try on; the 404 when there is none, the 409 when others were faster too often.
    pub fn next(&mut self) -> Result<Arc<Entry>, Status> {
        if self.left == 0 {
            return Err(Status::modified(&self.served.gvr(), self.name));
        }
        self.left -= 1;
        let entry = self.current.take().ok_or_else(|| Status::not_found(&self.served.gvr(), self.name))?;
        self.tried = entry.revision;
        Ok(entry)
    }

    /// The answer of a try that ended the change, be it well or with an error; `None` when there is another state to try.
    pub async fn settle(&mut self, outcome: Result<Attempt, Status>) -> Result<Option<Answer>, Status> {
        match outcome {
            Ok(Attempt::Done(outcome)) => return outcome.map(Some),
            Ok(Attempt::Lost(now)) => {
                // The same state: what was lost is not the object but something allocated along with it.
                let same = now.as_ref().is_some_and(|now| now.revision == self.tried);
                if self.pinned && self.fresh && !same {
                    return Err(Status::modified(&self.served.gvr(), self.name));
                }
                self.current = now;
            }
            Err(refused) if self.fresh => return Err(refused),
            Err(_) => self.current = self.objects.live(self.served, &self.key).await?,
        }
        self.fresh = true;
        Ok(None)
    }
}
