//! A file of a person's that could not be used: a line in the log and an event of the node. I/O: writes both.

use std::path::Path;

use client::{EventRecorder, EventType};
use k8s_openapi::api::core::v1::ObjectReference;

use crate::config::Host;

/// An event's note is no longer.
const MAX_NOTE: usize = 900;

pub async fn failed(client: &kube::Client, host: &Host, reason: &str, file: &Path, why: &str) {
    tracing::error!(file = %file.display(), why, reason, "a file could not be used");
    let node = node(host, Some(host.node_name.clone()));
    let note: String = format!("{}: {why}", file.display()).chars().take(MAX_NOTE).collect();
    let recorder = EventRecorder::new(client.clone(), "ferrokube").on_host(&host.node_name);
    recorder.record(&node, EventType::Warning, reason, &note).await;
}

/// What an event of the node is about.
pub fn node(host: &Host, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(host.node_name.clone()),
        uid,
        ..ObjectReference::default()
    }
}
