//! Settings of a component that upstream configures by flags and by a file (`--config`): one table a component says
//! which fields and flags there are, what each does here, and what else it may say. The kubelet and kube-proxy use it.
//!
//! A file is read first, flags have the last word. An unknown field, a wrong value or one that can't be had is refused
//! with its path; what only tunes what is built differently here is taken, and named in a warning. Of a file that is
//! somebody else's ([`Intake::follow`]) nothing is refused: what can't be had is named with the rest.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value};

use super::{LOGGING, hidden, warn};
use crate::fault::Fault;
use crate::yaml;

/// A field of the file, a flag, or both.
pub struct Setting<C: 'static> {
    /// Path in the file, dots between names; empty: a flag alone.
    pub field: &'static str,
    /// The flag's name; empty: a field alone.
    pub flag: &'static str,
    shape: Shape,
    effect: Effect<C>,
}

/// How a value is taken.
pub type Take<C> = fn(&mut C, &Value) -> Result<(), String>;

/// A row that has an effect.
pub const fn sets<C>(
    field: &'static str,
    flag: &'static str,
    shape: Shape,
    help: &'static str,
    take: Take<C>,
) -> Setting<C> {
    Setting { field, flag, shape, effect: Effect::Sets(help, take) }
}

/// A row of which only these values are done; "" is none.
pub const fn only<C>(
    field: &'static str,
    flag: &'static str,
    shape: Shape,
    done: &'static [&'static str],
) -> Setting<C> {
    Setting { field, flag, shape, effect: Effect::Only(done) }
}

/// A row that tunes what is built differently here.
pub const fn nothing<C>(field: &'static str, flag: &'static str, shape: Shape) -> Setting<C> {
    Setting { field, flag, shape, effect: Effect::Nothing }
}

/// What a value does.
enum Effect<C> {
    /// Sets something: what a person reads in `--help`, and how.
    Sets(&'static str, Take<C>),
    /// Only these are done; the first is what is meant when nothing is said.
    Only(&'static [&'static str]),
    /// Tunes what is built differently here.
    Nothing,
}

/// How a value is written, in flags as text and in files as YAML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Text,
    File,
    Number,
    /// A number that is never 0: in a file 0 says nothing.
    Count,
    /// As a flag it may stand alone.
    Switch,
    Duration,
    /// `a,b` or a list.
    List,
    /// `a=1,b=2` or an object; the sign between key and value.
    Map(char),
    /// Anything: only for what has no effect.
    Any,
}

impl Shape {
    fn word(self) -> &'static str {
        match self {
            Shape::Text | Shape::Any => "TEXT",
            Shape::File => "FILE",
            Shape::Number | Shape::Count => "N",
            Shape::Switch => "BOOL",
            Shape::Duration => "DURATION",
            Shape::List => "A,B",
            Shape::Map('<') => "A<N,B<M",
            Shape::Map(_) => "A=X,B=Y",
        }
    }

    /// A flag's text as the value that a file would hold.
    fn read(self, text: &str) -> Result<Value, String> {
        let parts = || text.split(',').map(str::trim).filter(|part| !part.is_empty());
        Ok(match self {
            Shape::Number | Shape::Count => {
                text.parse::<i64>().map_err(|_| format!("{text:?} is not a number"))?.into()
            }
            Shape::Switch => super::switches::boolean(text)?.into(),
            Shape::List => parts().map(Value::from).collect(),
            Shape::Map(sign) => {
                let pair = |part: &str| {
                    let (key, value) = part.split_once(sign)?;
                    Some((key.to_owned(), Value::from(value)))
                };
                let wrong = || format!("{text:?} is not written like {}", self.word());
                parts().map(pair).collect::<Option<Map<_, _>>>().ok_or_else(wrong)?.into()
            }
            Shape::Text | Shape::File | Shape::Duration | Shape::Any => text.into(),
        })
    }
}

/// The command of a component that is told its settings by flags and `--config`; those without effect are not shown.
pub fn command<C>(name: &'static str, about: &'static str, kind: &Kind, table: &'static [Setting<C>]) -> Command {
    let config = Arg::new(CONFIG).long(CONFIG).value_name("FILE").value_parser(clap::value_parser!(PathBuf));
    let config = config.help(format!("A {}; flags have the last word", kind.kind));
    hidden(flags(Command::new(name).about(about).arg(config), table), &[&LOGGING])
}

