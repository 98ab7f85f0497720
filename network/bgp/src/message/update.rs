//! UPDATE (RFC 4271 4.3), read: which routes come and go, and with which attributes. Errors are those of RFC 7606: what
//! can be saved is, and the session ends only where nobody could tell which routes were meant. Pure. Called by `session`.
//!
//! ```text
//! length | withdrawn routes (IPv4) | length | attributes | NLRI (IPv4)
//!                                             └ MP_REACH_NLRI, MP_UNREACH_NLRI: any family (RFC 4760)
//! ```

use std::net::Ipv6Addr;

use super::nlri::Prefixes;
use super::notification::{Notification, update};
use super::{Coding, Fault};
use crate::attribute::read::{self, Found, is_host, read as read_attributes};
use crate::attribute::table::{Approach, code};
use crate::attribute::{Attributes, NextHop};
use crate::family::{AfiSafi, Families, Family};
use crate::wire::Reader;

/// An UPDATE. Its prefixes stay where they were received.
#[derive(Debug)]
pub struct Update<'a> {
    /// Said of all that is announced; the next hop is of [`Update::announced`]'s.
    pub attributes: Attributes,
    /// What was wrong and could be lived with; for the log.
    pub faults: Vec<Fault>,
    /// Families that were malformed beyond repair: their routes go, and no more of them is taken (RFC 4760 7).
    pub disabled: Families,
    /// It says no more than that all routes of a family have been told (RFC 4724 2).
    pub end_of_rib: Option<Family>,
    treat_as_withdraw: bool,
    withdrawn: Option<Prefixes<'a>>,
    mp_unreach: Option<Prefixes<'a>>,
    body: Option<Prefixes<'a>>,
    mp_reach: Option<(NextHop, Prefixes<'a>)>,
}

impl<'a> Update<'a> {
    /// Routes that go: those that are withdrawn, and those whose attributes are malformed.
    pub fn withdrawn(&self) -> impl Iterator<Item = Prefixes<'a>> {
        let treated = self.treat_as_withdraw;
        let bad =
            [self.body, self.mp_reach.map(|(_, prefixes)| prefixes)].into_iter().flatten().filter(move |_| treated);
        [self.withdrawn, self.mp_unreach].into_iter().flatten().chain(bad)
    }

    /// Routes that come, with the next hop of each list.
    pub fn announced(&self) -> impl Iterator<Item = (NextHop, Prefixes<'a>)> {
        let good = !self.treat_as_withdraw;
        let body = self.body.map(|prefixes| (self.attributes.next_hop, prefixes));
        [body, self.mp_reach].into_iter().flatten().filter(move |_| good)
    }

    /// Whether an error made announcements withdrawals.
    pub fn treated_as_withdraw(&self) -> bool {
        self.treat_as_withdraw
    }
}

/// The three parts of the body.
fn parts(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut reader = Reader::new(body);
    Some((reader.counted16()?, reader.counted16()?, reader.rest()))
}

/// Reads what stands behind the header.
///
/// # Errors
/// The NOTIFICATION with which the session ends.
pub fn read<'a>(body: &'a [u8], coding: &Coding) -> Result<Update<'a>, Notification> {
    let malformed = || Notification::update(update::MALFORMED_ATTRIBUTE_LIST, Vec::new());
    let (withdrawn, attributes, nlri) = parts(body).ok_or_else(malformed)?;
    let invalid = || Notification::update(update::INVALID_NETWORK, Vec::new());
    let v4 = |bytes: &'a [u8]| Prefixes::read(bytes, Family::Ipv4Unicast, coding).ok_or_else(invalid);
    let some = |prefixes: Prefixes<'a>| (!prefixes.is_empty()).then_some(prefixes);
    let (withdrawn_list, body_list) = (some(v4(withdrawn)?), some(v4(nlri)?));
    let mut found = read_attributes(attributes, coding)?;
    let mut mp = Multiprotocol::read(&found, coding)?;
    found.faults.append(&mut mp.faults);
    if body_list.is_none() {
        // RFC 4760 3: without routes that it is of, it is not looked at.
        found.faults.retain(|fault| fault.code != code::NEXT_HOP);
    }
    mandatory(&mut found, body_list.is_some(), mp.reach.is_some());
    let strongest = found.faults.iter().map(|fault| fault.approach).max();
    let treat_as_withdraw = strongest >= Some(Approach::TreatAsWithdraw);
    let reaches = body_list.is_some() || mp.reach.is_some() || mp.reaches_elsewhere || !mp.disabled.is_empty();
    if treat_as_withdraw && !reaches && !found.seen.is_only(code::MP_UNREACH_NLRI) {
        // RFC 7606 5.2: a message with attributes and no route that comes has perhaps lost its routes.
        return Err(malformed());
    }
    let end_of_rib = match (withdrawn, attributes, nlri) {
        ([], [], []) => Some(Family::Ipv4Unicast),
        ([], _, []) if is_alone(attributes) => mp.end_of_rib,
        _ => None,
    };
    Ok(Update {
        attributes: found.attributes,
        faults: found.faults,
        disabled: mp.disabled,
        end_of_rib,
        treat_as_withdraw,
        withdrawn: withdrawn_list,
        mp_unreach: mp.unreach,
        body: body_list,
        mp_reach: mp.reach,
    })
}

/// Whether an unreach without a prefix is the only attribute.
fn is_alone(attributes: &[u8]) -> bool {
    // Flags, type code, length of one or two bytes, AFI, SAFI.
    matches!(attributes.len(), 6 | 7)
}

