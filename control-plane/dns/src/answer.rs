//! Answers questions about the cluster from the table. Pure, and quick: the way of nearly every question.

use std::net::IpAddr;

use crate::records::RecordSet;
use crate::table::Table;
use crate::wire::{self, HEADER, MOST_UDP, Name, Question, TO_QUESTION, Unanswerable, code, flag, kind};

/// Aliases that lead to aliases are followed this far.
const MOST_ALIASES: usize = 8;
/// OPT with an empty name, our size, and no options.
const OPT_BYTES: usize = 11;

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is written; an empty one is not to be sent.
    Done,
    /// It is not about the cluster.
    Elsewhere,
    /// The name is another name for one outside the cluster: its own records come first, then those of that name.
    Alias { records: Vec<u8>, count: u16, target: Name },
}

/// Answers one question after another; keeps what makes answers take turns.
#[derive(Clone, Debug, Default)]
pub struct Responder {
    turn: usize,
}

impl Responder {
    pub fn new() -> Self {
        Responder::default()
    }

    /// Reads a message and writes the answer to it. With `Elsewhere` and `Alias` the question comes back.
    pub fn respond(
        &mut self,
        table: &Table,
        message: &[u8],
        udp: bool,
        out: &mut Vec<u8>,
    ) -> (Outcome, Option<Question>) {
        let Some(question) = read(message, udp, out) else { return (Outcome::Done, None) };
        if refused(&question) {
            fail(message, &question, udp, code::REFUSED, out);
            return (Outcome::Done, None);
        }
        let outcome = match question.labels_before(table.zone().as_bytes(), table.zone_labels()) {
            Some(before) => self.cluster(table, message, &question, before, (udp, false), out),
            None => reverse(table, message, &question, udp, out),
        };
        (outcome, Some(question))
    }

    /// A question in the cluster's zone, with so many labels before that. `falls`: what is not there is `Elsewhere`.
    pub fn cluster(
        &mut self,
        table: &Table,
        message: &[u8],
        question: &Question,
        before: usize,
        (udp, falls): (bool, bool),
        out: &mut Vec<u8>,
    ) -> Outcome {
        let mut reply = Reply::new(out, message, question, true, udp);
        if !table.is_synced() {
            reply.finish(code::SERVFAIL);
            return Outcome::Done;
        }
        match table.get(question.name()) {
            Some(node) => {
                if before == 0 && question.kind == kind::SOA {
                    reply.soa(table, true);
                    reply.finish(code::NOERROR);
                    return Outcome::Done;
                }
                if let Some(set) = node.get(question.kind) {
                    self.turn = self.turn.wrapping_add(1);
                    reply.set(set, self.turn);
                    reply.finish(code::NOERROR);
                    return Outcome::Done;
                }
                if let Some(alias) = node.get(kind::CNAME) {
                    return follow(table, question, alias, reply);
                }
                if question.kind == kind::ANY {
                    node.sets().for_each(|set| reply.set(set, 0));
                }
                if reply.answers == 0 {
                    reply.soa(table, false);
                }
                reply.finish(code::NOERROR);
            }
            None => return implied(table, question, before, falls, reply),
        }
        Outcome::Done
    }
}

/// The question of a message; none when there is nothing to look for, and the answer, if there is one, is written.
pub fn read(message: &[u8], udp: bool, out: &mut Vec<u8>) -> Option<Question> {
    let question = match Question::parse(message) {
        Ok(question) => question,
        Err(Unanswerable(code)) => {
            if let Some(code) = code {
                refuse_malformed(message, code, out);
            }
            return None;
        }
    };
    if question.edns.is_some_and(|e| e.version != 0) {
        Reply::new(out, message, &question, false, udp).finish_bad_version();
        return None;
    }
    Some(question)
}

/// Whether a question is of a kind that this server has no answers to.
pub fn refused(question: &Question) -> bool {
    question.class != kind::IN || matches!(question.kind, kind::AXFR | kind::IXFR | kind::OPT)
}

/// Names that are there without being in the table: pods by their address, namespaces.
fn implied(table: &Table, question: &Question, before: usize, falls: bool, mut reply: Reply<'_>) -> Outcome {
    let parent = question.label(before.saturating_sub(1));
    let there = match (before, parent) {
        (2, Some(b"svc" | b"pod")) => question.label(0).is_some_and(|n| table.has_namespace(n)),
        (3, Some(b"pod")) => {
            let addr = question.label(0).and_then(pod_address);
            let Some(there) = addr.zip(question.label(1)).map_or(Some(false), |(a, n)| table.has_pod(a, n)) else {
                reply.finish(code::SERVFAIL);
                return Outcome::Done;
            };
            let wanted = |a: &IpAddr| question.kind == if a.is_ipv6() { kind::AAAA } else { kind::A };
            if let Some(addr) = addr.filter(|a| there && wanted(a)) {
                reply.address(table.ttl(), addr);
                reply.finish(code::NOERROR);
                return Outcome::Done;
            }
            there
        }
        _ => false,
    };
    if falls && !there {
        return Outcome::Elsewhere;
    }
    reply.soa(table, false);
    reply.finish(if there { code::NOERROR } else { code::NXDOMAIN });
    Outcome::Done
}

