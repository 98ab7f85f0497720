//! libFuzzer's driver of one target, named by `FUZZ_TARGET`: built with coverage and run by `cargo xtask fuzz`. I/O.

#![no_main]

use std::process::abort;
use std::sync::LazyLock;

use fuzz::{Target, limits};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    fuzz::find(&name).unwrap_or_else(|| {
        eprintln!("FUZZ_TARGET={name:?} is no target");
        abort()
    })
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(why) = limits::check(&TARGET, data) {
        eprintln!("{}: {why}", TARGET.name);
        abort();
    }
});
