//! Fuzzing: every decoder and parser that meets bytes of others is a row of [`TARGETS`], with what must hold of it
//! whatever the bytes are. Two drivers feed the rows: `tests/fuzz.rs`, seeded and without coverage, a part of the tests;
//! and libFuzzer (`coverage.rs`), built and run by `cargo xtask fuzz`. What they found is in RESULTS.md; the inputs that
//! once broke something are in `seeds/`, named for what went wrong.

pub mod driver;
pub mod input;
pub mod limits;
pub mod mutate;
pub mod seeds;
pub mod table;
pub mod targets;

pub use table::{TARGETS, Target, find};
