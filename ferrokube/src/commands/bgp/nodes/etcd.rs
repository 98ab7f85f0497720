//! Nodes of Calico's datastore in etcd: read at one revision, then watched from the next. I/O by flannel's client of etcd.
//! Called by [`super::Flags`].
//!
//! ```text
//! /calico/resources/v3/projectcalico.org/nodes/NAME                    spec.bgp of each
//! /calico/resources/v3/projectcalico.org/bgpconfigurations/default     spec.asNumber: of those that say none [64512]
//!
//! list, page by page at revision r ─► watch from r + 1 ──► every change
//!      ▲                                  │ compacted, or the connection ended
//!      └──────────── a pause ─────────────┘
//! ```

use std::time::Duration;

use bytes::Bytes;
use flannel::{CallError, EtcdClient, EtcdWatch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use wire::etcd::{EventType, KeyValue, WatchResponse};

use super::node::{MAX_NODES, Node, number_of_all};
use super::{Nodes, Teller};

const NODES: &str = "/calico/resources/v3/projectcalico.org/nodes/";
/// Behind the last of them: "0" follows "/".
const NODES_END: &str = "/calico/resources/v3/projectcalico.org/nodes0";
const CONFIGURATION: &str = "/calico/resources/v3/projectcalico.org/bgpconfigurations/default";
/// Calico's AS where nobody said another.
const NUMBER: u32 = 64512;
/// Bytes of a value: a node with all that Calico writes there has two thousand.
const MAX_VALUE: usize = 64 << 10;
/// Bytes of a name (RFC 1123's of a subdomain, as Kubernetes has it).
const MAX_NAME: usize = 253;
/// Nodes that are read at once; etcd takes values of 1.5 MiB, and an answer may have 160.
const PAGE: i64 = 100;
/// The first wait after a failure, doubled up to the last.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// All that is known.
#[derive(Debug, Default, PartialEq)]
struct Known {
    nodes: Nodes,
    number: Option<u32>,
}

impl Known {
    /// What a key says now.
    fn put(&mut self, kv: &KeyValue) {
        let sized = || match kv.value.len() {
            length if length > MAX_VALUE => Err(format!("it has {length} bytes, which are more than {MAX_VALUE}")),
            _ => Ok(&kv.value[..]),
        };
        if &kv.key[..] == CONFIGURATION.as_bytes() {
            match sized().and_then(number_of_all) {
                Ok(number) => self.number = number,
                // What was said before counts on: another AS for all would end every session.
                Err(why) => tracing::warn!(key = CONFIGURATION, "the AS of nodes stays as it was: {why}"),
            }
        } else if let Some(name) = name(&kv.key) {
            // The names alone are remembered of more than can be used; one more is told of by `found`.
            if self.nodes.len() <= MAX_NODES || self.nodes.contains_key(name) {
                self.nodes.insert(name.to_owned(), sized().and_then(Node::of_calico));
            }
        }
    }

    fn delete(&mut self, key: &[u8]) {
        if key == CONFIGURATION.as_bytes() {
            self.number = None;
        } else if let Some(name) = name(key) {
            self.nodes.remove(name);
        }
    }

    fn heard(&mut self, answer: &WatchResponse) {
        for event in &answer.events {
            match &event.kv {
                Some(kv) if event.r#type == EventType::Delete as i32 => self.delete(&kv.key),
                Some(kv) => self.put(kv),
                None => {}
            }
        }
    }

    fn tell(&self, teller: &mut Teller) {
        teller.tell(&self.nodes, Some(self.number.unwrap_or(NUMBER)));
    }
}

/// The node's name of a key; none of what is no node's.
fn name(key: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(key).ok()?.strip_prefix(NODES)?;
    (1..=MAX_NAME).contains(&name.len()).then_some(name)
}

/// Tells of all nodes, and again when one changes, until `stop`. Without an answer of etcd nothing is told: what was known
/// stays.
pub async fn follow(client: EtcdClient, mut teller: Teller, stop: CancellationToken) {
    let (mut retry, mut away) = (FIRST_RETRY, false);
    // What the configuration said counts over an outage, too.
    let mut number = None;
    let following = async {
        loop {
            let ended = once(&client, &mut teller, &mut number, &mut retry, &mut away).await;
            match ended {
                Ok(()) => tracing::info!("what happened since was compacted: nodes are listed again"),
                Err(error) => {
                    // Told once, and once more when it is over.
                    if std::mem::replace(&mut away, true) {
                        tracing::debug!(%error, "nodes are still not heard of");
                    } else {
                        tracing::warn!(%error, "nodes are not heard of; sessions go on as before");
                    }
                    sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = following => {}
    }
}

/// Lists, and watches until that ends: because history is compacted, or something failed.
async fn once(
    client: &EtcdClient,
    teller: &mut Teller,
    number: &mut Option<u32>,
    retry: &mut Duration,
    away: &mut bool,
) -> Result<(), CallError> {
    let mut known = Known { number: *number, ..Known::default() };
    let revision = list(client, &mut known).await?;
    *number = known.number;
    if std::mem::take(away) {
        tracing::info!("nodes are heard of again");
    }
    known.tell(teller);
    let mut nodes = client.watch(NODES.into(), NODES_END.into(), revision + 1).await?;
    let mut configuration = client.watch(CONFIGURATION.into(), Bytes::new(), revision + 1).await?;
    loop {
        let answer = tokio::select! {
            answer = next(&mut nodes) => answer?,
            answer = next(&mut configuration) => answer?,
            () = teller.due() => {
                known.tell(teller);
                continue;
            }
        };
        *retry = FIRST_RETRY;
        if answer.canceled && answer.compact_revision > 0 {
            return Ok(());
        }
        if answer.canceled {
            return Err(CallError(format!("the watch was cancelled: {}", answer.cancel_reason)));
        }
        if !answer.events.is_empty() {
            known.heard(&answer);
            *number = known.number;
            known.tell(teller);
        }
    }
}

async fn next(watch: &mut EtcdWatch) -> Result<WatchResponse, CallError> {
    watch.next().await?.ok_or_else(|| CallError("the server ended the watch".to_owned()))
}

/// Reads all, as it is at one revision, which is returned.
async fn list(client: &EtcdClient, known: &mut Known) -> Result<i64, CallError> {
    let first = client.range_at(CONFIGURATION.into(), Bytes::new(), 0, 1).await?;
    let revision = first.header.map_or(0, |header| header.revision);
    match first.kvs.first() {
        Some(kv) => known.put(kv),
        None => known.number = None,
    }
    let mut from = Bytes::from_static(NODES.as_bytes());
    loop {
        let page = client.range_at(from, NODES_END.into(), revision, PAGE).await?;
        page.kvs.iter().for_each(|kv| known.put(kv));
        let last = page.kvs.last().map(|kv| [&kv.key[..], &[0]].concat());
        match last.filter(|_| page.more && known.nodes.len() <= MAX_NODES) {
            Some(next) => from = next.into(),
            None => return Ok(revision),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: impl Into<Bytes>) -> KeyValue {
        KeyValue { key: key.to_owned().into(), value: value.into(), ..KeyValue::default() }
    }

    #[test]
    fn keys_are_nodes_and_one_is_the_configuration() {
        let mut known = Known::default();
        known.put(&put(&format!("{NODES}a"), r#"{"spec": {"bgp": {"ipv4Address": "10.0.0.1/24"}}}"#));
        known.put(&put(&format!("{NODES}b"), "{"));
        known.put(&put(&format!("{NODES}c"), vec![b' '; MAX_VALUE + 1]));
        known.put(&put(NODES, "{}"));
        known.put(&put(&format!("{NODES}{}", "x".repeat(MAX_NAME + 1)), "{}"));
        known.put(&put("/calico/resources/v3/projectcalico.org/ippools/a", "{}"));
        assert_eq!(known.nodes.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(known.nodes["a"].is_ok() && known.nodes["b"].is_err());
        assert!(known.nodes["c"].as_ref().is_err_and(|why| why.contains("more than 65536")));
        known.put(&put(CONFIGURATION, r#"{"spec": {"asNumber": 64600}}"#));
        assert_eq!(known.number, Some(64600));
        known.put(&put(CONFIGURATION, "{"));
        assert_eq!(known.number, Some(64600), "what can't be read changes nothing");
        known.delete(CONFIGURATION.as_bytes());
        known.delete(format!("{NODES}a").as_bytes());
        assert_eq!((known.number, known.nodes.len()), (None, 2));
    }
}
