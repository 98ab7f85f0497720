//! I/O: the handle's side of the cluster: its members, who leads, and what only a leader may answer.

use wire::etcd::ResponseHeader;

use super::{Etcd, Identity, Shared};
use crate::cluster::{Leadership, Member};
use crate::error::Error;

impl Shared {
    /// Who leads now.
    pub fn leadership(&self) -> Leadership {
        *self.leadership.borrow()
    }
}

impl Etcd {
    /// Who this member is.
    pub fn identity(&self) -> Identity {
        self.shared().identity
    }

    /// Who leads now.
    pub fn leadership(&self) -> Leadership {
        self.shared().leadership()
    }

    /// The members, by ID.
    pub fn members(&self) -> Vec<Member> {
        self.shared().members.read().all().cloned().collect()
    }

    /// Says how this member is called and where it listens.
    pub fn publish(&self, name: String, peer_urls: Vec<String>, client_urls: Vec<String>) {
        let id = self.identity().member_id;
        self.shared().members.write().set(Member { id, name, peer_urls, client_urls, learner: false });
    }

    /// A response header at `revision`.
    pub fn header(&self, revision: i64) -> ResponseHeader {
        let Identity { cluster_id, member_id } = self.identity();
        ResponseHeader { cluster_id, member_id, revision, raft_term: self.leadership().term }
    }

    /// The revision that a linearizable read is answered at: no write acknowledged before the call, by whomever, is
    /// newer. Who leads alone knows it at once; a leader with followers asks here whether it still is one, which is why
    /// this waits.
    pub async fn read_index(&self) -> Result<i64, Error> {
        if self.leadership().leads() { Ok(self.revision()) } else { Err(Error::NoLeader) }
    }
}
