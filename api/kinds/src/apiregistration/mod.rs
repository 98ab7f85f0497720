//! Kinds of the `apiregistration` group.

pub(crate) mod api_service;
