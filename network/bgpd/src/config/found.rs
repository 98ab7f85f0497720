//! Neighbours that are not in the file: another place tells of them, and they come and go while the daemon runs. What is
//! wrong with one of them costs him alone, for nobody wrote him here. Pure. Called by [`super::File`] for who has such a
//! place; what the place is, nobody here knows.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use bgp::session::config::RemoteAs;

use super::node::Fault;
use super::peering::{Neighbor, Range};
use super::settings::Settings;
use super::{Common, Groups, MAX_NEIGHBORS, keys};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where he is.
    pub address: IpAddr,
    /// For people: his description.
    pub name: String,
    /// His AS; that of this speaker where it is not said.
    pub number: Option<u32>,
    /// He is a route reflector himself, of this cluster.
    pub cluster_id: Option<Ipv4Addr>,
}

/// All of them, and how they are spoken with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Others<'a> {
    /// Those who were found.
    pub all: &'a [Found],
    /// The group of the file whose fields they have.
    pub group: Option<&'a str>,
    /// Addresses of this host: who is there is this speaker.
    pub own: &'a [IpAddr],
    /// The cluster for which this speaker reflects since it began.
    pub began: Option<Ipv4Addr>,
}

/// One who is left out, and why.
pub type LeftOut = (IpAddr, String);

/// Whether a host can be at an address and be reached there without more being said.
pub fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_loopback() && !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => {
            let nobody = v6.is_unspecified() || v6.is_loopback() || v6.is_multicast();
            !nobody && !v6.is_unicast_link_local() && v6.to_ipv4_mapped().is_none()
        }
    }
}

impl Others<'_> {
    /// The cluster for which this speaker reflects where the file says none: it stays what it was at the beginning, since all
    /// routes that were told have it in their CLUSTER_LIST.
    pub(super) fn cluster_id(&self) -> Option<Ipv4Addr> {
        let mut own = self.all.iter().filter(|found| self.own.contains(&found.address));
        self.began.or_else(|| own.find_map(|found| found.cluster_id))
    }

    /// Puts them beside the file's own neighbours, of whom what the file says counts; who is left out comes back.
    ///
    /// # Errors
    /// There is no such group.
    pub(super) fn join(
        &self,
        neighbors: &mut Vec<Neighbor>,
        dynamic: &[Range],
        groups: &Groups,
        common: &Common<'_>,
        cluster_id: Ipv4Addr,
    ) -> Result<Vec<LeftOut>, Fault> {
        let of_group = match self.group {
            Some(name) => Some(groups.get(name).ok_or_else(|| {
                Fault::at("groups", format!("there is no group {name:?}, which those who are found are to have"))
            })?),
            None => None,
        };
        let mut known: BTreeSet<IpAddr> = neighbors.iter().map(|neighbor| neighbor.address).collect();
        known.extend(self.own);
        let mut left_out = Vec::new();
        for found in self.all.iter().filter(|found| !known.contains(&found.address)) {
            let local = of_group.and_then(|group| group.local_as).unwrap_or(common.number);
            let internal = found.number.is_none_or(|number| number == local);
            let settings = Settings {
                address: Some(found.address),
                group: self.group.map(str::to_owned),
                description: Some(found.name.clone()),
                remote_as: Some(found.number.filter(|_| !internal).map_or(RemoteAs::Internal, RemoteAs::Number)),
                // Reflectors of one cluster have the same clients, and are none to each other.
                route_reflector_client: Some(internal && found.cluster_id != Some(cluster_id)),
                ..Settings::default()
            };
            let made = super::neighbor(settings, groups, common).and_then(|mut neighbor| {
                keys::sound(std::slice::from_ref(&neighbor), dynamic).map_err(of_one)?;
                neighbor.peering.session.seed = super::seed(neighbor.address);
                Ok(neighbor)
            });
            match made {
                _ if neighbors.len() >= MAX_NEIGHBORS => {
                    left_out.push((found.address, format!("there are {MAX_NEIGHBORS} neighbors already")));
                }
                Ok(neighbor) => neighbors.push(neighbor),
                Err(fault) => left_out.push((found.address, fault.to_string())),
            }
        }
        Ok(left_out)
    }
}

/// He is none of the file's neighbours, and has no number among them.
fn of_one(fault: Fault) -> Fault {
    let own = fault.path.strip_prefix("neighbors[0].").map(str::to_owned);
    Fault { path: own.unwrap_or_else(|| fault.path.clone()), ..fault }
}

#[cfg(test)]
mod tests {
    use bgp::session::config::Authentication;

    use super::super::{Config, Kind, parse_with};
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn found(address: &str, number: Option<u32>, cluster_id: Option<[u8; 4]>) -> Found {
        Found { address: ip(address), name: "a node".to_owned(), number, cluster_id: cluster_id.map(Into::into) }
    }

    fn with(more: &str, group: Option<&str>, all: &[Found]) -> Result<(Config, Vec<LeftOut>), String> {
        let text = format!("{{router-id: 10.0.0.1, as: 64512, cluster-id: 9.9.9.9, {more}}}");
        let own = [ip("10.0.0.1")];
        let others = Others { all, group, own: &own, began: None };
        parse_with(&text, Kind::Reflector, &|_| Err(String::new()), others)
    }

