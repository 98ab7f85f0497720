//! Remembers answers of upstreams for as long as they say, and not more than fits. Pure: time is an argument.
//!
//! Two generations: new entries go into the young one; when that is full, it becomes the old one and the former old
//! one is dropped. What is asked for moves to the young one again. So rarely used entries go, without any list.
//!
//! What `cache` says in a configuration is held here as [`Settings`]; without one they are [`Settings::plain`].

use std::collections::HashMap;
use std::time::Duration;

use crate::answer::Reply;
use crate::corefile::values::is_below;
use crate::wire::{self, HEADER, Name, Question, Section, code, flag, kind};

/// What all caches of a configuration may hold, in bytes of messages and keys; twice half of it.
pub const MOST_BYTES: usize = 16 << 20;
/// Without a configuration no answer is kept longer, whatever it says: upstream's default for cluster DNS.
const LONGEST: u32 = 30;
/// How long a failure is kept, so that a broken upstream is not asked by everyone at once.
const FAILURE: u32 = 5;
/// What an entry costs besides its message.
const OVERHEAD: usize = 160;
/// A refresh that is on its way is not asked for again.
const REFRESHING: Duration = Duration::from_millis(250);

/// How long answers are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Empty: all of the block.
    pub zones: Vec<Name>,
    pub success: Kept,
    pub denial: Kept,
    /// Seconds that failures are kept.
    pub servfail: u32,
    pub prefetch: Option<Prefetch>,
    pub stale: Option<Stale>,
    /// Answers say the times that they came with.
    pub keep_ttl: bool,
}

/// How long answers of one kind are kept, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub capacity: usize,
    /// Seconds.
    pub most: u32,
    pub least: u32,
    /// Zones whose answers are not kept.
    pub without: Vec<Name>,
}

/// Which answers are asked for anew before they expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// Questions that make a name popular, none of them longer than `gap` after the one before.
    pub amount: u32,
    pub gap: Duration,
    /// Of its time to live, what is left when it is asked for.
    pub percent: u32,
}

/// Which answers are given after they have expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    pub up_to: Duration,
    /// Upstreams are asked first, and waited for as long as this; without a time, for as long as they take.
    pub verify: Option<Option<Duration>>,
    /// Seconds that such an answer says.
    pub ttl: u32,
    /// How long after a refresh the next one is tried.
    pub recheck: Duration,
}

impl Settings {
    /// What cluster DNS does without a configuration.
    pub fn plain() -> Self {
        let kept = Kept { capacity: usize::MAX / 2, most: LONGEST, least: 0, without: Vec::new() };
        Settings {
            zones: Vec::new(),
            success: kept.clone(),
            denial: kept,
            servfail: FAILURE,
            prefetch: None,
            stale: None,
            keep_ttl: false,
        }
    }

    /// Seconds that an answer may be kept, and whether it is a success; none: not at all.
    fn lifetime(&self, question: &Question, response: &[u8]) -> Option<(u32, bool)> {
        let (found, code, success) = lifetime(response)?;
        let below = |zones: &[Name]| zones.iter().any(|zone| is_below(question.name(), zone.as_bytes()));
        if !self.zones.is_empty() && !below(&self.zones) {
            return None;
        }
        if code == code::SERVFAIL {
            return Some((self.servfail, false)).filter(|(ttl, _)| *ttl > 0);
        }
        let kept = if success { &self.success } else { &self.denial };
        let ttl = found.max(kept.least).min(kept.most);
        (ttl > 0 && !below(&kept.without)).then_some((ttl, success))
    }
}

/// What the cache knows of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    Miss,
    /// The answer is written.
    Fresh,
    /// The answer is written, and upstreams are to be asked anew beside it.
    Refresh,
    /// An answer that has expired is written: it is good if upstreams have no better one in this time.
    Verify(Option<Duration>),
}

/// Answers by name, type and what the client wanted of DNSSEC.
#[derive(Debug)]
pub struct Cache {
    settings: Settings,
    most_bytes: usize,
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
    success: bool,
    /// Questions one soon after the other, and when the last was.
    asked: u32,
    last: Duration,
    /// No refresh before.
    refresh: Duration,
}

impl Default for Cache {
    fn default() -> Self {
        Cache::new(Settings::plain(), MOST_BYTES)
    }
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
    pub fn new(settings: Settings, most_bytes: usize) -> Self {
        let (young, old) = Default::default();
        Cache { settings, most_bytes, young, old, young_bytes: 0 }
    }

