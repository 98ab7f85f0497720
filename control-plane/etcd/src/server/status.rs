//! The gRPC code of each error. Clients match on code and text, so both are upstream's. Pure.

use tonic::{Code, Status};

use crate::error::Error;

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let code = match error {
            Error::EmptyKey
            | Error::KeyNotFound
            | Error::ValueProvided
            | Error::LeaseProvided
            | Error::TooManyOps
            | Error::DuplicateKey
            | Error::InvalidSort
            | Error::TooLarge => Code::InvalidArgument,
            Error::Compacted { .. } | Error::FutureRevision { .. } | Error::LeaseTtlTooLarge => Code::OutOfRange,
            Error::LeaseNotFound | Error::MemberNotFound => Code::NotFound,
            Error::LeaseExists => Code::FailedPrecondition,
            Error::NoSpace | Error::TooManyRequests | Error::DiskFull { .. } => Code::ResourceExhausted,
            Error::Stopped | Error::NoLeader | Error::LeaderChanged | Error::LogFailed(_) => Code::Unavailable,
            Error::Damaged { .. } => Code::DataLoss,
        };
        Status::new(code, error.to_string())
    }
}
