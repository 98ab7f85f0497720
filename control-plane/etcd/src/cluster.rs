//! Who is in the cluster, and who leads it, as this member knows. Pure. Today the table has one row, and the one leads;
//! all that asks goes by the table and by [`Leadership`], so that neither knows it.
//! Callers: `engine` holds both, `server` shows them, `daemon` tells its own row.

use std::collections::BTreeMap;

/// A member. One that never said its name has not started yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    /// Takes the log and has no vote.
    pub learner: bool,
}

/// The members by ID.
#[derive(Debug, Default)]
pub struct Members(BTreeMap<u64, Member>);

impl Members {
    /// Adds a member, or takes what it says of itself now.
    pub fn set(&mut self, member: Member) {
        self.0.insert(member.id, member);
    }

    pub fn get(&self, id: u64) -> Option<&Member> {
        self.0.get(&id)
    }

    pub fn all(&self) -> impl Iterator<Item = &Member> {
        self.0.values()
    }
}

/// Who leads in which term. What only a leader may do, it does while [`Leadership::leads`]: propose, answer reads of the
/// newest, end leases, decide on compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// Grows with every election, and so with every start of a lone member.
    pub term: u64,
    pub leader: Option<u64>,
    /// This member.
    pub member: u64,
}

impl Leadership {
    /// Whether this member leads.
    pub fn leads(&self) -> bool {
        self.leader == Some(self.member)
    }
}
