//! Expressions, the steps of a rule: load something into a register, compare it, look it up, act. Pure.
//!
//! Registers are the sixteen 32-bit ones; a value wider than four bytes takes the following ones too. The
//! kernel wants each register written in the same rule before it is read.

use super::numbers as n;
use crate::netlink::message::Writer;

/// A 32-bit register, 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reg(pub u8);

impl Reg {
    fn number(self) -> u32 {
        debug_assert!(self.0 < 16);
        8 + u32::from(self.0)
    }
}

/// Where a packet goes next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It is gone, whatever other chains say.
    Drop,
    /// It is done with this base chain, and goes on to the hook's next.
    Accept,
    /// Back to the chain that jumped here; out of a base chain: its policy.
    Return,
    /// To a chain of the table, and back behind this rule.
    Jump(String),
    /// To a chain of the table, and back to where this chain was jumped to from.
    Goto(String),
}

/// What is known of a packet beside its bytes: NFT_META_*, with `nft`'s words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Meta {
    /// What the link layer carries, as Ethernet numbers it.
    Protocol = 1,
    /// `mark`: 32 bits in the machine's byte order, which go with the packet through this host.
    Mark = 3,
    /// `iif`: the number of the interface that it came in by.
    Iif = 4,
    /// `oif`: the number of the interface that it leaves by.
    Oif = 5,
    /// `iifname`: 16 bytes, filled up with zeroes.
    IifName = 6,
    /// `oifname`: 16 bytes, filled up with zeroes.
    OifName = 7,
    /// `nfproto`: a byte, 2 for IPv4 and 10 for IPv6.
    Nfproto = 15,
    /// `l4proto`: a byte, the transport protocol (IPPROTO_*).
    L4proto = 16,
}

/// What connection tracking knows of a packet: NFT_CT_*, with `nft`'s words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Ct {
    /// `state`: bits, 2 established, 4 related, 8 new, 1 invalid, 64 untracked.
    State = 0,
    /// `direction`: a byte, 0 as the flow began, 1 for answers.
    Direction = 1,
    /// `status`: bits, IPS_*: 16 the source was rewritten, 32 the destination.
    Status = 2,
    /// `mark`: 32 bits in the machine's byte order, which stay with the flow.
    Mark = 3,
    /// `protocol`: a byte, the transport protocol (IPPROTO_*).
    Protocol = 10,
    /// `proto-src`: the source port. Wants a direction, as the following do.
    ProtoSrc = 11,
    /// `proto-dst`: the destination port.
    ProtoDst = 12,
    /// `ip saddr`: the source address.
    SrcIp = 19,
    /// `ip daddr`: the destination address.
    DstIp = 20,
}

/// Where offsets into a packet count from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum PayloadBase {
    /// The Ethernet header, where there is one.
    Link = 0,
    /// The IP header.
    Network = 1,
    /// What follows the IP header and its extensions.
    Transport = 2,
}

/// How a register must compare with data: as memcmp(3), so numbers must be in network order to have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Cmp {
    /// Equal.
    Eq = 0,
    /// Not equal.
    Ne = 1,
    /// Less.
    Lt = 2,
    /// Less or equal.
    Le = 3,
    /// Greater.
    Gt = 4,
    /// Greater or equal.
    Ge = 5,
}

/// What a rule does to a set as a packet passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum DynsetOp {
    /// An element that is there keeps its age.
    Add = 0,
    /// An element that is there lives from now on.
    Update = 1,
    /// The element goes.
    Delete = 2,
}

/// What a look into the routing table gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum FibResult {
    /// The number of the interface that a route leads to.
    Oif = 1,
    /// Its name.
    OifName = 2,
    /// RTN_*: 1 unicast, 2 local.
    AddressType = 3,
}

/// Which end of a flow is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum NatKind {
    /// In postrouting, and in input.
    Source = 0,
    /// In prerouting, and in output.
    Destination = 1,
}

/// What the sender of a refused packet is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectWith {
    /// Of TCP only.
    TcpReset,
    /// In the ip family: an ICMP code, 3 is port unreachable.
    Icmp(u8),
    /// In the inet family: 0 no route, 1 port, 2 host, 3 admin-prohibited.
    Icmpx(u8),
}

/// What the `fib` expression looks up: NFTA_FIB_F_*.
pub mod fib {
    /// The source address.
    pub const SADDR: u32 = 1;
    /// The destination address.
    pub const DADDR: u32 = 2;
}

/// Flags of nat and masquerade: NF_NAT_RANGE_*.
pub mod nat {
    /// The source port is any free one, not the same where it is free: two packets that race get two.
    pub const RANDOM_FULLY: u32 = 16;
}

