//! Upstream's flags that ask for what can't be had here: refused by name, with the reason. Pure. Callers: components.

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::switches::boolean;

/// One such flag.
pub struct Refused {
    pub flag: &'static str,
    /// The value by which it asks for nothing; of one that is a switch `false`.
    pub nothing: &'static str,
    pub why: &'static str,
}

impl Refused {
    fn is_switch(&self) -> bool {
        self.nothing == "false"
    }

    fn arg(&self) -> Arg {
        let arg = Arg::new(self.flag).long(self.flag).hide(true).action(ArgAction::Append);
        if self.is_switch() { arg.num_args(0..=1).require_equals(true).default_missing_value("true") } else { arg }
    }

    fn asks(&self, value: &str) -> bool {
        !value.is_empty() && value != self.nothing && !(self.is_switch() && boolean(value) == Ok(false))
    }
}

/// Adds them to a command.
pub fn add(command: Command, list: &[Refused]) -> Command {
    list.iter().fold(command, |command, refused| command.arg(refused.arg()))
}

/// The first that asks for something.
pub fn check(command: &mut Command, matches: &ArgMatches, list: &[Refused]) -> Result<(), clap::Error> {
    for refused in list {
        for value in matches.get_many::<String>(refused.flag).into_iter().flatten() {
            if refused.asks(value) {
                let value = if refused.is_switch() { String::new() } else { format!(" {value}") };
                let sentence = format!("--{}{value} can't be had here: {}", refused.flag, refused.why);
                return Err(command.error(ErrorKind::InvalidValue, sentence));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[Refused] = &[
        Refused { flag: "auto-tls", nothing: "false", why: "give certificates" },
        Refused { flag: "cors", nothing: "*", why: "any origin may ask" },
    ];

    fn says(line: &str) -> Option<String> {
        let mut command = add(Command::new("x"), LIST);
        let matches = command.clone().try_get_matches_from(line.split(' ')).expect("known");
        check(&mut command, &matches, LIST).err().map(|error| error.to_string())
    }

    #[test]
    fn what_asks_for_nothing_is_taken_and_the_rest_told() {
        for line in ["x", "x --auto-tls=false", "x --auto-tls=0 --cors *", "x --cors="] {
            assert_eq!(says(line), None, "{line}");
        }
        let said = says("x --auto-tls").expect("refused");
        assert!(said.contains("--auto-tls can't be had here: give certificates"), "{said}");
        let said = says("x --cors https://a").expect("refused");
        assert!(said.contains("--cors https://a can't be had here: any origin may ask"), "{said}");
    }
}
