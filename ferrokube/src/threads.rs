//! The threads that components run on. Every command that runs one makes its tokio runtime here: whatever others wrote
//! (bodies, stored objects, manifests) is walked by recursion somewhere, within the depth and on the stack that
//! `meta::depth` names.

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};

/// A runtime of this many workers, or of one for each processor. Threads for blocking work have the same stack. The
/// process that has it keeps to small pages.
pub fn runtime(workers: Option<usize>) -> Result<Runtime> {
    linux::process::allow_huge_pages(false);
    let mut builder = Builder::new_multi_thread();
    if let Some(workers) = workers {
        builder.worker_threads(workers);
    }
    builder.thread_stack_size(meta::depth::STACK_BYTES).enable_all().build().context("starting threads")
}

/// Runs a task to its end on the runtime's own threads: the thread that waits has whatever stack the system gave it.
pub fn run<T: Send + 'static>(runtime: &Runtime, task: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    runtime.block_on(runtime.spawn(task)).context("the main task broke off")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_has_the_stack_that_depths_are_bounded_for() {
        let runtime = runtime(Some(1)).unwrap();
        // More than the two mebibytes that threads have by default.
        let deep = || {
            let mut room = [0u8; 4 << 20];
            std::hint::black_box(&mut room);
            room.len()
        };
        let task = async move { Ok(deep() + tokio::task::spawn_blocking(deep).await?) };
        assert_eq!(run(&runtime, task).unwrap(), 8 << 20);
    }
}
