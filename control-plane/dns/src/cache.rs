//! Remembers answers of upstreams for as long as they say, and not more than fits. Pure: time is an argument.
//!
//! Two generations: new entries go into the young one; when that is full, it becomes the old one and the former old
//! one is dropped. What is asked for moves to the young one again. So rarely used entries go, without any list.

use std::collections::HashMap;
use std::time::Duration;

use crate::answer::Reply;
use crate::wire::{self, HEADER, Question, Section, code, flag, kind};

/// What the cache may hold, in bytes of messages and keys; twice half of it.
const MOST_BYTES: usize = 16 << 20;
/// No answer is kept longer, whatever it says: upstream's default for cluster DNS.
const LONGEST: u32 = 30;
/// How long a failure is kept, so that a broken upstream is not asked by everyone at once.
const FAILURE: u32 = 5;
/// What an entry costs besides its message.
const OVERHEAD: usize = 160;

/// Answers by name, type and what the client wanted of DNSSEC.
#[derive(Debug, Default)]
pub struct Cache {
    young: HashMap<Box<[u8]>, Entry>,
    old: HashMap<Box<[u8]>, Entry>,
    young_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    message: Box<[u8]>,
    /// Where times to live are in the message.
    ttls: Box<[u16]>,
    stored: Duration,
    expires: Duration,
}

/// Name, type, DNSSEC flags.
pub type CacheKey = [u8; 258];

/// The key of a question and how much of it counts.
pub fn key(question: &Question) -> (CacheKey, usize) {
    let mut key = [0; 258];
    let name = question.name();
    key[..name.len()].copy_from_slice(name);
    key[name.len()..name.len() + 2].copy_from_slice(&question.kind.to_be_bytes());
    let secure = u8::from(question.edns.is_some_and(|e| e.secure));
    key[name.len() + 2] = secure | question.flags.1 & flag::CD;
    (key, name.len() + 3)
}

impl Cache {
    pub fn new() -> Self {
        Cache::default()
    }

    /// Writes the answer when it is known; false when not.
    pub fn answer(&mut self, message: &[u8], question: &Question, udp: bool, now: Duration, out: &mut Vec<u8>) -> bool {
        let (key, len) = key(question);
        let key = &key[..len];
        if !self.young.contains_key(key) {
            let Some((key, entry)) = self.old.remove_entry(key).filter(|(_, e)| e.expires > now) else { return false };
            self.put(key, entry);
        }
        let Some(entry) = self.young.get(key).filter(|e| e.expires > now) else { return false };
        let age = now.saturating_sub(entry.stored).as_secs() as u32;
        compose(&entry.message, &entry.ttls, age, message, question, udp, out);
        true
    }

    /// Takes an answer of an upstream, when it may be kept.
    pub fn insert(&mut self, question: &Question, response: &[u8], now: Duration) {
        let Some(ttl) = lifetime(response).filter(|ttl| *ttl > 0) else { return };
        let Some((message, ttls)) = without_opt(response) else { return };
        let (key, len) = key(question);
        let expires = now + Duration::from_secs(ttl.into());
        let entry = Entry { message: message.into(), ttls: ttls.into(), stored: now, expires };
        self.put(key[..len].into(), entry);
    }

