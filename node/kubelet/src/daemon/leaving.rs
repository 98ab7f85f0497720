//! The machine is about to stop: the node says that it is not ready and takes no pods, and its pods end by groups of
//! priority ([`crate::node::shutdown`]). I/O: waits, asks the loop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::messages::{Mailbox, Message, NodeSignals, Query};
use crate::node::shutdown::{Group, grace, group_of, groups, verdict};
use crate::pod::pods;
use crate::worker::{Event, Life, PodWorker};

/// How often it is looked whether a group has ended: for the minute that this takes at most.
const GLANCE: Duration = Duration::from_millis(100);

/// Waits for whoever runs this kubelet to say so, and tells it when the pods have ended.
pub async fn run(config: Arc<Config>, mailbox: Mailbox, node: NodeSignals, shutdown: CancellationToken) {
    let leave = async {
        config.leaving.wait().await;
        let groups = groups(&config);
        tracing::info!(groups = groups.len(), "the machine is about to stop: pods end before");
        node.leaving.store(true, Ordering::Release);
        node.changed.notify_one();
        for (index, group) in groups.iter().enumerate() {
            end(&mailbox, &groups, index, group).await;
        }
        config.left.set();
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = leave => {}
    }
}

/// Ends the pods of one group, and waits for them as long as the group has.
async fn end(mailbox: &Mailbox, groups: &[Group], index: usize, group: &Group) {
    let until = Instant::now() + group.period;
    let Some(workers) = mailbox.ask(Query::Workers).await else { return };
    let mut waited = BTreeSet::new();
    for worker in workers.iter().filter(|worker| !worker.is_ended() && group_of(groups, &worker.pod) == index) {
        let uid = pods::uid(&worker.pod).to_owned();
        if worker.life == Life::Active {
            let event = Event::Evict { verdict: verdict(), grace: grace(&worker.pod, group) };
            mailbox.send(Message::Answer { uid: uid.clone(), event });
        }
        waited.insert(uid);
    }
    while !waited.is_empty() && Instant::now() < until {
        tokio::time::sleep(GLANCE).await;
        let Some(workers) = mailbox.ask(Query::Workers).await else { return };
        let open = |worker: &&PodWorker| !worker.is_ended() || !pods::is_terminal_phase(phase(worker));
        let open: BTreeSet<&str> = workers.iter().filter(open).map(|worker| pods::uid(&worker.pod)).collect();
        waited.retain(|uid| open.contains(uid.as_str()));
    }
}

/// What the API knows of it.
fn phase(worker: &PodWorker) -> &str {
    worker.known.phase.as_deref().unwrap_or_default()
}
