//! An answer with other names, times, codes or another order, written anew. Pure.
//!
//! Names are written in full: pointers of the message that is read mean nothing in the one that is written.

use crate::rewrite::{self, Undo};
use crate::wire::{self, HEADER, MOST_UDP, Name, Question, Record, Section, TO_QUESTION, code, flag, kind};

/// What is to be done to an answer.
#[derive(Clone, Copy, Debug)]
pub struct Changes<'c> {
    /// In the order in which the question was changed; answers are changed back in the opposite one.
    pub undo: &'c [Undo],
    /// Addresses take turns at being first: which turn it is.
    pub turn: Option<usize>,
}

/// Writes an answer as the answer to the client's question; false when it can't be read.
pub fn write(
    answer: &[u8],
    message: &[u8],
    question: &Question,
    udp: bool,
    changes: Changes<'_>,
    out: &mut Vec<u8>,
) -> bool {
    const OPT_BYTES: usize = 11;
    let Some(records) = wire::records(answer) else { return false };
    out.clear();
    out.extend_from_slice(&message[..2]);
    out.push(answer[2]);
    out.push(answer[3]);
    out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&message[HEADER..question.end]);
    out[3] = out[3] & 0xf0 | final_code(answer[3] & 0xf, changes.undo);
    let limit = if udp { question.udp_limit() } else { usize::from(u16::MAX) };
    let room = limit - if question.edns.is_some() { OPT_BYTES } else { 0 };
    let mut counts = [0u16; 3];
    for (section, record) in ordered(&records, changes.turn) {
        let before = out.len();
        let written = push(answer, &record, question, changes.undo, out);
        if written.is_none() || out.len() > room {
            out.truncate(before);
            if written.is_some() && section != Section::Additional {
                out[2] |= flag::TC;
                break;
            }
            continue;
        }
        counts[section as usize] += 1;
    }
    if let Some(edns) = question.edns {
        let size = MOST_UDP.to_be_bytes();
        let secure = if edns.secure { 0x80 } else { 0 };
        out.extend_from_slice(&[0, 0, kind::OPT as u8, size[0], size[1], 0, 0, secure, 0, 0, 0]);
        counts[2] += 1;
    }
    for (at, count) in [6, 8, 10].into_iter().zip(counts) {
        out[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }
    true
}

/// The records without OPT, aliases first and addresses turned, when they take turns.
fn ordered(records: &[(Section, Record)], turn: Option<usize>) -> Vec<(Section, Record)> {
    let mut all: Vec<_> = records.iter().filter(|(_, r)| r.kind != kind::OPT).copied().collect();
    let Some(turn) = turn else { return all };
    let answers = all.iter().filter(|(s, _)| *s == Section::Answer).count();
    let takes_turns = |(_, r): &(Section, Record)| matches!(r.kind, kind::A | kind::AAAA | kind::MX);
    all[..answers].sort_by_key(|record| takes_turns(record));
    let first = all[..answers].iter().position(takes_turns).unwrap_or(answers);
    if answers > first + 1 {
        all[first..answers].rotate_left(turn % (answers - first));
    }
    all
}

fn push(answer: &[u8], record: &Record, question: &Question, undo: &[Undo], out: &mut Vec<u8>) -> Option<()> {
    let owner = changed_name(wire::read_name(answer, record.owner)?, undo, true)?;
    let data = data(answer, record, undo)?;
    let ttl = undo.iter().rev().fold(record.ttl, |ttl, undo| match undo {
        Undo::Ttl { least, most } => ttl.clamp(*least, *most),
        _ => ttl,
    });
    let same = owner.as_bytes().eq_ignore_ascii_case(question.name());
    let owner = if same { &TO_QUESTION } else { owner.as_bytes() };
    u16::try_from(data.len()).ok()?;
    wire::push_record(out, owner, record.kind, ttl, &data);
    Some(())
}

/// A record's data with its names in full.
fn data(answer: &[u8], record: &Record, undo: &[Undo]) -> Option<Vec<u8>> {
    let (start, end) = record.data;
    let raw = answer.get(start..end)?;
    let name_at = match record.kind {
        kind::CNAME | kind::NS | kind::PTR | kind::DNAME | kind::SOA => 0,
        kind::MX => 2,
        kind::SRV => 6,
        kind::NAPTR => naptr_name(raw)?,
        _ => return Some(raw.to_vec()),
    };
    let mut out = raw.get(..name_at)?.to_vec();
    let name = wire::read_name(answer, start + name_at)?;
    out.extend_from_slice(changed_name(name, undo, false)?.as_bytes());
    if record.kind == kind::SOA {
        let mailbox = wire::skip_name(answer, start)?;
        out.extend_from_slice(wire::read_name(answer, mailbox)?.as_bytes());
        let numbers = wire::skip_name(answer, mailbox)?;
        out.extend_from_slice(answer.get(numbers..end)?);
    }
    Some(out)
}

/// Behind two numbers and three strings.
fn naptr_name(raw: &[u8]) -> Option<usize> {
    let mut at = 4;
    for _ in 0..3 {
        at += 1 + usize::from(*raw.get(at)?);
    }
    Some(at)
}

/// A name as the client is to see it; none when it is none any more.
fn changed_name(name: Name, undo: &[Undo], owner: bool) -> Option<Name> {
    let concerns = |undo: &&Undo| match undo {
        Undo::Name(_) => owner,
        Undo::Value(_) => !owner,
        _ => false,
    };
    let mut rules = undo.iter().rev().filter(concerns).peekable();
    if rules.peek().is_none() {
        return Some(name);
    }
    let text = name.to_string();
    let mut changed = text.clone();
    for undo in rules {
        if let Undo::Name(replace) | Undo::Value(replace) = undo {
            changed = replace.apply(&changed);
        }
        if rewrite::is_no_name(&changed) {
            return None;
        }
    }
    if changed == text { Some(name) } else { Name::parse(&changed) }
}

fn final_code(found: u8, undo: &[Undo]) -> u8 {
    undo.iter().rev().fold(found, |found, undo| match undo {
        Undo::Code { from, to } if *from == found => *to,
        _ => found,
    })
}

/// What a question that could not be worked on gets.
pub fn failed(message: &[u8], question: &Question, udp: bool, out: &mut Vec<u8>) {
    crate::answer::fail(message, question, udp, code::SERVFAIL, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::Replace;

    /// Each rule takes what the one before has made.
    #[test]
    fn groups_that_multiply_in_an_answer_leave_its_record_out() {
        let name = Name::parse("a.b").unwrap();
        let mut message = vec![7, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(name.as_bytes());
        message.extend_from_slice(&[0, 1, 0, 1]);
        let question = Question::parse(&message).unwrap();
        let mut answer = message.clone();
        wire::push_record(&mut answer, &TO_QUESTION, kind::A, 60, &[192, 0, 2, 1]);
        (answer[2], answer[7]) = (flag::QR, 1);
        let expression = regex::Regex::new("(.*)").unwrap();
        let undo = vec![Undo::Name(Replace::Regex(expression, "{1}".repeat(50))); 20];
        let mut out = Vec::new();
        assert!(write(&answer, &message, &question, false, Changes { undo: &undo, turn: None }, &mut out));
        assert_eq!(wire::records(&out).unwrap().len(), 0);
        assert!(write(&answer, &message, &question, false, Changes { undo: &[], turn: None }, &mut out));
        assert_eq!(wire::records(&out).unwrap().len(), 1);
    }
}
