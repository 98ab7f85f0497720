//! The binary: subcommands, configuration, certificates, start order, supervision.
fn main() {}
