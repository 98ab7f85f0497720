//! Watches the host's firewall while the cluster runs: one that closes later (started, reloaded, another tool installed)
//! is opened again where `--open-firewall` asks for it, and else told in the log, by a condition and an event of the
//! node. I/O: nftables, the API.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use client::{EventRecorder, EventType};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::told;
use crate::config::Host;
use crate::firewall;

/// How often rules are looked at: nobody tells who changes them.
const LOOK: Duration = Duration::from_secs(10);
/// The node's condition: true while packets of pods are dropped.
const CONDITION: &str = "PodTrafficDropped";
const REASON: &str = "HostFirewall";

/// Looks until `stop`.
pub async fn run(host: Arc<Host>, client: kube::Client, stop: CancellationToken) -> Result<()> {
    let recorder = EventRecorder::new(client.clone(), "ferrokube").on_host(&host.node_name);
    let mut known: Option<Vec<String>> = None;
    loop {
        let looked = host.clone();
        let found = tokio::task::spawn_blocking(move || look(&looked)).await.map_err(anyhow::Error::from).flatten();
        match found {
            Ok(told) if known.as_ref() != Some(&told) => {
                match tell(&host, &client, &recorder, &told, known.is_some()).await {
                    Ok(()) => known = Some(told),
                    Err(error) => tracing::debug!(error = format!("{error:#}"), "the node was not told; trying again"),
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the host's firewall could not be looked at"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// What is closed now, after what may be opened has been opened.
pub fn look(host: &Host) -> Result<Vec<String>> {
    let walls = firewall::walls(host)?;
    if walls.is_empty() || !host.open_firewall {
        return Ok(firewall::told(&walls));
    }
    tracing::info!(walls = walls.len(), "the host's firewall has closed; opening it for pods");
    firewall::open(&walls)?;
    Ok(firewall::told(&firewall::walls(host)?))
}

async fn tell(
    host: &Host,
    client: &kube::Client,
    recorder: &EventRecorder,
    walls: &[String],
    again: bool,
) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = nodes.get(&host.node_name).await?;
    let has = node.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == CONDITION);
    let closed = !walls.is_empty();
    // A node that never had it needs no word that all is well.
    if !closed && !has {
        return Ok(());
    }
    let patch = json!({"status": {"conditions": [condition(walls, Timestamp::now())]}});
    nodes.patch_status(&host.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    let regarding = told::node(host, node.metadata.uid);
    if closed {
        let words = walls.join("; and ");
        tracing::error!("{words}");
        recorder.record(&regarding, EventType::Warning, REASON, &words).await;
    } else if again {
        let words = "the host's firewall lets packets of pods through again";
        tracing::info!("{words}");
        recorder.record(&regarding, EventType::Normal, REASON, words).await;
    }
    Ok(())
}

fn condition(told: &[String], now: Timestamp) -> Value {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (status, message) = match told.is_empty() {
        true => ("False", "the host's firewall lets packets of pods through".to_owned()),
        false => ("True", told.join("; and ")),
    };
    json!({
        "type": CONDITION, "status": status, "reason": REASON, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    })
}
