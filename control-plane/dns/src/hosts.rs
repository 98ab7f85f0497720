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
        let names = self.addresses.entry(addr).or_default();
        let addrs = self.names.entry(name.clone()).or_default();
        // A pair is in both lists or in none. Lists of advertisers have one address for all their names, so that the longer
        // list would be gone through for each of them.
        let known = if addrs.len() <= names.len() { addrs.contains(&addr) } else { names.contains(&name) };
        if !known {
            addrs.push(addr);
            names.push(name);
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
        // What stands for many names is the name of none.
        let one = |name: &&Name| !name.as_bytes().starts_with(b"\x01*");
        let names: Vec<&Name> = both.iter().filter_map(|e| e.addresses.get(&addr)).flatten().filter(one).collect();
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::corefile::{Facts, Files, parse};

    fn ask(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![7, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(Name::parse(name).unwrap().as_bytes());
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        bytes
    }

    fn settings() -> Hosts {
        let own = [("Corefile".to_owned(), ". {\n hosts {\n  192.0.2.1 a.b *.wild\n }\n}\n".to_owned())].into();
        let facts = Facts { port: 53, domain: Name::parse("cluster.local").unwrap() };
        parse(&Files { own, ..Files::default() }, &facts).unwrap().servers.remove(0).hosts.unwrap()
    }

    fn told(settings: &Hosts, file: &Entries, name: &str, kind: u16) -> (usize, u16) {
        let message = ask(name, kind);
        let (question, mut out) = (Question::parse(&message).unwrap(), Vec::new());
        let found = answer(settings, file, &[Name::root()], &message, &question, false, &mut out);
        assert_eq!(found, Found::Answered);
        assert!(wire::records(&out).is_some(), "it is whole");
        (out.len(), wire::u16_at(&out, 6).unwrap())
    }

    /// As lists of advertisers have it: more than a message counts, and each name is another one.
    #[test]
    fn a_hundred_thousand_names_of_one_address_are_read_at_once_and_cut_when_asked_for() {
        let began = Instant::now();
        let text: String = (0..100_000).map(|n| format!("0.0.0.0 a{n}.example\n")).collect();
        let names = Entries::read(&text);
        let addresses: String =
            (0..100_000u32).map(|n| format!("{} one *.many\n", std::net::Ipv4Addr::from(n))).collect();
        let addresses = Entries::read(&addresses);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        let settings = settings();
        let (bytes, records) = told(&settings, &names, "0.0.0.0.in-addr.arpa", kind::PTR);
        assert!(bytes <= 65_535 && records > 1000, "{records} in {bytes}");
        for name in ["one", "x.many"] {
            let (bytes, records) = told(&settings, &addresses, name, kind::A);
            assert!(bytes <= 65_535 && records > 4000, "{records} in {bytes}");
        }
    }

    #[test]
    fn a_pair_is_there_once_and_what_stands_for_many_is_the_name_of_none() {
        let file = Entries::read("192.0.2.1 a.b *.wild\n192.0.2.1 A.B c.d\n");
        assert_eq!(told(&settings(), &file, "a.b", kind::A).1, 2, "the file's and the configuration's");
        assert_eq!(told(&settings(), &file, "1.2.0.192.in-addr.arpa", kind::PTR).1, 3);
        assert_eq!(told(&settings(), &file, "x.wild", kind::A).1, 2);
    }
}
