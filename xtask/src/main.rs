//! The work loop's one entry point: `cargo xtask test`, `bench`, `tidy`, `codegen`.
fn main() {}
