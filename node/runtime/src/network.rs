//! What the runtime asks of the pod network. The binary gives it the CNI implementation; tests give it a small one.

use std::net::IpAddr;
use std::path::PathBuf;

/// A port of the host that leads into a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// "tcp", "udp" or "sctp".
    pub protocol: &'static str,
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
}

/// A pod to be connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNet {
    /// The sandbox's ID: the container ID of CNI.
    pub id: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The pinned network namespace.
    pub netns: PathBuf,
    pub ports: Vec<HostPort>,
}

/// The pod network. Calls block; the runtime makes them on threads of their own.
pub trait PodNetwork: Send + Sync + 'static {
    /// Connects a pod and answers its addresses, the primary first.
    fn add(&self, pod: &PodNet) -> Result<Vec<IpAddr>, String>;
    /// Disconnects a pod. Done already counts as done.
    fn del(&self, pod: &PodNet) -> Result<(), String>;
    /// Releases what belongs to pods other than these (sandbox IDs): called once at start, after a crash.
    fn keep_only(&self, _pods: &[String]) -> Result<(), String> {
        Ok(())
    }
    /// Why pods can't be connected now, if they can't: the NetworkReady condition.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
    /// The node's range of pod addresses has been decided.
    fn set_pod_cidr(&self, _cidr: &str) {}
}

/// A network of loopback only, for tests and for hosts without pods of their own network.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoopbackOnly;

impl PodNetwork for LoopbackOnly {
    fn add(&self, pod: &PodNet) -> Result<Vec<IpAddr>, String> {
        let netns = linux::netns::NetNs::open(&pod.netns).map_err(|e| e.to_string())?;
        let up = || -> Result<(), linux::netlink::Error> {
            let mut rtnl = linux::netlink::Rtnl::open()?;
            match rtnl.link("lo")? {
                Some(lo) => rtnl.set_up(lo.index, true),
                None => Ok(()),
            }
        };
        netns.run(up).map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }

    fn del(&self, _pod: &PodNet) -> Result<(), String> {
        Ok(())
    }
}
