//! Nodes of a cluster's API. I/O: lists and watches them. Called by [`super::Flags`].

use std::time::Duration;

use client::{Delta, Informer};
use k8s_openapi::api::core::v1::Node as ApiNode;
use kube::Api;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::node::Node;
use super::{Nodes, Teller};

/// What is not in a list that is read anew goes one by one: whoever is left is looked at when all have gone.
const SETTLE: Duration = Duration::from_millis(100);

/// Tells of all nodes, and again when one changes, until `stop`. Without an answer of the API server nothing is told: what was
/// known stays.
pub async fn follow(client: kube::Client, mut teller: Teller, stop: CancellationToken) {
    let nodes = watch::Sender::new(Nodes::new());
    let mut changes = nodes.subscribe();
    // A node is read when it changes, and matters when its address does: kubelets write their status all the time.
    let informer = Informer::new(Api::<ApiNode>::all(client)).on(move |delta| {
        nodes.send_if_modified(|nodes| take(nodes, delta));
    });
    let (cache, _) = informer.run(stop.clone());
    let following = async {
        cache.synced().await;
        loop {
            // Nodes that say no AS are of the speaker's own.
            teller.tell(&changes.borrow_and_update(), None);
            tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => sleep(SETTLE).await,
                    Err(_) => return,
                },
                () = teller.due() => {}
                () = teller.closed() => return,
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = following => {}
    }
}

/// Whether a change of a node is one of what is told.
fn take(nodes: &mut Nodes, delta: &Delta<ApiNode>) -> bool {
    let name = delta.object().metadata.name.clone().unwrap_or_default();
    if matches!(delta, Delta::Deleted(_)) {
        return nodes.remove(&name).is_some();
    }
    let read = Node::of_api(delta.object());
    let differs = nodes.get(&name) != Some(&read);
    nodes.insert(name, read);
    differs
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_that_changes_no_address_is_no_news() {
        let node = |address: &str, heartbeat: &str| {
            let node = json!({"metadata": {"name": "a"}, "status": {
                "addresses": [{"type": "InternalIP", "address": address}],
                "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat}],
            }});
            Arc::new(serde_json::from_value::<ApiNode>(node).expect("a node"))
        };
        let mut nodes = Nodes::new();
        let first = node("10.0.0.1", "2026-01-01T00:00:00Z");
        assert!(take(&mut nodes, &Delta::Added(first.clone())));
        let beat = node("10.0.0.1", "2026-01-01T00:05:00Z");
        assert!(!take(&mut nodes, &Delta::Updated { old: first, new: beat.clone() }));
        assert!(take(&mut nodes, &Delta::Updated { old: beat, new: node("10.0.0.2", "2026-01-01T00:05:00Z") }));
        assert!(take(&mut nodes, &Delta::Deleted(node("10.0.0.2", "2026-01-01T00:05:00Z"))) && nodes.is_empty());
    }
}
