//! The network of a cluster on one host, and the host's part of one on many: CNI's bridge, made when the node's range of
//! addresses is decided, known again after a restart. Does I/O.
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
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cni::{Network, Pod};
use linux::netlink::Rtnl;
use meta::{Prefix, Ranges};
use parking_lot::Mutex;

use crate::network::{NetError, NotReady, PodNet, PodNetwork, Way};
use crate::table::{Row, Setup};
use crate::{IFNAME, flannel, range};

/// What failed is tried again no sooner than this: a kubelet whose node is not ready asks several times a second.
const RETRY: Duration = Duration::from_secs(1);

pub const ROW: Row = Row {
    name: "bridge",
    open: |setup| {
        // The cluster may have had that one before.
        if let Err(error) = flannel::clear(setup) {
            tracing::warn!(%error, "what flannel had made for the cluster could not be removed");
        }
        Arc::new(Bridge::open(setup.clone(), Hosts::One))
    },
    remove: |setup| Ok(cni::teardown(&config(setup, Hosts::One, setup.pods, None))?),
};

/// Removes all of ours from under a cluster whose pods somebody else connects now: our bridge would take packets from his.
pub fn clear(setup: &Setup) -> Result<(), NetError> {
    flannel::clear(setup)?;
    let there = Rtnl::open().and_then(|mut rtnl| rtnl.link(&setup.bridge)).map_err(cni::Error::from)?;
    if there.is_none() {
        return Ok(());
    }
    let _lock = lock(&setup.host_lock)?;
    (ROW.remove)(setup)
}

/// Another cluster's reset may be giving the host its settings back.
fn lock(dir: &Path) -> Result<File, NetError> {
    let locked = File::open(dir).and_then(|dir| dir.lock().map(|()| dir));
    locked.map_err(NetError::io(format!("locking {}", dir.display())))
}

/// On which hosts pods of the cluster are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// On this one alone.
    One,
    /// On this and others: something else leads there.
    Many,
}

/// See the module's head.
pub struct Bridge {
    setup: Setup,
    hosts: Hosts,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    wanted: Option<Ranges>,
    /// What the node was given instead of a range of the cluster's first family.
    lacking: Option<String>,
    /// The bytes of a packet; none: those of the link of the default route.
    mtu: Option<u32>,
    made: Option<Arc<Network>>,
    failed: Option<Failure>,
    /// The sandboxes of the last life that are still there: what belongs to others is freed once there is a network.
    keep: Option<Vec<String>>,
}

struct Failure {
    why: String,
    at: Instant,
}

/// The cluster's network on this host; `share` is the node's.
fn config(setup: &Setup, hosts: Hosts, share: Ranges, mtu: Option<u32>) -> cni::Config {
    let pods: Vec<_> = setup.pods.iter().collect();
    cni::Config {
        bridge: setup.bridge.clone(),
        table: format!("{}-pods", setup.tag),
        subnets: share,
        only_here: if hosts == Hosts::One { pods.clone() } else { Vec::new() },
        cluster_ranges: pods,
        masquerade: true,
        mtu,
        state_dir: setup.state_dir.clone(),
        settings_dir: setup.settings_dir.clone(),
    }
}

/// The record of how long a packet may be.
fn mtu_file(setup: &Setup) -> PathBuf {
    setup.state_dir.join("mtu")
}