/// One step of a rule.
///
/// | field | means |
/// |---|---|
/// | `dreg` | the register that the result is written to; a wide one takes those after it too |
/// | `sreg` | the register that is read, written by a step before |
/// | `set` | the name of a set or map of the table |
/// | `data`, `mask`, `xor` | bytes, as they lie in registers |
/// | `offset`, `len` | bytes, from the header that `base` names |
/// | `timeout` | milliseconds that an element lives |
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the table above explains the fields")]
pub enum Expr {
    /// Loads what is known of the packet beside its bytes.
    Meta { key: Meta, dreg: Reg },
    /// Writes what stays with the packet: its mark.
    MetaSet { key: Meta, sreg: Reg },
    /// Loads what connection tracking knows, of the flow's first direction or of the answers' where it has both.
    Ct { key: Ct, dreg: Reg, original: Option<bool> },
    /// Writes what stays with the flow: its mark.
    CtSet { key: Ct, sreg: Reg },
    /// Loads bytes of the packet; one that is shorter does not match the rule.
    Payload { base: PayloadBase, offset: u32, len: u32, dreg: Reg },
    /// The rule ends here unless this is so.
    Cmp { sreg: Reg, op: Cmp, data: Vec<u8> },
    /// `(sreg & mask) ^ xor`.
    Bitwise { sreg: Reg, dreg: Reg, mask: Vec<u8>, xor: Vec<u8> },
    /// Loads bytes that the rule brings.
    Immediate { dreg: Reg, data: Vec<u8> },
    /// The packet goes there.
    Verdict(Verdict),
    /// Is the value at `sreg` in the set? In a map, what it gives goes to `dreg`.
    Lookup { set: String, sreg: Reg, dreg: Option<Reg>, invert: bool },
    /// Go where the verdict map says; on when it says nothing.
    VerdictMap { set: String, sreg: Reg },
    /// Changes a set by what is in registers (`nft`'s `add @set { … }`).
    Dynset { set: String, op: DynsetOp, key: Reg, data: Option<Reg>, timeout: Option<u64> },
    /// Looks an address of the packet up in the routing table; `flags` are of [`fib`].
    Fib { dreg: Reg, result: FibResult, flags: u32 },
    /// A random number from `offset` to `offset + modulus - 1`.
    Random { dreg: Reg, modulus: u32, offset: u32 },
    /// A hash of `len` bytes from `sreg` on, from `offset` to `offset + modulus - 1`.
    Jhash { sreg: Reg, len: u32, dreg: Reg, modulus: u32, seed: u32, offset: u32 },
    /// Rewrites an end of the flow to what is in registers. `family` is NFPROTO_*: 2 or 10; `flags` are of [`nat`].
    Nat { kind: NatKind, family: u8, addr: Reg, port: Option<Reg>, flags: u32 },
    /// The source becomes the address of the interface that the packet leaves by; `flags` are of [`nat`].
    Masquerade { flags: u32 },
    /// Drops the packet, and tells its sender.
    Reject(RejectWith),
    /// Counts packets and bytes that come here.
    Counter,
    /// Counts in a named counter of the table.
    NamedCounter(String),
    /// Connection tracking passes the packet over; before it only, so in a chain of priority `RAW`.
    Notrack,
}

