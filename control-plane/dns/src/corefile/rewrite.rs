//! `rewrite`: other names, types and times for questions and their answers. Pure.

use super::blocks::Directive;
use super::values;
use super::words::{Word, Wrong};
use crate::rewrite::{Answer, Change, Field, Match, Rule};

pub fn parse(directive: &Directive) -> Result<Rule, Wrong> {
    // Lines in braces go on with the words, as upstream's server reads them.
    let words: Vec<Word> = directive.args.iter().chain(directive.body.iter().flatten()).cloned().collect();
    let (mut goes_on, mut rest) = (false, words.as_slice());
    if let Some((first, after)) = rest.split_first()
        && matches!(first.text.as_str(), "continue" | "stop")
    {
        (goes_on, rest) = (first.text == "continue", after);
    }
    let (field, rest) = rest.split_first().ok_or_else(|| directive.name.wrong("what to rewrite is wanted after it"))?;
    let field = match field.text.to_ascii_lowercase().as_str() {
        "name" => name(field, rest)?,
        "type" => {
            let (from, to) = two(field, rest)?;
            Field::Type(values::record_type(from)?, values::record_type(to)?)
        }
        "class" => {
            let (from, to) = two(field, rest)?;
            Field::Class(values::class(from)?, values::class(to)?)
        }
        "ttl" => {
            let (matcher, rest) = matcher(field, rest, 1)?;
            let (least, most) = seconds(values::one(field, rest)?)?;
            Field::Response(matcher, Change::Ttl { least, most })
        }
        "rcode" => {
            let (matcher, rest) = matcher(field, rest, 2)?;
            let (from, to) = two(field, rest)?;
            Field::Response(matcher, Change::Code { from: values::rcode(from)?, to: values::rcode(to)? })
        }
        "answer" => return Err(field.wrong("what happens to answers stands after a name rule")),
        _ => return Err(field.wrong("what can be rewritten is name, type, class, ttl or rcode")),
    };
    Ok(Rule { goes_on, field })
}

fn two<'w>(at: &Word, words: &'w [Word]) -> Result<(&'w Word, &'w Word), Wrong> {
    match words {
        [from, to] => Ok((from, to)),
        [_, _, word, ..] => Err(word.wrong(format!("{} takes two values", at.text))),
        _ => Err(at.wrong("two values are wanted after it")),
    }
}

/// What can still become a name when groups are put in.
fn fits(word: &Word) -> Result<(), Wrong> {
    const MOST: usize = 1000;
    if word.text.len() > MOST { Err(word.wrong("longer than any name")) } else { Ok(()) }
}

/// A whole name in small letters and with its dot, as names are matched.
fn whole(word: &Word) -> String {
    let mut text = word.text.to_ascii_lowercase();
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}

/// `[exact|prefix|suffix|substring|regex] FROM`, where so many words follow.
fn matcher<'w>(at: &Word, words: &'w [Word], after: usize) -> Result<(Match, &'w [Word]), Wrong> {
    let (kind, rest) = match words.split_first() {
        Some((kind, rest)) if words.len() > after + 1 => (kind.text.to_ascii_lowercase(), rest),
        _ => ("exact".to_owned(), words),
    };
    let (from, rest) = rest.split_first().ok_or_else(|| at.wrong("a name is wanted after it"))?;
    let found = match kind.as_str() {
        "exact" => Match::Exact(whole(from)),
        "prefix" => Match::Prefix(whole(from)),
        "suffix" => Match::Suffix(whole(from)),
        "substring" => Match::Substring(whole(from)),
        "regex" => Match::Regex(values::expression(from)?),
        _ => return Err(words[0].wrong("names match exact, prefix, suffix, substring or regex")),
    };
    Ok((found, rest))
}

/// What happens to the answers of one rule.
const MOST_ANSWERS: usize = 10;

fn name(at: &Word, words: &[Word]) -> Result<Field, Wrong> {
    let (found, rest) = match words.len() {
        2 => (Match::Exact(whole(&words[0])), &words[1..]),
        _ => matcher(at, words, 1)?,
    };
    let (to, options) = rest.split_first().ok_or_else(|| at.wrong("a name to rewrite to is wanted"))?;
    fits(to)?;
    if let Match::Regex(expression) = &found {
        groups(to, expression)?;
    }
    let target = whole(to);
    let mut answers = Vec::new();
    let mut auto = matches!(found, Match::Exact(_));
    let mut explicit = false;
    let mut words = options;
    while let Some((word, rest)) = words.split_first() {
        let (kind, rest) = match word.text.as_str() {
            "answer" => rest.split_first().ok_or_else(|| word.wrong("auto, name or value is wanted after it"))?,
            _ if words.len() < options.len() => (word, rest),
            _ => return Err(word.wrong("what follows is what happens to answers: answer auto, name or value")),
        };
        words = rest;
        match kind.text.as_str() {
            "auto" => auto = true,
            which @ ("name" | "value") => {
                let [from, to, rest @ ..] = words else { return Err(kind.wrong("two values are wanted after it")) };
                let expression = values::expression(from)?;
                fits(to)?;
                groups(to, &expression)?;
                if answers.len() == MOST_ANSWERS {
                    return Err(kind.wrong(format!("more than {MOST_ANSWERS} rules for one answer")));
                }
                let replace = (expression, whole(to));
                explicit |= which == "name";
                answers.push(if which == "name" { Answer::Name(replace) } else { Answer::Value(replace) });
                words = rest;
            }
            _ => return Err(kind.wrong("what happens to answers is auto, name or value")),
        }
    }
    if auto && explicit && !matches!(found, Match::Exact(_)) {
        return Err(at.wrong("answer auto and answer name exclude each other"));
    }
    Ok(Field::Name { found, to: target, auto, answers })
}

/// The groups that a replacement names must be there.
fn groups(to: &Word, expression: &regex::Regex) -> Result<(), Wrong> {
    /// As many as upstream's server looks for.
    const MOST: usize = 100;
    let missing = (expression.captures_len()..=MOST).find(|n| to.text.contains(&format!("{{{n}}}")));
    missing.map_or(Ok(()), |n| Err(to.wrong(format!("the expression has no group {n}"))))
}

/// `30`, `30-300`, `-30`, `30-`.
fn seconds(word: &Word) -> Result<(u32, u32), Wrong> {
    let wrong = || word.wrong("seconds are wanted, like 30, 30-300, -30 or 30-");
    let bound = |text: &str, empty: u32| if text.is_empty() { Ok(empty) } else { text.parse().map_err(|_| wrong()) };
    let (least, most) = match word.text.split_once('-') {
        Some((least, most)) => (bound(least, 0)?, bound(most, i32::MAX as u32)?),
        None => {
            let both = word.text.parse().map_err(|_| wrong())?;
            (both, both)
        }
    };
    if least > most { Err(wrong()) } else { Ok((least, most)) }
}