    #[test]
    fn a_reflector_that_is_a_node_has_the_cluster_id_that_its_node_says() {
        let own = [ip("10.0.0.1"), ip("fd00::1")];
        let all = [
            found("10.0.0.2", None, Some([8; 4])),
            found("10.0.0.1", None, None),
            found("fd00::1", None, Some([7; 4])),
        ];
        let of = |text: &str, began: Option<Ipv4Addr>| {
            let others = Others { all: &all, group: None, own: &own, began };
            let read = parse_with(text, Kind::Reflector, &|_| Err(String::new()), others);
            read.expect("sound").0.cluster_id
        };
        let bare = "{router-id: 10.0.0.1, as: 64512}";
        assert_eq!(of(bare, None), Ipv4Addr::new(7, 7, 7, 7));
        assert_eq!(of(bare, Some([6; 4].into())), Ipv4Addr::new(6, 6, 6, 6), "it stays as long as it runs");
        assert_eq!(of("{router-id: 10.0.0.1, as: 64512, cluster-id: 9.9.9.9}", None), Ipv4Addr::new(9, 9, 9, 9));
    }

    #[test]
    fn who_is_found_is_a_client_unless_he_reflects_for_the_same_or_is_of_another_as() {
        let all = [
            found("10.0.0.1", None, None),
            found("10.0.0.2", None, None),
            found("10.0.0.3", Some(64512), Some([9; 4])),
            found("10.0.0.4", None, Some([8; 4])),
            found("10.0.0.5", Some(65001), Some([8; 4])),
            found("fd00::2", None, None),
        ];
        let (config, left_out) = with("", None, &all).expect("sound");
        assert_eq!(left_out, []);
        let clients: Vec<(String, bool, bool)> = config
            .neighbors
            .iter()
            .map(|n| {
                let internal = n.peering.routes.source == bgp::policy::Source::Internal;
                (n.address.to_string(), internal, n.peering.routes.client)
            })
            .collect();
        let row = |address: &str, internal, client| (address.to_owned(), internal, client);
        // This host itself is none of them.
        let wanted = [
            row("10.0.0.2", true, true),
            row("10.0.0.3", true, false),
            row("10.0.0.4", true, true),
            row("10.0.0.5", false, false),
            row("fd00::2", true, true),
        ];
        assert_eq!(clients, wanted);
        let seeds: BTreeSet<u64> = config.neighbors.iter().map(|n| n.peering.session.seed).collect();
        assert_eq!(seeds.len(), config.neighbors.len());
    }

    #[test]
    fn they_have_the_fields_of_a_group_and_what_the_file_says_of_one_counts() {
        let more = "groups: [{name: nodes, hold-time: 9s, password: secret, add-path: send}], \
                    neighbors: [{address: 10.0.0.2, remote-as: internal, description: by hand}]";
        let all = [found("10.0.0.2", None, None), found("10.0.0.3", None, None)];
        let (config, left_out) = with(more, Some("nodes"), &all).expect("sound");
        assert_eq!((config.neighbors.len(), left_out), (2, vec![]));
        let [by_hand, node] = [0, 1].map(|at| &config.neighbors[at].peering);
        assert_eq!((by_hand.description.as_str(), by_hand.routes.client), ("by hand", false));
        assert_eq!((node.description.as_str(), node.session.hold_time, node.routes.client), ("a node", 9, true));
        assert_eq!(node.authentication(), Some(&Authentication::Md5("secret".to_owned())));
        let none = with("", Some("nodes"), &all).expect_err("refused");
        assert!(none.starts_with("groups: there is no group \"nodes\""), "{none}");
    }

    #[test]
    fn what_is_wrong_with_one_costs_him_alone() {
        let more = "groups: [{name: nodes, source-address: 10.0.0.1}], \
                    dynamic: [{prefix: 10.7.0.0/16, remote-as: internal, password: secret}]";
        let all = [
            found("fd00::2", None, None),
            found("10.7.0.2", None, None),
            found("224.0.0.1", None, None),
            found("10.0.0.2", None, None),
        ];
        let (config, left_out) = with(more, Some("nodes"), &all).expect("sound");
        assert_eq!(config.neighbors.iter().map(|n| n.address).collect::<Vec<_>>(), [ip("10.0.0.2")]);
        let why = |at: usize| (left_out[at].0.to_string(), left_out[at].1.as_str());
        assert!(why(0).0 == "fd00::2" && why(0).1.contains("not of the neighbour's family"), "{left_out:?}");
        assert!(why(1).0 == "10.7.0.2" && why(1).1.contains("asks everybody of the dynamic"), "{left_out:?}");
        assert!(why(1).1.starts_with("password: is missing"), "{left_out:?}");
        assert!(why(2).0 == "224.0.0.1" && why(2).1.contains("not the address of a neighbour"), "{left_out:?}");
    }
}
