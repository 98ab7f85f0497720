//! A small test runner for tests that share one cluster: in order, one at a time, the cluster reset at the end whatever
//! happened. `NAME` as an argument runs only the tests whose name contains it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::{Result, anyhow};

use crate::Cluster;

/// A test over a shared cluster.
pub type Test = (&'static str, fn(&Cluster) -> Result<()>);

/// Runs the tests; the process's exit code says whether all passed.
pub fn run(cluster: &Cluster, tests: &[Test]) -> std::process::ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str()));
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in tests.iter().filter(|(name, _)| chosen(name)) {
        let began = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| test(cluster)));
        let result = result.unwrap_or_else(|panic| Err(anyhow!("panicked: {}", words(panic.as_ref()))));
        let seconds = began.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok ({seconds:.1} s)");
            }
            Err(error) => {
                failed += 1;
                println!(
                    "test {name} ... FAILED ({seconds:.1} s)\n    {error:#}\n    daemon.log:\n{}",
                    cluster.log_tail()
                );
            }
        }
    }
    if let Err(error) = cluster.reset() {
        failed += 1;
        println!("test reset ... FAILED\n    {error:#}");
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
}
