//! When a component that was started does its work. Together: a pod created then starts without a retry, its node,
//! its service account and DNS are there. I/O: asks the components as their users do.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node, NodeCondition, ServiceAccount};
use kube::Api;
use kube::runtime::wait::await_condition;
use tokio::net::UdpSocket;

use super::{Assembly, Serving, cri};
use crate::fault::Fault;
use crate::progress::{Steps, Told};

/// How soon something that tells nobody when it is there is asked again. It takes some of these, once a start.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// A question that was lost is asked again after this.
const LOST: Duration = Duration::from_millis(200);

/// Most keys of unreadable objects in one sentence; each has a line of its own in the log.
const UNREADABLE_SHOWN: usize = 5;

/// Its start returned when it did.
pub fn already() -> Serving {
    std::future::ready(Ok(())).boxed()
}

/// It tells by itself.
pub fn latch(latch: client::Latch) -> Serving {
    async move {
        latch.wait().await;
        Ok(())
    }
    .boxed()
}

/// The runtime takes calls.
pub async fn runtime(socket: PathBuf) -> Result<()> {
    while cri::connect(&socket).await.is_err() {
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Ok(())
}

/// What every pod of the default namespace mounts is there.
pub async fn accounts(client: kube::Client) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let authorities: Api<ConfigMap> = Api::namespaced(client, "default");
    await_condition(accounts, "default", |a: Option<&ServiceAccount>| a.is_some()).await?;
    await_condition(authorities, "kube-root-ca.crt", |c: Option<&ConfigMap>| c.is_some()).await?;
    Ok(())
}

/// The node is Ready, and nothing keeps pods off it but what a person put there. What a former life reported before
/// `since` doesn't count.
pub async fn node(client: kube::Client, name: String, since: Timestamp) -> Result<()> {
    let ready = |node: Option<&Node>| node.is_some_and(|node| takes_pods(node, since));
    await_condition(Api::<Node>::all(client), &name, ready).await?;
    Ok(())
}

fn takes_pods(node: &Node, since: Timestamp) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    // Times of the API are whole seconds.
    let fresh =
        |c: &NodeCondition| c.last_heartbeat_time.as_ref().is_some_and(|t| t.0.as_second() >= since.as_second());
    // The node lifecycle controller takes its taint away a moment after the condition.
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True" && fresh(c))
        && !taints.iter().any(|t| t.key == "node.kubernetes.io/not-ready" || t.key == "node.kubernetes.io/unreachable")
}

/// DNS knows the API server's Service.
pub async fn dns(server: SocketAddr, domain: String) -> Result<()> {
    let question = question(&format!("kubernetes.default.svc.{domain}"));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(server).await?;
    loop {
        let mut answer = [0; 512];
        let asked = async {
            socket.send(&question).await?;
            socket.recv(&mut answer).await
        };
        if let Ok(Ok(length)) = tokio::time::timeout(LOST, asked).await
            && answers(&answer[..length])
        {
            return Ok(());
        }
        // Nobody listens yet, or the table is still being filled.
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// A question for the IPv4 address of a name.
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0x66, 0x6b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// Whether a message says yes: no error, and a record.
fn answers(message: &[u8]) -> bool {
    message.len() > 12 && message[3] & 0xf == 0 && message[6..8] != [0, 0]
}

/// A start of which nothing was seen for too long. When the store holds what can't be read, that may be what is waited for, and only a
/// cluster that runs lets somebody remove it: the start is over then, whatever is missing.
pub async fn late(a: &Assembly, steps: Steps, missing: &[&str], quiet: Duration) -> Result<()> {
    let unreadable = a.server().map(|server| server.core.unreadable()).unwrap_or_default();
    if unreadable.is_empty() {
        return Err(too_late(a, missing, quiet).await.into());
    }
    let sentence = go_on(missing, &unreadable);
    tracing::error!("{sentence}");
    steps.tell(&Told::Warning { sentence });
    Ok(())
}

fn go_on(missing: &[&str], unreadable: &[String]) -> String {
    let shown = unreadable.iter().take(UNREADABLE_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if unreadable.len() > UNREADABLE_SHOWN { ", ..." } else { "" };
    format!(
        "{} can't work yet, for the store holds {} that can't be read: {shown}{more}; delete them with the option ignoreStoreReadErrorWithClusterBreakingPotential",
        missing.join(", "),
        if unreadable.len() == 1 { "an object".to_owned() } else { format!("{} objects", unreadable.len()) },
    )
}

/// The sentence of such a start: what didn't come, and why as far as the node says.
async fn too_late(a: &Assembly, missing: &[&str], quiet: Duration) -> Fault {
    let why = if missing.contains(&"kubelet") { node_says(a).await } else { None };
    let why = why.map(|why| format!("the node {} says: {why}", a.cluster.node_name)).or_else(|| a.word.said());
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    let (what, seconds) = (missing.join(", "), quiet.as_secs());
    Fault::failed(format!("{what} did not start, and nothing has gone on for {seconds} s{why}"))
}

pub async fn node_says(a: &Assembly) -> Option<String> {
    let client = a.client("kubernetes-admin", &["system:masters"]).ok()?;
    let node = Api::<Node>::all(client).get_opt(&a.cluster.node_name).await.ok()??;
    let conditions = node.status?.conditions?;
    conditions.into_iter().find(|c| c.type_ == "Ready")?.message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_waits_for_what_can_not_be_read_says_so_and_goes_on() {
        let keys: Vec<String> = (0..7).map(|n| format!("minions/n{n}")).collect();
        let words = |n: usize| go_on(&["kubelet"], &keys[..n]);
        let option = "delete them with the option ignoreStoreReadErrorWithClusterBreakingPotential";
        assert_eq!(
            words(1),
            format!("kubelet can't work yet, for the store holds an object that can't be read: minions/n0; {option}")
        );
        assert!(
            words(7).contains("7 objects that can't be read: minions/n0, minions/n1, ") && words(7).contains(", ...;")
        );
    }

    #[test]
    fn a_question_is_a_dns_message() {
        let message = question("a.bc");
        assert_eq!(message[12..], [1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1]);
    }

    #[test]
    fn only_a_record_without_an_error_is_an_answer() {
        let message = |code: u8, records: u8| [0, 0, 0x84, code, 0, 1, 0, records, 0, 0, 0, 0, 0];
        assert!(answers(&message(0, 1)));
        assert!(!answers(&message(0, 0)), "no record");
        assert!(!answers(&message(3, 1)), "no such name");
        assert!(!answers(&[]));
    }

    #[test]
    fn a_ready_node_with_the_controllers_taint_takes_no_pods_yet() {
        let since: Timestamp = "2026-01-01T00:00:10.5Z".parse().expect("a time");
        let node = |status: &str, taint: Option<&str>, second: u8| -> Node {
            let taints: Vec<_> =
                taint.iter().map(|key| serde_json::json!({"key": key, "effect": "NoSchedule"})).collect();
            let condition = serde_json::json!({"type": "Ready", "status": status,
                "lastHeartbeatTime": format!("2026-01-01T00:00:{second:02}Z")});
            let node = serde_json::json!({"spec": {"taints": taints}, "status": {"conditions": [condition]}});
            serde_json::from_value(node).expect("a node")
        };
        let takes = |status, taint, second| takes_pods(&node(status, taint, second), since);
        assert!(takes("True", None, 10) && takes("True", Some("mine"), 11));
        assert!(!takes("True", Some("node.kubernetes.io/not-ready"), 11));
        assert!(!takes("False", None, 11));
        assert!(!takes("True", None, 9), "a former life said so");
    }
}
