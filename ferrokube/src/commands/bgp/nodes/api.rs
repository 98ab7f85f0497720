//! Nodes of a cluster's API. I/O: lists and watches them. Called by [`super::Flags`].

use client::Informer;
use k8s_openapi::api::core::v1::Node as ApiNode;
use kube::Api;
use tokio_util::sync::CancellationToken;

use super::node::Node;
use super::{Nodes, Teller};

/// Tells of all nodes, and again when one changes, until `stop`. Without an answer of the API server nothing is told: what was
/// known stays.
pub async fn follow(client: kube::Client, mut teller: Teller, stop: CancellationToken) {
    let (cache, _) = Informer::new(Api::<ApiNode>::all(client)).run(stop.clone());
    let mut version = cache.version();
    let following = async {
        cache.synced().await;
        loop {
            version.borrow_and_update();
            let read = |node: &ApiNode| (node.metadata.name.clone().unwrap_or_default(), Node::of_api(node));
            let nodes: Nodes = cache.list().iter().map(|node| read(node)).collect();
            // Nodes that say nothing are of the speaker's own AS.
            teller.tell(&nodes, None);
            tokio::select! {
                changed = version.changed() => if changed.is_err() { return },
                () = teller.closed() => return,
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = following => {}
    }
}