const CONFIG: &str = "config";

fn flags<C>(mut command: Command, table: &'static [Setting<C>]) -> Command {
    for setting in table.iter().filter(|setting| !setting.flag.is_empty()) {
        let arg = Arg::new(setting.flag).long(setting.flag).value_name(setting.shape.word());
        let arg = match setting.effect {
            Effect::Sets(help, _) => arg.help(help),
            Effect::Only(_) | Effect::Nothing => arg.hide(true),
        };
        command = command.arg(match setting.shape {
            Shape::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            Shape::List | Shape::Map(_) => arg.action(ArgAction::Append),
            _ => arg,
        });
    }
    command
}

/// Takes what the command line of [`command`] says, first its file; names what has no effect on standard error.
pub fn take<C>(
    command: &Command,
    matches: &ArgMatches,
    config: &mut C,
    kind: &Kind,
    table: &[Setting<C>],
) -> Result<(), Fault> {
    let mut intake = Intake { without_effect: LOGGING.given(matches), ..Intake::new(config, table) };
    if let Some(path) = matches.get_one::<PathBuf>(CONFIG) {
        let wrong = |why: String| Fault::usage(format!("--{CONFIG} {}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("it can't be read: {error}")))?;
        intake.file(&text, kind).map_err(wrong)?;
    }
    intake.flags(matches)?;
    warn(command.get_name(), &intake.without_effect);
    Ok(())
}

/// What a file must say that it is.
pub struct Kind {
    pub api_version: &'static str,
    pub kind: &'static str,
}

/// A configuration that takes what it is told.
pub struct Intake<'a, C: 'static> {
    pub config: &'a mut C,
    pub table: &'a [Setting<C>],
    /// Flags and fields that were given and change nothing.
    pub without_effect: Vec<String>,
    /// Set where a file is only followed as far as it can be.
    followed: Option<Followed>,
}

/// How a file of somebody else's is followed.
#[derive(Clone, Copy)]
pub struct Followed {
    /// Fields that are passed over, with all below them: it says them for others.
    pub own: &'static [&'static str],
    /// Whether a field's value may come from there; what may not is without effect.
    pub may: fn(&str, &Value) -> bool,
}

impl<'a, C> Intake<'a, C> {
    pub fn new(config: &'a mut C, table: &'a [Setting<C>]) -> Intake<'a, C> {
        Intake { config, table, without_effect: Vec::new(), followed: None }
    }

    /// Takes of a file what can and may be had. What can't is without effect.
    pub fn follow(&mut self, text: &str, kind: &Kind, followed: Followed) -> Result<(), String> {
        self.followed = Some(followed);
        self.file(text, kind)
    }

    /// Takes the flags that were given.
    pub fn flags(&mut self, matches: &ArgMatches) -> Result<(), Fault> {
        for setting in self.table.iter().filter(|setting| !setting.flag.is_empty()) {
            let Some(texts) = matches.get_many::<String>(setting.flag) else { continue };
            let text = texts.map(String::as_str).collect::<Vec<_>>().join(",");
            let taken = setting.shape.read(&text).and_then(|value| setting.take(self.config, &value));
            match taken {
                Ok(true) => {}
                Ok(false) => self.without_effect.push(format!("--{}", setting.flag)),
                Err(why) => return Err(Fault::usage(format!("--{}: {why}", setting.flag))),
            }
        }
        Ok(())
    }

    /// Takes the text of a configuration file.
    pub fn file(&mut self, text: &str, kind: &Kind) -> Result<(), String> {
        let Value::Object(mut fields) = yaml::parse(text)? else {
            return Err(format!("it must hold a {}", kind.kind));
        };
        for (name, wanted) in [("apiVersion", kind.api_version), ("kind", kind.kind)] {
            match fields.remove(name) {
                Some(Value::String(given)) if given == wanted => {}
                given => return Err(format!("{name}: it is {}, and must be {wanted}", given.unwrap_or_default())),
            }
        }
        self.object("", &fields)
    }

    fn object(&mut self, path: &str, fields: &Map<String, Value>) -> Result<(), String> {
        for (name, value) in fields {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if self.followed.is_some_and(|followed| followed.own.contains(&path.as_str())) {
                continue;
            }
            if self.followed.is_some_and(|followed| !(followed.may)(&path, value)) {
                self.without_effect.push(path);
                continue;
            }
            match self.field(&path, value) {
                Err(_) if self.followed.is_some() => self.without_effect.push(path),
                taken => taken?,
            }
        }
        Ok(())
    }

    fn field(&mut self, path: &str, value: &Value) -> Result<(), String> {
        if let Some(setting) = self.table.iter().find(|setting| setting.field == path) {
            // Upstream's defaults stand wherever a file says nothing, and nothing is also "" and 0s.
            if !unset(setting.shape, value)
                && !setting.take(self.config, value).map_err(|why| format!("{path}: {why}"))?
            {
                self.without_effect.push(path.to_owned());
            }
            return Ok(());
        }
        let below = |setting: &&Setting<C>| setting.field.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        if !self.table.iter().any(|setting| below(&setting)) {
            return Err(format!("{path}: there is no such field; allowed are {}", self.siblings(path)));
        }
        match value {
            Value::Null => Ok(()),
            Value::Object(fields) => self.object(path, fields),
            other => Err(format!("{path}: {other} is not an object")),
        }
    }

    /// The names that could stand in a path's place.
    fn siblings(&self, path: &str) -> String {
        let parent = path.rsplit_once('.').map_or(String::new(), |(parent, _)| format!("{parent}."));
        let fields = self.table.iter().map(|setting| setting.field);
        let names = fields.filter_map(|field| field.strip_prefix(parent.as_str())?.split('.').next());
        let mut names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    }
}

