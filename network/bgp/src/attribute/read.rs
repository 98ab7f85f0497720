//! Bytes to a set of attributes, by the rows of [`super::table`]. An error never stops the reading unless nothing can be
//! found behind it; each is a [`Fault`] with what it costs, and who called does the strongest. Pure. Called by
//! `message::update`.

use std::net::{IpAddr, Ipv4Addr};

use super::as_path::AS_TRANS;
use super::table::{Approach, Category, From, Row, code, find, flag};
use super::{Aggregator, AsPath, Attributes, Community, ExtendedCommunity, LargeCommunity, NextHop, Origin, Unknown};
use crate::message::notification::{Notification, update};
use crate::message::{Coding, Fault};
use crate::wire::Reader;

/// What an UPDATE's attributes say.
pub(crate) struct Found<'a> {
    /// The set. Its next hop is NEXT_HOP's, or unspecified.
    pub(crate) attributes: Attributes,
    /// Which type codes were there.
    pub(crate) seen: Seen,
    pub(crate) mp_reach: Option<Multiprotocol<'a>>,
    pub(crate) mp_unreach: Option<Multiprotocol<'a>>,
    pub(crate) faults: Vec<Fault>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
}

/// MP_REACH_NLRI or MP_UNREACH_NLRI.
#[derive(Clone, Copy)]
pub(crate) struct Multiprotocol<'a> {
    pub(crate) value: &'a [u8],
    /// With flags, code and length: the data of a NOTIFICATION.
    pub(crate) whole: &'a [u8],
    /// Whether its flags are those of RFC 4760.
    pub(crate) flags: bool,
}

/// A set of type codes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen([u64; 4]);

impl Seen {
    pub(crate) fn has(&self, code: u8) -> bool {
        self.0[usize::from(code >> 6)] >> (code & 63) & 1 == 1
    }

    /// Whether this one is there, and no other.
    pub(crate) fn is_only(&self, code: u8) -> bool {
        self.has(code) && self.0.iter().map(|word| word.count_ones()).sum::<u32>() == 1
    }

    /// Whether it was not there before.
    fn insert(&mut self, code: u8) -> bool {
        let new = !self.has(code);
        self.0[usize::from(code >> 6)] |= 1 << (code & 63);
        new
    }
}

/// One attribute as it stands in the message.
struct Raw<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
    /// With flags, code and length: the data of a NOTIFICATION.
    whole: &'a [u8],
}

/// Reads them all.
///
/// # Errors
/// The NOTIFICATION with which the session ends.
pub(crate) fn read<'a>(bytes: &'a [u8], coding: &Coding) -> Result<Found<'a>, Notification> {
    let attributes = Attributes::local(NextHop::V4(Ipv4Addr::UNSPECIFIED));
    let mut found = Found {
        attributes,
        seen: Seen::default(),
        mp_reach: None,
        mp_unreach: None,
        faults: Vec::new(),
        as4_path: None,
        as4_aggregator: None,
    };
    let mut reader = Reader::new(bytes);
    let mut unknown = Vec::new();
    while !reader.is_empty() {
        let Some(raw) = next(&mut reader) else {
            // RFC 7606 4: the routes are found by the total length, whatever the attributes' own say.
            found.faults.push(Fault {
                code: 0,
                approach: Approach::TreatAsWithdraw,
                problem: "attributes are cut off",
            });
            break;
        };
        if !found.seen.insert(raw.code) {
            if matches!(raw.code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI) {
                return Err(Notification::update(update::MALFORMED_ATTRIBUTE_LIST, Vec::new()));
            }
            found.fault(raw.code, Approach::AttributeDiscard, "is there twice: the first counts");
            continue;
        }
        match find(raw.code) {
            Some(row) => found.known(row, &raw, coding),
            None => unknown.extend(passed_on(&raw)?),
        }
    }
    unknown.sort_by_key(|attribute: &Unknown| attribute.code);
    found.attributes.unknown = unknown.into();
    found.merge();
    Ok(found)
}

fn next<'a>(reader: &mut Reader<'a>) -> Option<Raw<'a>> {
    let all = reader.rest();
    let flags = reader.u8()?;
    let code = reader.u8()?;
    let value = if flags & flag::EXTENDED_LENGTH != 0 { reader.counted16()? } else { reader.counted8()? };
    let whole = all.get(..all.len() - reader.rest().len())?;
    Some(Raw { flags, code, value, whole })
}

/// What becomes of an attribute that is not in the table (RFC 4271 5 and 6.3).
fn passed_on(raw: &Raw<'_>) -> Result<Option<Unknown>, Notification> {
    if raw.flags & flag::OPTIONAL == 0 {
        return Err(Notification::update(update::UNRECOGNIZED_WELL_KNOWN, raw.whole.to_vec()));
    }
    let transitive = raw.flags & flag::TRANSITIVE != 0;
    let flags = flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL;
    Ok(transitive.then(|| Unknown { flags, code: raw.code, value: raw.value.into() }))
}

impl Found<'_> {
    fn fault(&mut self, code: u8, approach: Approach, problem: &'static str) {
        self.faults.push(Fault { code, approach, problem });
    }

    /// An AS_PATH and an AGGREGATOR with what speakers of two octets hid (RFC 6793 4.2.3).
    fn merge(&mut self) {
        let (path, aggregator) = (self.as4_path.take(), self.as4_aggregator.take());
        if let Some(old) = self.attributes.aggregator
            && old.number != AS_TRANS
            && aggregator.is_some()
        {
            return;
        }
        if let (Some(_), Some(aggregator)) = (self.attributes.aggregator, aggregator) {
            self.attributes.aggregator = Some(aggregator);
        }
        if let Some(path) = path {
            self.attributes.as_path = self.attributes.as_path.merge(&path);
        }
    }
}

