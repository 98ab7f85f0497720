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
        tonic::Status::new(code, error.to_string())
    }
}
