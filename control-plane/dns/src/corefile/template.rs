//! `template`: answers by a pattern. Pure.

use super::blocks::Directive;
use super::values::{self, Fall};
use super::words::{Word, Wrong};
use crate::template::{Template, parts, section};
use crate::wire::kind;

pub fn parse(directive: &Directive) -> Result<Template, Wrong> {
    let [class, of_type, zones @ ..] = directive.args.as_slice() else {
        return Err(directive.name.wrong("a class and a type are wanted after it"));
    };
    if !matches!(values::class(class)?, kind::IN | 255) {
        return Err(class.wrong("this server answers in class IN alone"));
    }
    let of_type = values::record_type(of_type)?;
    let mut template = Template {
        kind: (of_type != kind::ANY).then_some(of_type),
        zones: values::zones(zones)?,
        matches: Vec::new(),
        records: Vec::new(),
        code: 0,
        fall: Fall::default(),
    };
    for line in &directive.body {
        option(&mut template, &line[0], &line[1..])?;
    }
    Ok(template)
}

fn option(template: &mut Template, name: &Word, rest: &[Word]) -> Result<(), Wrong> {
    /// Records of one answer.
    const MOST_RECORDS: usize = 100;
    const MOST_EXPRESSIONS: usize = 100;
    match name.text.as_str() {
        "match" if rest.is_empty() => return Err(name.wrong("an expression is wanted after it")),
        "match" => {
            for word in rest {
                if template.matches.len() == MOST_EXPRESSIONS {
                    return Err(word.wrong(format!("more than {MOST_EXPRESSIONS} expressions")));
                }
                template.matches.push(values::expression(word)?);
            }
        }
        "rcode" => template.code = values::rcode(values::one(name, rest)?)?,
        "fallthrough" => template.fall = Fall::parse(rest)?,
        other => {
            let Some(section) = section(other) else {
                let known = "match, answer, authority, additional, rcode, fallthrough";
                return Err(name.wrong(format!("no option of template here; there are {known}")));
            };
            let text = values::one(name, rest)?;
            let parts = parts(&text.text).map_err(|piece| text.wrong(format!("{piece:?} can't be put in here")))?;
            template.records.push((section, parts));
            if template.records.len() > MOST_RECORDS {
                return Err(name.wrong(format!("more than {MOST_RECORDS} records")));
            }
        }
    }
    Ok(())
}
