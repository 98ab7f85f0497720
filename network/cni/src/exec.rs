//! The CNI exec protocol, both ways: being called as a plugin, and calling one. Does I/O.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};

use serde_json::{Value, json};

use crate::Error;
use crate::plugins::{self, Command, Invocation};
use crate::types::VERSION;

/// A configuration is a few kilobytes; one that is larger is not one.
const MOST_INPUT: u64 = 1 << 20;

/// Does what the environment and standard input ask of the plugin of this name, prints the outcome, and gives the
/// exit code. `ferrokube` calls it when it is started under a plugin's name.
pub fn main(plugin: &str) -> i32 {
    let outcome = invocation().and_then(|call| {
        let version = call.config["cniVersion"].as_str().unwrap_or(VERSION).to_owned();
        plugins::run(plugin, &call).map_err(|e| (version, e))
    });
    let (printed, code) = match outcome {
        Ok(printed) => (printed, 0),
        Err((version, e)) => (Some(json!({"cniVersion": version, "code": e.code(), "msg": e.to_string()})), 1),
    };
    if let Some(printed) = printed {
        // Whoever closed our output does not read the exit code either.
        let _ = writeln!(std::io::stdout(), "{printed}");
    }
    code
}

fn invocation() -> Result<Invocation, (String, Error)> {
    let read = || -> Result<Invocation, Error> {
        let command = command(&variable("CNI_COMMAND"))?;
        let mut input = String::new();
        std::io::stdin()
            .take(MOST_INPUT)
            .read_to_string(&mut input)
            .map_err(Error::io("reading the network configuration from standard input"))?;
        let config = if input.trim().is_empty() && command == Command::Version {
            Value::Null
        } else {
            serde_json::from_str(&input)?
        };
        let netns = Some(variable("CNI_NETNS")).filter(|n| !n.is_empty()).map(PathBuf::from);
        let call = Invocation {
            command,
            container_id: variable("CNI_CONTAINERID"),
            netns,
            ifname: variable("CNI_IFNAME"),
            args: variable("CNI_ARGS"),
            path: std::env::split_paths(&variable("CNI_PATH")).filter(|p| !p.as_os_str().is_empty()).collect(),
            config,
        };
        validate(&call)?;
        Ok(call)
    };
    read().map_err(|e| (VERSION.to_owned(), e))
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn command(word: &str) -> Result<Command, Error> {
    Ok(match word {
        "ADD" => Command::Add,
        "DEL" => Command::Del,
        "CHECK" => Command::Check,
        "GC" => Command::Gc,
        "STATUS" => Command::Status,
        "VERSION" => Command::Version,
        other => {
            let problem = format!("{other:?} is none of ADD, DEL, CHECK, GC, STATUS, VERSION");
            return Err(Error::Environment { variable: "CNI_COMMAND", problem });
        }
    })
}

/// What the specification says of the variables.
pub(crate) fn validate(call: &Invocation) -> Result<(), Error> {
    if !matches!(call.command, Command::Add | Command::Del | Command::Check) {
        return Ok(());
    }
    let wrong = |variable, problem: &str| Err(Error::Environment { variable, problem: problem.to_owned() });
    let mut id = call.container_id.chars();
    if !id.next().is_some_and(|c| c.is_ascii_alphanumeric())
        || !id.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
    {
        return wrong("CNI_CONTAINERID", "needed, and made of letters, digits, '_', '.' and '-'");
    }
    let name = &call.ifname;
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if name.is_empty() || name.len() > 15 || name.contains(odd) || name == "." || name == ".." {
        return wrong("CNI_IFNAME", "needed, at most 15 bytes, without '/', ':' and spaces");
    }
    if call.netns.is_none() && call.command != Command::Del {
        return wrong("CNI_NETNS", "needed for ADD and CHECK");
    }
    Ok(())
}

/// Calls a plugin that is not built in, by the protocol; what it prints comes back.
pub(crate) fn call(plugin: &str, call: &Invocation) -> Result<Option<Value>, Error> {
    let missing = || Error::NoPlugin { plugin: plugin.to_owned(), path: call.path.clone() };
    if plugin.is_empty() || plugin.contains('/') {
        return Err(missing());
    }
    let program = call.path.iter().map(|dir| dir.join(plugin)).find(|p| p.is_file()).ok_or_else(missing)?;
    let what = || format!("running CNI plugin {}", program.display());
    let word = match call.command {
        Command::Add => "ADD",
        Command::Del => "DEL",
        Command::Check => "CHECK",
        Command::Gc => "GC",
        Command::Status => "STATUS",
        Command::Version => "VERSION",
    };
    let mut child = Process::new(&program)
        .env("CNI_COMMAND", word)
        .env("CNI_CONTAINERID", &call.container_id)
        .env("CNI_NETNS", call.netns.as_deref().unwrap_or_else(|| "".as_ref()))
        .env("CNI_IFNAME", &call.ifname)
        .env("CNI_ARGS", &call.args)
        .env("CNI_PATH", std::env::join_paths(&call.path).unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io(what()))?;
    if let Some(mut input) = child.stdin.take() {
        // A plugin that reads nothing closes its input: its answer tells.
        let _ = input.write_all(call.config.to_string().as_bytes());
    }
    let output = child.wait_with_output().map_err(Error::io(what()))?;
    let printed: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    if output.status.success() {
        return Ok(printed);
    }
    let text = |key: &str| printed.as_ref().and_then(|p| p[key].as_str()).map(str::to_owned);
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Plugin {
        plugin: plugin.to_owned(),
        code: printed.as_ref().and_then(|p| p["code"].as_u64()).unwrap_or(999) as u32,
        msg: text("msg").unwrap_or_else(|| format!("{}, it printed {stderr:?}", output.status)),
        details: text("details"),
    })
}
