//! Every attribute that is known: its flags, its length, and what a wrong one costs. This is the table of RFC 7606
//! section 7 with the attributes of later RFCs; [`super::read`] goes by it and knows no exceptions. Pure.

/// Type codes.
#[allow(missing_docs, reason = "the names are the words of the RFCs")]
pub mod code {
    pub const ORIGIN: u8 = 1;
    pub const AS_PATH: u8 = 2;
    pub const NEXT_HOP: u8 = 3;
    pub const MULTI_EXIT_DISC: u8 = 4;
    pub const LOCAL_PREF: u8 = 5;
    pub const ATOMIC_AGGREGATE: u8 = 6;
    pub const AGGREGATOR: u8 = 7;
    pub const COMMUNITIES: u8 = 8;
    pub const ORIGINATOR_ID: u8 = 9;
    pub const CLUSTER_LIST: u8 = 10;
    pub const MP_REACH_NLRI: u8 = 14;
    pub const MP_UNREACH_NLRI: u8 = 15;
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    pub const AS4_PATH: u8 = 17;
    pub const AS4_AGGREGATOR: u8 = 18;
    pub const LARGE_COMMUNITY: u8 = 32;
    pub const ONLY_TO_CUSTOMER: u8 = 35;
}

/// Bits of an attribute's flags (RFC 4271 4.3).
#[allow(missing_docs, reason = "the names are the words of RFC 4271")]
pub mod flag {
    pub const OPTIONAL: u8 = 0x80;
    pub const TRANSITIVE: u8 = 0x40;
    pub const PARTIAL: u8 = 0x20;
    pub const EXTENDED_LENGTH: u8 = 0x10;
}

/// What an error costs (RFC 7606 section 2), the mildest first: of several, the strongest is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Approach {
    /// The attribute is left out; the routes stand.
    AttributeDiscard,
    /// The routes of the message are withdrawn.
    TreatAsWithdraw,
    /// The family is carried no more in this session.
    AfiSafiDisable,
    /// The session ends with a NOTIFICATION.
    SessionReset,
}

/// Which of the two bits of its category an attribute must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Well-known: transitive, not optional.
    WellKnown,
    /// Optional and transitive.
    Transitive,
    /// Optional and not transitive.
    NonTransitive,
}

impl Category {
    /// The bits.
    pub fn flags(self) -> u8 {
        match self {
            Category::WellKnown => flag::TRANSITIVE,
            Category::Transitive => flag::OPTIONAL | flag::TRANSITIVE,
            Category::NonTransitive => flag::OPTIONAL,
        }
    }
}

/// How long a value may be, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// This and no other.
    Exactly(usize),
    /// A multiple of it, and not nothing.
    Multiple(usize),
    /// 6 with AS numbers of two octets, 8 with four.
    Aggregator,
    /// As its own grammar has it.
    Any,
}

impl Length {
    /// Whether a length is one of them.
    pub fn fits(self, length: usize, four_octet_as: bool) -> bool {
        match self {
            Length::Exactly(exactly) => length == exactly,
            Length::Multiple(of) => length > 0 && length.is_multiple_of(of),
            Length::Aggregator => length == if four_octet_as { 8 } else { 6 },
            Length::Any => true,
        }
    }
}

/// Who may send an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Everybody.
    All,
    /// Peers of this AS: from others it is discarded, whatever it says.
    Internal,
    /// Speakers of two-octet AS numbers: from others it is discarded (RFC 6793 6).
    TwoOctet,
}

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its type code.
    pub code: u8,
    /// Its name in the RFC.
    pub name: &'static str,
    /// Its flags.
    pub category: Category,
    /// Its length.
    pub length: Length,
    /// Who may send it.
    pub from: From,
    /// What a malformed one costs.
    pub malformed: Approach,
}

const fn row(code: u8, name: &'static str, category: Category, length: Length, from: From, malformed: Approach) -> Row {
    Row { code, name, category, length, from, malformed }
}

