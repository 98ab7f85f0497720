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
    Drop,
    Accept,
    Return,
    Jump(String),
    Goto(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Meta {
    /// What the link layer carries, as Ethernet numbers it.
    Protocol = 1,
    Mark = 3,
    Iif = 4,
    Oif = 5,
    IifName = 6,
    OifName = 7,
    Nfproto = 15,
    L4proto = 16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Ct {
    State = 0,
    Direction = 1,
    Status = 2,
    Mark = 3,
    Protocol = 10,
    /// Wants a direction, as the following do.
    ProtoSrc = 11,
    ProtoDst = 12,
    SrcIp = 19,
    DstIp = 20,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum PayloadBase {
    Link = 0,
    Network = 1,
    Transport = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Cmp {
    Eq = 0,
    Ne = 1,
    Lt = 2,
    Le = 3,
    Gt = 4,
    Ge = 5,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum DynsetOp {
    Add = 0,
    Update = 1,
    Delete = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum FibResult {
    Oif = 1,
    OifName = 2,
    /// RTN_*: 1 unicast, 2 local.
    AddressType = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum NatKind {
    Source = 0,
    Destination = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectWith {
    TcpReset,
    /// In the ip family: an ICMP code, 3 is port unreachable.
    Icmp(u8),
    /// In the inet family: 0 no route, 1 port, 2 host, 3 admin-prohibited.
    Icmpx(u8),
}

/// What the `fib` expression looks up.
pub mod fib {
    pub const SADDR: u32 = 1;
    pub const DADDR: u32 = 2;
}

/// Flags of nat and masquerade.
pub mod nat {
    pub const RANDOM_FULLY: u32 = 16;
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expr {
    Meta {
        key: Meta,
        dreg: Reg,
    },
    MetaSet {
        key: Meta,
        sreg: Reg,
    },
    Ct {
        key: Ct,
        dreg: Reg,
        original: Option<bool>,
    },
    CtSet {
        key: Ct,
        sreg: Reg,
    },
    Payload {
        base: PayloadBase,
        offset: u32,
        len: u32,
        dreg: Reg,
    },
    Cmp {
        sreg: Reg,
        op: Cmp,
        data: Vec<u8>,
    },
    Bitwise {
        sreg: Reg,
        dreg: Reg,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Immediate {
        dreg: Reg,
        data: Vec<u8>,
    },
    Verdict(Verdict),
    /// Is the value at `sreg` in the set? In a map, what it gives goes to `dreg`.
    Lookup {
        set: String,
        sreg: Reg,
        dreg: Option<Reg>,
        invert: bool,
    },
    /// Go where the verdict map says; on when it says nothing.
    VerdictMap {
        set: String,
        sreg: Reg,
    },
    Dynset {
        set: String,
        op: DynsetOp,
        key: Reg,
        data: Option<Reg>,
        timeout: Option<u64>,
    },
    Fib {
        dreg: Reg,
        result: FibResult,
        flags: u32,
    },
    /// A random number from `offset` to `offset + modulus - 1`.
    Random {
        dreg: Reg,
        modulus: u32,
        offset: u32,
    },
    /// A hash of `len` bytes from `sreg` on, from `offset` to `offset + modulus - 1`.
    Jhash {
        sreg: Reg,
        len: u32,
        dreg: Reg,
        modulus: u32,
        seed: u32,
        offset: u32,
    },
    /// `family` is NFPROTO_*: 2 or 10.
    Nat {
        kind: NatKind,
        family: u8,
        addr: Reg,
        port: Option<Reg>,
        flags: u32,
    },
    Masquerade {
        flags: u32,
    },
    Reject(RejectWith),
    Counter,
    /// Counts in a named counter of the table.
    NamedCounter(String),
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
