//! What a subnet manager tells the daemon. Pure. Callers: the managers, the daemon.

use crate::config::NetConf;
use crate::lease::{Lease, Subnets};

/// News waiting for the daemon: a watch that is faster waits.
pub const QUEUE: usize = 64;

/// One piece of it.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// These and no others are there, this host's among them.
    All(Vec<Lease>),
    /// It is new, or other than before.
    Set(Lease),
    Gone(Subnets),
    /// This host's own has been taken away.
    Lost(Subnets),
    /// The network's configuration: it has this backend now, or another family besides.
    Turned(Box<NetConf>),
    /// It is other than this host's, and this host can't follow: in what, in a sentence. None: it is the same again.
    Apart(Option<String>),
}