/// `10-42-0-5` or `fd42--5`: the address with dashes.
fn pod_address(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label).ok()?;
    let v4 = text.matches('-').count() == 3 && !text.contains("--");
    text.replace('-', if v4 { "." } else { ":" }).parse().ok()
}

/// Names of addresses: ours when a Service has the address.
pub fn reverse(table: &Table, message: &[u8], question: &Question, udp: bool, out: &mut Vec<u8>) -> Outcome {
    let Some(Some(addr)) = wire::reverse_address(question) else { return Outcome::Elsewhere };
    let mut names = table.names_of(addr).peekable();
    if names.peek().is_none() {
        return Outcome::Elsewhere;
    }
    let mut reply = Reply::new(out, message, question, true, udp);
    if matches!(question.kind, kind::PTR | kind::ANY) {
        names.for_each(|name| reply.record(&TO_QUESTION, kind::PTR, table.ttl(), name.as_bytes()));
    }
    reply.finish(code::NOERROR);
    Outcome::Done
}

/// An alias, followed as far as the cluster's own names go. A circle is a failure.
fn follow(table: &Table, question: &Question, alias: &RecordSet, mut reply: Reply<'_>) -> Outcome {
    let mut owner: Vec<u8> = TO_QUESTION.to_vec();
    let mut set = alias;
    let mut end = code::SERVFAIL;
    for _ in 0..MOST_ALIASES {
        let Some(target) = alias_target(set) else { break };
        reply.record(&owner, kind::CNAME, table.ttl(), target.as_bytes());
        let lower = target.to_lowercase();
        if !is_below(lower.as_bytes(), table.zone().as_bytes()) {
            return reply.into_alias(target);
        }
        owner = target.as_bytes().to_vec();
        let node = table.get(lower.as_bytes());
        match (node.and_then(|n| n.get(question.kind)), node.and_then(|n| n.get(kind::CNAME))) {
            (Some(found), _) => {
                reply.renamed(found, &owner);
                end = code::NOERROR;
                break;
            }
            (None, Some(next)) => set = next,
            (None, None) => {
                end = if node.is_some() { code::NOERROR } else { code::NXDOMAIN };
                break;
            }
        }
    }
    reply.finish(end);
    Outcome::Done
}

/// What a prebuilt CNAME record points to.
fn alias_target(set: &RecordSet) -> Option<Name> {
    const BEFORE_DATA: usize = 12;
    wire::read_name(&set.bytes, BEFORE_DATA)
}

fn is_below(name: &[u8], zone: &[u8]) -> bool {
    let mut at = 0;
    while let Some(len) = name.get(at) {
        if &name[at..] == zone {
            return true;
        }
        if *len == 0 {
            return false;
        }
        at += 1 + usize::from(*len);
    }
    false
}

/// An answer being written.
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
    question: &'a Question,
    limit: usize,
    pub answers: u16,
    authority: u16,
    additional: u16,
    /// Where the answers and the additional records start.
    start: usize,
    extra: Option<usize>,
}

