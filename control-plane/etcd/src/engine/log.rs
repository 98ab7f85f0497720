//! I/O: the room for the log below the engine. The writer proposes frames, and what they did is nobody's to see before
//! the log says that they are committed; what it has another leader's frames for is taken back.
//!
//! ```text
//!   writer    apply ──> propose ──────> pending ─────────> visible: readers, watchers, answers
//!                          │               │ └──────────> taken back: rollback, LeaderChanged
//!   log                 a Wal's frames   committed()  overruled() ── truncate_after
//! ```
//!
//! [`Alone`] is the log of a cluster of one: committed is what is on disk. With more members this is Raft's place, and
//! the engine stays as it is: a follower takes the same frames by `replay`, for they hold effects and not requests.
//! Callers: `Etcd::open` makes one, `engine::writer` has it.

use super::wal::Wal;
use crate::cluster::Leadership;
use crate::error::Error;
use crate::frame::Frame;

/// A log as the writer uses it, from one thread. Whoever changes what it says from another one tells the writer to look
/// (`Message::Look`).
pub trait Log: Send {
    /// The files of this member that the frames lie in, and the values in them.
    fn wal(&mut self) -> &mut Wal;

    /// Adds a frame of this leader and term behind all others and gives its bytes back; `revision` is the store's before
    /// it. On error nothing of it stays. It is not committed by that: ask [`Log::committed`].
    fn propose(&mut self, frame: Frame, revision: i64) -> Result<Vec<u8>, Error>;

    /// Index of the newest frame that the cluster has for good. It never goes back.
    fn committed(&self) -> u64;

    /// Who leads now. What was proposed before a change may still be committed, or be overruled.
    fn leadership(&self) -> Leadership;

    /// Frames of this member after this index won't be committed: another leader's belong there. The writer takes back
    /// what they did, then calls [`Log::truncate_after`].
    fn overruled(&self) -> Option<u64>;

    /// Takes back the frames after `index`, durably. None of them is committed.
    fn truncate_after(&mut self, index: u64) -> Result<(), Error>;
}

/// The log of a cluster of one. It leads from its start on, in a term of its own, as upstream's lone member is elected
/// anew at each start.
pub struct Alone {
    wal: Wal,
    leadership: Leadership,
}

impl Alone {
    pub fn new(wal: Wal, member: u64) -> Alone {
        let leadership = Leadership { term: wal.last_term() + 1, leader: Some(member), member };
        Alone { wal, leadership }
    }
}

impl Log for Alone {
    fn wal(&mut self) -> &mut Wal {
        &mut self.wal
    }

    fn propose(&mut self, frame: Frame, revision: i64) -> Result<Vec<u8>, Error> {
        let bytes = self.wal.append(frame, self.leadership.term, revision)?;
        self.wal.commit(self.wal.last_index());
        Ok(bytes)
    }

    fn committed(&self) -> u64 {
        self.wal.last_index()
    }

    fn leadership(&self) -> Leadership {
        self.leadership
    }

    fn overruled(&self) -> Option<u64> {
        None
    }

    fn truncate_after(&mut self, index: u64) -> Result<(), Error> {
        self.wal.truncate_after(index)
    }
}
