//! The pod network that a directory of CNI configuration describes, made by programs that somebody installed or by the
//! built-in plug-ins. Read anew for each pod, as it may come late and change; a pod is taken out as it was added. Does I/O.
//! Clusters whose network is `cni` have it, nodes of a cluster that isn't ours, whose network add-on puts the configuration
//! there, and `container-runtime`, our runtime for any kubelet.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cni::list::{Attachment, Invoker, NetworkList};
use meta::Prefix;

use crate::network::{LoopbackOnly, NetError, NotReady, PodNet, PodNetwork};
use crate::table::{Row, Setup};
use crate::{IFNAME, bridge};

/// Where whoever brings a network configures it.
pub const CONF_DIR: &str = "/etc/cni/net.d";
/// Where its programs are: of manifests, of Fedora's packages, of Debian's.
const PLUGIN_DIRS: [&str; 3] = ["/opt/cni/bin", "/usr/libexec/cni", "/usr/lib/cni"];

pub const ROW: Row = Row {
    name: "cni",
    open: |setup| {
        // The cluster may have had one of ours before.
        if let Err(error) = bridge::clear(setup) {
            tracing::warn!(%error, "what the cluster's former network had made could not be removed");
        }
        Arc::new(Configured::of(setup))
    },
    // What it made is its own to remove: pods were taken out before.
    remove: |_| Ok(()),
};

/// How the sentence begins that says that nobody has brought a network yet.
pub const NOTHING: &str = "no network is configured in";

/// See the module's head.
#[derive(Debug)]
pub struct Configured {
    /// Where the configuration is: `/etc/cni/net.d`.
    pub conf_dir: PathBuf,
    /// Where plug-ins are, and what they answered.
    pub invoker: Invoker,
}

impl Configured {
    fn of(setup: &Setup) -> Configured {
        let plugin_dirs = PLUGIN_DIRS.map(PathBuf::from).into();
        let invoker = Invoker { plugin_dirs, cache_dir: setup.state_dir.clone(), builtin: true };
        Configured { conf_dir: CONF_DIR.into(), invoker }
    }

    fn list(&self) -> Result<NetworkList, NetError> {
        let none = || NotReady::Failed(format!("{NOTHING} {}", self.conf_dir.display()));
        Ok(NetworkList::load(&self.conf_dir)?.ok_or_else(none)?)
    }

    fn with<T>(pod: &PodNet, act: impl FnOnce(&Attachment<'_>) -> Result<T, cni::Error>) -> Result<T, NetError> {
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            pod.namespace, pod.name, pod.id, pod.uid
        );
        let attachment = Attachment {
            container_id: &pod.id,
            netns: Some(&pod.netns),
            ifname: IFNAME,
            args: &args,
            ports: &pod.ports,
        };
        Ok(act(&attachment)?)
    }
}

impl PodNetwork for Configured {
    fn add(&self, pod: &PodNet) -> Result<Vec<IpAddr>, NetError> {
        // No list of plug-ins names it, yet every pod has it.
        LoopbackOnly.add(pod)?;
        let list = self.list()?;
        let result = Configured::with(pod, |attachment| self.invoker.add(&list, attachment))?;
        Ok(result.addresses())
    }

    fn del(&self, pod: &PodNet) -> Result<(), NetError> {
        if let Some(list) = self.invoker.network_of(&pod.id, IFNAME) {
            match Configured::with(pod, |attachment| self.invoker.del(&list, attachment)) {
                // It was removed with its network. The pod is to end all the same.
                Err(NetError::Cni(error @ cni::Error::NoPlugin { .. })) => {
                    tracing::warn!(%error, pod = pod.name, network = list.name, "nobody takes the pod out of its network");
                }
                done => return done,
            }
        }
        // It was never added, or nobody remembers: what is configured now may have something of it.
        match self.list() {
            Err(NetError::NotReady(_)) => Ok(()),
            list => {
                let list = list?;
                Configured::with(pod, |attachment| self.invoker.del(&list, attachment))
            }
        }
    }

    fn keep_only(&self, sandboxes: &[String]) -> Result<(), NetError> {
        let valid: Vec<_> = sandboxes.iter().map(|id| (id.as_str(), IFNAME)).collect();
        match self.list() {
            Ok(list) => Ok(self.invoker.gc(&list, &valid)?),
            Err(_) => Ok(self.invoker.keep_only(None, &valid)?),
        }
    }

    /// The configuration says which addresses pods have.
    fn set_ranges(&self, _ranges: &[Prefix]) -> Result<(), NetError> {
        Ok(())
    }

    fn ready(&self) -> Result<(), NotReady> {
        let status = self.list().and_then(|list| Ok(self.invoker.status(&list)?));
        status.map_err(|error| match error {
            NetError::NotReady(reason) => reason,
            error => NotReady::Failed(error.to_string()),
        })
    }
}

/// Whether somebody has brought a network to this host.
pub fn is_configured() -> bool {
    NetworkList::load(Path::new(CONF_DIR)).is_ok_and(|list| list.is_some())
}
