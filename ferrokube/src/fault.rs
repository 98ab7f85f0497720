//! Errors that end a command: one sentence for the person, and the exit code. Everything else that goes wrong is
//! wrapped in context on its way up and ends with code 1.

/// A command's failure, in words that need nothing around them.
#[derive(Debug, thiserror::Error)]
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
