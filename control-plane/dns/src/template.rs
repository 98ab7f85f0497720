//! Answers by a pattern of the question's name. Pure.
//!
//! Of Go's templates this is what such files use: `{{ .Name }}`, `.Zone`, `.Class`, `.Type`, `{{ index .Match 1 }}` and
//! `{{ .Group.name }}`.

use regex::Regex;

use crate::answer::Reply;
use crate::corefile::values::{Fall, is_below, type_name};
use crate::wire::{Name, Question, Section, TO_QUESTION, code, kind};

/// One `template`.
#[derive(Clone, Debug)]
pub struct Template {
    /// None: every type.
    pub kind: Option<u16>,
    /// Empty: those of the block.
    pub zones: Vec<Name>,
    /// Empty: every name.
    pub matches: Vec<Regex>,
    pub records: Vec<(Section, Vec<Part>)>,
    pub code: u8,
    pub fall: Fall,
}

/// A piece of a record's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Name,
    Zone,
    Type,
    Match(usize),
    Group(String),
}

/// Whether the question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Answered,
    Next,
}

/// A text with groups put in has no more bytes than a record of text.
const MOST_TEXT: usize = 4096;

/// Answers by the first template that matches.
pub fn answer(
    templates: &[Template],
    zones: &[Name],
    message: &[u8],
    question: &Question,
    udp: bool,
    out: &mut Vec<u8>,
) -> Found {
    for template in templates {
        let zones = if template.zones.is_empty() { zones } else { &template.zones };
        let zone = zones.iter().filter(|z| is_below(question.name(), z.as_bytes())).max_by_key(|z| z.as_bytes().len());
        let Some(zone) = zone.filter(|_| template.kind.is_none_or(|kind| kind == question.kind)) else { continue };
        let Some(name) = Name::from_wire(question.name()).map(|n| n.to_string()) else { continue };
        let hit = template.matches.iter().find(|expression| expression.is_match(&name));
        if hit.is_none() && !template.matches.is_empty() {
            if template.fall.through(question.name()) {
                continue;
            }
            crate::answer::fail(message, question, udp, code::SERVFAIL, out);
            return Found::Answered;
        }
        let values = Values { name: &name, zone: &zone.to_string(), kind: question.kind, expression: hit };
        write(template, &values, message, question, udp, out);
        return Found::Answered;
    }
    Found::Next
}

struct Values<'v> {
    name: &'v str,
    zone: &'v str,
    kind: u16,
    expression: Option<&'v Regex>,
}

impl Values<'_> {
    fn fill(&self, parts: &[Part]) -> String {
        let groups = self.expression.and_then(|expression| expression.captures(self.name));
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Name => text.push_str(self.name),
                Part::Zone => text.push_str(self.zone),
                Part::Type => text.push_str(&type_name(self.kind)),
                // Without an expression the whole name is what matches.
                Part::Match(0) if groups.is_none() => text.push_str(self.name),
                Part::Match(n) => text.push_str(groups.as_ref().and_then(|g| g.get(*n)).map_or("", |m| m.as_str())),
                Part::Group(n) => text.push_str(groups.as_ref().and_then(|g| g.name(n)).map_or("", |m| m.as_str())),
            }
            if text.len() > MOST_TEXT {
                break;
            }
        }
        text
    }
}

fn write(template: &Template, values: &Values<'_>, message: &[u8], question: &Question, udp: bool, out: &mut Vec<u8>) {
    let mut made = Vec::new();
    for (section, parts) in &template.records {
        let Some(record) = record(&values.fill(parts)) else {
            return crate::answer::fail(message, question, udp, code::SERVFAIL, out);
        };
        made.push((*section, record));
    }
    let mut reply = Reply::new(out, message, question, true, udp);
    for wanted in [Section::Answer, Section::Authority, Section::Additional] {
        for (section, record) in made.iter().filter(|(section, _)| *section == wanted) {
            let same = record.owner.as_bytes().eq_ignore_ascii_case(question.name());
            let owner = if same { &TO_QUESTION } else { record.owner.as_bytes() };
            reply.record_in(*section, owner, record.kind, record.ttl, &record.data);
        }
    }
    reply.finish(template.code);
}

/// A record, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Made {
    pub owner: Name,
    pub kind: u16,
    pub ttl: u32,
    pub data: Vec<u8>,
}