impl Bridge {
    /// Takes up what a former life left.
    pub fn open(setup: Setup, hosts: Hosts) -> Bridge {
        let wanted = range::read(&setup.range_file);
        let mtu = range::read(&mtu_file(&setup)).filter(|_| hosts == Hosts::Many);
        let network = Bridge { setup, hosts, state: Mutex::new(State { wanted, mtu, ..State::default() }) };
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
        if let Some(why) = &state.lacking {
            return Err(NotReady::Failed(why.clone()));
        }
        let wanted = state.wanted.ok_or(NotReady::NoRange)?;
        if let Some(made) = state.made.as_ref().filter(|made| made.config().subnets == wanted) {
            return Ok(made.clone());
        }
        if let Some(failure) = state.failed.as_ref().filter(|failure| failure.at.elapsed() < RETRY) {
            return Err(NotReady::Failed(failure.why.clone()));
        }
        match self.make(wanted, state.mtu) {
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

    fn make(&self, range: Ranges, mtu: Option<u32>) -> Result<Network, NetError> {
        let _lock = lock(&self.setup.host_lock)?;
        // First the record: what is made is found by it after a crash.
        let file = &self.setup.range_file;
        range::write(file, &range).map_err(NetError::io(format!("writing {}", file.display())))?;
        let network = Network::new(config(&self.setup, self.hosts, range, mtu))?;
        self.record(mtu);
        for services in self.setup.services.iter().filter(|services| range.family(services.is_ipv6()).is_some()) {
            if let Err(error) = network.route_services(services) {
                tracing::warn!(%error, "Services may not be reachable from this host itself");
            }
        }
        Ok(network)
    }
}

impl Bridge {
    /// Without the record the next life begins with longer packets, for a moment.
    fn record(&self, mtu: Option<u32>) {
        let Some(mtu) = mtu else { return };
        let file = mtu_file(&self.setup);
        if let Err(error) = range::write(&file, &mtu) {
            tracing::warn!(%error, file = %file.display(), "how long a packet may be is not written down");
        }
    }

    /// Takes the ranges of the cluster's families, in the cluster's order. A node may have been given more than that. One
    /// that lacks the second family goes on with the first: the cluster has got that family a moment ago, or has no range
    /// of it left; pods get addresses of both from when it comes.
    fn want(&self, state: &mut State, ranges: &[Prefix]) {
        if ranges.is_empty() {
            return;
        }
        let of = |family: Prefix| ranges.iter().copied().find(|range| range.is_ipv6() == family.is_ipv6());
        let share: Vec<Prefix> = self.setup.pods.iter().filter_map(of).collect();
        let given = || ranges.iter().map(Prefix::to_string).collect::<Vec<_>>().join(",");
        let has_first = share.first().is_some_and(|first| first.is_ipv6() == self.setup.pods.primary().is_ipv6());
        state.lacking = (!has_first).then(|| {
            format!(
                "podCIDRs: the node has {} of the cluster's {}: a node keeps what it was given, and gets one of each \
                 family once its Node is deleted and made anew",
                given(),
                self.setup.pods
            )
        });
        if has_first && share.len() < self.setup.pods.iter().count() {
            tracing::info!(given = given(), cluster = %self.setup.pods, "pods of the node have addresses of one family");
        }
        let wanted = Ranges::of(&share).ok().filter(|_| state.lacking.is_none());
        if wanted.is_some() && state.wanted != wanted {
            (state.wanted, state.failed) = (wanted, None);
        }
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
        Ok(result.addresses())
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

    fn set_ranges(&self, ranges: &[Prefix]) -> Result<(), NetError> {
        if self.setup.ranges_by_way {
            return Ok(());
        }
        self.want(&mut self.state.lock(), ranges);
        self.current()?;
        Ok(())
    }

    fn set_way(&self, way: &Way) -> Result<(), NetError> {
        if self.hosts == Hosts::One {
            return Ok(());
        }
        let mut state = self.state.lock();
        if self.setup.ranges_by_way {
            self.want(&mut state, &way.ranges);
        }
        if let Some(mtu) = way.mtu.filter(|mtu| state.mtu != Some(*mtu)) {
            state.mtu = Some(mtu);
            if let Some(made) = state.made.clone() {
                made.set_mtu(mtu)?;
                self.record(Some(mtu));
            }
        }
        drop(state);
        match self.current() {
            // The kubelet says it.
            Err(NotReady::NoRange) => Ok(()),
            current => Ok(current.map(drop)?),
        }
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
