//! Rules of policy routing: which table of routes a packet is looked up in. Does I/O through `Socket`; [`decode`] is
//! pure. The lowest priority is asked first; every host has three of the kernel's own: 0 for local addresses, 32766 for
//! the main table, 32767 for the default one.

use meta::Prefix;

use super::Error;
use super::message::{Writer, attrs, split, text, u32_at};
use super::rtnl::{Attribute, CREATE_NEW, PROTOCOL, Rtnl, family, ip, missing_is_done, octets, write_all};

pub(super) const NEWRULE: u16 = 32;
pub(super) const DELRULE: u16 = 33;
const GETRULE: u16 = 34;

const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_OIFNAME: u16 = 17;
const FRA_PROTOCOL: u16 = 21;
/// No length is passed over: what the kernel says of every rule.
const NO_LENGTH: u32 = u32::MAX;
const FIB_RULE_INVERT: u32 = 0x2;

/// A rule: all that it asks for must be so of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Of IPv6's rules; both families have their own.
    pub v6: bool,
    /// The lowest is asked first: 0 is the table of local addresses, 32766 the main one.
    pub priority: u32,
    /// The source is in this range.
    pub from: Option<Prefix>,
    /// The destination is in this range.
    pub to: Option<Prefix>,
    /// The link that it came in by; "lo" for what this host sends.
    pub incoming: Option<String>,
    /// The link that a socket is bound to: it leaves by that one.
    pub outgoing: Option<String>,
    /// It has this mark.
    pub mark: Option<Mark>,
    /// It is for packets that do not match.
    pub invert: bool,
    /// What is done with a packet that matches.
    pub action: RuleAction,
    /// Who made it: [`PROTOCOL`] for us, 2 the kernel.
    pub protocol: u8,
    /// Routes of the table of this length or shorter count as none: 0 leaves the default route out.
    pub suppress_prefix_len: Option<u32>,
    /// Only packets of this type of service; 0 is any (IPv4).
    pub tos: u8,
    /// What is beside it, to be written back as it was.
    pub other: Vec<Attribute>,
}

/// The packet's mark, the bits of `mask` compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What the compared bits are.
    pub value: u32,
    /// Which bits are compared.
    pub mask: u32,
}

/// What becomes of the packet: FR_ACT_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// It is looked up in this table; when the table says nothing, the next rule is asked.
    Table(u32),
    /// It is dropped, and nobody is told.
    Blackhole,
    /// It is dropped; the sender is told that there is no such network.
    Unreachable,
    /// It is dropped; the sender is told that it may not.
    Prohibit,
    /// By the kernel's number, with its table.
    Other(u8, u32),
}

impl Rule {
    /// For every packet of a family.
    pub fn new(v6: bool, priority: u32, action: RuleAction) -> Self {
        Rule {
            v6,
            priority,
            from: None,
            to: None,
            incoming: None,
            outgoing: None,
            mark: None,
            invert: false,
            action,
            protocol: PROTOCOL,
            suppress_prefix_len: None,
            tos: 0,
            other: Vec::new(),
        }
    }
}

impl Rtnl {
    /// Of both families.
    pub fn rules(&mut self) -> Result<Vec<Rule>, Error> {
        self.socket.dump(GETRULE, "listing routing rules", |w| w.raw(&[0; 12]), |m| decode(m.body))
    }

    /// Several rules may have one priority: this adds one where there is none that is the same.
    pub fn put_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        let what = format!("adding routing rule {}", rule.priority);
        match self.socket.request(NEWRULE, CREATE_NEW, &what, |w| write(w, rule)) {
            Err(e) if e.is_exists() => Ok(()),
            answer => answer,
        }
    }

    /// Idempotent. The whole rule must be given: several may have one priority.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        let what = format!("removing routing rule {}", rule.priority);
        missing_is_done(self.socket.request(DELRULE, 0, &what, |w| write(w, rule)))
    }
}

