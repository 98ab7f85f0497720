//! What two speakers agree on: of what one wants and the other's OPEN, one value, or the NOTIFICATION that says why not.
//! Pure. Called by `neighbour` with each OPEN; everything after goes by the value.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::config::{Config, Opening, RemoteAs};
use crate::family::{AFI_IPV6, Families, Family};
use crate::message::Coding;
use crate::message::capability::{Capability, GracefulRestart, LongLived, Role};
use crate::message::notification::{Notification, open};
use crate::message::open::Open;

/// What holds in a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Negotiated {
    /// The neighbour's AS.
    pub number: u32,
    /// His identifier.
    pub identifier: Ipv4Addr,
    /// Whether he is of this AS.
    pub internal: bool,
    /// How long he may be silent; none is for ever.
    pub hold_time: Option<Duration>,
    /// How he writes.
    pub receive: Coding,
    /// How it is written to him.
    pub send: Coding,
    /// He understands ROUTE-REFRESH.
    pub refresh: bool,
    /// A refresh has a beginning and an end.
    pub enhanced_refresh: bool,
    /// What this speaker is to him, if either said: then OTC is looked at (RFC 9234).
    pub role: Option<Role>,
    /// His graceful restart, where this speaker has it, too.
    pub restart: Option<GracefulRestart>,
    /// Both sides have the N bit (RFC 8538).
    pub restart_on_notification: bool,
    /// His long-lived graceful restart, where this speaker has it, too.
    pub long_lived: Vec<LongLived>,
}

impl Negotiated {
    /// Families that are carried.
    pub fn families(&self) -> Families {
        self.receive.families
    }

    /// Families whose routes are kept when the session goes (RFC 4724): those he names.
    pub fn restartable(&self) -> Families {
        let named = self.restart.iter().flat_map(|restart| &restart.families);
        named.filter_map(|(family, _)| family.family()).collect::<Families>().and(self.families())
    }

    /// Whether another connection of his means that he has restarted (RFC 4724 4.2 and 5): he names families that do.
    pub fn restarts(&self) -> bool {
        self.restart.as_ref().is_some_and(|restart| !restart.families.is_empty())
    }

    /// Families whose forwarding state outlived his restart, by his long-lived graceful restart.
    pub fn forwarding_long(&self) -> Families {
        let named = self.long_lived.iter().filter(|entry| entry.forwarding);
        named.filter_map(|entry| entry.family.family()).collect()
    }

    /// Families whose forwarding state outlived his restart.
    pub fn forwarding(&self) -> Families {
        let named = self.restart.iter().flat_map(|restart| &restart.families);
        named.filter(|(_, forwarding)| *forwarding).filter_map(|(family, _)| family.family()).collect()
    }

    /// How long stale routes of a family are kept beyond (RFC 9494).
    pub fn stale_time(&self, family: Family) -> Option<Duration> {
        let found = self.long_lived.iter().find(|entry| entry.family == family.wire())?;
        Some(Duration::from_secs(found.stale_time.into())).filter(|time| !time.is_zero())
    }
}

/// Judges an OPEN.
///
/// # Errors
/// The OPEN Message Error that refuses it.
pub fn judge(config: &Config, his: &Open) -> Result<Negotiated, Notification> {
    let internal = number(config, his)?;
    let refuse = |subcode| Err(Notification::open(subcode, Vec::new()));
    if his.identifier.is_unspecified() || internal && his.identifier == config.identifier {
        return refuse(open::BAD_IDENTIFIER);
    }
    if his.hold_time != 0 && his.hold_time < config.least_hold_time.max(3) {
        return refuse(open::UNACCEPTABLE_HOLD_TIME);
    }
    let role = role(config, his, internal)?;
    let (ours, theirs) = (Able::of(&config.open(Opening::First)), Able::of(his));
    let families = ours.families.and(theirs.families);
    if families.is_empty() {
        let mut needed = Vec::new();
        config.families.iter().for_each(|family| Capability::Multiprotocol(family.wire()).write(&mut needed));
        return Err(Notification::open(open::UNSUPPORTED_CAPABILITY, needed));
    }
    let coding = |from: &Able, to: &Able| Coding {
        internal,
        four_octet_as: from.four_octet_as && to.four_octet_as,
        extended_messages: from.extended_messages && to.extended_messages,
        families,
        add_path: families.and(from.sends_paths).and(to.receives_paths),
        extended_next_hop: families.and(from.extended_next_hop).and(to.extended_next_hop),
    };
    let hold_time = config.hold_time.min(his.hold_time);
    let restart = theirs.restart.clone().filter(|_| ours.restart.is_some());
    let bit = |restart: &Option<GracefulRestart>| restart.as_ref().is_some_and(|restart| restart.notification);
    Ok(Negotiated {
        number: his.number(),
        identifier: his.identifier,
        internal,
        hold_time: (hold_time > 0).then(|| Duration::from_secs(hold_time.into())),
        // Before a hard decision on length, what this speaker told he takes counts (RFC 8654 4).
        receive: Coding { extended_messages: ours.extended_messages, ..coding(&theirs, &ours) },
        send: coding(&ours, &theirs),
        refresh: theirs.refresh,
        enhanced_refresh: theirs.enhanced_refresh,
        role,
        restart_on_notification: bit(&ours.restart) && bit(&restart),
        long_lived: if restart.is_some() && !ours.long_lived.is_empty() { theirs.long_lived } else { Vec::new() },
        restart,
    })
}

