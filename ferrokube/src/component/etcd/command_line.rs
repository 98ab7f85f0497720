//! etcd's command line in the form that all other components have: Go's flags take one dash as well as two, and each flag
//! that isn't given is looked for in the environment (`ETCD_DATA_DIR`). Pure. Caller: `ferrokube etcd`.

use std::ffi::{OsStr, OsString};

/// The arguments with two dashes, and those of the environment. `names` are those of all flags.
pub fn complete(args: &[OsString], names: &[String], environment: impl Fn(&str) -> Option<OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = args.iter().map(|arg| with_two_dashes(arg, names)).collect();
    let from_environment: Vec<OsString> = names
        .iter()
        .filter(|name| !args.iter().any(|arg| flag(arg) == Some(name)))
        .filter_map(|name| {
            let variable = format!("ETCD_{}", name.to_uppercase().replace('-', "_"));
            let value = environment(&variable).filter(|value| !value.is_empty())?;
            let mut arg = OsString::from(format!("--{name}="));
            arg.push(value);
            Some(arg)
        })
        .collect();
    all.splice(1.min(all.len())..1.min(all.len()), from_environment);
    all
}

/// The name of the flag that an argument is.
fn flag(arg: &OsStr) -> Option<&str> {
    let text = arg.to_str()?;
    let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-'))?;
    Some(name.split('=').next().unwrap_or(name))
}

fn with_two_dashes(arg: &OsString, names: &[String]) -> OsString {
    let known = |arg: &OsString| flag(arg).is_some_and(|flag| names.iter().any(|name| name == flag));
    match arg.to_str() {
        Some(text) if !text.starts_with("--") && known(arg) => format!("-{text}").into(),
        _ => arg.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        let args: Vec<OsString> = text.split(' ').map(OsString::from).collect();
        let names = ["name", "log-level", "data-dir"].map(str::to_owned);
        let environment = |variable: &str| match variable {
            "ETCD_DATA_DIR" => Some("/d".into()),
            "ETCD_NAME" => Some("n".into()),
            "ETCD_LOG_LEVEL" => Some("".into()),
            _ => None,
        };
        let all = complete(&args, &names, environment);
        all.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_dash_is_as_good_as_two_and_the_environment_fills_what_is_not_given() {
        assert_eq!(line("etcd"), "etcd --name=n --data-dir=/d");
        assert_eq!(line("etcd -log-level warn --name=a"), "etcd --data-dir=/d --log-level warn --name=a");
        assert_eq!(line("etcd -data-dir=/x -name y"), "etcd --data-dir=/x --name y");
        // Not a flag of etcd: for the parser to refuse.
        assert_eq!(line("etcd -h -nonsense"), "etcd --name=n --data-dir=/d -h -nonsense");
    }
}
