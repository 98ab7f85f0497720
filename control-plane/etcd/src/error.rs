//! What can go wrong, and whose fault it is. The texts of the first half are those that etcd's clients match on.
//! Callers: every module; `server::status` maps them to gRPC codes.

use std::path::PathBuf;

/// A request that was not done. Nothing was changed, unless the variant says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    // The caller's fault.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: invalid sort option")]
    InvalidSort,
    #[error("etcdserver: request is too large")]
    TooLarge,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted {
        /// Oldest revision that can still be read.
        compact_revision: i64,
    },
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision {
        /// Newest revision.
        current: i64,
    },
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    #[error("etcdserver: member not found")]
    MemberNotFound,

    // The state of the server.
    /// The quota is used up: writes are refused until compaction or deletion gives space back.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    #[error("etcdserver: server stopped")]
    Stopped,
    /// This member does not lead and knows nobody who does: reads and writes go through a leader.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// Another member leads now, and its log does not have the write.
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    /// The disk is full; tried again with the next write.
    #[error("etcdserver: no space left on the disk of {dir}: {what}; writes fail until space is freed")]
    DiskFull { dir: String, what: String },
    /// The log can't be written any more; reads go on, writes need a restart.
    #[error("etcdserver: write-ahead log failed: {0}; writes are refused until the server is restarted")]
    LogFailed(String),
    /// A stored value does not have its checksum any more.
    #[error("etcdserver: {file} is damaged at offset {offset}: {what}")]
    Damaged { file: String, offset: u64, what: String },
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("data directory {dir} is in use by another process; stop it or give another --data-dir")]
    Locked { dir: PathBuf },
    #[error("{file} is damaged at offset {offset}: {what}; restore the data directory from a snapshot")]
    Damaged { file: PathBuf, offset: u64, what: String },
    #[error(
        "{file} is of format {format}, and this release reads up to {known}: a newer release wrote it; \
         start that release again, or restore a snapshot that this one saved into an empty --data-dir"
    )]
    Newer { file: PathBuf, format: u8, known: u8 },
    #[error("data directory {dir} is incomplete: {what}; restore it from a snapshot, or remove it to start empty")]
    Incomplete { dir: PathBuf, what: String },
    #[error(
        "data directory {dir} holds the files of upstream's etcd (`member/`), which this etcd does not read; give another --data-dir"
    )]
    Foreign { dir: PathBuf },
    #[error("no space left on the disk for {path}; free some and start again")]
    DiskFull { path: PathBuf },
    #[error("{doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
}

impl OpenError {
    /// Wraps an I/O error with what was being done to which path.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> OpenError {
        let path = path.into();
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull => OpenError::DiskFull { path },
            _ => OpenError::Io { doing, path, source },
        }
    }
}
