//! A transaction: messages in order, taken by the kernel whole or not at all. Pure.

use super::numbers as n;
use super::set::write_comment;
use super::{Element, Expr, Family, Set};
use crate::netlink::message::{Writer, attr, messages, split, text};
use crate::netlink::socket::flags;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// Elements are sent as lists whose length is 16 bits; a list is closed here, below that by more than an element.
const LIST_BYTES: usize = 60_000;

/// A chain to make. With a hook it is called by packets, without one by other chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain<'a> {
    /// Up to 127 bytes, unique in its table.
    pub name: &'a str,
    /// None: other chains jump here.
    pub hook: Option<Hook>,
}

/// Where a base chain hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// "filter", "nat" or "route".
    pub kind: &'static str,
    /// `hook::*`.
    pub number: u32,
    /// Chains of one hook run from the lowest to the highest: [`super::priority`].
    pub priority: i32,
    /// What becomes of packets that no rule decided.
    pub policy: Policy,
}

/// The last word of a base chain. A drop is final; what one chain accepts another may still drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The packet is gone.
    Drop,
    /// The packet goes on to the next chain of the hook.
    Accept,
}

/// Messages of a transaction on one table.
#[derive(Debug)]
pub struct Batch {
    family: Family,
    table: String,
    writer: Writer,
    messages: u32,
    sets: u32,
}

impl Batch {
    /// An empty transaction on a table, which need not be there yet.
    pub fn new(family: Family, table: impl Into<String>) -> Self {
        let mut batch = Batch { family, table: table.into(), writer: Writer::new(), messages: 0, sets: 0 };
        batch.marker(BATCH_BEGIN);
        batch
    }

    /// How many messages there are, without begin and end.
    pub fn len(&self) -> u32 {
        self.messages
    }

    /// Whether committing it would change nothing.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Makes the table; idempotent.
    pub fn add_table(&mut self) {
        self.message(n::NEWTABLE, flags::CREATE, |w, table| w.attr_str(n::TABLE_NAME, table));
    }

    /// Removes the table and all in it. It must be there: `add_table` before makes sure.
    pub fn delete_table(&mut self) {
        self.message(n::DELTABLE, 0, |w, table| w.attr_str(n::TABLE_NAME, table));
    }

    /// Makes a chain; idempotent where it has the same hook.
    pub fn add_chain(&mut self, chain: &Chain<'_>) {
        self.message(n::NEWCHAIN, flags::CREATE, |w, table| {
            w.attr_str(n::CHAIN_TABLE, table);
            w.attr_str(n::CHAIN_NAME, chain.name);
            if let Some(hook) = &chain.hook {
                let nest = w.nest(n::CHAIN_HOOK);
                w.attr_be32(n::HOOK_NUM, hook.number);
                w.attr_be32(n::HOOK_PRIORITY, hook.priority as u32);
                w.end_nest(nest);
                w.attr_be32(n::CHAIN_POLICY, u32::from(hook.policy == Policy::Accept));
                w.attr_str(n::CHAIN_TYPE, hook.kind);
            }
        });
    }

    /// Removes a chain, which must be there, empty, and jumped to by nobody.
    pub fn delete_chain(&mut self, name: &str) {
        self.message(n::DELCHAIN, 0, |w, table| {
            w.attr_str(n::CHAIN_TABLE, table);
            w.attr_str(n::CHAIN_NAME, name);
        });
    }

