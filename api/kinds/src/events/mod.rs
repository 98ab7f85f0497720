//! Kinds of the `events` group.

pub(crate) mod event;
