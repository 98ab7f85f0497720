//! A latch: set once, waited for by anyone. Components tell by it that they have begun to do their work; the binary
//! waits for it when it starts them.

use tokio_util::sync::CancellationToken;

/// Set once and never unset. Clones are the same latch.
#[derive(Clone, Debug, Default)]
pub struct Latch(CancellationToken);

impl Latch {
    /// Lets everyone pass who waits or will wait.
    pub fn set(&self) {
        self.0.cancel();
    }

    /// Returns when it is set.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }
}
