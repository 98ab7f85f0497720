//! The pod network that a directory of CNI configuration describes, made by the built-in plug-ins or by programs. Read anew
//! for each pod, as it may come late. Does I/O. `container-runtime`, our runtime for any kubelet, has it, and a node of a
//! cluster that isn't ours, whose network add-on puts the configuration there.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cni::list::{Attachment, Invoker, NetworkList};
use meta::Prefix;

use crate::IFNAME;
use crate::network::{LoopbackOnly, NetError, NotReady, PodNet, PodNetwork};
use crate::table::{Row, Setup};

/// Where network add-ons put their configuration and their plug-ins: the places that containerd looks in.
const CONF_DIR: &str = "/etc/cni/net.d";
const BIN_DIR: &str = "/opt/cni/bin";

pub const ROW: Row = Row {
    name: "cni",
    open: |setup| {
        let invoker = Invoker { plugin_dirs: vec![BIN_DIR.into()], cache_dir: results(setup), builtin: true };
        Arc::new(Configured { conf_dir: CONF_DIR.into(), invoker })
    },
    // Links, rules and files are the add-on's, which other runtimes of the host may have, too.
    remove: |setup| forget(&results(setup)),
};

/// Where results are remembered.
fn results(setup: &Setup) -> PathBuf {
    setup.state_dir.join("results")
}

fn forget(dir: &Path) -> Result<(), NetError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(NetError::io(format!("removing {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct Configured {
    /// Where the configuration is: `/etc/cni/net.d`.
    pub conf_dir: PathBuf,
    /// Where plug-ins are, and what they answered.
    pub invoker: Invoker,
}

impl Configured {
    fn list(&self) -> Result<NetworkList, NetError> {
        let none = || NotReady::Failed(format!("no network is configured in {}", self.conf_dir.display()));
        Ok(NetworkList::load(&self.conf_dir)?.ok_or_else(none)?)
    }

    fn with<T>(
        &self,
        pod: &PodNet,
        act: impl FnOnce(&NetworkList, &Attachment<'_>) -> Result<T, cni::Error>,
    ) -> Result<T, NetError> {
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
        Ok(act(&self.list()?, &attachment)?)
    }
}

impl PodNetwork for Configured {
    fn add(&self, pod: &PodNet) -> Result<Vec<IpAddr>, NetError> {
        // No list of plug-ins names it, yet every pod has it.
        LoopbackOnly.add(pod)?;
        let result = self.with(pod, |list, attachment| self.invoker.add(list, attachment))?;
        Ok(result.addresses())
    }

    fn del(&self, pod: &PodNet) -> Result<(), NetError> {
        self.with(pod, |list, attachment| self.invoker.del(list, attachment))
    }

    fn keep_only(&self, sandboxes: &[String]) -> Result<(), NetError> {
        let Ok(list) = self.list() else { return Ok(()) };
        let valid: Vec<_> = sandboxes.iter().map(|id| (id.as_str(), IFNAME)).collect();
        Ok(self.invoker.gc(&list, &valid)?)
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
