//! The real binary with the real clients: see `tests/main.rs`.
