//! What a call to the runtime can end in, and the gRPC code that tells whose fault it was. Pure.

use crate::images::ImageError;

/// An answer other than success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such sandbox, container or image.
    #[error("{0}: not found")]
    NotFound(String),
    /// The caller asked for something that can't be.
    #[error("{0}")]
    Invalid(String),
    /// A name is taken.
    #[error("{0}")]
    Exists(String),
    /// Not in the state that the call needs.
    #[error("{0}")]
    State(String),
    /// It took longer than the caller allowed.
    #[error("{0}")]
    Deadline(String),
    /// Deliberately not offered.
    #[error("{0}")]
    Unsupported(String),
    /// This host's fault or the container's own.
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// The result of every call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure with what was being done.
    pub fn failed(doing: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Error {
        move |e| Error::Failed(format!("{doing}: {e}"))
    }
}

impl From<linux::failure::Failure> for Error {
    fn from(failure: linux::failure::Failure) -> Self {
        Error::Failed(failure.to_string())
    }
}

/// gRPC puts a message into a header, with three bytes for what isn't ASCII, and headers end at 16 KiB: with more the
/// caller hears of a broken connection instead. What a registry says of itself is in messages.
const MAX_MESSAGE: usize = 4 << 10;

/// A status with as much of the text as fits.
pub fn status(code: tonic::Code, text: &str) -> tonic::Status {
    match text.floor_char_boundary(MAX_MESSAGE) {
        end if end == text.len() => tonic::Status::new(code, text),
        end => tonic::Status::new(code, format!("{}… ({} bytes more)", &text[..end], text.len() - end)),
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        use tonic::Code;
        let code = match &error {
            Error::NotFound(_) | Error::Image(ImageError::NotFound(_) | ImageError::RegistryNotFound(_)) => {
                Code::NotFound
            }
            Error::Invalid(_) | Error::Image(ImageError::Name(..)) => Code::InvalidArgument,
            Error::Exists(_) => Code::AlreadyExists,
            Error::State(_) => Code::FailedPrecondition,
            Error::Deadline(_) => Code::DeadlineExceeded,
            Error::Unsupported(_) => Code::Unimplemented,
            Error::Image(ImageError::Denied(_)) => Code::PermissionDenied,
            Error::Failed(_) | Error::Image(_) => Code::Unknown,
        };
        status(code, &error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of a registry's token server made "h2 protocol error" of what was wrong.
    #[test]
    fn a_message_of_any_length_reaches_who_asked() {
        let told = |text: &str| tonic::Status::from(Error::Failed(text.to_owned())).message().to_owned();
        assert_eq!(told("short"), "short");
        let long = told(&"ü".repeat(50_000));
        assert!(long.len() < 5000 && long.ends_with("… (95904 bytes more)"), "{}", &long[long.len() - 40..]);
    }
}