use Approach::{AfiSafiDisable, AttributeDiscard, TreatAsWithdraw};
use Category::{NonTransitive, Transitive, WellKnown};
use Length::{Any, Exactly, Multiple};

/// The table. Sections are of RFC 7606 where nothing else is said.
pub const ATTRIBUTES: &[Row] = &[
    // 7.1: also when its value is undefined.
    row(code::ORIGIN, "ORIGIN", WellKnown, Exactly(1), From::All, TreatAsWithdraw),
    // 7.2
    row(code::AS_PATH, "AS_PATH", WellKnown, Any, From::All, TreatAsWithdraw),
    // 7.3
    row(code::NEXT_HOP, "NEXT_HOP", WellKnown, Exactly(4), From::All, TreatAsWithdraw),
    // 7.4
    row(code::MULTI_EXIT_DISC, "MULTI_EXIT_DISC", NonTransitive, Exactly(4), From::All, TreatAsWithdraw),
    // 7.5
    row(code::LOCAL_PREF, "LOCAL_PREF", WellKnown, Exactly(4), From::Internal, TreatAsWithdraw),
    // 7.6
    row(code::ATOMIC_AGGREGATE, "ATOMIC_AGGREGATE", WellKnown, Exactly(0), From::All, AttributeDiscard),
    // 7.7
    row(code::AGGREGATOR, "AGGREGATOR", Transitive, Length::Aggregator, From::All, AttributeDiscard),
    // 7.8
    row(code::COMMUNITIES, "COMMUNITIES", Transitive, Multiple(4), From::All, TreatAsWithdraw),
    // 7.9
    row(code::ORIGINATOR_ID, "ORIGINATOR_ID", NonTransitive, Exactly(4), From::Internal, TreatAsWithdraw),
    // 7.10
    row(code::CLUSTER_LIST, "CLUSTER_LIST", NonTransitive, Multiple(4), From::Internal, TreatAsWithdraw),
    // 7.11: where its family cannot be read, or is the only one, the session ends.
    row(code::MP_REACH_NLRI, "MP_REACH_NLRI", NonTransitive, Any, From::All, AfiSafiDisable),
    // 7.12: the same.
    row(code::MP_UNREACH_NLRI, "MP_UNREACH_NLRI", NonTransitive, Any, From::All, AfiSafiDisable),
    // 7.14
    row(code::EXTENDED_COMMUNITIES, "EXTENDED COMMUNITIES", Transitive, Multiple(8), From::All, TreatAsWithdraw),
    // RFC 6793 section 6
    row(code::AS4_PATH, "AS4_PATH", Transitive, Any, From::TwoOctet, AttributeDiscard),
    // RFC 6793 section 6
    row(code::AS4_AGGREGATOR, "AS4_AGGREGATOR", Transitive, Exactly(8), From::TwoOctet, AttributeDiscard),
    // RFC 8092 section 6
    row(code::LARGE_COMMUNITY, "LARGE_COMMUNITY", Transitive, Multiple(12), From::All, TreatAsWithdraw),
    // RFC 9234 section 5
    row(code::ONLY_TO_CUSTOMER, "Only to Customer", Transitive, Exactly(4), From::All, TreatAsWithdraw),
];

/// The row of a type code.
pub fn find(code: u8) -> Option<&'static Row> {
    ATTRIBUTES.iter().find(|row| row.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_are_in_order_and_each_is_found() {
        assert!(ATTRIBUTES.windows(2).all(|pair| pair[0].code < pair[1].code));
        assert!(ATTRIBUTES.iter().all(|row| find(row.code).is_some_and(|found| found.name == row.name)));
        assert!(find(0).is_none() && find(11).is_none());
    }

    #[test]
    fn lengths_are_as_the_rfc_has_them() {
        assert!(Length::Multiple(4).fits(8, true) && !Length::Multiple(4).fits(0, true));
        assert!(Length::Aggregator.fits(6, false) && !Length::Aggregator.fits(6, true));
        assert!(Approach::AttributeDiscard < Approach::TreatAsWithdraw && AfiSafiDisable < Approach::SessionReset);
    }
}
