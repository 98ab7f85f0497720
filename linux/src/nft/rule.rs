//! Common sequences of expressions by name, for IPv4 and IPv6. Pure; rules are concatenations of these.

use super::{Cmp, Ct, Expr, FibResult, Meta, PayloadBase, Reg, fib};
use meta::Prefix;
use std::net::IpAddr;

/// The scratch register of the matches here: the last, so that keys can be built from the first on.
const SCRATCH: Reg = Reg(15);
/// Where 16-byte values are compared: the last four.
const WIDE: Reg = Reg(12);

/// The transport protocol, a byte, whatever extension headers are before it.
pub fn load_protocol(dreg: Reg) -> Expr {
    Expr::Meta { key: Meta::L4proto, dreg }
}

/// The source address: 4 bytes, or 16 in the registers from `dreg` on.
pub fn load_source(v6: bool, dreg: Reg) -> Expr {
    let (offset, len) = if v6 { (8, 16) } else { (12, 4) };
    Expr::Payload { base: PayloadBase::Network, offset, len, dreg }
}

/// The destination address: 4 bytes, or 16 in the registers from `dreg` on.
pub fn load_destination(v6: bool, dreg: Reg) -> Expr {
    let (offset, len) = if v6 { (24, 16) } else { (16, 4) };
    Expr::Payload { base: PayloadBase::Network, offset, len, dreg }
}

/// The destination port, two bytes in network order; of TCP, UDP and SCTP.
pub fn load_destination_port(dreg: Reg) -> Expr {
    Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, dreg }
}

/// The packet's protocol is this one.
pub fn protocol_is(protocol: u8) -> Vec<Expr> {
    vec![load_protocol(SCRATCH), Expr::Cmp { sreg: SCRATCH, op: Cmp::Eq, data: vec![protocol] }]
}

/// The destination port is this one; the protocol must have been asked before.
pub fn destination_port_is(port: u16) -> Vec<Expr> {
    let data = port.to_be_bytes().to_vec();
    vec![load_destination_port(SCRATCH), Expr::Cmp { sreg: SCRATCH, op: Cmp::Eq, data }]
}

/// The source address is in the range, or not in it.
pub fn source_in(range: Prefix, inside: bool) -> Vec<Expr> {
    address_in(load_source(range.addr.is_ipv6(), register(range)), range, inside)
}

/// The destination address is in the range, or not in it.
pub fn destination_in(range: Prefix, inside: bool) -> Vec<Expr> {
    address_in(load_destination(range.addr.is_ipv6(), register(range)), range, inside)
}

fn register(range: Prefix) -> Reg {
    if range.addr.is_ipv6() { WIDE } else { SCRATCH }
}

fn address_in(load: Expr, range: Prefix, inside: bool) -> Vec<Expr> {
    let reg = register(range);
    let op = if inside { Cmp::Eq } else { Cmp::Ne };
    let network = match range.network().addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut exprs = vec![load];
    if range.len < range.width() {
        let xor = vec![0; network.len()];
        exprs.push(Expr::Bitwise { sreg: reg, dreg: reg, mask: range.mask_bytes(), xor });
    }
    exprs.push(Expr::Cmp { sreg: reg, op, data: network });
    exprs
}

/// The source (or destination) address is in a named set.
pub fn source_in_set(v6: bool, set: &str, inside: bool) -> Vec<Expr> {
    let reg = if v6 { WIDE } else { SCRATCH };
    vec![load_source(v6, reg), Expr::Lookup { set: set.to_owned(), sreg: reg, dreg: None, invert: !inside }]
}

/// The destination address is in a named set, or not in it.
pub fn destination_in_set(v6: bool, set: &str, inside: bool) -> Vec<Expr> {
    let reg = if v6 { WIDE } else { SCRATCH };
    vec![load_destination(v6, reg), Expr::Lookup { set: set.to_owned(), sreg: reg, dreg: None, invert: !inside }]
}