impl<'a> Reply<'a> {
    /// Writes header and question. `ours`: the answer comes from the one who knows.
    pub fn new(out: &'a mut Vec<u8>, message: &[u8], question: &'a Question, ours: bool, udp: bool) -> Self {
        out.clear();
        out.extend_from_slice(&message[..2]);
        out.push(flag::QR | question.flags.0 & flag::RD | if ours { flag::AA } else { 0 });
        out.push(flag::RA | question.flags.1 & flag::CD);
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&message[HEADER..question.end]);
        let limit = if udp { question.udp_limit() } else { usize::from(u16::MAX) };
        let start = out.len();
        Reply { out, question, limit, answers: 0, authority: 0, additional: 0, start, extra: None }
    }

    /// Copies a prebuilt set; addresses take turns at being first.
    fn set(&mut self, set: &RecordSet, turn: usize) {
        let (answers, extra) = set.bytes.split_at(usize::from(set.split).min(set.bytes.len()));
        let each = answers.len() / usize::from(set.answers.max(1));
        let first = if matches!(set.kind, kind::A | kind::AAAA) && set.answers > 1 {
            each * (turn % usize::from(set.answers))
        } else {
            0
        };
        self.out.extend_from_slice(&answers[first..]);
        self.out.extend_from_slice(&answers[..first]);
        self.answers += set.answers;
        if set.additional > 0 && self.extra.is_none() {
            self.extra = Some(self.out.len());
            self.out.extend_from_slice(extra);
            self.additional += set.additional;
        }
    }

    /// The records of a prebuilt set with another owner.
    fn renamed(&mut self, set: &RecordSet, owner: &[u8]) {
        let mut at = 0;
        for _ in 0..set.answers {
            const FIXED: usize = 12;
            let Some(len) = wire::u16_at(&set.bytes, at + FIXED - 2) else { return };
            let end = at + FIXED + usize::from(len);
            let Some(record) = set.bytes.get(at + TO_QUESTION.len()..end) else { return };
            self.out.extend_from_slice(owner);
            self.out.extend_from_slice(record);
            self.answers += 1;
            at = end;
        }
    }

    /// An address of the name that was asked for.
    pub fn address(&mut self, ttl: u32, addr: IpAddr) {
        if !self.is_over() {
            wire::push_address(self.out, &TO_QUESTION, ttl, addr);
            self.answers += 1;
        }
    }

    pub fn record(&mut self, owner: &[u8], kind: u16, ttl: u32, data: &[u8]) {
        self.record_in(wire::Section::Answer, owner, kind, ttl, data);
    }

    /// More than fits is written already, and will be cut: a hosts file has more names of an address than a message counts.
    fn is_over(&self) -> bool {
        self.out.len() > usize::from(u16::MAX)
    }

    /// A record of any section; sections come in their order.
    pub fn record_in(&mut self, section: wire::Section, owner: &[u8], kind: u16, ttl: u32, data: &[u8]) {
        if self.is_over() {
            return;
        }
        wire::push_record(self.out, owner, kind, ttl, data);
        match section {
            wire::Section::Answer => self.answers += 1,
            wire::Section::Authority => self.authority += 1,
            wire::Section::Additional => self.additional += 1,
        }
    }

    /// Records that are ready, with full owner names or pointers to the question.
    pub fn ready(&mut self, records: &[u8], count: u16) {
        self.out.extend_from_slice(records);
        self.answers += count;
    }

    /// The zone's start of authority: the answer, or what tells how long a "no" holds. The question is in the zone.
    fn soa(&mut self, table: &Table, answer: bool) {
        let zone_at = HEADER + self.question.name().len() - table.zone().as_bytes().len();
        let zone = [0xc0 | (zone_at >> 8) as u8, zone_at as u8];
        let mut data = Vec::with_capacity(48);
        data.extend_from_slice(b"\x02ns\x03dns");
        data.extend_from_slice(&zone);
        data.extend_from_slice(b"\x0ahostmaster");
        data.extend_from_slice(&zone);
        for number in [table.serial(), 7200, 1800, 86_400, table.ttl()] {
            data.extend_from_slice(&number.to_be_bytes());
        }
        wire::push_record(self.out, &zone, kind::SOA, table.ttl(), &data);
        if answer {
            self.answers += 1;
        } else {
            self.authority += 1;
        }
    }

    fn into_alias(self, target: Name) -> Outcome {
        let records = self.out[self.start..].to_vec();
        let count = self.answers;
        self.out.clear();
        Outcome::Alias { records, count, target }
    }

    /// Writes counts, the code, OPT when the client had one, and cuts what does not fit.
    pub fn finish(mut self, code: u8) {
        let opt = if self.question.edns.is_some() { OPT_BYTES } else { 0 };
        if self.out.len() + opt > self.limit
            && let Some(extra) = self.extra
        {
            self.out.truncate(extra);
            self.additional = 0;
        }
        if self.out.len() + opt > self.limit {
            self.cut(self.limit - opt);
        }
        self.out[3] |= code & 0xf;
        if opt > 0 {
            self.opt(0);
        }
        self.counts();
    }

    /// Keeps the answers that fit, and says that there are more.
    fn cut(&mut self, room: usize) {
        let mut at = self.start;
        let mut kept = 0;
        while kept < self.answers
            && let Some(next) = next_record(self.out, at)
            && next <= room
        {
            at = next;
            kept += 1;
        }
        self.out.truncate(at);
        (self.answers, self.authority, self.additional) = (kept, 0, 0);
        self.out[2] |= flag::TC;
    }

    fn finish_bad_version(mut self) {
        const BADVERS_HIGH: u8 = 1;
        self.opt(BADVERS_HIGH);
        self.counts();
    }

    fn opt(&mut self, high_code: u8) {
        let secure = if self.question.edns.is_some_and(|e| e.secure) { 0x80 } else { 0 };
        let size = MOST_UDP.to_be_bytes();
        self.out.extend_from_slice(&[0, 0, kind::OPT as u8, size[0], size[1], high_code, 0, secure, 0, 0, 0]);
        self.additional += 1;
    }

    fn counts(&mut self) {
        for (at, count) in [(6, self.answers), (8, self.authority), (10, self.additional)] {
            self.out[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
    }
}

fn next_record(message: &[u8], at: usize) -> Option<usize> {
    let at = wire::skip_name(message, at)?;
    Some(at + 10 + usize::from(wire::u16_at(message, at + 8)?)).filter(|end| *end <= message.len())
}

/// The header alone says what is wrong: the rest can't be trusted.
fn refuse_malformed(message: &[u8], code: u8, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&message[..2]);
    out.push(flag::QR | message[2] & (0x78 | flag::RD));
    out.push(flag::RA | code);
    out.extend_from_slice(&[0; 8]);
}

/// A failure in answer to a question.
pub fn fail(message: &[u8], question: &Question, udp: bool, code: u8, out: &mut Vec<u8>) {
    Reply::new(out, message, question, false, udp).finish(code);
}
