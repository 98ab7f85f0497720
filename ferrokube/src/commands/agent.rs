//! `agent`: makes this machine a node of a cluster whose control plane is elsewhere, and runs that node. The first start
//! joins, with a token; from then on the host has certificates of its own, and the token may be revoked. I/O: asks the
//! API server, writes the data directory.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow};
use jiff::Timestamp;

use super::join::{Join, discover};
use super::up::{Claim, Claimed, claim, undo};
use crate::balancer;
use crate::config::{Host, HostOptions, NodeIp, Options, Shape, Which, only_of_host, subdomain};
use crate::fault::Fault;
use crate::joining::credentials;
use crate::joining::discovery::{self, Discovered};
use crate::joining::request::{Signer, certificate};
use crate::pki::Pki;
use crate::preflight;

/// Somebody may have to approve it by hand.
const PATIENCE: Duration = Duration::from_secs(600);
/// What is approved by itself is so within this time.
const AT_ONCE: Duration = Duration::from_secs(10);

/// What an agent is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Agent {
    #[command(flatten)]
    join: Join,
    /// The node's name [default: this host's]
    #[arg(long, value_name = "NAME", value_parser = subdomain)]
    node_name: Option<String>,
    /// The node's address, in a cluster of two families one of each [default: this host's]
    #[arg(long, value_name = "IP[,IP]")]
    node_ip: Option<NodeIp>,
    /// Have the host's firewall (ufw, firewalld, Docker's, nftables) let packets of pods through; `reset` closes it again
    #[arg(long)]
    open_firewall: bool,
    #[command(flatten)]
    options: HostOptions,
    /// The same as a YAML file: nodeName, nodeIP, nodeLabel and so on; flags have the last word
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub fn run(which: &Which, agent: &Agent) -> Result<()> {
    preflight::root("agent")?;
    for (flag, given) in [
        ("--bind-address", agent.options.bind_address.is_some()),
        ("--apply", agent.options.apply.is_some()),
        ("--credentials", agent.options.credentials.is_some()),
        ("--disable-node", agent.options.disable_node.is_some()),
        ("--etcd-cafile", agent.options.etcd_cafile.is_some()),
        ("--etcd-certfile", agent.options.etcd_certfile.is_some()),
        ("--etcd-keyfile", agent.options.etcd_keyfile.is_some()),
    ] {
        if given {
            let sentence =
                format!("{flag}: it is for a host that has an API server, or is given what --token asks for");
            return Err(Fault::usage(sentence).into());
        }
    }
    let mut shape = shape(agent);
    shape.file = agent.config.as_deref().map(only_of_host).transpose()?;
    match which.load()? {
        Some(host) if host.options.credentials.is_some() => {}
        Some(host) => {
            let name = &host.cluster.name;
            let sentence =
                format!("the cluster {name:?} on this host has a control plane of its own: choose another --name");
            return Err(Fault::usage(sentence).into());
        }
        None => join(which, agent, &shape)?,
    }
    crate::logging::init();
    super::server::run_claimed(which, &shape)
}

fn shape(agent: &Agent) -> Shape {
    Shape {
        open_firewall: agent.open_firewall,
        options: Options { host: agent.options.clone(), ..Options::default() },
        config: agent.config.clone(),
        node_name: agent.node_name.clone(),
        node_ip: agent.node_ip,
        ..Shape::default()
    }
}

const HOW: &str = "ferrokube token create";

fn join(which: &Which, agent: &Agent, shape: &Shape) -> Result<()> {
    let (servers, words) = (agent.join.servers(HOW)?, agent.join.words(HOW)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (server, found) = runtime.block_on(discover(servers, &words))?;
    let claimed = claim(which, &joined(shape.clone(), which, &found)?)?;
    let Claim::New(Claimed { host, fresh, lock }) = claimed else {
        return Err(anyhow!("the cluster {:?} runs already", which.name()));
    };
    drop(lock);
    let told = runtime.block_on(async {
        let client = discovery::with_token(server, &found.ca, &words)?;
        become_node(&host, &client, &found).await
    });
    told.and_then(|()| balancer::give(&host, servers)).inspect_err(|_| undo(&host, fresh))
}

/// The shape of a host that has what is equal on all of them from the others.
fn joined(shape: Shape, which: &Which, found: &Discovered) -> Result<Shape, Fault> {
    let lacks = |what: &str| {
        Fault::failed(format!(
            "the cluster says nothing of networking.{what} in its ConfigMap kube-system/kubeadm-config: write the range \
             there that it has (`kubectl -n kube-system edit configmap kubeadm-config`)"
        ))
    };
    let (pods, services) =
        (found.pods.ok_or_else(|| lacks("podSubnet"))?, found.services.ok_or_else(|| lacks("serviceSubnet"))?);
    let mut shape = Shape {
        pod_cidr: Some(pods),
        service_cidr: Some(services),
        cluster_domain: Some(found.cluster_domain.clone()),
        foreign: found.foreign.clone(),
        ..shape
    };
    shape.options.cluster = found.network.clone();
    shape.options.host.credentials = Some(which.dir().join("pki"));
    Ok(shape)
}

/// Asks for the node's certificate, and writes down what the node runs with.
async fn become_node(host: &Host, client: &kube::Client, found: &Discovered) -> Result<()> {
    let dns = host.cluster.dns_ip();
    if let Some(other) = found.cluster_dns.first().filter(|other| **other != dns) {
        let sentence = format!("the cluster's DNS has the address {other}; nodes of this program answer at {dns}");
        return Err(Fault::failed(sentence).into());
    }
    let pki = Pki::of(host);
    let key = credentials::next_key(&pki, credentials::CLIENT)?;
    let signed = certificate(client, Signer::KubeletClient, &host.node_name, vec![], &key, PATIENCE);
    tokio::pin!(signed);
    let signed = tokio::select! {
        signed = &mut signed => signed?,
        () = tokio::time::sleep(AT_ONCE) => {
            eprintln!("ferrokube: the node's certificate waits for somebody to approve it: `kubectl get csr`, `kubectl \
                       certificate approve NAME`");
            signed.await?
        }
    };
    credentials::write(&pki, &host.node_name, &balancer::url(host), &found.ca)?;
    credentials::keep(&pki, credentials::CLIENT, &signed, &key)?;
    // Until the node is there, nobody signs the certificate that its kubelet serves with.
    pki.stand_in(host, &crate::node_address::all(host), Timestamp::now())
}