fn write(w: &mut Writer, rule: &Rule) {
    let (action, table) = rule.action.numbers();
    let mut body = [0u8; 12];
    body[0] = family(rule.v6);
    body[1] = rule.to.map_or(0, |to| to.len);
    body[2] = rule.from.map_or(0, |from| from.len);
    body[3] = rule.tos;
    body[4] = u8::try_from(table).unwrap_or(0);
    body[7] = action;
    body[8..12].copy_from_slice(&(if rule.invert { FIB_RULE_INVERT } else { 0 }).to_ne_bytes());
    w.raw(&body);
    for (kind, range) in [(FRA_DST, rule.to), (FRA_SRC, rule.from)] {
        if let Some(range) = range {
            w.attr(kind, &octets(range.network().addr));
        }
    }
    for (kind, name) in [(FRA_IIFNAME, &rule.incoming), (FRA_OIFNAME, &rule.outgoing)] {
        if let Some(name) = name {
            w.attr_str(kind, name);
        }
    }
    w.attr_u32(FRA_PRIORITY, rule.priority);
    if let Some(mark) = rule.mark {
        w.attr_u32(FRA_FWMARK, mark.value);
        w.attr_u32(FRA_FWMASK, mark.mask);
    }
    if let Some(len) = rule.suppress_prefix_len {
        w.attr_u32(FRA_SUPPRESS_PREFIXLEN, len);
    }
    if table > 0 {
        w.attr_u32(FRA_TABLE, table);
    }
    w.attr(FRA_PROTOCOL, &[rule.protocol]);
    write_all(w, &rule.other);
}

/// Takes a message's body apart. None for other families' rules: those of multicast routers.
pub(super) fn decode(body: &[u8]) -> Option<Rule> {
    let (fixed, rest) = split(body, 12)?;
    let v6 = match i32::from(fixed[0]) {
        libc::AF_INET => false,
        libc::AF_INET6 => true,
        _ => return None,
    };
    let mut rule = Rule::new(v6, 0, RuleAction::Table(0));
    let mut table = u32::from(fixed[4]);
    rule.tos = fixed[3];
    rule.protocol = 0;
    rule.invert = u32_at(fixed, 8)? & FIB_RULE_INVERT != 0;
    for (kind, value) in attrs(rest) {
        match kind {
            FRA_DST => rule.to = Some(Prefix { addr: ip(value)?, len: fixed[1] }),
            FRA_SRC => rule.from = Some(Prefix { addr: ip(value)?, len: fixed[2] }),
            FRA_IIFNAME => rule.incoming = Some(text(value)),
            FRA_OIFNAME => rule.outgoing = Some(text(value)),
            FRA_PRIORITY => rule.priority = u32_at(value, 0)?,
            FRA_FWMARK => rule.mark.get_or_insert(Mark { value: 0, mask: u32::MAX }).value = u32_at(value, 0)?,
            FRA_FWMASK => rule.mark.get_or_insert(Mark { value: 0, mask: u32::MAX }).mask = u32_at(value, 0)?,
            FRA_SUPPRESS_PREFIXLEN => rule.suppress_prefix_len = u32_at(value, 0).filter(|len| *len != NO_LENGTH),
            FRA_TABLE => table = u32_at(value, 0)?,
            FRA_PROTOCOL => rule.protocol = value.first().copied()?,
            _ => rule.other.push(Attribute::new(kind, value)),
        }
    }
    rule.action = RuleAction::of(fixed[7], table);
    Some(rule)
}

impl RuleAction {
    fn of(number: u8, table: u32) -> Self {
        match (number, table) {
            (1, table) => RuleAction::Table(table),
            (6, 0) => RuleAction::Blackhole,
            (7, 0) => RuleAction::Unreachable,
            (8, 0) => RuleAction::Prohibit,
            (other, table) => RuleAction::Other(other, table),
        }
    }

    fn numbers(self) -> (u8, u32) {
        match self {
            RuleAction::Table(table) => (1, table),
            RuleAction::Blackhole => (6, 0),
            RuleAction::Unreachable => (7, 0),
            RuleAction::Prohibit => (8, 0),
            RuleAction::Other(other, table) => (other, table),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_also_what_has_no_name_here() {
        let actions = (0..10).map(|n| RuleAction::of(n, 0)).chain([RuleAction::Table(1000), RuleAction::Other(2, 7)]);
        for (n, action) in actions.enumerate() {
            let v6 = n % 2 == 1;
            let rule = Rule {
                from: Some(if v6 { "fd00::/16" } else { "10.1.0.0/16" }.parse().unwrap()),
                incoming: Some("eth0".into()),
                mark: Some(Mark { value: 0x40, mask: 0xff }),
                invert: v6,
                suppress_prefix_len: Some(0),
                other: vec![Attribute { kind: 99, value: vec![1, 2] }],
                ..Rule::new(v6, 100, action)
            };
            let mut w = Writer::new();
            write(&mut w, &rule);
            assert_eq!(decode(w.bytes()), Some(rule));
        }
    }
}