/// RFC 7606 3.d: what must be there where routes are announced.
fn mandatory(found: &mut Found<'_>, body: bool, mp_reach: bool) {
    let missing = |code: u8, found: &Found<'_>| !found.seen.has(code);
    let mut absent = Vec::new();
    if body || mp_reach {
        absent.extend([code::ORIGIN, code::AS_PATH].into_iter().filter(|code| missing(*code, found)));
    }
    if body && missing(code::NEXT_HOP, found) {
        absent.push(code::NEXT_HOP);
    }
    let fault = |code| Fault { code, approach: Approach::TreatAsWithdraw, problem: "is missing" };
    found.faults.extend(absent.into_iter().map(fault));
}

/// What MP_REACH_NLRI and MP_UNREACH_NLRI say.
#[derive(Default)]
struct Multiprotocol<'a> {
    reach: Option<(NextHop, Prefixes<'a>)>,
    /// Routes come of a family that is not carried.
    reaches_elsewhere: bool,
    unreach: Option<Prefixes<'a>>,
    end_of_rib: Option<Family>,
    disabled: Families,
    faults: Vec<Fault>,
}

impl<'a> Multiprotocol<'a> {
    fn read(found: &Found<'a>, coding: &Coding) -> Result<Multiprotocol<'a>, Notification> {
        let mut mp = Multiprotocol::default();
        if let Some(attribute) = found.mp_unreach {
            mp.unreach(attribute, coding)?;
        }
        if let Some(attribute) = found.mp_reach {
            mp.reach(attribute, coding)?;
        }
        Ok(mp)
    }

    fn unreach(&mut self, attribute: read::Multiprotocol<'a>, coding: &Coding) -> Result<(), Notification> {
        let mut reader = Reader::new(attribute.value);
        let Some(family) = self.family(&mut reader, code::MP_UNREACH_NLRI, attribute, coding)? else { return Ok(()) };
        match Prefixes::read(reader.rest(), family, coding).filter(|_| attribute.flags) {
            Some(prefixes) if prefixes.is_empty() => self.end_of_rib = Some(family),
            Some(prefixes) => self.unreach = Some(prefixes),
            None => self.malformed(family, code::MP_UNREACH_NLRI, attribute, coding)?,
        }
        Ok(())
    }

    fn reach(&mut self, attribute: read::Multiprotocol<'a>, coding: &Coding) -> Result<(), Notification> {
        let mut reader = Reader::new(attribute.value);
        let Some(family) = self.family(&mut reader, code::MP_REACH_NLRI, attribute, coding)? else {
            self.reaches_elsewhere = true;
            return Ok(());
        };
        let mut read = || {
            let next_hop = next_hop(reader.counted8()?, family, coding)?;
            let _reserved = reader.u8()?;
            Some((next_hop, Prefixes::read(reader.rest(), family, coding)?))
        };
        match read().filter(|_| attribute.flags) {
            Some((_, prefixes)) if prefixes.is_empty() => {}
            Some((next_hop, prefixes)) => {
                if !is_host(next_hop.address()) {
                    let (code, approach) = (code::MP_REACH_NLRI, Approach::TreatAsWithdraw);
                    self.faults.push(Fault { code, approach, problem: "has a next hop that is no router's" });
                }
                self.reach = Some((next_hop, prefixes));
            }
            None => self.malformed(family, code::MP_REACH_NLRI, attribute, coding)?,
        }
        Ok(())
    }

    /// The family; none where the session does not carry it: then nothing is read of it.
    fn family(
        &mut self,
        reader: &mut Reader<'_>,
        code: u8,
        attribute: read::Multiprotocol<'_>,
        coding: &Coding,
    ) -> Result<Option<Family>, Notification> {
        let mut read = || Some(AfiSafi { afi: reader.u16()?, safi: reader.u8()? });
        let Some(family) = read() else { return Err(optional(attribute)) };
        let family = family.family().filter(|family| coding.families.has(*family));
        if family.is_none() {
            let problem = "is of a family that this session does not carry";
            self.faults.push(Fault { code, approach: Approach::AttributeDiscard, problem });
        }
        Ok(family)
    }

    fn malformed(
        &mut self,
        family: Family,
        code: u8,
        attribute: read::Multiprotocol<'_>,
        coding: &Coding,
    ) -> Result<(), Notification> {
        let approach = coding.without(family);
        if approach == Approach::SessionReset {
            return Err(optional(attribute));
        }
        self.disabled.insert(family);
        self.faults.push(Fault { code, approach, problem: "is malformed" });
        Ok(())
    }
}

/// With type, length and value as its data (RFC 4271 6.3).
fn optional(attribute: read::Multiprotocol<'_>) -> Notification {
    Notification::update(update::OPTIONAL_ATTRIBUTE, attribute.whole.to_vec())
}

/// RFC 2545 3 and 8950 4: one address, or a global one and one of the link.
fn next_hop(bytes: &[u8], family: Family, coding: &Coding) -> Option<NextHop> {
    let v6 = family == Family::Ipv6Unicast || coding.extended_next_hop.has(family);
    match bytes.len() {
        4 if family == Family::Ipv4Unicast => {
            let address: std::net::Ipv4Addr = (*bytes.first_chunk::<4>()?).into();
            Some(NextHop::V4(address))
        }
        16 if v6 => Some(NextHop::V6 { global: (*bytes.first_chunk::<16>()?).into(), link_local: None }),
        32 if v6 => {
            let global: Ipv6Addr = (*bytes.first_chunk::<16>()?).into();
            let second: Ipv6Addr = (*bytes.last_chunk::<16>()?).into();
            let link_local = second.is_unicast_link_local().then_some(second);
            // Unnumbered peers have nothing but the link's address; some say "none" first, some say it twice.
            match link_local.filter(|_| global.is_unspecified()) {
                Some(only) => Some(NextHop::V6 { global: only, link_local: Some(only) }),
                None => Some(NextHop::V6 { global, link_local }),
            }
        }
        _ => None,
    }
}
