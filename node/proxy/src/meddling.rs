//! Waits for transactions of nftables, ours and others': somebody may have taken rules of ours away. Does I/O.

use std::future::pending;

use linux::netns::NetNs;
use linux::nft::Watch;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::config::Config;

/// Hears of transactions; without a socket for it, never.
#[derive(Debug)]
pub struct Meddling(Option<AsyncFd<Watch>>);

impl Meddling {
    pub fn open(config: &Config) -> Meddling {
        let opened = match &config.netns {
            None => Watch::open().map_err(std::io::Error::other),
            Some(path) => NetNs::open(path).and_then(|ns| Watch::open_in(&ns).map_err(std::io::Error::other)),
        };
        // The successor is unsafe; what it asks for holds here: the descriptor is owned and never changes.
        #[allow(deprecated)]
        let opened = opened.and_then(|watch| AsyncFd::with_interest(watch, Interest::READABLE));
        Meddling(opened.inspect_err(|error| tracing::warn!(%error, "who removes rules is noticed later")).ok())
    }

    /// Returns when there was a transaction. May be dropped and called again.
    pub async fn news(&self) {
        let Some(fd) = &self.0 else { return pending().await };
        loop {
            let Ok(mut ready) = fd.readable().await else { return pending().await };
            ready.clear_ready();
            match fd.get_ref().drain() {
                Ok(false) => {}
                Ok(true) => return,
                Err(error) => {
                    tracing::warn!(%error, "who removes rules is noticed later");
                    return pending().await;
                }
            }
        }
    }
}
