//! The node's addresses: where they come from, and what the loop does when they are others. Does I/O: a task that waits.

use tokio_util::sync::CancellationToken;

use super::sync_loop::Loop;
use crate::config::Config;
use crate::messages::{Mailbox, Message};
use crate::node::addresses::{self, Addresses};
use crate::worker::Event;

/// The addresses that this kubelet has; the loop is told of every change.
pub(super) fn follow(config: &Config, to: &Mailbox, shutdown: &CancellationToken) -> Addresses {
    let addresses = match &config.addresses {
        Some(followed) => followed.clone(),
        None if config.node_ips.is_empty() => addresses::of_this_host(),
        None => Addresses::fixed(config.node_ips.clone()),
    };
    let (mut heard, to, shutdown) = (addresses.clone(), to.clone(), shutdown.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = heard.changed() => {}
            }
            if !to.send(Message::HostIps(heard.texts())) {
                return;
            }
        }
    });
    addresses
}

impl Loop {
    /// The node says it with its next status, pods with theirs, those that share its network as their own addresses too.
    pub(super) fn take_host_ips(&mut self, ips: &[String]) {
        self.settings.host_ips = ips.to_vec();
        self.node.changed.notify_one();
        for uid in self.workers.keys().cloned().collect::<Vec<_>>() {
            self.feed(&uid, Event::HostIps(ips.to_vec()));
        }
    }
}
