//! Whom routes are from and told to: what is configured of a neighbour, what his session agreed on, and what he has been
//! told. Pure data. Owned by [`super::Rib`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::table::Places;
use crate::attribute::Interned;
use crate::family::Families;
use crate::message::Coding;
use crate::message::capability::Role;
use crate::policy::{Filter, PeerType, Source};

/// A neighbour, or another source of routes, in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub(super) u16);

/// What is told as the next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextHopMode {
    /// Ours, but inside of the AS what a neighbour told.
    #[default]
    Auto,
    /// Ours.
    Own,
    /// What was told.
    Keep,
}

/// What is configured of a source of routes.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// What it is.
    pub source: Source,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Our addresses towards him, by family: what a next hop of ours is.
    pub own_addresses: [Option<IpAddr>; 2],
    /// Our address on the link to him, told beside the global one of IPv6.
    pub own_link_local: Option<Ipv6Addr>,
    /// By which interface his routes go, for filters: direct routes are from a source for each interface.
    pub interface: Option<Arc<str>>,
    /// The AS that we are to him.
    pub local_as: u32,
    /// He is a client of this route reflector (RFC 4456).
    pub client: bool,
    /// See [`NextHopMode`].
    pub next_hop: NextHopMode,
    /// So often may our AS be in an AS_PATH of his.
    pub allowed_own_as: u8,
    /// Routes of another AS must begin with it in their AS_PATH.
    pub enforce_first_as: bool,
    /// Private numbers are taken out of what he is told.
    pub remove_private: bool,
    /// His own number in an AS_PATH is replaced by ours.
    pub as_override: bool,
    /// What is taken from him.
    pub import: Arc<Filter>,
    /// What he is told.
    pub export: Arc<Filter>,
}

impl PeerConfig {
    /// With nothing special: all is taken, all is told.
    pub fn new(source: Source, address: IpAddr, local_as: u32) -> PeerConfig {
        PeerConfig {
            source,
            address,
            own_addresses: [None; 2],
            own_link_local: None,
            interface: None,
            local_as,
            client: false,
            next_hop: NextHopMode::Auto,
            allowed_own_as: 0,
            enforce_first_as: true,
            remove_private: false,
            as_override: false,
            import: Arc::new(Filter::accept_all()),
            export: Arc::new(Filter::accept_all()),
        }
    }
}

/// What a session agreed on.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) send: Coding,
    pub(super) role: Option<Role>,
    /// He keeps long-lived stale routes apart (RFC 9494).
    pub(super) long_lived: bool,
    /// A refresh has a beginning and an end (RFC 7313).
    pub(super) enhanced_refresh: bool,
}

/// A refresh that he asked for (RFC 7313).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Refresh {
    #[default]
    None,
    /// Its beginning is to be told.
    Asked,
    /// Its end is.
    Begun,
}

/// What a neighbour has been told of a family, and what he is yet to be told.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// Prefixes to look at: what is told is how they are when they are looked at. So a slow reader costs a bit each.
    pub(super) pending: Places,
    pub(super) advertised: Places,
    /// With add-path, which paths of each place, and how; without a set it is to be told again.
    pub(super) paths: HashMap<u32, Vec<(u32, Option<Interned>)>>,
    /// Where looking goes on: those behind come first.
    pub(super) cursor: u32,
    /// He is to hear when all has been told.
    pub(super) end_of_rib: bool,
    pub(super) refresh: Refresh,
}

/// One in the tables.
pub(super) struct Peer {
    pub(super) config: PeerConfig,
    pub(super) session: Option<Session>,
    /// The identifier of his last session: routes outlive it.
    pub(super) identifier: Ipv4Addr,
    /// His AS, of the same.
    pub(super) number: u32,
    /// What this speaker was to him in it.
    pub(super) role: Option<Role>,
    /// Both kept long-lived stale routes in it (RFC 9494).
    pub(super) long_lived: bool,
    /// Prefixes of each family, with their paths.
    pub(super) paths: [u32; 2],
    /// Bytes of his paths' attributes beyond [`super::LIGHT`] each.
    pub(super) heavy: usize,
    pub(super) out: [Out; 2],
}

impl Peer {
    pub(super) fn new(config: PeerConfig) -> Peer {
        let identifier = Ipv4Addr::UNSPECIFIED;
        Peer {
            config,
            session: None,
            identifier,
            number: 0,
            role: None,
            long_lived: false,
            paths: [0; 2],
            heavy: 0,
            out: Default::default(),
        }
    }

    pub(super) fn is_internal(&self) -> bool {
        self.config.source == Source::Internal
    }

    pub(super) fn peer_type(&self) -> Option<PeerType> {
        match self.config.source {
            Source::Internal => Some(PeerType::Internal),
            Source::External => Some(PeerType::External),
            _ => None,
        }
    }

    pub(super) fn is_external(&self) -> bool {
        self.config.source == Source::External
    }

    /// Families that he is told.
    pub(super) fn families(&self) -> Families {
        self.session.as_ref().map_or(Families::NONE, |session| session.send.families)
    }
}