impl<'a> Found<'a> {
    fn known(&mut self, row: &Row, raw: &Raw<'a>, coding: &Coding) {
        let category = raw.flags & (flag::OPTIONAL | flag::TRANSITIVE);
        let bits = |category: Category| category.flags();
        if category != bits(row.category) {
            // RFC 7606 3.c; but of a reach or an unreach 5.3 takes the routes in it for unreadable.
            let mp = Some(Multiprotocol { value: raw.value, whole: raw.whole, flags: false });
            match raw.code {
                code::MP_REACH_NLRI => self.mp_reach = mp,
                code::MP_UNREACH_NLRI => self.mp_unreach = mp,
                _ => self.fault(row.code, Approach::TreatAsWithdraw, "has the wrong flags"),
            }
            return;
        }
        let unwanted = match row.from {
            From::All => false,
            From::Internal => !coding.internal,
            From::TwoOctet => coding.four_octet_as,
        };
        if unwanted {
            self.fault(row.code, Approach::AttributeDiscard, "is not this peer's to send");
        } else if !row.length.fits(raw.value.len(), coding.four_octet_as) {
            self.fault(row.code, row.malformed, "has the wrong length");
        } else if self.value(raw, coding).is_none() {
            self.fault(row.code, row.malformed, "says nothing that is defined");
        } else if raw.flags & flag::PARTIAL != 0 && row.category == Category::Transitive {
            self.attributes.partial.insert(raw.code);
        }
    }

    /// Puts the value where it belongs; none when it is malformed. Its length has been looked at.
    fn value(&mut self, raw: &Raw<'a>, coding: &Coding) -> Option<()> {
        let value = raw.value;
        let number = || value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let address = || value.first_chunk().map(|bytes: &[u8; 4]| Ipv4Addr::from(*bytes));
        let mp = Multiprotocol { value, whole: raw.whole, flags: true };
        let set = &mut self.attributes;
        match raw.code {
            code::ORIGIN => set.origin = origin(*value.first()?)?,
            code::AS_PATH => {
                // No confederation is spoken here, and its segments do not leave one (RFC 5065 5).
                let path = AsPath::read(value, coding.four_octet_as)?;
                set.as_path = Some(path).filter(|path| !path.has_confederation())?;
            }
            code::NEXT_HOP => set.next_hop = NextHop::V4(address().filter(|hop| is_host((*hop).into()))?),
            code::MULTI_EXIT_DISC => set.med = Some(number()?),
            code::LOCAL_PREF => set.local_preference = Some(number()?),
            code::ATOMIC_AGGREGATE => set.atomic_aggregate = true,
            code::AGGREGATOR => set.aggregator = Some(aggregator(value, coding.four_octet_as)?),
            code::COMMUNITIES => set.communities = list(value, |bytes| Community(u32::from_be_bytes(bytes))),
            code::ORIGINATOR_ID => set.originator_id = Some(address()?),
            code::CLUSTER_LIST => {
                set.cluster_list = value.as_chunks().0.iter().map(|bytes: &[u8; 4]| Ipv4Addr::from(*bytes)).collect();
            }
            code::MP_REACH_NLRI => self.mp_reach = Some(mp),
            code::MP_UNREACH_NLRI => self.mp_unreach = Some(mp),
            code::EXTENDED_COMMUNITIES => {
                set.extended_communities = list(value, |bytes| ExtendedCommunity(u64::from_be_bytes(bytes)));
            }
            code::AS4_PATH => self.as4_path = Some(AsPath::read(value, true)?),
            code::AS4_AGGREGATOR => self.as4_aggregator = Some(aggregator(value, true)?),
            code::LARGE_COMMUNITY => set.large_communities = list(value, large),
            code::ONLY_TO_CUSTOMER => set.only_to_customer = Some(number()?),
            _ => {}
        }
        Some(())
    }
}

fn origin(value: u8) -> Option<Origin> {
    [Origin::Igp, Origin::Egp, Origin::Incomplete].into_iter().find(|origin| *origin as u8 == value)
}

/// Whether an address may be a router's.
pub(crate) fn is_host(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn aggregator(value: &[u8], four_octet_as: bool) -> Option<Aggregator> {
    let mut reader = Reader::new(value);
    let number = if four_octet_as { reader.u32()? } else { reader.u16()?.into() };
    // No AS has the number 0 (RFC 7607 2).
    (number != 0).then_some(Aggregator { number, address: reader.array()?.into() })
}

fn large(bytes: [u8; 12]) -> LargeCommunity {
    let part = |at: usize| bytes[at..].first_chunk().map_or(0, |part| u32::from_be_bytes(*part));
    LargeCommunity { global: part(0), local1: part(4), local2: part(8) }
}

/// Sorted, each once.
fn list<const N: usize, T: Ord>(value: &[u8], one: impl Fn([u8; N]) -> T) -> Box<[T]> {
    let mut all: Vec<T> = value.as_chunks::<N>().0.iter().map(|bytes| one(*bytes)).collect();
    all.sort_unstable();
    all.dedup();
    all.into()
}
