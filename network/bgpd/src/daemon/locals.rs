//! Routes of this host: those of the configuration, those of its links' addresses, those that others put into the kernel.
//! Pure, but for what it does to the tables. Called by the loop with what the kernel tells and what the file says.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bgp::attribute::{Attributes, NextHop, Origin};
use bgp::family::Family;
use bgp::message::nlri::Nlri;
use bgp::policy::{Filter, Route, Source};
use bgp::rib::{PeerConfig, PeerId, Rib, own_next_hop};
use meta::Prefix;

use crate::config::{Config, Learned as Wanted, Network, Rest};
use crate::kernel::{self, Learned};

/// Links whose routes are told apart; more than any host has.
const MAX_LINKS: usize = 4096;

/// Who they are in the tables.
#[derive(Debug)]
pub struct Locals {
    number: u32,
    identifier: Ipv4Addr,
    networks: PeerId,
    written: HashMap<Prefix, Network>,
    /// A source for each link, of its addresses and of others' routes by it: filters ask for links.
    links: HashMap<(Source, String), PeerId>,
    /// How many prefixes each of these has: one without any goes, as links come and go with pods.
    prefixes: HashMap<PeerId, usize>,
    /// That there are too many has been told.
    told: bool,
    /// Under which of these a prefix is.
    known: HashMap<(Source, Prefix), Vec<PeerId>>,
    direct: Option<Wanted>,
    learn: Option<Wanted>,
}

impl Locals {
    /// With what the file says.
    pub fn new(config: &Config, rib: &mut Rib) -> Option<Locals> {
        let source = PeerConfig::new(Source::Static, config.identifier.into(), config.number);
        let mut locals = Locals {
            number: config.number,
            identifier: config.identifier,
            networks: rib.add_peer(source)?,
            written: HashMap::new(),
            links: HashMap::new(),
            prefixes: HashMap::new(),
            told: false,
            known: HashMap::new(),
            direct: config.kernel.direct.clone(),
            learn: config.kernel.learn.clone(),
        };
        locals.set_networks(&config.networks, rib, 0);
        Some(locals)
    }

    /// The routes of the file are these from now on.
    pub fn set_networks(&mut self, networks: &[Network], rib: &mut Rib, now: u32) {
        let wanted: HashMap<Prefix, Network> =
            networks.iter().map(|network| (network.prefix, network.clone())).collect();
        for prefix in self.written.keys().filter(|prefix| !wanted.contains_key(prefix)) {
            rib.withdraw(self.networks, Nlri::from(*prefix));
        }
        for (prefix, network) in wanted.iter().filter(|(prefix, network)| self.written.get(prefix) != Some(network)) {
            let next_hop = network.next_hop.map_or(own_next_hop(Family::of(prefix)), NextHop::new);
            let mut set = Attributes::local(next_hop);
            let route = Route {
                prefix: *prefix,
                source: Source::Static,
                peer: None,
                peer_type: None,
                interface: None,
                own_address: None,
            };
            network.change.apply(&route, self.number, &mut set);
            rib.originate(self.networks, *prefix, set, now);
        }
        self.written = wanted;
    }

    /// What comes from the kernel goes by these filters from now on.
    pub fn set_imports(&mut self, kernel: &crate::config::Kernel, rib: &mut Rib) {
        self.direct.clone_from(&kernel.direct);
        self.learn.clone_from(&kernel.learn);
        for ((source, interface), id) in &self.links {
            if let Some(wanted) = self.wanted(*source) {
                rib.reconfigure(*id, self.config(*source, interface, &wanted.import));
            }
        }
    }

    /// Who a source is: its kind, and the link where it is of one.
    pub fn source(&self, id: PeerId) -> Option<(Source, Option<&str>)> {
        if id == self.networks {
            return Some((Source::Static, None));
        }
        let found = self.links.iter().find(|(_, known)| **known == id);
        found.map(|((source, interface), _)| (*source, Some(interface.as_str())))
    }

    /// A network of the file, if that is whose routes these are.
    pub fn network(&self, id: PeerId, prefix: &Prefix) -> Option<&Network> {
        self.written.get(prefix).filter(|_| id == self.networks)
    }

    /// A range of a link's own addresses.
    pub fn direct(&mut self, prefix: Prefix, links: &[String], rib: &mut Rib, now: u32) {
        let Some(wanted) = self.direct.clone() else { return };
        let links = links.iter().filter(|link| wanted.means(link));
        let set = Attributes::local(own_next_hop(Family::of(&prefix)));
        let told = links.map(|link| (link.clone(), set.clone())).collect();
        self.set(Source::Direct, prefix, told, &wanted.import, (rib, now));
    }

    /// A route that somebody put into the kernel.
    pub fn learned(&mut self, prefix: Prefix, route: Option<&Learned>, rib: &mut Rib, now: u32) {
        let Some(wanted) = self.learn.clone() else { return };
        let told = route.filter(|route| is_wanted(route, &wanted)).map(|route| {
            let hop = route.hops.first();
            let gateway = hop.and_then(|hop| hop.gateway);
            let next_hop = gateway.map_or(own_next_hop(Family::of(&prefix)), NextHop::new);
            let set = Attributes { origin: Origin::Incomplete, ..Attributes::local(next_hop) };
            (hop.map(|hop| hop.link.clone()).unwrap_or_default(), set)
        });
        self.set(Source::Kernel, prefix, told.into_iter().collect(), &wanted.import, (rib, now));
    }

