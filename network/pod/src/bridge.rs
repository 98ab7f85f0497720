//! The network of a cluster on one host: CNI's bridge, made when the node's range of addresses is decided, known again
//! after a restart. Does I/O.
//!
//! What is desired (a range) and what is actual (a network of one) are kept apart, for making it fails for reasons that
//! pass: a link of somebody else has the bridge's name, a disk is full, another cluster is being reset.
//!
//! ```text
//!            set_ranges(r)                     make
//! NoRange ───────────────────► wanted: r ──────────────► made of r
//!                                 │  ▲  RETRY, at ready()
//!                                 ▼  │  or add()
//!                              failed: why
//! ```

use std::fs::File;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cni::{Network, Pod};
use meta::Prefix;
use parking_lot::Mutex;

use crate::network::{NetError, NotReady, PodNet, PodNetwork};
use crate::table::{Row, Setup};
use crate::{IFNAME, range};

/// What failed is tried again no sooner than this: a kubelet whose node is not ready asks several times a second.
const RETRY: Duration = Duration::from_secs(1);

pub const ROW: Row = Row {
    name: "bridge",
    open: |setup| Arc::new(Bridge::open(setup.clone())),
    remove: |setup| Ok(cni::teardown(&config(setup, any_range(setup)))?),
};

/// See the module's head.
struct Bridge {
    setup: Setup,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    wanted: Option<Prefix>,
    made: Option<Arc<Network>>,
    failed: Option<Failure>,
    /// The sandboxes of the last life that are still there: what belongs to others is freed once there is a network.
    keep: Option<Vec<String>>,
}

struct Failure {
    why: String,
    at: Instant,
}

/// The cluster's network on this host; `range` is the node's share.
fn config(setup: &Setup, range: Prefix) -> cni::Config {
    let pods: Vec<_> = setup.pods.iter().copied().filter(|range| !range.is_ipv6()).collect();
    cni::Config {
        bridge: setup.bridge.clone(),
        table: format!("{}-pods", setup.tag),
        subnet: range,
        gateway: None,
        cluster_ranges: pods.clone(),
        // A cluster of this host alone.
        only_here: pods,
        masquerade: true,
        mtu: None,
        state_dir: setup.state_dir.clone(),
        settings_dir: setup.settings_dir.clone(),
    }
}

/// For what asks for none in particular.
fn any_range(setup: &Setup) -> Prefix {
    setup.pods.first().copied().unwrap_or(Prefix::everything(false))
}

impl Bridge {
    fn open(setup: Setup) -> Bridge {
        let wanted = range::read(&setup.range_file);
        let network = Bridge { setup, state: Mutex::new(State { wanted, ..State::default() }) };
        if wanted.is_some()
            && let Err(error) = network.current()
        {
            tracing::warn!(%error, "the pod network of the node's last life");
        }
        network
    }

    /// The network of the wanted range; made where it isn't, unless that failed a moment ago.
    fn current(&self) -> Result<Arc<Network>, NotReady> {
        let mut state = self.state.lock();
        let wanted = state.wanted.ok_or(NotReady::NoRange)?;
        if let Some(made) = state.made.as_ref().filter(|made| made.config().subnet == wanted) {
            return Ok(made.clone());
        }
        if let Some(failure) = state.failed.as_ref().filter(|failure| failure.at.elapsed() < RETRY) {
            return Err(NotReady::Failed(failure.why.clone()));
        }
        match self.make(wanted) {
            Ok(made) => {
                if let Some(keep) = state.keep.take()
                    && let Err(error) = free_others(&made, &keep)
                {
                    tracing::warn!(%error, "addresses of pods that are gone could not be freed");
                }
                let made = Arc::new(made);
                (state.made, state.failed) = (Some(made.clone()), None);
                Ok(made)
            }
            Err(error) => {
                let why = error.to_string();
                state.failed = Some(Failure { why: why.clone(), at: Instant::now() });
                Err(NotReady::Failed(why))
            }
        }
    }

    fn make(&self, range: Prefix) -> Result<Network, NetError> {
        if range.is_ipv6() {
            let problem = format!("{range} is not an IPv4 range, and the bridge network gives pods no other addresses");
            return Err(cni::Error::Config { field: "podCIDRs".to_owned(), problem }.into());
        }
        let lock = &self.setup.host_lock;
        // Another cluster's reset may be giving the host its settings back.
        let _lock = File::open(lock)
            .and_then(|dir| dir.lock().map(|()| dir))
            .map_err(NetError::io(format!("locking {}", lock.display())))?;
        // First the record: what is made is found by it after a crash.
        let file = &self.setup.range_file;
        range::write(file, range).map_err(NetError::io(format!("writing {}", file.display())))?;
        let network = Network::new(config(&self.setup, range))?;
        for services in self.setup.services.iter().filter(|range| !range.is_ipv6()) {
            if let Err(error) = network.route_services(*services) {
                tracing::warn!(%error, "Services may not be reachable from this host itself");
            }
        }
        Ok(network)
    }
}

impl PodNetwork for Bridge {
    fn add(&self, pod: &PodNet) -> Result<Vec<IpAddr>, NetError> {
        let request = Pod {
            container_id: &pod.id,
            netns: &pod.netns,
            ifname: IFNAME,
            namespace: &pod.namespace,
            name: &pod.name,
            ports: &pod.ports,
        };
        let result = self.current()?.add(&request)?;
        Ok(result.ip().into_iter().collect())
    }

    fn del(&self, pod: &PodNet) -> Result<(), NetError> {
        match self.current() {
            Ok(network) => Ok(network.del(&pod.id, IFNAME)?),
            // Nobody was connected since; of a pod of the last life the links go with its namespace, and the address once
            // there is a network. A pod may end though the network is broken.
            Err(_) => {
                self.state.lock().keep.iter_mut().for_each(|keep| keep.retain(|id| *id != pod.id));
                Ok(())
            }
        }
    }

    fn keep_only(&self, sandboxes: &[String]) -> Result<(), NetError> {
        match self.current() {
            Ok(network) => Ok(free_others(&network, sandboxes)?),
            Err(_) => {
                self.state.lock().keep = Some(sandboxes.to_vec());
                Ok(())
            }
        }
    }

    /// Takes the IPv4 range: pods have IPv4 alone here.
    fn set_ranges(&self, ranges: &[Prefix]) -> Result<(), NetError> {
        let wanted = ranges.iter().find(|range| !range.is_ipv6()).or(ranges.first()).map(Prefix::network);
        let mut state = self.state.lock();
        if wanted.is_some() && state.wanted != wanted {
            (state.wanted, state.failed) = (wanted, None);
            if let Some(left) = ranges.iter().find(|range| range.is_ipv6()) {
                tracing::warn!(range = %left, "pods of the bridge network get no IPv6 addresses");
            }
        }
        drop(state);
        self.current()?;
        Ok(())
    }

    fn ready(&self) -> Result<(), NotReady> {
        self.current()?.status().map_err(|error| NotReady::Full(error.to_string()))
    }
}

fn free_others(network: &Network, sandboxes: &[String]) -> Result<(), cni::Error> {
    let valid: Vec<(&str, &str)> = sandboxes.iter().map(|id| (id.as_str(), IFNAME)).collect();
    let freed = network.gc(&valid)?;
    if !freed.is_empty() {
        tracing::info!(addresses = freed.len(), "freed addresses of pods that are gone");
    }
    Ok(())
}
