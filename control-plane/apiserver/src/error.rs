//! Why the server cannot start or go on.

use std::path::PathBuf;

use crate::storage::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file named by a flag cannot be read or holds something else.
    #[error("{flag}: {}: {reason}", path.display())]
    File { flag: &'static str, path: PathBuf, reason: String },
    /// A flag's value makes no sense.
    #[error("{flag}: {reason}")]
    Flag { flag: &'static str, reason: String },
    #[error("cannot listen on {address}: {reason}")]
    Listen { address: std::net::SocketAddr, reason: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something the cluster needs at start could not be written.
    #[error("cannot set up the cluster's own objects: {0}")]
    Bootstrap(String),
}
