//! nftables by netlink: what the `nft` program does, without the program.
//!
//! A `Batch` is a transaction: tables, chains, sets, elements and rules to add or remove, which the kernel
//! takes whole or not at all. `Nft` commits it and lists what is there. Rules are lists of `Expr`, which pass
//! values through registers; `rule` has the common sequences by name.

mod batch;
mod dump;
mod expr;
pub mod rule;
mod set;
mod watch;

pub use batch::{Batch, Chain, Hook, Policy};
pub use dump::{ChainInfo, ElementInfo, Nft, RuleInfo, TableInfo, chain, element, rule as listed_rule, table};
pub use expr::{Cmp, Ct, DynsetOp, Expr, FibResult, Meta, NatKind, PayloadBase, Reg, RejectWith, Verdict, fib, nat};
pub use set::{Data, Element, Key, Set, kind};
pub use watch::Watch;

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    /// IPv4 and IPv6 together.
    Inet = 1,
    /// IPv4.
    Ip = 2,
    /// ARP.
    Arp = 3,
    /// Frames as they come in by one device, before anything else.
    Netdev = 5,
    /// Frames that cross a bridge.
    Bridge = 7,
    /// IPv6.
    Ip6 = 10,
}

impl Family {
    /// By the kernel's number (NFPROTO_*); none for one that nftables hasn't.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Family::Inet,
            2 => Family::Ip,
            3 => Family::Arp,
            5 => Family::Netdev,
            7 => Family::Bridge,
            10 => Family::Ip6,
            _ => return None,
        })
    }

    /// As `nft` writes it.
    pub fn name(self) -> &'static str {
        match self {
            Family::Inet => "inet",
            Family::Ip => "ip",
            Family::Arp => "arp",
            Family::Netdev => "netdev",
            Family::Bridge => "bridge",
            Family::Ip6 => "ip6",
        }
    }
}

/// The places in a packet's way, NF_INET_*.
pub mod hook {
    /// Before routing: everything that comes in by a link.
    pub const PREROUTING: u32 = 0;
    /// What routing found to be for this host.
    pub const INPUT: u32 = 1;
    /// What passes through.
    pub const FORWARD: u32 = 2;
    /// What this host sends, before routing.
    pub const OUTPUT: u32 = 3;
    /// After routing: everything that leaves, from here or passing through.
    pub const POSTROUTING: u32 = 4;
}

/// Who comes first at a hook; lower is earlier. The standard places.
pub mod priority {
    /// Before connection tracking sees the packet.
    pub const RAW: i32 = -300;
    /// Where destinations are rewritten.
    pub const DSTNAT: i32 = -100;
    /// Where packets are dropped or let through.
    pub const FILTER: i32 = 0;
    /// Where sources are rewritten.
    pub const SRCNAT: i32 = 100;
}

/// NFTA_* and NFT_MSG_* numbers shared by the files of this module.
mod numbers {
    pub const SUBSYSTEM: u16 = 10 << 8;
    pub const NEWTABLE: u16 = SUBSYSTEM;
    pub const GETTABLE: u16 = SUBSYSTEM | 1;
    pub const DELTABLE: u16 = SUBSYSTEM | 2;
    pub const NEWCHAIN: u16 = SUBSYSTEM | 3;
    pub const GETCHAIN: u16 = SUBSYSTEM | 4;
    pub const DELCHAIN: u16 = SUBSYSTEM | 5;
    pub const NEWRULE: u16 = SUBSYSTEM | 6;
    pub const GETRULE: u16 = SUBSYSTEM | 7;
    pub const DELRULE: u16 = SUBSYSTEM | 8;
    pub const NEWSET: u16 = SUBSYSTEM | 9;
    pub const GETSET: u16 = SUBSYSTEM | 10;
    pub const DELSET: u16 = SUBSYSTEM | 11;
    pub const NEWSETELEM: u16 = SUBSYSTEM | 12;
    pub const GETSETELEM: u16 = SUBSYSTEM | 13;
    pub const DELSETELEM: u16 = SUBSYSTEM | 14;
    pub const NEWGEN: u16 = SUBSYSTEM | 15;
    pub const GETGEN: u16 = SUBSYSTEM | 16;
    pub const NEWOBJ: u16 = SUBSYSTEM | 18;

    pub const LIST_ELEM: u16 = 1;
    pub const TABLE_NAME: u16 = 1;
    pub const CHAIN_TABLE: u16 = 1;
    pub const CHAIN_NAME: u16 = 3;
    pub const CHAIN_HOOK: u16 = 4;
    pub const CHAIN_POLICY: u16 = 5;
    pub const CHAIN_TYPE: u16 = 7;
    pub const HOOK_NUM: u16 = 1;
    pub const HOOK_PRIORITY: u16 = 2;
    pub const RULE_TABLE: u16 = 1;
    pub const RULE_CHAIN: u16 = 2;
    pub const RULE_HANDLE: u16 = 3;
    pub const RULE_EXPRESSIONS: u16 = 4;
    pub const RULE_USERDATA: u16 = 7;
    pub const SET_TABLE: u16 = 1;
    pub const SET_NAME: u16 = 2;
    pub const SET_FLAGS: u16 = 3;
    pub const SET_KEY_TYPE: u16 = 4;
    pub const SET_KEY_LEN: u16 = 5;
    pub const SET_DATA_TYPE: u16 = 6;
    pub const SET_DATA_LEN: u16 = 7;
    pub const SET_DESC: u16 = 9;
    pub const SET_ID: u16 = 10;
    pub const SET_TIMEOUT: u16 = 11;
    pub const SET_DESC_SIZE: u16 = 1;
    pub const SET_DESC_CONCAT: u16 = 2;
    pub const SET_FIELD_LEN: u16 = 1;
    pub const ELEM_KEY: u16 = 1;
    pub const ELEM_DATA: u16 = 2;
    pub const ELEM_FLAGS: u16 = 3;
    pub const ELEM_TIMEOUT: u16 = 4;
    pub const ELEM_USERDATA: u16 = 6;
    pub const ELEM_KEY_END: u16 = 10;
    pub const ELEM_LIST_TABLE: u16 = 1;
    pub const ELEM_LIST_SET: u16 = 2;
    pub const ELEM_LIST_ELEMENTS: u16 = 3;
    pub const OBJ_TABLE: u16 = 1;
    pub const OBJ_NAME: u16 = 2;
    pub const OBJ_TYPE: u16 = 3;
    pub const OBJ_DATA: u16 = 4;
    pub const DATA_VALUE: u16 = 1;
    pub const DATA_VERDICT: u16 = 2;
    pub const VERDICT_CODE: u16 = 1;
    pub const VERDICT_CHAIN: u16 = 2;
    /// A comment in the user data of a rule or an element: type, length, bytes with a NUL.
    pub const USERDATA_COMMENT: u8 = 0;
}
