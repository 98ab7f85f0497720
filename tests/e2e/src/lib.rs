//! The real binary with the real clients.
