//! Keeps Services and what says whose their addresses and node ports are in step: upstream's `ipallocator-repair-controller`
//! and `portallocator-repair-controller`. Here both are written in one transaction with the Service, so what is mended
//! is what somebody else did: an IPAddress that was deleted by hand, one that names a Service which is gone, a store
//! that another program wrote to.
//!
//! ```text
//!  caches: Services, IPAddresses, ServiceCIDRs, node ports ──▶ daemon (what may be wrong) ──▶ addresses, ports (what is,
//!  and what to do: a Plan) ──▶ daemon: writes, events (tell)
//! ```
//!
//! Pure: [`addresses`], [`ports`]. I/O: [`daemon`] and [`tell`].

pub mod addresses;
pub mod daemon;
pub mod ports;
mod tell;

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

/// What a decision may look at.
pub trait Facts {
    /// A Service that there is.
    fn service(&self, namespace: &str, name: &str) -> Option<Value>;
    /// Whether a Service is stored and can't be read: it keeps what it has.
    fn is_unreadable(&self, namespace: &str, name: &str) -> bool;
    /// The IPAddress object of this name.
    fn address(&self, name: &str) -> Option<Value>;
    /// What is stored of a node port, and at which revision.
    fn port(&self, port: u16) -> Option<(Value, i64)>;
    /// Whether the cluster gives such addresses away.
    fn in_range(&self, address: IpAddr) -> bool;
    /// `--service-node-port-range`, both ends included.
    fn ports(&self) -> (u16, u16);
}

/// A warning about an object, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Told {
    pub reason: &'static str,
    /// What was being done.
    pub action: &'static str,
    pub note: String,
}

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The object of an address of the Service that was judged.
    MakeAddress(String),
    /// In the place of the one with this uid.
    RemakeAddress { name: String, uid: String },
    /// The address that was judged, if it is the one with this uid still.
    RemoveAddress { uid: String },
    /// The port is the Service's that was judged, if it is stored at this revision still (0: not at all).
    ClaimPort { port: u16, held: i64 },
    /// The port that was judged is nobody's, if it is stored at this revision still.
    FreePort { port: u16, held: i64 },
}

/// What is wrong with an object, and what is done about it. Empty when all is well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub told: Vec<Told>,
    pub steps: Vec<Step>,
    /// Sorts of trouble with node ports, as upstream's metric has them.
    pub counted: Vec<&'static str>,
    /// To be looked at again after this time, because it may be on its way to be right.
    pub again: Option<Duration>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        *self == Plan::default()
    }

    fn tell(&mut self, reason: &'static str, action: &'static str, note: String) {
        self.told.push(Told { reason, action, note });
    }
}

/// Whether a Service is gone is looked for again after this time; upstream goes through everything as often.
pub const INTERVAL: Duration = Duration::from_secs(3 * 60);

/// Where an object is, in notes.
fn at(object: &Value) -> (&str, &str) {
    (object::meta_text(object, "namespace"), object::meta_text(object, "name"))
}

/// Facts of a test's own.
#[cfg(test)]
pub(crate) mod fake {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Default)]
    pub struct World {
        pub services: Vec<Value>,
        pub addresses: Vec<Value>,
        pub ports: BTreeMap<u16, (Value, i64)>,
    }

    impl Facts for World {
        fn service(&self, namespace: &str, name: &str) -> Option<Value> {
            self.services.iter().find(|service| at(service) == (namespace, name)).cloned()
        }
        fn is_unreadable(&self, _: &str, name: &str) -> bool {
            name == "torn"
        }
        fn address(&self, name: &str) -> Option<Value> {
            self.addresses.iter().find(|address| at(address).1 == name).cloned()
        }
        fn port(&self, port: u16) -> Option<(Value, i64)> {
            self.ports.get(&port).cloned()
        }
        fn in_range(&self, address: IpAddr) -> bool {
            ["10.96.0.0/16", "fd00:10:96::/112"]
                .iter()
                .any(|range| crate::service::Range::parse(range).is_ok_and(|range| range.contains(address)))
        }
        fn ports(&self) -> (u16, u16) {
            (30000, 32767)
        }
    }
}
