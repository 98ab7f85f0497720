//! The CNI exec protocol, both ways: being called as a plugin, and calling one. Does I/O.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command as Process, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Error;
use crate::plugins::{self, Command, Invocation};
use crate::types::VERSION;

/// A configuration is a few kilobytes; one that is larger is not one.
pub(crate) const MOST_INPUT: u64 = 1 << 20;
/// A result is a few kilobytes; so is what a plugin says when it fails.
const MOST_OUTPUT: u64 = 1 << 20;
/// What a plugin may take: the time after which a kubelet gives up on its runtime.
const PATIENCE: Duration = Duration::from_secs(120);

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
            .take(MOST_INPUT + 1)
            .read_to_string(&mut input)
            .map_err(Error::io("reading the network configuration from standard input"))?;
        if input.len() as u64 > MOST_INPUT {
            return Err(Error::config("the whole", format!("it is larger than {MOST_INPUT} bytes")));
        }
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

/// The program of a plugin, in the first of these directories that has it.
pub(crate) fn find(plugin: &str, dirs: &[PathBuf]) -> Option<PathBuf> {
    let is_name = !plugin.is_empty() && !plugin.contains('/');
    dirs.iter().filter(|_| is_name).map(|dir| dir.join(plugin)).find(|program| program.is_file())
}

/// Calls a plugin that is a program, by the protocol; what it prints comes back.
pub(crate) fn call(plugin: &str, call: &Invocation) -> Result<Option<Value>, Error> {
    let missing = || Error::NoPlugin { plugin: plugin.to_owned(), path: call.path.clone() };
    let program = find(plugin, &call.path).ok_or_else(missing)?;
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
    let failed = |msg: String| Error::Plugin { plugin: plugin.to_owned(), code: FAILED, msg, details: None };
    if let Some(mut input) = child.stdin.take() {
        let config = call.config.to_string();
        // On a thread of its own, as a plugin may print before it reads. One that reads nothing closes its input: its
        // answer tells.
        std::thread::spawn(move || drop(input.write_all(config.as_bytes())));
    }
    let output = output_of(child, PATIENCE).map_err(failed)?;
    let printed: Result<Value, _> = serde_json::from_slice(&output.stdout);
    if output.status.success() {
        return match printed {
            Ok(printed) => Ok(Some(printed)),
            // Other commands than ADD need not print, and what they print means nothing.
            Err(e) if call.command == Command::Add && !output.stdout.trim_ascii().is_empty() => {
                Err(failed(format!("it printed what is no result: {e}")))
            }
            Err(_) => Ok(None),
        };
    }
    let printed = printed.ok();
    let text = |key: &str| printed.as_ref().and_then(|p| p[key].as_str()).map(str::to_owned);
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Plugin {
        plugin: plugin.to_owned(),
        code: printed
            .as_ref()
            .and_then(|p| p["code"].as_u64())
            .and_then(|code| u32::try_from(code).ok())
            .unwrap_or(FAILED),
        msg: text("msg").unwrap_or_else(|| format!("{}, it printed {stderr:?}", output.status)),
        details: text("details"),
    })
}

/// The code of a plugin that gives none.
const FAILED: u32 = 999;

/// What a plugin prints until it ends. One that takes too long or prints too much is killed; also what it started may
/// hold its output open no longer than that.
fn output_of(mut child: Child, patience: Duration) -> Result<Output, String> {
    let deadline = Instant::now() + patience;
    let (stdout, stderr) = (read_on_thread(child.stdout.take()), read_on_thread(child.stderr.take()));
    let read = collect(&stdout, deadline).and_then(|stdout| Ok((stdout, collect(&stderr, deadline)?)));
    let read = read.map_err(|problem| problem.unwrap_or_else(|| format!("it did not end within {patience:?}")));
    // It closed its output: it ends now, or is waited for no longer than the rest of its time.
    while read.is_ok() && Instant::now() < deadline {
        match child.try_wait() {
            Ok(Some(status)) => return read.map(|(stdout, stderr)| Output { status, stdout, stderr }),
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(e) => return Err(e.to_string()),
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    read.and_then(|_| Err(format!("it did not end within {patience:?}")))
}

fn read_on_thread(from: Option<impl Read + Send + 'static>) -> Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = from.map_or(Ok(0), |from| from.take(MOST_OUTPUT + 1).read_to_end(&mut bytes));
        let _ = sender.send(read.map(|_| bytes));
    });
    receiver
}

/// Everything that was read; an error without words when the time is over.
fn collect(from: &Receiver<std::io::Result<Vec<u8>>>, deadline: Instant) -> Result<Vec<u8>, Option<String>> {
    match from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(Ok(bytes)) if bytes.len() as u64 > MOST_OUTPUT => {
            Err(Some(format!("it printed more than {MOST_OUTPUT} bytes")))
        }
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(e)) => Err(Some(e.to_string())),
        Err(RecvTimeoutError::Timeout) => Err(None),
        Err(RecvTimeoutError::Disconnected) => Err(Some("its output can't be read".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, patience: Duration) -> Result<Output, String> {
        let mut shell = Process::new("sh");
        shell.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        output_of(shell.spawn().unwrap(), patience)
    }

    #[test]
    fn a_plugin_that_hangs_floods_or_leaves_something_behind_is_ended() {
        let long = Duration::from_secs(30);
        let output = run("echo '{}'; echo oops >&2; exit 3", long).unwrap();
        assert_eq!(
            (output.status.code(), output.stdout.as_slice(), output.stderr.as_slice()),
            (Some(3), &b"{}\n"[..], &b"oops\n"[..])
        );
        let short = Duration::from_millis(300);
        for hangs in ["sleep 30", "sleep 30 & echo '{}'", "exec >&- 2>&-; sleep 30"] {
            let started = Instant::now();
            assert!(run(hangs, short).unwrap_err().starts_with("it did not end within"), "{hangs}");
            assert!(started.elapsed() < Duration::from_secs(10), "{hangs}");
        }
        let flood = "head -c 3000000 /dev/zero; sleep 30";
        assert_eq!(run(flood, long).unwrap_err(), "it printed more than 1048576 bytes");
        assert!(run("head -c 3000000 /dev/zero >&2; sleep 30", Duration::from_secs(2)).is_err());
    }
}
