//! Questions under other names and types than their clients asked, and what undoes it in their answers. Pure.
//!
//! Names are matched as text, in small letters and with their last dot, as upstream's server matches them.

use regex::Regex;

use crate::wire::{Name, Question, flag, kind};

/// One `rewrite`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Whether the next rules are tried when this one matched.
    pub goes_on: bool,
    pub field: Field,
}

/// What it changes.
#[derive(Clone, Debug)]
pub enum Field {
    Name {
        found: Match,
        to: String,
        /// Answers get the name back that was asked for.
        auto: bool,
        answers: Vec<Answer>,
    },
    Type(u16, u16),
    Class(u16, u16),
    /// Answers to questions with such a name.
    Response(Match, Change),
}

/// Which names are meant.
#[derive(Clone, Debug)]
pub enum Match {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Substring(String),
    Regex(Regex),
}

/// What happens to names in answers: an expression and what takes the place of the whole name.
#[derive(Clone, Debug)]
pub enum Answer {
    Name((Regex, String)),
    Value((Regex, String)),
}

/// What else happens to answers.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Ttl { least: u32, most: u32 },
    Code { from: u8, to: u8 },
}

/// What is to be done to an answer.
#[derive(Clone, Debug)]
pub enum Undo {
    /// To the owners of records.
    Name(Replace),
    /// To names in their data.
    Value(Replace),
    Ttl {
        least: u32,
        most: u32,
    },
    Code {
        from: u8,
        to: u8,
    },
}

/// One text for another.
#[derive(Clone, Debug)]
pub enum Replace {
    /// A name and all below it.
    Below {
        from: String,
        to: String,
    },
    Suffix {
        from: String,
        to: String,
    },
    Regex(Regex, String),
}

impl Replace {
    pub fn apply(&self, text: &str) -> String {
        // Names of answers come in the spelling that others gave them.
        let lower = text.to_ascii_lowercase();
        match self {
            Replace::Below { from, to } => match lower.strip_suffix(from.as_str()) {
                Some("") => to.clone(),
                Some(before) if before.ends_with('.') => format!("{}{to}", &text[..before.len()]),
                _ => text.to_owned(),
            },
            Replace::Suffix { from, to } => match lower.strip_suffix(from.as_str()) {
                Some(before) => format!("{}{to}", &text[..before.len()]),
                None => text.to_owned(),
            },
            Replace::Regex(expression, to) => filled(expression, &lower, to).unwrap_or_else(|| text.to_owned()),
        }
    }
}

/// A name has 255 bytes, a thousand as text; what rules and groups multiply to is no name, and goes no further.
const MOST: usize = 4096;

/// Whether a text is longer than any name: the next rule would make it longer still.
pub fn is_no_name(text: &str) -> bool {
    text.len() > MOST
}

/// The replacement with its groups, when the expression matches.
fn filled(expression: &Regex, text: &str, to: &str) -> Option<String> {
    let groups = expression.captures(text)?;
    let mut filled = to.to_owned();
    for (i, group) in groups.iter().enumerate() {
        filled = filled.replace(&format!("{{{i}}}"), group.map_or("", |g| g.as_str()));
        if filled.len() > MOST {
            break;
        }
    }
    Some(filled)
}

/// A question as the plugins after this one see it.
#[derive(Clone, Debug)]
pub struct Changed {
    pub message: Vec<u8>,
    pub question: Question,
    pub undo: Vec<Undo>,
}

/// A rule made a name that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoName;

