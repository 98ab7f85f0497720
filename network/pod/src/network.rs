//! The contract of a pod network. Does I/O in [`LoopbackOnly`] alone.

use std::net::IpAddr;
use std::path::PathBuf;

use linux::netlink::Rtnl;
use linux::netns::NetNs;
use meta::Prefix;

use crate::PortMapping;

/// A pod to be connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNet {
    /// The sandbox's ID: the container ID of CNI. Everything that is made for a pod is found again by it.
    pub id: String,
    /// The pod's namespace, as plug-ins are told it (`K8S_POD_NAMESPACE`).
    pub namespace: String,
    /// The pod's name (`K8S_POD_NAME`).
    pub name: String,
    /// The pod's UID (`K8S_POD_UID`).
    pub uid: String,
    /// The pinned network namespace.
    pub netns: PathBuf,
    /// Ports of the host that lead into the pod.
    pub ports: Vec<PortMapping>,
}

/// How packets get to pods of other nodes, as far as a pod network must know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// The bytes of a packet on it; none while nobody knows.
    pub mtu: Option<u32>,
    /// The node's ranges, where it is the way that has them ([`crate::Setup::ranges_by_way`]).
    pub ranges: Vec<Prefix>,
}

/// The network that connects the pods of this node.
///
/// ```text
///  set_ranges            which addresses are this node's; again and again, mostly the same
///  set_way               how packets get to other nodes; at any time, and again when that changes
///      │
///    ready ── NotReady   asked every few seconds; the reason is the node's Ready condition
///      │
///     add ──► addresses  a sandbox begins
///      │
///     del                it ends
///
///  keep_only             once, before the first of these, with the sandboxes that the last life left
/// ```
///
/// **Blocking.** Every call blocks, for milliseconds as a rule and for as long as a foreign plug-in takes at worst (it
/// has a deadline). Calls come from several threads at once; for one sandbox they come one after the other. None may be
/// made on a thread of an async runtime.
///
/// **Idempotent.** Any call may be made again after it succeeded or failed. `add` for a sandbox that is connected gives
/// the same addresses; `del` of one that isn't is success, also when its namespace is gone.
///
/// **After a crash.** Whatever a network needs to undo its work is in the kernel or on the disk before the work begins,
/// under names made from the sandbox's ID. The process may end between any two steps: the next life calls `keep_only`,
/// and then `del` or `add` for what it finds half-made. The ranges of the former life hold until others are said, for
/// sandboxes are taken down before the kubelet has spoken.
///
/// **Errors.** When `add` fails nothing of the pod is left, and it is tried again with another sandbox. When `del` fails
/// something may be left; it is tried again for as long as the sandbox is there. When `set_ranges` fails the ranges are
/// still what is wanted: the network keeps them and the failure, tells the failure in `ready`, and tries again there.
pub trait PodNetwork: Send + Sync + 'static {
    /// Connects a pod and answers its addresses, the primary first.
    fn add(&self, pod: &PodNet) -> Result<Vec<IpAddr>, NetError>;

    /// Disconnects a pod and frees its addresses and host ports.
    fn del(&self, pod: &PodNet) -> Result<(), NetError>;

    /// Frees what belongs to sandboxes other than these.
    fn keep_only(&self, sandboxes: &[String]) -> Result<(), NetError>;

    /// The node's ranges of pod addresses have been decided: one, or one of each family, the primary first. A network
    /// that has addresses from elsewhere passes them over; one that serves a single family takes the range of that. A
    /// range of the second family may come later: pods that are there keep their single address, those that come have
    /// both. Without a range of the first family it says so.
    fn set_ranges(&self, ranges: &[Prefix]) -> Result<(), NetError>;

    /// What leads to other nodes is known, or is other than before. Fails as `set_ranges` does. A network that knows of no
    /// other node passes it over.
    fn set_way(&self, _way: &Way) -> Result<(), NetError> {
        Ok(())
    }

    /// Whether the next `add` can succeed; if not, why, as a sentence for the person who looks at the node.
    fn ready(&self) -> Result<(), NotReady>;
}

/// Why pods can't be connected now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// Nobody has said yet which addresses are this node's. It passes by itself: node-ipam gives a node its range.
    #[error("the node has no range of pod addresses (podCIDR) yet")]
    NoRange,
    /// The network could not be made; this is the last try's failure, and there will be another try.
    #[error("the pod network could not be made: {0}")]
    Failed(String),
    /// The network is made, and can't take another pod.
    #[error("{0}")]
    Full(String),
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "fields are what the messages show")]
pub enum NetError {
    /// There is no network yet: the same as [`PodNetwork::ready`] says.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// The bridge, an address, a rule, a plug-in: it says what was being done.
    #[error(transparent)]
    Cni(#[from] cni::Error),
    /// A file or the pod's namespace.
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
}

impl NetError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| NetError::Io { what, source }
    }
}

/// A network of loopback alone: for tests, and the part that no CNI configuration names but every pod has.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoopbackOnly;

impl PodNetwork for LoopbackOnly {
    fn add(&self, pod: &PodNet) -> Result<Vec<IpAddr>, NetError> {
        let netns = NetNs::open(&pod.netns).map_err(NetError::io(format!("opening {}", pod.netns.display())))?;
        let mut rtnl = Rtnl::open_in(&netns).map_err(cni::Error::from)?;
        if let Some(lo) = rtnl.link("lo").map_err(cni::Error::from)? {
            rtnl.set_up(lo.index, true).map_err(cni::Error::from)?;
        }
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }

    fn del(&self, _pod: &PodNet) -> Result<(), NetError> {
        Ok(())
    }

    fn keep_only(&self, _sandboxes: &[String]) -> Result<(), NetError> {
        Ok(())
    }

    fn set_ranges(&self, _ranges: &[Prefix]) -> Result<(), NetError> {
        Ok(())
    }

    fn ready(&self) -> Result<(), NotReady> {
        Ok(())
    }
}
