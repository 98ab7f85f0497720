//! Peers who do their worst for long, over real sockets: what the daemon answers, what it holds when they are gone, and
//! that nobody beside them notices. A program of its own, whose tests run one after the other: its heap is looked at.

mod attack;
mod messages;
mod model;
mod routes;
#[path = "../it/world.rs"]
#[allow(dead_code, reason = "the other tests' world, of which this needs a part")]
mod world;

use std::sync::{Mutex, PoisonError};

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Runs a test while no other one has the heap.
fn alone_on_the_heap(test: impl Future<Output = ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    world::alone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(test);
}

/// Bytes that are held now.
fn held() -> usize {
    HEAP.current_usage()
}