    /// A prefix is under these links, and no others.
    fn set(
        &mut self,
        source: Source,
        prefix: Prefix,
        told: Vec<(String, Attributes)>,
        import: &Arc<Filter>,
        (rib, now): (&mut Rib, u32),
    ) {
        let before = self.known.remove(&(source, prefix)).unwrap_or_default();
        let mut here = Vec::new();
        for (link, set) in told {
            let Some(id) = self.link(source, link, import, rib) else { continue };
            rib.originate(id, prefix, set, now);
            if !here.contains(&id) {
                here.push(id);
            }
        }
        for id in here.iter().filter(|id| !before.contains(id)) {
            *self.prefixes.entry(*id).or_default() += 1;
        }
        for id in before.into_iter().filter(|id| !here.contains(id)) {
            rib.withdraw(id, Nlri::from(prefix));
            self.one_less(id, rib);
        }
        if !here.is_empty() {
            self.known.insert((source, prefix), here);
        }
    }

    /// A source has lost a prefix.
    fn one_less(&mut self, id: PeerId, rib: &mut Rib) {
        let Some(count) = self.prefixes.get_mut(&id) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.prefixes.remove(&id);
            self.links.retain(|_, known| *known != id);
            rib.remove_peer(id);
        }
    }

    fn link(&mut self, source: Source, link: String, import: &Arc<Filter>, rib: &mut Rib) -> Option<PeerId> {
        if let Some(id) = self.links.get(&(source, link.clone())) {
            return Some(*id);
        }
        if self.links.len() >= MAX_LINKS {
            if !std::mem::replace(&mut self.told, true) {
                tracing::warn!(%link, "routes of this link and others are left out: {MAX_LINKS} links have some");
            }
            return None;
        }
        let id = rib.add_peer(self.config(source, &link, import))?;
        self.links.insert((source, link), id);
        Some(id)
    }

    fn config(&self, source: Source, interface: &str, import: &Arc<Filter>) -> PeerConfig {
        PeerConfig {
            interface: (!interface.is_empty()).then(|| Arc::from(interface)),
            import: Arc::clone(import),
            ..PeerConfig::new(source, IpAddr::V4(self.identifier), self.number)
        }
    }

    fn wanted(&self, source: Source) -> Option<&Wanted> {
        match source {
            Source::Direct => self.direct.as_ref(),
            Source::Kernel => self.learn.as_ref(),
            Source::Static | Source::Internal | Source::External => None,
        }
    }
}

fn is_wanted(route: &Learned, wanted: &Wanted) -> bool {
    let protocol = wanted.protocols.is_empty() || wanted.protocols.contains(&route.protocol);
    let by = |hop: &kernel::LearnedHop| wanted.means(&hop.link);
    // What is refused by the kernel goes by no link.
    let link = wanted.interfaces.is_empty() || route.hops.iter().any(by);
    protocol && link
}

/// What the kernel does with packets that no longer prefix of a network takes.
pub fn rest(rest: Rest) -> Option<kernel::Target> {
    match rest {
        Rest::None => None,
        Rest::Blackhole => Some(kernel::Target::Blackhole),
        Rest::Unreachable => Some(kernel::Target::Unreachable),
    }
}

#[cfg(test)]
mod tests {
    use bgp::rib::Speaker;

    use super::*;
    use crate::config::{Kind, parse};

    /// Links of pods come and go under new names: those that are gone leave room for others.
    #[test]
    fn a_link_without_routes_is_forgotten() {
        let text = "{router-id: 10.0.0.1, as: 64512, kernel: {direct: {}}}";
        let config = parse(text, Kind::Speaker, &|_| Err(String::new())).expect("a configuration");
        let mut rib = Rib::new(Speaker {
            number: config.number,
            identifier: config.identifier,
            cluster_id: config.cluster_id,
            options: config.options,
        });
        let mut locals = Locals::new(&config, &mut rib).expect("room");
        let prefix = |n: u8| Prefix::new(Ipv4Addr::new(10, n, 0, 0), 24);
        for n in 0..MAX_LINKS + 10 {
            let link = [format!("veth{n}")];
            locals.direct(prefix(1), &link, &mut rib, 0);
            locals.direct(prefix(2), &link, &mut rib, 0);
            locals.direct(prefix(1), &[], &mut rib, 0);
            assert!(rib.best(&prefix(2)).is_some(), "{link:?}");
            assert_eq!(locals.links.len(), 1, "{link:?}");
            locals.direct(prefix(2), &[], &mut rib, 0);
            rib.publish();
        }
        assert!(locals.links.is_empty() && locals.prefixes.is_empty());
        assert!(rib.best(&prefix(1)).is_none() && rib.best(&prefix(2)).is_none());
    }
}
