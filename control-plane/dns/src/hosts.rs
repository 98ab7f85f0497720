//! Names and addresses of hosts files, and answers from them. Pure.

use std::net::IpAddr;

use rustc_hash::FxHashMap;

use crate::answer::Reply;
use crate::corefile::Hosts;
use crate::corefile::values::is_below;
use crate::wire::{self, Name, Question, TO_QUESTION, code, kind};

/// The most that a file may name, with what is inline: lists of advertisers have 200,000.
const MOST_ENTRIES: usize = 500_000;

/// What hosts files say.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    names: FxHashMap<Name, Vec<IpAddr>>,
    addresses: FxHashMap<IpAddr, Vec<Name>>,
    count: usize,
}

impl Entries {
    /// Reads a file; what can't be read of it is passed over, as anybody's resolver does.
    pub fn read(text: &str) -> Entries {
        let mut entries = Entries::default();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(addr) = words.next().and_then(|w| w.split('%').next()?.parse().ok()) else { continue };
            for name in words.filter_map(Name::parse) {
                if entries.add(addr, name.to_lowercase()).is_err() {
                    return entries;
                }
            }
        }
        entries
    }

    /// Another name of an address, in small letters.
    pub fn add(&mut self, addr: IpAddr, name: Name) -> Result<(), &'static str> {
        if self.count == MOST_ENTRIES {
            return Err("more than 500000 names of hosts");
        }
        self.count += 1;
        // What stands for many names is the name of none.
        if !name.as_bytes().starts_with(b"\x01*") {
            let names = self.addresses.entry(addr).or_default();
            if !names.contains(&name) {
                names.push(name.clone());
            }
        }
        let addrs = self.names.entry(name).or_default();
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// The addresses of one family of a name; `*` stands for one label at its beginning.
    fn of_family(&self, name: &[u8], v6: bool, out: &mut Vec<IpAddr>) {
        let take = |name: &[u8]| -> Vec<IpAddr> {
            self.names.get(name).into_iter().flatten().filter(|a| a.is_ipv6() == v6).copied().collect()
        };
        let mut found = take(name);
        if found.is_empty()
            && let Some(parent) = name.first().filter(|len| **len > 0).and_then(|len| name.get(usize::from(*len) + 1..))
        {
            found = take(&[&b"\x01*"[..], parent].concat());
        }
        out.extend(found);
    }
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The answer is written.
    Answered,
    /// The next plugin is to be asked.
    Next,
}

/// Answers from the lines in the configuration and those of the file. `zones` are those of the block.
pub fn answer(
    hosts: &Hosts,
    file: &Entries,
    zones: &[Name],
    message: &[u8],
    question: &Question,
    udp: bool,
    out: &mut Vec<u8>,
) -> Found {
    let zones = if hosts.zones.is_empty() { zones } else { &hosts.zones };
    let ours = zones.iter().any(|zone| is_below(question.name(), zone.as_bytes()));
    if !ours && question.kind != kind::PTR {
        return Found::Next;
    }
    let both = [file, &hosts.inline];
    if question.kind == kind::PTR {
        let Some(Some(addr)) = wire::reverse_address(question).filter(|_| hosts.reverse) else { return Found::Next };
        let names: Vec<&Name> = both.iter().filter_map(|e| e.addresses.get(&addr)).flatten().collect();
        if names.is_empty() {
            return Found::Next;
        }
        let mut reply = Reply::new(out, message, question, true, udp);
        names.iter().for_each(|name| reply.record(&TO_QUESTION, kind::PTR, hosts.ttl, name.as_bytes()));
        reply.finish(code::NOERROR);
        return Found::Answered;
    }
    let addresses = |v6: bool| {
        let mut found = Vec::new();
        both.iter().for_each(|e| e.of_family(question.name(), v6, &mut found));
        found
    };
    let found = match question.kind {
        kind::A => addresses(false),
        kind::AAAA => addresses(true),
        _ if hosts.fall_unsupported && hosts.fall.through(question.name()) => return Found::Next,
        _ => Vec::new(),
    };
    let there = !found.is_empty() || !addresses(false).is_empty() || !addresses(true).is_empty();
    if !there && hosts.fall.through(question.name()) {
        return Found::Next;
    }
    let mut reply = Reply::new(out, message, question, true, udp);
    found.iter().for_each(|addr| reply.address(hosts.ttl, *addr));
    // Without a start of authority nothing can be said not to be there; upstream's server fails, too.
    reply.finish(if there { code::NOERROR } else { code::SERVFAIL });
    Found::Answered
}