/// Applies the rules; none when no rule matches.
pub fn request(rules: &[Rule], question: &Question) -> Result<Option<Changed>, NoName> {
    let Some(asked) = Name::from_wire(question.name()) else { return Ok(None) };
    let mut name = asked.to_string();
    let (mut kind, mut class) = (question.kind, question.class);
    let mut undo = Vec::new();
    let mut matched = false;
    for rule in rules {
        let hit = match &rule.field {
            Field::Name { found, to, auto, answers } => match renamed(found, to, &name) {
                None => false,
                Some(new) => {
                    undo_name(&mut undo, found, to, *auto, (&name, &new));
                    undo.extend(answers.iter().map(|answer| match answer {
                        Answer::Name((from, to)) => Undo::Name(Replace::Regex(from.clone(), to.clone())),
                        Answer::Value((from, to)) => Undo::Value(Replace::Regex(from.clone(), to.clone())),
                    }));
                    name = new;
                    if is_no_name(&name) {
                        return Err(NoName);
                    }
                    true
                }
            },
            Field::Type(from, to) => changed(&mut kind, *from, *to),
            Field::Class(from, to) => changed(&mut class, *from, *to),
            Field::Response(found, change) => {
                let hit = matches(found, &name);
                if hit {
                    undo.push(match *change {
                        Change::Ttl { least, most } => Undo::Ttl { least, most },
                        Change::Code { from, to } => Undo::Code { from, to },
                    });
                }
                hit
            }
        };
        matched |= hit;
        if hit && !rule.goes_on {
            break;
        }
    }
    if !matched {
        return Ok(None);
    }
    // Not every name can be read from its text again: labels may hold dots, and bytes that are no text.
    let name = if name == asked.to_string() { asked } else { Name::parse(&name).ok_or(NoName)? };
    let message = message(question, &name, kind, class);
    let question = Question::parse(&message).map_err(|_| NoName)?;
    Ok(Some(Changed { message, question, undo }))
}

fn changed(value: &mut u16, from: u16, to: u16) -> bool {
    let hit = *value == from;
    if hit {
        *value = to;
    }
    hit
}

fn matches(found: &Match, name: &str) -> bool {
    match found {
        Match::Exact(from) => name == from,
        Match::Prefix(from) => name.starts_with(from.as_str()),
        Match::Suffix(from) => name.ends_with(from.as_str()),
        Match::Substring(from) => name.contains(from.as_str()),
        Match::Regex(expression) => expression.is_match(name),
    }
}

fn renamed(found: &Match, to: &str, name: &str) -> Option<String> {
    match found {
        Match::Exact(from) => (name == from).then(|| to.to_owned()),
        Match::Prefix(from) => name.strip_prefix(from.as_str()).map(|rest| format!("{to}{rest}")),
        Match::Suffix(from) => name.strip_suffix(from.as_str()).map(|before| format!("{before}{to}")),
        Match::Substring(from) => name.contains(from.as_str()).then(|| name.replace(from.as_str(), to)),
        Match::Regex(expression) => filled(expression, name, to),
    }
}

fn undo_name(undo: &mut Vec<Undo>, found: &Match, to: &str, auto: bool, (before, after): (&str, &str)) {
    if !auto {
        return;
    }
    let replace = match found {
        Match::Suffix(from) => Replace::Suffix { from: to.to_owned(), to: from.clone() },
        _ => Replace::Below { from: after.to_ascii_lowercase(), to: before.to_owned() },
    };
    undo.push(Undo::Name(replace.clone()));
    undo.push(Undo::Value(replace));
}

/// The question as a message of its own.
fn message(question: &Question, name: &Name, kind: u16, class: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.as_bytes().len() + 27);
    out.extend_from_slice(&question.id.to_be_bytes());
    out.extend_from_slice(&[question.flags.0 & flag::RD, question.flags.1 & flag::CD, 0, 1, 0, 0, 0, 0, 0]);
    out.push(u8::from(question.edns.is_some()));
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&class.to_be_bytes());
    if let Some(edns) = question.edns {
        let size = edns.size.to_be_bytes();
        let secure = if edns.secure { 0x80 } else { 0 };
        out.extend_from_slice(&[0, 0, kind::OPT as u8, size[0], size[1], 0, 0, secure, 0, 0, 0]);
    }
    out
}

#[cfg(test)]
mod tests;