    /// How many answers are held.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn put(&mut self, key: Box<[u8]>, entry: Entry) {
        self.young_bytes += entry.message.len() + key.len() + OVERHEAD;
        if let Some(replaced) = self.young.insert(key, entry) {
            self.young_bytes = self.young_bytes.saturating_sub(replaced.message.len() + OVERHEAD);
        }
        if self.young_bytes > MOST_BYTES / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

/// Seconds that an answer may be kept; none: not at all.
fn lifetime(response: &[u8]) -> Option<u32> {
    if response.len() < HEADER || response[2] & flag::TC != 0 {
        return None;
    }
    let records = wire::records(response)?;
    let answers = records.iter().filter(|(s, _)| *s == Section::Answer);
    match response[3] & 0xf {
        code::SERVFAIL => Some(FAILURE),
        code::NOERROR | code::NXDOMAIN => {
            let soa = records.iter().find(|(s, r)| *s == Section::Authority && r.kind == kind::SOA);
            let negative = soa.and_then(|(_, r)| {
                let minimum = response.get(r.data.1.checked_sub(4)?..r.data.1)?;
                Some(r.ttl.min(u32::from_be_bytes(minimum.try_into().ok()?)))
            });
            let positive = answers.map(|(_, r)| r.ttl).min();
            positive.into_iter().chain(negative).min().map(|ttl| ttl.min(LONGEST))
        }
        _ => None,
    }
}

/// The message without its OPT record, which is between each two who speak, and where its times to live are.
pub fn without_opt(response: &[u8]) -> Option<(Vec<u8>, Vec<u16>)> {
    let records = wire::records(response)?;
    let mut message = response.to_vec();
    let mut ttls = Vec::new();
    let mut additional = 0u16;
    let mut cut = None;
    for (section, record) in &records {
        if record.kind == kind::OPT {
            // It is last, or what follows it would move; such a message loses what follows.
            cut.get_or_insert(record.owner);
        } else if cut.is_none() {
            ttls.push(u16::try_from(record.ttl_at).ok()?);
            additional += u16::from(*section == Section::Additional);
        }
    }
    if let Some(cut) = cut {
        message.truncate(cut);
    }
    message[10..12].copy_from_slice(&additional.to_be_bytes());
    Some((message, ttls))
}

/// Writes an upstream's answer as the answer to a client's question of the same name and type.
pub fn compose(
    response: &[u8],
    ttls: &[u16],
    age: u32,
    message: &[u8],
    question: &Question,
    udp: bool,
    out: &mut Vec<u8>,
) {
    const OPT_BYTES: usize = 11;
    let limit = if udp { question.udp_limit() } else { usize::from(u16::MAX) };
    let opt = if question.edns.is_some() { OPT_BYTES } else { 0 };
    let code = response[3] & 0xf;
    if response.len() + opt > limit || response.len() < question.end {
        let reply = Reply::new(out, message, question, false, udp);
        reply.finish(code);
        out[2] |= flag::TC;
        return;
    }
    out.clear();
    out.extend_from_slice(response);
    out[..2].copy_from_slice(&message[..2]);
    out[2] = flag::QR | question.flags.0 & flag::RD | response[2] & flag::AA & if age == 0 { 0xff } else { 0 };
    out[3] = flag::RA | response[3] & 0x20 | question.flags.1 & flag::CD | code;
    // The client's own spelling of the name.
    out[HEADER..question.end].copy_from_slice(&message[HEADER..question.end]);
    for at in ttls {
        let at = usize::from(*at);
        if let Some(ttl) = out.get(at..at + 4).and_then(|b| Some(u32::from_be_bytes(b.try_into().ok()?))) {
            out[at..at + 4].copy_from_slice(&ttl.saturating_sub(age).to_be_bytes());
        }
    }
    if let Some(edns) = question.edns {
        let size = wire::MOST_UDP.to_be_bytes();
        let secure = if edns.secure { 0x80 } else { 0 };
        out.extend_from_slice(&[0, 0, kind::OPT as u8, size[0], size[1], 0, 0, secure, 0, 0, 0]);
        let additional = wire::u16_at(out, 10).unwrap_or(0) + 1;
        out[10..12].copy_from_slice(&additional.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Name, TO_QUESTION};

    fn question(name: &str) -> Vec<u8> {
        let mut bytes = vec![7, 7, flag::RD, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(Name::parse(name).unwrap().as_bytes());
        bytes.extend_from_slice(&[0, 1, 0, 1]);
        bytes
    }

    fn response(name: &str, ttl: u32) -> Vec<u8> {
        let mut bytes = question(name);
        bytes[2] |= flag::QR;
        bytes[7] = 1;
        bytes[11] = 1;
        wire::push_address(&mut bytes, &TO_QUESTION, ttl, "192.0.2.1".parse().unwrap());
        bytes.extend_from_slice(&[0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    fn ttl_of(answer: &[u8]) -> u32 {
        wire::records(answer).unwrap()[0].1.ttl
    }

    #[test]
    fn answers_age_and_go() {
        let (asked, at) = (question("Example.org"), Duration::from_secs);
        let q = Question::parse(&asked).unwrap();
        let mut cache = Cache::new();
        cache.insert(&q, &response("example.org", 20), at(100));
        let mut out = Vec::new();
        assert!(cache.answer(&asked, &q, true, at(105), &mut out));
        assert_eq!((ttl_of(&out), out.len()), (15, response("x.x", 0).len() + 8 - 11), "OPT is not passed on");
        assert_eq!(out[HEADER..q.end], asked[HEADER..q.end], "the client's spelling");
        assert!(!cache.answer(&asked, &q, true, at(120), &mut out));
        cache.insert(&q, &response("example.org", 86_400), at(200));
        assert!(cache.answer(&asked, &q, true, at(229), &mut out));
        assert!(!cache.answer(&asked, &q, true, at(230), &mut out), "nothing is kept longer than half a minute");
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let mut cache = Cache::new();
        let now = Duration::from_secs(1);
        let used = question("used.example");
        let mut out = Vec::new();
        cache.insert(&Question::parse(&used).unwrap(), &response("used.example", 30), now);
        for i in 0..90_000 {
            let name = format!("n{i}.example");
            cache.insert(&Question::parse(&question(&name)).unwrap(), &response(&name, 30), now);
            if i % 1000 == 0 {
                assert!(cache.answer(&used, &Question::parse(&used).unwrap(), true, now, &mut out), "{i}");
            }
        }
        assert!(cache.len() * OVERHEAD < MOST_BYTES);
    }
}
