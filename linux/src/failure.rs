//! An operating-system error with what was being done: the sentence a person reads when a container can't start.
//!
//! Used by every file here that sets up containers; it crosses process borders as its text.

use std::fmt::Display;
use std::io;

/// "mount /proc: Operation not permitted (os error 1)".
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct Failure {
    /// What was tried, with the path or name it was tried on.
    pub doing: String,
    /// What the kernel answered.
    pub source: io::Error,
}

impl Failure {
    /// A failure that no system call reported: the reason is ours.
    pub fn new(doing: impl Display, why: impl Display) -> Self {
        Failure { doing: doing.to_string(), source: io::Error::other(why.to_string()) }
    }
}

/// Adds the context of a [`Failure`] to any OS error.
pub trait Doing<T> {
    /// `mount(...).doing("mount /proc")`.
    fn doing(self, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Display) -> Result<T, Failure> {
        self.map_err(|e| Failure { doing: what.to_string(), source: e.into() })
    }
}