    /// Removes the rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        self.message(n::DELRULE, 0, |w, table| {
            w.attr_str(n::RULE_TABLE, table);
            w.attr_str(n::RULE_CHAIN, name);
        });
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, exprs: &[Expr], comment: Option<&str>) {
        self.rule(flags::APPEND, chain, exprs, comment);
    }

    /// Puts a rule before all others of a chain.
    pub fn insert_rule(&mut self, chain: &str, exprs: &[Expr], comment: Option<&str>) {
        self.rule(0, chain, exprs, comment);
    }

    /// Removes one rule, by the number that the kernel gave it.
    pub fn delete_rule(&mut self, chain: &str, handle: u64) {
        self.message(n::DELRULE, 0, |w, table| {
            w.attr_str(n::RULE_TABLE, table);
            w.attr_str(n::RULE_CHAIN, chain);
            w.attr_be64(n::RULE_HANDLE, handle);
        });
    }

    fn rule(&mut self, place: u16, chain: &str, exprs: &[Expr], comment: Option<&str>) {
        self.message(n::NEWRULE, flags::CREATE | place, |w, table| {
            w.attr_str(n::RULE_TABLE, table);
            w.attr_str(n::RULE_CHAIN, chain);
            let list = w.nest(n::RULE_EXPRESSIONS);
            for expr in exprs {
                const NAME: u16 = 1;
                const DATA: u16 = 2;
                let elem = w.nest(n::LIST_ELEM);
                w.attr_str(NAME, expr.name());
                let data = w.nest(DATA);
                expr.write(w);
                w.end_nest(data);
                w.end_nest(elem);
            }
            w.end_nest(list);
            if let Some(comment) = comment {
                write_comment(w, n::RULE_USERDATA, comment);
            }
        });
    }

    /// Makes a set or map; idempotent where it has the same types.
    pub fn add_set(&mut self, set: &Set) {
        self.sets += 1;
        let id = self.sets;
        self.message(n::NEWSET, flags::CREATE, |w, table| {
            w.attr_str(n::SET_TABLE, table);
            set.write(w, id);
        });
    }

    /// Adds elements; content with those that are there with the same data.
    pub fn add_elements<'e>(&mut self, set: &str, elements: impl IntoIterator<Item = Element<'e>>) {
        self.elements(n::NEWSETELEM, flags::CREATE, set, elements, |element, write| write(&element));
    }

    /// The same with elements that are made as they are written, so that many don't wait in memory for the last.
    pub fn add_each<T>(
        &mut self,
        set: &str,
        items: impl IntoIterator<Item = T>,
        make: impl FnMut(T, &mut dyn FnMut(&Element<'_>)),
    ) {
        self.elements(n::NEWSETELEM, flags::CREATE, set, items, make);
    }

    /// Makes room for this many more elements, of a usual length.
    pub fn reserve(&mut self, elements: usize) {
        const USUAL: usize = 112;
        self.writer.reserve(elements.saturating_mul(USUAL));
    }

    /// Removes elements; only their keys count. All must be there.
    pub fn delete_elements<'e>(&mut self, set: &str, elements: impl IntoIterator<Item = Element<'e>>) {
        self.elements(n::DELSETELEM, 0, set, elements, |element, write| write(&element));
    }

    /// Removes all elements of a set.
    pub fn flush_set(&mut self, set: &str) {
        self.message(n::DELSETELEM, 0, |w, table| {
            w.attr_str(n::ELEM_LIST_TABLE, table);
            w.attr_str(n::ELEM_LIST_SET, set);
        });
    }

    /// Makes a named counter; idempotent.
    pub fn add_counter(&mut self, name: &str) {
        const COUNTER: u32 = 1;
        self.message(n::NEWOBJ, flags::CREATE, |w, table| {
            w.attr_str(n::OBJ_TABLE, table);
            w.attr_str(n::OBJ_NAME, name);
            w.attr_be32(n::OBJ_TYPE, COUNTER);
            let data = w.nest(n::OBJ_DATA);
            w.end_nest(data);
        });
    }

    fn elements<T>(
        &mut self,
        kind: u16,
        extra: u16,
        set: &str,
        items: impl IntoIterator<Item = T>,
        mut make: impl FnMut(T, &mut dyn FnMut(&Element<'_>)),
    ) {
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            self.message(kind, extra, |w, table| {
                w.attr_str(n::ELEM_LIST_TABLE, table);
                w.attr_str(n::ELEM_LIST_SET, set);
                let list = w.nest(n::ELEM_LIST_ELEMENTS);
                while w.nest_len(list) < LIST_BYTES
                    && let Some(item) = items.next()
                {
                    make(item, &mut |element| element.write(w, kind == n::NEWSETELEM));
                }
                w.end_nest(list);
            });
        }
    }

    fn message(&mut self, kind: u16, extra: u16, fill: impl FnOnce(&mut Writer, &str)) {
        self.messages += 1;
        let m = self.writer.begin(kind, flags::REQUEST | extra, self.messages);
        self.writer.raw(&[self.family as u8, 0, 0, 0]);
        fill(&mut self.writer, &self.table);
        self.writer.end(m);
    }

    fn marker(&mut self, kind: u16) {
        const SUBSYSTEM: u8 = 10;
        let m = self.writer.begin(kind, flags::REQUEST, 0);
        self.writer.raw(&[0, 0, 0, SUBSYSTEM]);
        self.writer.end(m);
    }

    /// The datagram to send. Messages are numbered from 1 on.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.marker(BATCH_END);
        self.writer.into_bytes()
    }
}

/// What the message with this number asks for, in words.
pub(super) fn describe(datagram: &[u8], seq: u32) -> String {
    let Some(message) = messages(datagram).find(|m| m.seq == seq && m.kind >= n::SUBSYSTEM) else {
        return "changing nftables rules".to_owned();
    };
    let Some((family, rest)) = split(message.body, 4) else { return "changing nftables rules".to_owned() };
    let family = Family::from_number(family[0]).map_or("?", Family::name);
    let table = attr(rest, 1).map(text).unwrap_or_default();
    let second = attr(rest, 2).map(text).unwrap_or_default();
    let third = attr(rest, n::CHAIN_NAME).map(text).unwrap_or_default();
    let place = format!("nftables table {family} {table}");
    match message.kind {
        n::NEWTABLE => format!("adding {place}"),
        n::DELTABLE => format!("removing {place}"),
        n::NEWCHAIN => format!("adding chain {third} to {place}"),
        n::DELCHAIN => format!("removing chain {third} from {place}"),
        n::NEWRULE => format!("adding a rule to chain {second} of {place}"),
        n::DELRULE => format!("removing rules from chain {second} of {place}"),
        n::NEWSET => format!("adding set {second} to {place}"),
        n::DELSET => format!("removing set {second} from {place}"),
        n::NEWSETELEM => format!("adding elements to set {second} of {place}"),
        n::DELSETELEM => format!("removing elements from set {second} of {place}"),
        _ => format!("changing {place}"),
    }
}
