//! `log`: which questions are told, and how. Pure.

use super::blocks::Directive;
use super::values;
use super::words::Wrong;
use crate::wire::Name;

/// What is told of a question, upstream's common and combined formats.
const COMMON: &str = r#"{remote}:{port} - {>id} "{type} {class} {name} {proto} {size} {>do} {>bufsize}" {rcode} {>rflags} {rsize} {duration}"#;
const COMBINED: &str = r#"{remote}:{port} - {>id} "{type} {class} {name} {proto} {size} {>do} {>bufsize}" {rcode} {>rflags} {rsize} {duration} {>opcode}"#;

/// What kind of answer a question got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Success,
    Denial,
    Error,
}

/// The settings of one `log`.
#[derive(Clone, Debug)]
pub struct Log {
    /// Empty: all.
    pub zones: Vec<Name>,
    pub format: String,
    /// Empty: all.
    pub classes: Vec<Class>,
}

pub fn parse(directive: &Directive) -> Result<Log, Wrong> {
    let mut names = directive.args.as_slice();
    let mut format = COMMON.to_owned();
    // As upstream has it: the last of several words is the format, and one alone when it can't be a name.
    if let Some((last, before)) = names.split_last()
        && last.text.contains('{')
    {
        names = before;
        format = last.text.replace("{common}", COMMON).replace("{combined}", COMBINED);
    }
    let mut log = Log { zones: values::zones(names)?, format, classes: Vec::new() };
    for line in &directive.body {
        if line[0].text != "class" {
            return Err(line[0].wrong("the one option of log is class"));
        }
        let mut all = false;
        for word in &line[1..] {
            match word.text.as_str() {
                "all" => all = true,
                "success" => log.classes.push(Class::Success),
                "denial" => log.classes.push(Class::Denial),
                "error" => log.classes.push(Class::Error),
                _ => return Err(word.wrong("a class is success, denial, error or all")),
            }
        }
        if all {
            log.classes.clear();
        }
    }
    Ok(log)
}
