//! Committing transactions and listing what is there. Does I/O through `Socket`.

use super::numbers as n;
use super::{Batch, Data, Family, Key, Policy, Verdict};
use crate::netlink::message::{Writer, attr, attrs, be32, be64, split, text};
use crate::netlink::{Error, Socket};

/// Speaks nftables to one network namespace: that of the thread that opened it.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
}

/// A table as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableInfo {
    /// Which packets it sees.
    pub family: Family,
    /// Unique in its family.
    pub name: String,
}

/// A chain as the kernel lists it; the last four only for base chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    /// That of its table.
    pub family: Family,
    /// The table's name.
    pub table: String,
    /// Unique in its table.
    pub name: String,
    /// `filter`, `nat` or `route`.
    pub kind: Option<String>,
    /// NF_INET_*, see [`super::hook`].
    pub hook: Option<u32>,
    /// The lowest runs first, see [`super::priority`].
    pub priority: Option<i32>,
    /// What becomes of packets that no rule decided.
    pub policy: Option<Policy>,
}

/// A rule as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// The chain's name.
    pub chain: String,
    /// The kernel's number for it: by it a rule is removed.
    pub handle: u64,
    /// The expressions as the kernel encodes them.
    pub exprs: Vec<u8>,
    /// What its maker wrote beside it.
    pub comment: Option<String>,
}

/// An element of a set or map as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ElementInfo {
    /// As [`Key::as_bytes`].
    pub key: Vec<u8>,
    /// What a map gives for the key.
    pub data: Option<Data>,
    /// It ends a range: the key is the first that is no longer in it.
    pub interval_end: bool,
    /// What its maker wrote beside it.
    pub comment: Option<String>,
}

impl Nft {
    /// For the network namespace of the calling thread, for good.
    pub fn open() -> Result<Self, Error> {
        Ok(Nft { socket: Socket::netfilter()? })
    }

    /// For another namespace.
    pub fn open_in(ns: &crate::netns::NetNs) -> Result<Self, Error> {
        ns.run(Nft::open).map_err(|source| Error::Io { what: "entering the network namespace".to_owned(), source })?
    }

    /// Commits a transaction. On an error nothing has changed, and the error names the first message refused.
    pub fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let datagram = batch.finish();
        let refusals = self.socket.batch(&datagram, "changing nftables rules")?;
        // The kernel lists what it refused in order; a refusal without a number is of the whole.
        match refusals.into_iter().next() {
            None => Ok(()),
            Some(refusal) => Err(Error::Refused {
                what: super::batch::describe(&datagram, refusal.seq),
                errno: refusal.errno,
                message: refusal.message,
            }),
        }
    }

    /// Removes a table and all in it; idempotent.
    pub fn remove_table(&mut self, family: Family, table: &str) -> Result<(), Error> {
        let mut batch = Batch::new(family, table);
        batch.add_table();
        batch.delete_table();
        self.commit(batch)
    }

    /// Every table of every family, other people's too.
    pub fn tables(&mut self) -> Result<Vec<TableInfo>, Error> {
        self.socket.dump(n::GETTABLE, "listing nftables tables", |w| w.raw(&[0; 4]), |m| table(m.body))
    }

    /// Whether there is such a table, whoever made it.
    pub fn has_table(&mut self, family: Family, table: &str) -> Result<bool, Error> {
        Ok(self.tables()?.iter().any(|t| t.family == family && t.name == table))
    }

    /// The chains of all tables.
    pub fn chains(&mut self) -> Result<Vec<ChainInfo>, Error> {
        self.socket.dump(n::GETCHAIN, "listing nftables chains", |w| w.raw(&[0; 4]), |m| chain(m.body))
    }

    /// The names of a table's sets and maps.
    pub fn sets(&mut self, family: Family, table: &str) -> Result<Vec<String>, Error> {
        let fill = |w: &mut Writer| {
            w.raw(&[family as u8, 0, 0, 0]);
            w.attr_str(n::SET_TABLE, table);
        };
        self.socket.dump(n::GETSET, "listing nftables sets", fill, |m| {
            let (_, rest) = split(m.body, 4)?;
            Some(text(attr(rest, n::SET_NAME)?))
        })
    }

    /// The rules of a table in order.
    pub fn rules(&mut self, family: Family, table: &str) -> Result<Vec<RuleInfo>, Error> {
        let fill = |w: &mut Writer| {
            w.raw(&[family as u8, 0, 0, 0]);
            w.attr_str(n::RULE_TABLE, table);
        };
        self.socket.dump(n::GETRULE, "listing nftables rules", fill, |m| rule(m.body, table))
    }

    /// The elements of a set or map, sorted by key. Just after a change of thousands, while the kernel resizes
    /// the hash table, some may be missing.
    pub fn elements(&mut self, family: Family, table: &str, set: &str) -> Result<Vec<ElementInfo>, Error> {
        let fill = |w: &mut Writer| {
            w.raw(&[family as u8, 0, 0, 0]);
            w.attr_str(n::ELEM_LIST_TABLE, table);
            w.attr_str(n::ELEM_LIST_SET, set);
        };
        let lists = self.socket.dump(n::GETSETELEM, &format!("listing elements of set {set}"), fill, |m| {
            let (_, rest) = split(m.body, 4)?;
            Some(attrs(attr(rest, n::ELEM_LIST_ELEMENTS)?).filter_map(|(_, e)| element(e)).collect::<Vec<_>>())
        })?;
        // While the kernel resizes a hash table its walk may meet an element twice.
        let mut elements: Vec<_> = lists.into_iter().flatten().collect();
        elements.sort_unstable();
        elements.dedup();
        Ok(elements)
    }

    /// The number of the current generation of all rules: it changes with each transaction of anyone.
    pub fn generation(&mut self) -> Result<u32, Error> {
        const GEN_ID: u16 = 1;
        let id = self.socket.get(
            n::GETGEN,
            "asking for the nftables generation",
            |w| w.raw(&[0; 4]),
            |m| {
                let (_, rest) = split(m.body, 4)?;
                be32(attr(rest, GEN_ID)?)
            },
        )?;
        Ok(id.unwrap_or(0))
    }
}

