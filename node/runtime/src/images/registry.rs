//! The registry client.

/// Other places to fetch from.
#[derive(Debug, Clone, Default)]
pub struct Mirrors;
