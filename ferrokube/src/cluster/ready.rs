//! When a component that was started does its work. Together: a pod created then starts without a retry, its node,
//! its service account and DNS are there. I/O: asks the components as their users do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use facts::nodes::{READY, condition};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{ConfigMap, Node, ServiceAccount};
use kube::Api;
use kube::runtime::wait::await_condition;
use tokio::net::UdpSocket;

use super::{Assembly, Serving};
use crate::config::{Host, Network, Roles};
use crate::cri;
use crate::fault::Fault;
use crate::progress::{Progress, Steps};

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

/// The taints by which the node lifecycle controller keeps pods off a node that isn't Ready.
const LIFECYCLE_TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// The node is Ready, and nothing keeps pods off it but what a person put there. Asked after its kubelet has reported:
/// what a former life said would do.
pub async fn node(client: kube::Client, name: String) -> Result<()> {
    let ready = |node: Option<&Node>| node.is_some_and(|node| not_yet(node).is_none());
    await_condition(Api::<Node>::all(client), &name, ready).await?;
    Ok(())
}

/// The same, or all that the node lacks is a pod network that somebody is to bring: by a manifest, for which the cluster
/// has to run.
pub async fn node_but_for_a_network(client: kube::Client, name: String) -> Result<()> {
    let lacks = |node: &Node| not_yet(node).is_some_and(|why| why.contains(pod_network::NOTHING));
    let so_far = |node: Option<&Node>| node.is_some_and(|node| not_yet(node).is_none() || lacks(node));
    let node = await_condition(Api::<Node>::all(client), &name, so_far).await?;
    if let Some(why) = node.as_ref().and_then(not_yet) {
        tracing::warn!("the node {name} takes no pods yet: {why}");
    }
    Ok(())
}

/// Why a node takes no pods; none when it does.
fn not_yet(node: &Node) -> Option<String> {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let Some(ready) = condition(node, READY) else {
        return Some("its kubelet has said nothing yet".into());
    };
    if ready.status != "True" {
        return Some(ready.message.clone().unwrap_or_else(|| format!("Ready is {}", ready.status)));
    }
    // The node lifecycle controller takes its taint away a moment after the condition.
    let taint = taints.iter().find(|t| LIFECYCLE_TAINTS.contains(&t.key.as_str()))?;
    Some(format!("it is Ready, and still has the taint {}:{}", taint.key, taint.effect))
}

/// DNS knows the API server's Service.
pub async fn dns(server: SocketAddr, domain: String) -> Result<()> {
    let question = question(&format!("kubernetes.default.svc.{domain}"), server.is_ipv6());
    let any: IpAddr = if server.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
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

/// A question for the address of a name, of this family.
fn question(name: &str, v6: bool) -> Vec<u8> {
    const A: u8 = 1;
    const AAAA: u8 = 28;
    let mut message = vec![0x66, 0x6b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, if v6 { AAAA } else { A }, 0, 1]);
    message
}

/// Whether a message says yes: no error, and a record.
fn answers(message: &[u8]) -> bool {
    message.len() > 12 && message[3] & 0xf == 0 && message[6..8] != [0, 0]
}

/// A start of which nothing was seen for too long. When the store holds what can't be read, that may be what is waited for, and only a
/// cluster that runs lets somebody remove it: the start is over then, whatever is missing.
pub async fn late(a: &Assembly, steps: Steps, missing: &[&str], quiet: Duration) -> Result<()> {
    if a.host.cluster.foreign.is_some()
        && let Some(why) = node_says(a).await
    {
        // The network add-on comes as a pod, which takes its time, or is none of this host's business.
        let sentence = format!("the node {} is in the cluster, and not ready yet: {why}", a.host.node_name);
        tracing::warn!("{sentence}");
        steps.report(&Progress::Warning { sentence });
        return Ok(());
    }
    if goes_on_alone(&a.host) {
        let sentence = format!(
            "{} can't be sure yet: no API server answers; pods, Services and names go on as they were known last",
            missing.join(", ")
        );
        tracing::warn!("{sentence}");
        steps.report(&Progress::Warning { sentence });
        return Ok(());
    }
    let unreadable = a.api().map(|api| api.unreadable()).unwrap_or_default();
    if unreadable.is_empty() {
        return Err(too_late(a, missing, quiet).await.into());
    }
    let sentence = go_on(missing, &unreadable);
    tracing::error!("{sentence}");
    steps.report(&Progress::Warning { sentence });
    Ok(())
}

/// A node alone that was in its cluster before works without an API server: it may start while none answers.
pub fn goes_on_alone(host: &Host) -> bool {
    // Where another's add-on connects pods, the node's range is not known here.
    let others = host.cluster.foreign.is_some() || host.cluster.network() == Network::Cni;
    let was_there = host.node_range_file().exists() || others && host.kubelet_root().exists();
    !host.roles().has(Roles::CONTROL_PLANE) && was_there
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
    let why = why.map(|why| format!("the node {} says: {why}", a.host.node_name)).or_else(|| a.word.said());
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    let (what, seconds) = (missing.join(", "), quiet.as_secs());
    Fault::failed(format!("{what} did not start, and nothing has gone on for {seconds} s{why}"))
}

pub async fn node_says(a: &Assembly) -> Option<String> {
    let client = a.client(&a.node()).await.ok()?;
    not_yet(&Api::<Node>::all(client).get_opt(&a.host.node_name).await.ok()??)
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
        let message = question("a.bc", false);
        assert_eq!(message[12..], [1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1]);
        assert_eq!(question("a", true)[12..], [1, b'a', 0, 0, 28, 0, 1]);
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
        let why = |status: &str, taint: Option<&str>| {
            let taints: Vec<_> =
                taint.iter().map(|key| serde_json::json!({"key": key, "effect": "NoSchedule"})).collect();
            // Its clock was an hour ahead in a former life, or is an hour behind now: nothing asks.
            let condition = serde_json::json!({"type": "Ready", "status": status, "message": "no network",
                "lastHeartbeatTime": "1970-01-01T00:00:00Z"});
            let node = serde_json::json!({"spec": {"taints": taints}, "status": {"conditions": [condition]}});
            not_yet(&serde_json::from_value(node).expect("a node"))
        };
        assert_eq!((why("True", None), why("True", Some("mine"))), (None, None));
        let tainted = "it is Ready, and still has the taint node.kubernetes.io/not-ready:NoSchedule";
        assert_eq!(why("True", Some("node.kubernetes.io/not-ready")).as_deref(), Some(tainted));
        assert_eq!(why("False", None).as_deref(), Some("no network"));
        assert!(not_yet(&Node::default()).is_some());
    }
}