/// Reads a record as zone files have it: `NAME [TTL] [CLASS] TYPE DATA`.
pub fn record(text: &str) -> Option<Made> {
    let mut words = text.split_whitespace();
    let owner = Name::parse(words.next()?)?;
    let (mut ttl, mut word) = (3600, words.next()?);
    for _ in 0..2 {
        if let Ok(seconds) = word.parse() {
            ttl = seconds;
            word = words.next()?;
        } else if word.eq_ignore_ascii_case("IN") {
            word = words.next()?;
        }
    }
    let rest: Vec<&str> = words.filter(|w| !matches!(*w, "(" | ")")).collect();
    let name = |text: &&str| Name::parse(text).map(|n| n.as_bytes().to_vec());
    let short = |text: &&str| text.parse::<u16>().ok().map(|n| n.to_be_bytes().to_vec());
    let long = |text: &&str| text.trim_matches(['(', ')']).parse::<u32>().ok().map(|n| n.to_be_bytes().to_vec());
    let (number, data) = match (word.to_ascii_uppercase().as_str(), rest.as_slice()) {
        ("A", [addr]) => (kind::A, addr.parse::<std::net::Ipv4Addr>().ok()?.octets().to_vec()),
        ("AAAA", [addr]) => (kind::AAAA, addr.parse::<std::net::Ipv6Addr>().ok()?.octets().to_vec()),
        ("CNAME", [to]) => (kind::CNAME, name(to)?),
        ("PTR", [to]) => (kind::PTR, name(to)?),
        ("NS", [to]) => (kind::NS, name(to)?),
        ("MX", [preference, to]) => (kind::MX, [short(preference)?, name(to)?].concat()),
        ("SRV", [priority, weight, port, to]) => {
            (kind::SRV, [short(priority)?, short(weight)?, short(port)?, name(to)?].concat())
        }
        ("SOA", [server, mailbox, numbers @ ..]) if numbers.len() == 5 => {
            let numbers: Option<Vec<_>> = numbers.iter().map(long).collect();
            (kind::SOA, [name(server)?, name(mailbox)?, numbers?.concat()].concat())
        }
        ("TXT", [_, ..]) => (kind::TXT, txt(text)?),
        _ => return None,
    };
    Some(Made { owner, kind: number, ttl, data })
}

/// One string, in quotation marks or a word.
fn txt(text: &str) -> Option<Vec<u8>> {
    let string = match text.split_once('"') {
        Some((_, rest)) => rest.rsplit_once('"')?.0,
        None => text.split_whitespace().last()?,
    };
    let mut data = vec![u8::try_from(string.len()).ok()?];
    data.extend_from_slice(string.as_bytes());
    Some(data)
}

/// The section of a message that a word names.
pub fn section(word: &str) -> Option<Section> {
    match word {
        "answer" => Some(Section::Answer),
        "authority" => Some(Section::Authority),
        "additional" => Some(Section::Additional),
        _ => None,
    }
}

/// The pieces of a text with `{{ … }}` in it; the piece that is not known comes back.
pub fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, after) = after.split_once("}}").ok_or_else(|| "{{".to_owned())?;
        all.push(Part::Text(before.to_owned()));
        let words: Vec<&str> = inside.split_whitespace().collect();
        all.push(match words.as_slice() {
            [".Name"] => Part::Name,
            [".Zone"] => Part::Zone,
            [".Type"] => Part::Type,
            [".Class"] => Part::Text("IN".to_owned()),
            ["index", ".Match", n] => Part::Match(n.parse().map_err(|_| inside.to_owned())?),
            [group] if group.starts_with(".Group.") => Part::Group(group.trim_start_matches(".Group.").to_owned()),
            _ => return Err(inside.to_owned()),
        });
        rest = after;
    }
    all.push(Part::Text(rest.to_owned()));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn records_are_read_as_zone_files_have_them() {
        let made = |text: &str| record(text).map(|m| (m.owner.to_string(), m.kind, m.ttl, m.data.len()));
        assert_eq!(made("a.example. 60 IN A 192.0.2.1"), Some(("a.example.".to_owned(), kind::A, 60, 4)));
        assert_eq!(made("a.example. IN 60 AAAA fd00::1"), Some(("a.example.".to_owned(), kind::AAAA, 60, 16)));
        assert_eq!(made("x. 60 IN SOA ns.x. h.x. (1 60 60 60 60)").map(|m| (m.1, m.3)), Some((kind::SOA, 31)));
        assert_eq!(made("x. TXT \"two words\"").map(|m| (m.2, m.3)), Some((3600, 10)));
        for wrong in ["", "a.", "a. 60 IN A x", "a. 60 CH A 192.0.2.1", "a. IN A", "a. IN WHAT x"] {
            assert_eq!(record(wrong), None, "{wrong:?}");
        }
        assert_eq!(wire::u16_at(&record("x. IN MX 10 m.x.").unwrap().data, 0), Some(10));
    }

    #[test]
    fn pieces_that_are_not_known_come_back() {
        let text = parts("{{ .Name }} 60 IN A {{ index .Match 1 }}.{{ .Group.b }}").unwrap();
        assert_eq!(text.len(), 7);
        assert_eq!(parts("{{ .Remote }}"), Err(" .Remote ".to_owned()));
        assert!(parts("{{ .Name").is_err());
    }
}
