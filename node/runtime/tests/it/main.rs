//! The runtime over its socket, with real containers: needs root and Debian's busybox-static.
//!
//! The daemon starts its own program again as monitor, so this binary has its own `main` instead of libtest's. It takes
//! a part of a name to choose tests by, like libtest.

// Without libtest, clippy does not see that these are tests.
#![allow(clippy::unwrap_used)]

mod host;
mod images;
mod lifecycle;
mod monitors;
mod network;
mod ptrace;
mod security;
mod streams;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

type Test = (&'static str, fn());

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let filter = match args.next() {
        Some(first) if first == runtime::monitor::SUBCOMMAND => runtime::monitor::main(args),
        other => other.and_then(|a| a.into_string().ok()).filter(|a| !a.starts_with('-')),
    };
    if let Some(reason) = host::unfit() {
        println!("skipped: {reason}");
        return ExitCode::SUCCESS;
    }
    let tests: Vec<Test> = [
        lifecycle::TESTS,
        security::TESTS,
        ptrace::TESTS,
        monitors::TESTS,
        streams::TESTS,
        images::TESTS,
        network::TESTS,
    ]
    .concat();
    let chosen = tests.iter().filter(|(name, _)| filter.as_ref().is_none_or(|f| name.contains(f.as_str())));
    let mut failed = Vec::new();
    for (name, test) in chosen {
        let start = std::time::Instant::now();
        let passed = std::panic::catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {} ({:.0?})", if passed { "ok" } else { "FAILED" }, start.elapsed());
        if !passed {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}