impl Expr {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Expr::Meta { .. } | Expr::MetaSet { .. } => "meta",
            Expr::Ct { .. } | Expr::CtSet { .. } => "ct",
            Expr::Payload { .. } => "payload",
            Expr::Cmp { .. } => "cmp",
            Expr::Bitwise { .. } => "bitwise",
            Expr::Immediate { .. } | Expr::Verdict(_) => "immediate",
            Expr::Lookup { .. } | Expr::VerdictMap { .. } => "lookup",
            Expr::Dynset { .. } => "dynset",
            Expr::Fib { .. } => "fib",
            Expr::Random { .. } => "numgen",
            Expr::Jhash { .. } => "hash",
            Expr::Nat { .. } => "nat",
            Expr::Masquerade { .. } => "masq",
            Expr::Reject(_) => "reject",
            Expr::Counter => "counter",
            Expr::NamedCounter(_) => "objref",
            Expr::Notrack => "notrack",
        }
    }

    /// Writes the attributes of the expression; their numbers are those of `linux/netfilter/nf_tables.h`.
    pub(super) fn write(&self, w: &mut Writer) {
        match self {
            Expr::Meta { key, dreg } => numbers(w, &[(1, dreg.number()), (2, *key as u32)]),
            Expr::MetaSet { key, sreg } => numbers(w, &[(2, *key as u32), (3, sreg.number())]),
            Expr::Ct { key, dreg, original } => {
                numbers(w, &[(1, dreg.number()), (2, *key as u32)]);
                if let Some(original) = original {
                    w.attr(3, &[u8::from(!original)]);
                }
            }
            Expr::CtSet { key, sreg } => numbers(w, &[(2, *key as u32), (4, sreg.number())]),
            Expr::Payload { base, offset, len, dreg } => {
                numbers(w, &[(1, dreg.number()), (2, *base as u32), (3, *offset), (4, *len)]);
            }
            Expr::Cmp { sreg, op, data } => {
                numbers(w, &[(1, sreg.number()), (2, *op as u32)]);
                value(w, 3, data);
            }
            Expr::Bitwise { sreg, dreg, mask, xor } => {
                numbers(w, &[(1, sreg.number()), (2, dreg.number()), (3, mask.len() as u32)]);
                value(w, 4, mask);
                value(w, 5, xor);
            }
            Expr::Immediate { dreg, data } => {
                numbers(w, &[(1, dreg.number())]);
                value(w, 2, data);
            }
            Expr::Verdict(verdict) => {
                numbers(w, &[(1, 0)]);
                let data = w.nest(2);
                verdict.write(w);
                w.end_nest(data);
            }
            Expr::Lookup { set, sreg, dreg, invert } => {
                w.attr_str(1, set);
                numbers(w, &[(2, sreg.number())]);
                if let Some(dreg) = dreg {
                    numbers(w, &[(3, dreg.number())]);
                }
                if *invert {
                    numbers(w, &[(5, 1)]);
                }
            }
            Expr::VerdictMap { set, sreg } => {
                w.attr_str(1, set);
                numbers(w, &[(2, sreg.number()), (3, 0)]);
            }
            _ => self.write_action(w),
        }
    }

    fn write_action(&self, w: &mut Writer) {
        match self {
            Expr::Dynset { set, op, key, data, timeout } => {
                w.attr_str(1, set);
                numbers(w, &[(3, *op as u32), (4, key.number())]);
                if let Some(data) = data {
                    numbers(w, &[(5, data.number())]);
                }
                if let Some(timeout) = timeout {
                    w.attr_be64(6, *timeout);
                }
            }
            Expr::Fib { dreg, result, flags } => {
                numbers(w, &[(1, dreg.number()), (2, *result as u32), (3, *flags)]);
            }
            Expr::Random { dreg, modulus, offset } => {
                const RANDOM: u32 = 1;
                numbers(w, &[(1, dreg.number()), (2, *modulus), (3, RANDOM), (4, *offset)]);
            }
            Expr::Jhash { sreg, len, dreg, modulus, seed, offset } => {
                const JENKINS: u32 = 0;
                numbers(w, &[(1, sreg.number()), (2, dreg.number()), (3, *len), (4, *modulus), (5, *seed)]);
                numbers(w, &[(6, *offset), (7, JENKINS)]);
            }
            Expr::Nat { kind, family, addr, port, flags } => {
                numbers(w, &[(1, *kind as u32), (2, u32::from(*family)), (3, addr.number())]);
                if let Some(port) = port {
                    numbers(w, &[(5, port.number())]);
                }
                if *flags != 0 {
                    numbers(w, &[(7, *flags)]);
                }
            }
            Expr::Masquerade { flags } if *flags != 0 => numbers(w, &[(1, *flags)]),
            Expr::Reject(with) => {
                let (kind, code) = match with {
                    RejectWith::Icmp(code) => (0, *code),
                    RejectWith::TcpReset => (1, 0),
                    RejectWith::Icmpx(code) => (2, *code),
                };
                numbers(w, &[(1, kind)]);
                w.attr(2, &[code]);
            }
            Expr::NamedCounter(name) => {
                const COUNTER: u32 = 1;
                numbers(w, &[(1, COUNTER)]);
                w.attr_str(2, name);
            }
            _ => {}
        }
    }
}

impl Verdict {
    /// The code and the chain inside a data attribute.
    pub(super) fn write(&self, w: &mut Writer) {
        let (code, chain) = match self {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Return => (-5, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
        };
        let verdict = w.nest(n::DATA_VERDICT);
        w.attr_be32(n::VERDICT_CODE, code as u32);
        if let Some(chain) = chain {
            w.attr_str(n::VERDICT_CHAIN, chain);
        }
        w.end_nest(verdict);
    }

    pub(super) fn from_parts(code: u32, chain: Option<String>) -> Option<Self> {
        Some(match (code as i32, chain) {
            (0, _) => Verdict::Drop,
            (1, _) => Verdict::Accept,
            (-5, _) => Verdict::Return,
            (-3, Some(chain)) => Verdict::Jump(chain),
            (-4, Some(chain)) => Verdict::Goto(chain),
            _ => return None,
        })
    }
}

fn numbers(w: &mut Writer, pairs: &[(u16, u32)]) {
    for (attr, value) in pairs {
        w.attr_be32(*attr, *value);
    }
}

fn value(w: &mut Writer, attr: u16, bytes: &[u8]) {
    let nest = w.nest(attr);
    w.attr(n::DATA_VALUE, bytes);
    w.end_nest(nest);
}