fn unset(shape: Shape, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => {
            text.is_empty() || (shape == Shape::Duration && meta::duration::parse(text).is_ok_and(|d| d.is_zero()))
        }
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        // Durations may be written as a number of nanoseconds; tools write 0.
        Value::Number(number) => matches!(shape, Shape::Duration | Shape::Count) && number.as_i64() == Some(0),
        Value::Bool(_) => false,
    }
}

impl<C> Setting<C> {
    /// Takes a value; false when it has no effect.
    fn take(&self, config: &mut C, value: &Value) -> Result<bool, String> {
        match &self.effect {
            Effect::Sets(_, take) => take(config, value).map(|()| true),
            Effect::Nothing => Ok(false),
            Effect::Only(done) => {
                let given = match value {
                    Value::String(text) => text.clone(),
                    Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(","),
                    other => other.to_string(),
                };
                if done.contains(&given.as_str()) {
                    return Ok(true);
                }
                let listed: Vec<&str> = done.iter().copied().filter(|text| !text.is_empty()).collect();
                Err(match listed.as_slice() {
                    [] => format!("{given} can't be had here yet: leave it out"),
                    listed => format!("{given} can't be had here yet: only {}", listed.join(" or ")),
                })
            }
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Text.
pub fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("{value} is not text"))
}

/// Text of a certain form, such as an address.
pub fn parsed<T: std::str::FromStr>(value: &Value, what: &str) -> Result<T, String> {
    text(value)?.parse().map_err(|_| format!("{value} is not {what}"))
}

/// A number that fits.
pub fn number<T: TryFrom<i64>>(value: &Value) -> Result<T, String> {
    value.as_i64().and_then(|n| T::try_from(n).ok()).ok_or_else(|| format!("{value} is not a number that can be"))
}

pub fn switch(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("{value} is not true or false"))
}

/// Go's durations: `90s`, `1h30m`.
pub fn duration(value: &Value) -> Result<std::time::Duration, String> {
    meta::duration::parse(text(value)?)
}

/// A list whose entries have a certain form.
pub fn list<T: std::str::FromStr>(value: &Value, what: &str) -> Result<Vec<T>, String> {
    let entries = value.as_array().ok_or_else(|| format!("{value} is not a list"))?;
    entries.iter().map(|entry| parsed(entry, what)).collect()
}

