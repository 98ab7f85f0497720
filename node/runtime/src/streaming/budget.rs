//! How much of what a viewer sends may wait in memory. Does I/O only in that it waits.
//!
//! SPDY as Kubernetes speaks it has no flow control: the one thing that holds a sender back is that nobody reads the
//! connection. So each connection has a number of bytes that may lie in all its queues together; when they are used up,
//! it isn't read until a program or a pod's port has taken some.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that may wait on one connection: enough to keep a fast line busy, and a thousand viewers affordable.
pub const BUDGET: usize = 4 << 20;
/// What a queued piece costs beside its bytes.
const OVERHEAD: usize = 256;
/// Shorter pieces are copied: a view would keep the whole read buffer that it lies in.
const COPIED_BELOW: usize = 16 << 10;

/// The budget of one connection.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Semaphore>);

/// Bytes on their way, which count until they are dropped.
#[derive(Debug)]
pub struct Chunk {
    data: Bytes,
    _held: Option<OwnedSemaphorePermit>,
}

impl Default for Budget {
    fn default() -> Self {
        Budget(Arc::new(Semaphore::new(BUDGET)))
    }
}

impl Budget {
    /// Takes bytes in when there is room for them.
    pub async fn hold(&self, data: Bytes) -> Chunk {
        let cost = (data.len() + OVERHEAD).min(BUDGET) as u32;
        // It is never closed, so there is always a permit in the end.
        let held = self.0.clone().acquire_many_owned(cost).await.ok();
        let data = if data.len() < COPIED_BELOW { Bytes::copy_from_slice(&data) } else { data };
        Chunk { data, _held: held }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.data
    }
}

impl PartialEq for Chunk {
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

impl Eq for Chunk {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn what_waits_is_bounded_and_comes_back() {
        let budget = Budget::default();
        let mut waiting = Vec::new();
        let piece = || Bytes::from(vec![0u8; 1 << 20]);
        let hold = async |budget: &Budget| tokio::time::timeout(Duration::from_millis(20), budget.hold(piece())).await;
        while let Ok(chunk) = hold(&budget).await {
            waiting.push(chunk);
        }
        assert_eq!(waiting.len(), 3, "four megabytes and what they cost beside");
        waiting.pop();
        assert!(hold(&budget).await.is_ok(), "taken by its reader, it is free again");
        // One byte costs more than a byte, and keeps no buffer.
        let buffer = Bytes::from(vec![0u8; 1 << 20]);
        let budget = Budget::default();
        let small = budget.hold(buffer.slice(..1)).await;
        assert_ne!(small.data.as_ptr(), buffer.as_ptr());
        assert_eq!(budget.0.available_permits(), BUDGET - 1 - OVERHEAD);
    }
}
