//! Go's syntax, read with its rules and refused with its words, and written in that of the `regex` crate.
//!
//! Only whether a text matches is asked, so that groups have no names and repetitions no greed. Flags are spent where
//! they hold: what is written has none that reach further than one character or class.

use super::class::{self, Class, NOTHING};
use std::fmt;

/// Most levels of an expression, counted as Go counts its 1,000: the compiler of the crate recurses on the stack.
pub(super) const MAX_HEIGHT: u32 = 250;
/// Largest count of a repetition, and of repetitions in repetitions.
const MAX_REPEAT: u32 = 1_000;
/// Weight of any character but one, in UTF-8.
const ANY: u64 = 40;
/// Most of an expression that an error shows; Go shows all of it.
const SHOWN: usize = 1_024;

/// Why an expression is none: the rule and the piece of the expression that broke it.
#[derive(Debug)]
pub(super) struct Refused {
    rule: &'static str,
    piece: String,
}

impl Refused {
    pub(super) fn new(rule: &'static str, piece: &str) -> Refused {
        let end = (0..=SHOWN.min(piece.len())).rev().find(|end| piece.is_char_boundary(*end)).unwrap_or(0);
        Refused { rule, piece: piece[..end].to_owned() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`", self.rule, self.piece)
    }
}

/// A piece of an expression.
pub(super) struct Part {
    node: Node,
    height: u32,
    /// The largest product of counts of repetitions in repetitions.
    repeats: u32,
}

enum Node {
    Empty,
    /// Characters, and whether their case does not matter.
    Text(String, bool),
    /// One step in the other syntax, with its weight.
    Step(String, u64),
    Group(Box<Part>),
    Repeat(Box<Part>, Counts),
    Chain(Vec<Part>),
    Choice(Vec<Part>),
}

#[derive(Clone, Copy)]
struct Counts {
    least: u32,
    most: Option<u32>,
}

impl Part {
    fn leaf(node: Node) -> Part {
        Part { node, height: 1, repeats: 1 }
    }

    /// The expression in the syntax of the `regex` crate.
    pub(super) fn translated(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match &self.node {
            Node::Empty => {}
            Node::Text(text, false) => out.push_str(&regex::escape(text)),
            Node::Text(text, true) => out.extend(["(?i:", &regex::escape(text), ")"]),
            Node::Step(text, _) => out.push_str(text),
            Node::Group(inner) => inner.write(out),
            Node::Repeat(inner, counts) => {
                out.push_str("(?:");
                inner.write(out);
                let most = counts.most.map(|most| most.to_string()).unwrap_or_default();
                out.push_str(&format!("){{{},{most}}}", counts.least));
            }
            Node::Chain(parts) => parts.iter().for_each(|part| part.write(out)),
            Node::Choice(parts) => {
                out.push_str("(?:");
                for (index, part) in parts.iter().enumerate() {
                    if index > 0 {
                        out.push('|');
                    }
                    part.write(out);
                }
                out.push(')');
            }
        }
    }

    /// About how many steps the compiled expression has at most, at 44 bytes each.
    pub(super) fn weight(&self) -> u64 {
        let all = |parts: &[Part]| parts.iter().fold(1, |sum: u64, part| sum.saturating_add(part.weight()));
        match &self.node {
            Node::Empty => 1,
            // A letter has up to four spellings.
            Node::Text(text, fold) => text.len() as u64 * if *fold { 4 } else { 1 },
            Node::Step(_, weight) => *weight,
            Node::Group(inner) => inner.weight(),
            Node::Repeat(inner, counts) => {
                let times = counts.most.unwrap_or(counts.least).max(counts.least).max(1);
                inner.weight().saturating_add(1).saturating_mul(u64::from(times))
            }
            Node::Chain(parts) | Node::Choice(parts) => all(parts),
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Flags {
    fold: bool,
    lines: bool,
    dot_newline: bool,
}

/// What stands between two parentheses, or in none.
#[derive(Default)]
struct Level {
    /// Alternatives that are complete.
    done: Vec<Part>,
    /// The one that is being read.
    branch: Vec<Part>,
}

/// A level that waits for the end of one inside.
struct Outer {
    level: Level,
    flags: Flags,
    captures: bool,
}

pub(super) struct Parser<'a> {
    pub(super) source: &'a str,
    pub(super) at: usize,
    flags: Flags,
    level: Level,
    outer: Vec<Outer>,
    /// No `:]` comes any more: each `[:` would look for it to the end.
    pub(super) unnamed: bool,
}

/// Reads an expression.
pub(super) fn parse(source: &str) -> Result<Part, Refused> {
    let too_large = || Refused::new("expression too large", source);
    if source.len() > super::MAX_LENGTH {
        return Err(too_large());
    }
    let parser =
        Parser { source, at: 0, flags: Flags::default(), level: Level::default(), outer: Vec::new(), unnamed: false };
    let whole = parser.whole()?;
    if whole.weight() > super::MAX_WEIGHT { Err(too_large()) } else { Ok(whole) }
}

impl<'a> Parser<'a> {
    pub(super) fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    pub(super) fn eat(&mut self, text: &str) -> bool {
        let there = self.rest().starts_with(text);
        if there {
            self.at += text.len();
        }
        there
    }

    fn whole(mut self) -> Result<Part, Refused> {
        // Where the repetition began that ends right before.
        let mut repeated = None;
        while let Some(c) = self.peek() {
            let (start, before) = (self.at, repeated.take());
            match c {
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    self.next();
                    let branch = self.end_of_branch()?;
                    self.level.done.push(branch);
                }
                '*' | '+' | '?' => {
                    self.next();
                    let (least, most) = (u32::from(c == '+'), (c == '?').then_some(1));
                    self.repeat(start, before, Counts { least, most })?;
                    repeated = Some(start);
                }
                '{' => match self.counts()? {
                    Some(counts) => {
                        self.repeat(start, before, counts)?;
                        repeated = Some(start);
                    }
                    None => self.plain('{'),
                },
                _ => self.one(c)?,
            }
        }
        if !self.outer.is_empty() {
            return Err(Refused::new("missing closing )", self.source));
        }
        self.end_of_level()
    }

    /// What is neither a group nor a repetition.
    fn one(&mut self, c: char) -> Result<(), Refused> {
        match c {
            '^' => self.assert(if self.flags.lines { "(?m:^)" } else { r"\A" }),
            '$' => self.assert(if self.flags.lines { "(?m:$)" } else { r"\z" }),
            '.' => {
                self.next();
                let text = if self.flags.dot_newline { "(?s:.)" } else { r"[^\n]" };
                self.push(Part::leaf(Node::Step(text.to_owned(), ANY)));
            }
            '[' => {
                let class = self.brackets()?;
                self.class(class);
            }
            '\\' => self.backslash()?,
            c => self.plain(c),
        }
        Ok(())
    }

    fn backslash(&mut self) -> Result<(), Refused> {
        if let Some(class) = self.unicode_class()? {
            self.class(class);
            return Ok(());
        }
        if let Some((items, negated)) = self.perl_class() {
            let not = if negated { "^" } else { "" };
            self.class(Class { text: format!("[{not}{items}]"), weight: if negated { ANY } else { class::ASCII } });
            return Ok(());
        }
        for (escape, text) in [("\\A", r"\A"), ("\\z", r"\z"), ("\\b", r"(?-u:\b)"), ("\\B", r"(?-u:\B)")] {
            if self.eat(escape) {
                self.push(Part::leaf(Node::Step(text.to_owned(), 1)));
                return Ok(());
            }
        }
        if self.eat("\\Q") {
            let (text, length) = match self.rest().split_once("\\E") {
                Some((text, _)) => (text, text.len() + 2),
                None => (self.rest(), self.rest().len()),
            };
            text.chars().for_each(|c| self.literal(c));
            self.at += length;
            return Ok(());
        }
        match char::from_u32(self.escape()?) {
            Some(c) => self.literal(c),
            None => self.push(Part::leaf(Node::Step(NOTHING.to_owned(), 1))),
        }
        Ok(())
    }

    /// A character that is written by an escape, the backslash being next.
    pub(super) fn escape(&mut self) -> Result<u32, Refused> {
        let start = self.at;
        self.next();
        let Some(c) = self.next() else { return Err(Refused::new("trailing backslash at end of expression", "")) };
        let digits = |parser: &Parser<'_>| parser.peek().and_then(|c| c.to_digit(8));
        let found = match c {
            'a' => Some(0x07),
            'f' => Some(0x0C),
            'n' => Some(0x0A),
            'r' => Some(0x0D),
            't' => Some(0x09),
            'v' => Some(0x0B),
            'x' => self.hexadecimal(),
            // One digit other than zero would be a reference back, which there is not.
            '1'..='7' if digits(self).is_none() => None,
            '0'..='7' => {
                let mut value = c.to_digit(8).unwrap_or_default();
                for _ in 0..2 {
                    let Some(digit) = digits(self) else { break };
                    value = value * 8 + digit;
                    self.next();
                }
                Some(value)
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(u32::from(c)),
            _ => None,
        };
        found.ok_or_else(|| Refused::new("invalid escape sequence", &self.source[start..self.at]))
    }

    /// The digits after `\x`: two, or any number in braces.
    fn hexadecimal(&mut self) -> Option<u32> {
        let first = self.next()?;
        if first != '{' {
            let high = first.to_digit(16);
            let low = self.next()?.to_digit(16)?;
            return Some(high? * 16 + low);
        }
        let (mut value, mut any) = (0, false);
        loop {
            let c = self.next()?;
            if c == '}' {
                return any.then_some(value);
            }
            value = value * 16 + c.to_digit(16)?;
            any = true;
            if value > u32::from(char::MAX) {
                return None;
            }
        }
    }

    fn assert(&mut self, text: &str) {
        self.next();
        self.push(Part::leaf(Node::Step(text.to_owned(), 1)));
    }

    fn class(&mut self, class: Class) {
        // Case brings characters of other scripts into a class.
        let (text, weight) = match self.flags.fold {
            true => (format!("(?i:{})", class.text), class.weight + class::SCRIPTED),
            false => (class.text, class.weight),
        };
        self.push(Part::leaf(Node::Step(text, weight)));
    }

    fn push(&mut self, part: Part) {
        self.level.branch.push(part);
    }

    /// A character that stands for itself, which is next.
    fn plain(&mut self, c: char) {
        self.next();
        self.literal(c);
    }

    fn literal(&mut self, c: char) {
        let fold = self.flags.fold;
        match self.level.branch.last_mut() {
            Some(Part { node: Node::Text(text, same), .. }) if *same == fold => text.push(c),
            _ => self.push(Part::leaf(Node::Text(c.to_string(), fold))),
        }
    }

    fn open(&mut self) -> Result<(), Refused> {
        let flags = self.flags;
        let captures = if self.rest().starts_with("(?") {
            match self.group_head()? {
                Head::Flags => return Ok(()),
                Head::Plain => false,
                Head::Named => true,
            }
        } else {
            self.next();
            true
        };
        self.outer.push(Outer { level: std::mem::take(&mut self.level), flags, captures });
        Ok(())
    }

    /// What begins with `(?`.
    fn group_head(&mut self) -> Result<Head, Refused> {
        let start = self.at;
        for head in ["(?P<", "(?<"] {
            // Nothing after the bracket is no name yet.
            if let Some(name) = self.rest().strip_prefix(head).filter(|name| !name.is_empty()) {
                let end = name.find('>');
                let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let piece = end.map_or(self.rest(), |end| &self.rest()[..head.len() + end + 1]);
                if end.is_none_or(|end| end == 0 || !name[..end].chars().all(word)) {
                    return Err(Refused::new("invalid named capture", piece));
                }
                self.at += piece.len();
                return Ok(Head::Named);
            }
        }
        self.at += 2;
        let (mut flags, mut on, mut any) = (self.flags, true, false);
        loop {
            let c = self.next();
            let flag = match c {
                Some('i') => &mut flags.fold,
                Some('m') => &mut flags.lines,
                Some('s') => &mut flags.dot_newline,
                Some('U') => &mut false,
                Some('-') if on => {
                    (on, any) = (false, false);
                    continue;
                }
                Some(end @ (':' | ')')) if on || any => {
                    // Those of a group hold until its end.
                    let head = if end == ':' { Head::Plain } else { Head::Flags };
                    self.flags = flags;
                    return Ok(head);
                }
                _ => {
                    let piece = &self.source[start..self.at];
                    return Err(Refused::new("invalid or unsupported Perl syntax", piece));
                }
            };
            *flag = on;
            any = true;
        }
    }

    fn close(&mut self) -> Result<(), Refused> {
        let Some(outer) = self.outer.pop() else { return Err(Refused::new("unexpected )", self.source)) };
        self.next();
        let inner = self.end_of_level()?;
        self.level = outer.level;
        self.flags = outer.flags;
        let part = match outer.captures {
            true => {
                let (height, repeats) = (inner.height + 1, inner.repeats);
                self.bounded(Part { node: Node::Group(Box::new(inner)), height, repeats })?
            }
            false => inner,
        };
        self.push(part);
        Ok(())
    }

    fn end_of_level(&mut self) -> Result<Part, Refused> {
        let last = self.end_of_branch()?;
        let mut all = std::mem::take(&mut self.level.done);
        if all.is_empty() {
            return Ok(last);
        }
        all.push(last);
        self.joined(all, Node::Choice)
    }

    fn end_of_branch(&mut self) -> Result<Part, Refused> {
        let mut parts = std::mem::take(&mut self.level.branch);
        match parts.len() {
            0 => Ok(Part::leaf(Node::Empty)),
            1 => Ok(parts.remove(0)),
            _ => self.joined(parts, Node::Chain),
        }
    }

    fn joined(&self, parts: Vec<Part>, node: fn(Vec<Part>) -> Node) -> Result<Part, Refused> {
        // Go flattens a chain in a chain first; whoever recurses along this tree has the stack for what is written.
        let height = parts.iter().map(|part| part.height).max().unwrap_or(0) + 1;
        let repeats = parts.iter().map(|part| part.repeats).max().unwrap_or(1);
        self.bounded(Part { node: node(parts), height, repeats })
    }

    fn bounded(&self, part: Part) -> Result<Part, Refused> {
        if part.height > MAX_HEIGHT {
            return Err(Refused::new("expression nests too deeply", self.source));
        }
        Ok(part)
    }

    /// `{2}`, `{2,}`, `{2,3}`, if that is what is next. Anything else that begins with a brace is text.
    fn counts(&mut self) -> Result<Option<Counts>, Refused> {
        // No further than digits go: an expression may hold as many braces as it has letters.
        let after = &self.rest()[1..];
        let Some(end) = after.find(|c: char| !c.is_ascii_digit() && c != ',') else { return Ok(None) };
        let inner = &after[..end];
        if !after[end..].starts_with('}') {
            return Ok(None);
        }
        let number = |text: &str| {
            let fine = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            // A number with a zero before it is none.
            let fine = fine && (text.len() == 1 || !text.starts_with('0'));
            fine.then(|| text.parse::<u32>().unwrap_or(u32::MAX))
        };
        let (least, most) = match inner.split_once(',') {
            None => (number(inner), number(inner).map(Some)),
            Some((least, "")) => (number(least), Some(None)),
            Some((least, most)) => (number(least), number(most).map(Some)),
        };
        let (Some(least), Some(most)) = (least, most) else { return Ok(None) };
        let piece = &self.rest()[..inner.len() + 2];
        if least > MAX_REPEAT || most.is_some_and(|most| most > MAX_REPEAT || most < least) {
            return Err(Refused::new("invalid repeat count", piece));
        }
        self.at += piece.len();
        Ok(Some(Counts { least, most }))
    }

    /// Repeats what was read last; the operator began at `start`, and one right before it at `before`.
    fn repeat(&mut self, start: usize, before: Option<usize>, counts: Counts) -> Result<(), Refused> {
        self.eat("?");
        if let Some(before) = before {
            return Err(Refused::new("invalid nested repetition operator", &self.source[before..self.at]));
        }
        let Some(part) = self.last() else {
            return Err(Refused::new("missing argument to repetition operator", &self.source[start..self.at]));
        };
        let (height, mut repeats) = (part.height + 1, part.repeats);
        let counted = self.source[start..].starts_with('{');
        if counted {
            let times = counts.most.unwrap_or(counts.least);
            repeats = if counts.most == Some(0) { 1 } else { repeats.saturating_mul(times.max(1)) };
            if times >= 2 && repeats > MAX_REPEAT {
                return Err(Refused::new("invalid repeat count", &self.source[start..self.at]));
            }
        }
        let part = self.bounded(Part { node: Node::Repeat(Box::new(part), counts), height, repeats })?;
        self.push(part);
        Ok(())
    }

    /// Takes what a repetition repeats: the last character of a text, or the last piece.
    fn last(&mut self) -> Option<Part> {
        let part = self.level.branch.pop()?;
        match part.node {
            Node::Text(mut text, fold) if text.chars().count() > 1 => {
                let c = text.pop()?;
                self.push(Part::leaf(Node::Text(text, fold)));
                Some(Part::leaf(Node::Text(c.to_string(), fold)))
            }
            node => Some(Part { node, ..part }),
        }
    }
}

enum Head {
    Flags,
    Plain,
    Named,
}
