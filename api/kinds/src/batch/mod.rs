//! Kinds of the `batch` group.

pub(crate) mod cron_job;
pub(crate) mod job;
mod job_validate;
pub(crate) mod schedule;