/// The destination is an address of this host.
pub fn destination_is_local() -> Vec<Expr> {
    address_type_is_local(fib::DADDR)
}

/// The source is an address of this host.
pub fn source_is_local() -> Vec<Expr> {
    address_type_is_local(fib::SADDR)
}

fn address_type_is_local(flags: u32) -> Vec<Expr> {
    const RTN_LOCAL: u32 = 2;
    vec![
        Expr::Fib { dreg: SCRATCH, result: FibResult::AddressType, flags },
        Expr::Cmp { sreg: SCRATCH, op: Cmp::Eq, data: RTN_LOCAL.to_ne_bytes().to_vec() },
    ]
}

/// The frame carries this.
pub fn ethernet_is(number: u16) -> Vec<Expr> {
    let data = number.to_be_bytes().to_vec();
    vec![Expr::Meta { key: Meta::Protocol, dreg: SCRATCH }, Expr::Cmp { sreg: SCRATCH, op: Cmp::Eq, data }]
}

/// Names are compared whole, padded with NULs.
pub(super) fn interface_name(name: &str) -> [u8; 16] {
    let mut data = [0u8; 16];
    let len = name.len().min(15);
    data[..len].copy_from_slice(&name.as_bytes()[..len]);
    data
}

/// The packet came in by (or goes out by) the interface of this name.
pub fn interface_is(key: Meta, name: &str, equal: bool) -> Vec<Expr> {
    let data = interface_name(name);
    let op = if equal { Cmp::Eq } else { Cmp::Ne };
    vec![Expr::Meta { key, dreg: WIDE }, Expr::Cmp { sreg: WIDE, op, data: data.to_vec() }]
}

/// `value & mask` of a connection's state, a mark or the like is not zero, or is.
fn bits(load: Expr, mask: u32, set: bool) -> Vec<Expr> {
    let op = if set { Cmp::Ne } else { Cmp::Eq };
    vec![
        load,
        Expr::Bitwise { sreg: SCRATCH, dreg: SCRATCH, mask: mask.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expr::Cmp { sreg: SCRATCH, op, data: vec![0; 4] },
    ]
}

/// The connection's state is one of these bits: 1 invalid, 2 established, 4 related, 8 new, 64 untracked.
pub fn ct_state(mask: u32, set: bool) -> Vec<Expr> {
    bits(Expr::Ct { key: Ct::State, dreg: SCRATCH, original: None }, mask, set)
}

/// The connection's destination was translated.
pub fn ct_is_dnat(yes: bool) -> Vec<Expr> {
    const IPS_DST_NAT: u32 = 1 << 5;
    bits(Expr::Ct { key: Ct::Status, dreg: SCRATCH, original: None }, IPS_DST_NAT, yes)
}

/// The packet carries one of these mark bits, or none.
pub fn mark(mask: u32, set: bool) -> Vec<Expr> {
    bits(Expr::Meta { key: Meta::Mark, dreg: SCRATCH }, mask, set)
}

/// Sets mark bits of the packet.
pub fn set_mark(value: u32) -> Vec<Expr> {
    change_mark(!value, value)
}

/// Clears mark bits of the packet.
pub fn clear_mark(value: u32) -> Vec<Expr> {
    change_mark(!value, 0)
}

fn change_mark(mask: u32, xor: u32) -> Vec<Expr> {
    vec![
        Expr::Meta { key: Meta::Mark, dreg: SCRATCH },
        Expr::Bitwise {
            sreg: SCRATCH,
            dreg: SCRATCH,
            mask: mask.to_ne_bytes().to_vec(),
            xor: xor.to_ne_bytes().to_vec(),
        },
        Expr::MetaSet { key: Meta::Mark, sreg: SCRATCH },
    ]
}

/// Concatenates sequences into the expressions of one rule.
pub fn all<const N: usize>(parts: [Vec<Expr>; N]) -> Vec<Expr> {
    parts.into_iter().flatten().collect()
}