/// Whether he is of this AS; or that he must not be who he is.
fn number(config: &Config, his: &Open) -> Result<bool, Notification> {
    let number = his.number();
    let internal = number == config.local_as;
    let right = match config.remote_as {
        RemoteAs::Number(wanted) => number == wanted,
        RemoteAs::Internal => internal,
        RemoteAs::External => !internal,
    };
    if right && number != 0 { Ok(internal) } else { Err(Notification::open(open::BAD_PEER_AS, Vec::new())) }
}

/// RFC 9234 4.2: the roles fit, and whoever insists on one gets one. Inside of an AS there are none.
fn role(config: &Config, his: &Open, internal: bool) -> Result<Option<Role>, Notification> {
    let Some(ours) = config.role.filter(|_| !internal) else { return Ok(None) };
    let told = his.capabilities.iter().filter_map(|capability| match capability {
        Capability::Role(role) => Some(*role),
        _ => None,
    });
    let told: Vec<Option<Role>> = told.collect();
    let fits = match &told[..] {
        [] => !config.strict_role,
        all => all.iter().all(|role| *role == Some(ours.counterpart())),
    };
    if fits { Ok(Some(ours)) } else { Err(Notification::open(open::ROLE_MISMATCH, Vec::new())) }
}

/// What an OPEN says that its speaker can.
#[derive(Default)]
struct Able {
    families: Families,
    four_octet_as: bool,
    extended_messages: bool,
    sends_paths: Families,
    receives_paths: Families,
    extended_next_hop: Families,
    refresh: bool,
    enhanced_refresh: bool,
    restart: Option<GracefulRestart>,
    long_lived: Vec<LongLived>,
}

impl Able {
    fn of(open: &Open) -> Able {
        let mut able = Able::default();
        let mut multiprotocol = false;
        for capability in &open.capabilities {
            multiprotocol |= matches!(capability, Capability::Multiprotocol(_));
            able.add(capability);
        }
        if !multiprotocol {
            // RFC 4271's own routes (RFC 4760 8).
            able.families = Families::IPV4;
        }
        able
    }

    fn add(&mut self, capability: &Capability) {
        match capability {
            Capability::Multiprotocol(family) => self.families.extend(family.family()),
            Capability::RouteRefresh => self.refresh = true,
            Capability::EnhancedRouteRefresh => self.enhanced_refresh = true,
            Capability::ExtendedNextHop(all) => {
                let v6 = all.iter().filter(|(_, next_hop)| *next_hop == AFI_IPV6);
                self.extended_next_hop.extend(v6.filter_map(|(family, _)| family.family()));
            }
            Capability::ExtendedMessage => self.extended_messages = true,
            Capability::GracefulRestart(restart) => self.restart = Some(restart.clone()),
            Capability::FourOctetAs(_) => self.four_octet_as = true,
            Capability::AddPath(all) => {
                for entry in all {
                    let Some(family) = entry.family.family() else { continue };
                    self.sends_paths.extend(entry.send.then_some(family));
                    self.receives_paths.extend(entry.receive.then_some(family));
                }
            }
            Capability::LongLived(all) => self.long_lived.clone_from(all),
            Capability::Role(_) | Capability::Unknown { .. } => {}
        }
    }
}