/// An object of texts.
pub fn pairs(value: &Value) -> Result<impl Iterator<Item = (&str, String)>, String> {
    let fields = value.as_object().ok_or_else(|| format!("{value} is not an object"))?;
    Ok(fields.iter().map(|(key, value)| (key.as_str(), plain(value))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Config {
        pods: u32,
        labels: Vec<(String, String)>,
    }

    const TABLE: &[Setting<Config>] = &[
        sets("maxPods", "max-pods", Shape::Count, "Most pods", |c, v| number(v).map(|n| c.pods = n)),
        sets("", "node-labels", Shape::Map('='), "Labels", |c, v| {
            pairs(v).map(|all| c.labels = all.map(|(key, value)| (key.to_owned(), value)).collect())
        }),
        only("auth.mode", "auth-mode", Shape::Text, &["Webhook"]),
        nothing("auth.ttl", "auth-ttl", Shape::Duration),
    ];
    const KIND: Kind = Kind { api_version: "x/v1", kind: "XConfiguration" };

    fn file(text: &str) -> Result<(Config, Vec<String>), String> {
        let mut config = Config::default();
        let mut intake = Intake::new(&mut config, TABLE);
        intake.file(&format!("apiVersion: x/v1\nkind: XConfiguration\n{text}"), &KIND)?;
        let warnings = intake.without_effect;
        Ok((config, warnings))
    }

    fn line(args: &[&str]) -> Result<(Config, Vec<String>), Fault> {
        let mut config = Config::default();
        let matches = flags(Command::new("x"), TABLE).try_get_matches_from([&["x"], args].concat()).expect("flags");
        let mut intake = Intake::new(&mut config, TABLE);
        intake.flags(&matches)?;
        let warnings = intake.without_effect;
        Ok((config, warnings))
    }

    #[test]
    fn a_file_sets_what_is_done_and_names_what_has_no_effect() {
        let (config, warnings) = file("maxPods: 7\nauth: {mode: Webhook, ttl: 5s}").expect("taken");
        assert_eq!((config.pods, warnings), (7, vec!["auth.ttl".to_owned()]));
        // What tools write for "as by default".
        let (config, warnings) = file("maxPods: null\nauth: {mode: '', ttl: 0s}").expect("taken");
        assert_eq!((config.pods, warnings.len()), (0, 0));
    }

    #[test]
    fn nothing_is_said_by_a_0_in_a_file_but_by_one_on_the_command_line() {
        let mut config = Config { pods: 5, ..Config::default() };
        let mut intake = Intake::new(&mut config, TABLE);
        intake.file("apiVersion: x/v1\nkind: XConfiguration\nmaxPods: 0", &KIND).expect("taken");
        assert_eq!(intake.config.pods, 5);
        let matches = flags(Command::new("x"), TABLE).try_get_matches_from(["x", "--max-pods=0"]).expect("flags");
        intake.flags(&matches).expect("taken");
        assert_eq!(config.pods, 0);
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_path() {
        let says = |text: &str| file(text).err().unwrap_or_default();
        assert_eq!(says("maxPods: many"), "maxPods: \"many\" is not a number that can be");
        assert_eq!(says("auth: {mode: AlwaysAllow}"), "auth.mode: AlwaysAllow can't be had here yet: only Webhook");
        assert_eq!(says("auth: {moed: x}"), "auth.moed: there is no such field; allowed are mode, ttl");
        assert_eq!(says("auth: 7"), "auth: 7 is not an object");
        let mut config = Config::default();
        let mut intake = Intake::new(&mut config, TABLE);
        let wrong = intake.file("kind: Pod", &KIND);
        assert_eq!(wrong, Err("apiVersion: it is null, and must be x/v1".to_owned()));
    }

    #[test]
    fn flags_are_the_same_settings() {
        let (config, warnings) =
            line(&["--max-pods=9", "--node-labels=a=1,b=x=y", "--node-labels", "c=", "--auth-ttl", "1s"])
                .expect("taken");
        let labels = [("a", "1"), ("b", "x=y"), ("c", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!((config.pods, config.labels, warnings), (9, labels.to_vec(), vec!["--auth-ttl".to_owned()]));
        let refused = line(&["--auth-mode", "AlwaysAllow"]).err().expect("refused");
        assert_eq!(refused.to_string(), "--auth-mode: AlwaysAllow can't be had here yet: only Webhook");
    }
}