/// A table out of a dump: the body of a message.
pub fn table(body: &[u8]) -> Option<TableInfo> {
    let (fixed, rest) = split(body, 4)?;
    Some(TableInfo { family: Family::from_number(fixed[0])?, name: text(attr(rest, n::TABLE_NAME)?) })
}

/// A chain out of a dump.
pub fn chain(body: &[u8]) -> Option<ChainInfo> {
    let (fixed, rest) = split(body, 4)?;
    let hook = attr(rest, n::CHAIN_HOOK);
    Some(ChainInfo {
        family: Family::from_number(fixed[0])?,
        table: text(attr(rest, n::CHAIN_TABLE)?),
        name: text(attr(rest, n::CHAIN_NAME)?),
        kind: attr(rest, n::CHAIN_TYPE).map(text),
        hook: hook.and_then(|h| attr(h, n::HOOK_NUM)).and_then(be32),
        priority: hook.and_then(|h| attr(h, n::HOOK_PRIORITY)).and_then(be32).map(|p| p as i32),
        policy: attr(rest, n::CHAIN_POLICY).and_then(be32).map(|p| if p == 0 { Policy::Drop } else { Policy::Accept }),
    })
}

/// A rule of this table out of a dump; none for those of others.
pub fn rule(body: &[u8], table: &str) -> Option<RuleInfo> {
    let (_, rest) = split(body, 4)?;
    if attr(rest, n::RULE_TABLE).map(text).as_deref() != Some(table) {
        return None;
    }
    Some(RuleInfo {
        chain: text(attr(rest, n::RULE_CHAIN)?),
        handle: be64(attr(rest, n::RULE_HANDLE)?)?,
        exprs: attr(rest, n::RULE_EXPRESSIONS)?.to_vec(),
        comment: attr(rest, n::RULE_USERDATA).and_then(comment),
    })
}

/// One element of a dumped set: the attributes of a list entry.
pub fn element(bytes: &[u8]) -> Option<ElementInfo> {
    let data = match attr(bytes, n::ELEM_DATA) {
        None => None,
        Some(data) => match (attr(data, n::DATA_VALUE), attr(data, n::DATA_VERDICT)) {
            (Some(value), _) => Some(Data::Value(Key::from_bytes(value))),
            (_, Some(verdict)) => {
                let code = be32(attr(verdict, n::VERDICT_CODE)?)?;
                Some(Data::Verdict(Verdict::from_parts(code, attr(verdict, n::VERDICT_CHAIN).map(text))?))
            }
            _ => None,
        },
    };
    Some(ElementInfo {
        key: attr(attr(bytes, n::ELEM_KEY)?, n::DATA_VALUE)?.to_vec(),
        data,
        interval_end: attr(bytes, n::ELEM_FLAGS).and_then(be32).unwrap_or(0) & 1 != 0,
        comment: attr(bytes, n::ELEM_USERDATA).and_then(comment),
    })
}

fn comment(userdata: &[u8]) -> Option<String> {
    let (kind, len) = (*userdata.first()?, usize::from(*userdata.get(1)?));
    (kind == n::USERDATA_COMMENT).then(|| text(userdata.get(2..2 + len).unwrap_or_default()))
}