    /// Writes the answer when it is known.
    pub fn answer(&mut self, message: &[u8], question: &Question, udp: bool, now: Duration, out: &mut Vec<u8>) -> Hit {
        let (key, len) = key(question);
        let key = &key[..len];
        let kept = self.settings.stale.map_or(Duration::ZERO, |stale| stale.up_to);
        if !self.young.contains_key(key) {
            let moved = self.old.remove_entry(key).filter(|(_, e)| e.expires + kept > now);
            let Some((key, entry)) = moved else { return Hit::Miss };
            self.put(key, entry);
        }
        let Some(entry) = self.young.get_mut(key).filter(|e| e.expires + kept > now) else { return Hit::Miss };
        let stale = self.settings.stale.filter(|_| entry.expires <= now);
        let age = match self.settings.keep_ttl {
            true => 0,
            false => now.saturating_sub(entry.stored).as_secs() as u32,
        };
        compose(&entry.message, &entry.ttls, age, message, question, udp, out);
        match stale {
            None => prefetch(self.settings.prefetch, entry, now),
            Some(stale) => {
                set_ttls(out, &entry.ttls, |_| stale.ttl);
                if now < entry.refresh {
                    return Hit::Fresh;
                }
                entry.refresh = now + stale.recheck.max(REFRESHING);
                stale.verify.map_or(Hit::Refresh, Hit::Verify)
            }
        }
    }

    /// Takes an answer of an upstream, when it may be kept: without OPT, as it is to be passed on.
    pub fn insert(&mut self, question: &Question, message: &mut [u8], ttls: &[u16], now: Duration) {
        let Some((ttl, success)) = self.settings.lifetime(question, message) else { return };
        let (key, len) = key(question);
        let key = &key[..len];
        let kept = self.settings.stale.map_or(Duration::ZERO, |stale| stale.up_to);
        let good = |e: &Entry| e.success && e.expires + kept > now;
        // A failure takes no answer's place that could still be given.
        if message[3] & 0xf == code::SERVFAIL && self.young.get(key).or_else(|| self.old.get(key)).is_some_and(good) {
            return;
        }
        let least = if success { self.settings.success.least } else { 0 };
        set_ttls(message, ttls, |found| found.max(least).min(ttl));
        let expires = now + Duration::from_secs(ttl.into());
        let before = self.young.get(key).map_or((0, now), |e| (e.asked, e.last));
        let entry = Entry {
            message: (&*message).into(),
            ttls: ttls.into(),
            stored: now,
            expires,
            success,
            asked: before.0,
            last: before.1,
            refresh: Duration::ZERO,
        };
        self.put(key.into(), entry);
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
        let capacity = self.settings.success.capacity.saturating_add(self.settings.denial.capacity);
        if self.young_bytes > self.most_bytes / 2 || self.young.len() > capacity / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

/// Whether a popular answer is near its end.
fn prefetch(settings: Option<Prefetch>, entry: &mut Entry, now: Duration) -> Hit {
    let Some(prefetch) = settings else { return Hit::Fresh };
    let soon = now.saturating_sub(entry.last) <= prefetch.gap;
    entry.asked = if soon { entry.asked.saturating_add(1) } else { 1 };
    entry.last = now;
    let left = entry.expires.saturating_sub(now);
    let due = (entry.expires.saturating_sub(entry.stored) * prefetch.percent / 100).max(Duration::from_secs(1));
    if entry.asked < prefetch.amount || left > due || now < entry.refresh {
        return Hit::Fresh;
    }
    entry.refresh = now + REFRESHING;
    Hit::Refresh
}

/// Changes the times to live of a message, given where they are.
fn set_ttls(message: &mut [u8], ttls: &[u16], to: impl Fn(u32) -> u32) {
    for at in ttls {
        let at = usize::from(*at);
        if let Some(Ok(bytes)) = message.get(at..at + 4).map(<[u8; 4]>::try_from) {
            message[at..at + 4].copy_from_slice(&to(u32::from_be_bytes(bytes)).to_be_bytes());
        }
    }
}

/// Seconds that an answer says it is good for, its code, and whether it answers; none: it is not to be kept.
fn lifetime(response: &[u8]) -> Option<(u32, u8, bool)> {
    if response.len() < HEADER || response[2] & flag::TC != 0 {
        return None;
    }
    let records = wire::records(response)?;
    let code = response[3] & 0xf;
    match code {
        code::SERVFAIL => Some((0, code, false)),
        code::NOERROR | code::NXDOMAIN => {
            let soa = records.iter().find(|(s, r)| *s == Section::Authority && r.kind == kind::SOA);
            let negative = soa.and_then(|(_, r)| {
                let minimum = response.get(r.data.1.checked_sub(4)?..r.data.1)?;
                Some(r.ttl.min(u32::from_be_bytes(minimum.try_into().ok()?)))
            });
            let positive = records.iter().filter(|(s, _)| *s == Section::Answer).map(|(_, r)| r.ttl).min();
            let success = code == code::NOERROR && positive.is_some();
            Some((positive.into_iter().chain(negative).min()?, code, success))
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
mod tests;
