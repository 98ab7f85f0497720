//! Errors that end a command: one sentence for the person, and the exit code. Everything else that goes wrong is
//! wrapped in context on its way up and ends with code 1.

/// A command's failure, in words that need nothing around them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Fault {
    pub sentence: String,
    pub code: u8,
}

impl Fault {
    /// The caller asked for something that can't be: exit code 2.
    pub fn usage(sentence: impl Into<String>) -> Fault {
        Fault { sentence: sentence.into(), code: 2 }
    }

    /// What was asked for is right, but it failed: exit code 1.
    pub fn failed(sentence: impl Into<String>) -> Fault {
        Fault { sentence: sentence.into(), code: 1 }
    }
}

/// For what is done as well as it goes: what comes of it changes nothing that follows, so a failure is a line for who
/// debugs and no error. `what` says what was tried.
pub fn best_effort<T>(what: &str, result: Result<T, impl std::fmt::Display>) {
    if let Err(error) = result {
        tracing::debug!(%error, "{what}: left as it is");
    }
}
