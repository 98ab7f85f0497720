//! Flags that are true or false, as Go's programs take them: alone, or with any of Go's spellings behind `=`. Pure.
//! Callers: the flags of every component.

use clap::builder::ValueParser;
use clap::{ArgAction, Command};

/// What Go reads as a boolean.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("{text:?} is not true or false")),
    }
}

/// Makes all of a command's booleans such flags, however they were declared.
pub fn as_in_go(command: Command) -> Command {
    command.mut_args(|arg| {
        if arg.get_value_parser().type_id() != ValueParser::bool().type_id() {
            return arg;
        }
        let arg = match arg.get_action() {
            ArgAction::SetTrue => arg.action(ArgAction::Set).default_value("false"),
            _ => arg,
        };
        let arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
        arg.value_parser(boolean).value_name("BOOL").hide_possible_values(true)
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[arg(long)]
        alone: bool,
        #[arg(long, default_value_t = true, action = ArgAction::Set)]
        set: bool,
        #[arg(long)]
        text: Option<String>,
    }

    fn read(line: &str) -> Option<(bool, bool, Option<String>)> {
        let matches = as_in_go(Flags::command()).try_get_matches_from(line.split(' ')).ok()?;
        Flags::from_arg_matches(&matches).ok().map(|flags| (flags.alone, flags.set, flags.text))
    }

    #[test]
    fn a_switch_may_stand_alone_or_say_true_and_false_as_go_does() {
        assert_eq!(read("x"), Some((false, true, None)));
        assert_eq!(read("x --alone --set --text a"), Some((true, true, Some("a".to_owned()))));
        assert_eq!(read("x --alone=true --set=false"), Some((true, false, None)));
        assert_eq!(read("x --alone=T --set=0"), Some((true, false, None)));
        assert_eq!(read("x --alone=yes"), None);
        assert_eq!(read("x --set false"), None, "as pflag: a value needs its sign");
    }
}
