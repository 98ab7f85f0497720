//! Steps with a tick and a duration. The daemon tells its steps as JSON lines on standard output when `up` listens,
//! and prints them itself when it runs in the foreground.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use crate::fault::best_effort;
use serde::{Deserialize, Serialize};

/// What the daemon tells while it starts.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum Progress {
    Step {
        what: String,
        millis: u64,
    },
    /// The start goes on, but somebody should look.
    Warning {
        sentence: String,
    },
    /// Something that a person who starts this should know.
    Note {
        sentence: String,
    },
    Ready,
    Failed {
        sentence: String,
        code: u8,
    },
}

/// Where steps go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    Person,
    Parent,
}

/// The steps of one start.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    pub audience: Audience,
}

impl Steps {
    /// A step is done. Steps run side by side: each took the time since it began itself.
    pub fn done(&self, what: &str, began: Instant) {
        self.report(&Progress::Step { what: what.into(), millis: began.elapsed().as_millis() as u64 });
    }

    pub fn report(&self, progress: &Progress) {
        // The listener may have gone: starting goes on without it.
        let mut out = std::io::stdout().lock();
        let written = match self.audience {
            Audience::Person => match progress {
                Progress::Step { what, millis } => writeln!(out, "{}", step_line(what, *millis)),
                Progress::Warning { sentence } => writeln!(out, "Warning: {sentence}"),
                // Who is in front of the log has read it there.
                Progress::Note { .. } | Progress::Ready | Progress::Failed { .. } => Ok(()),
            },
            Audience::Parent => {
                let line = serde_json::to_string(progress).unwrap_or_default();
                writeln!(out, "{line}").and_then(|()| out.flush())
            }
        };
        best_effort("a step for who listens", written);
    }
}

/// A finished step as a person sees it.
pub fn step_line(what: &str, millis: u64) -> String {
    let (on, off) = if colour() { ("\x1b[32m", "\x1b[0m") } else { ("", "") };
    format!(" {on}✓{off} {what:<44} {:>6}", duration(Duration::from_millis(millis)))
}

fn colour() -> bool {
    use std::io::IsTerminal;
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// `340 ms`, `1.2 s`, `2m5s`.
pub fn duration(d: Duration) -> String {
    match d.as_millis() {
        ms if ms < 1000 => format!("{ms} ms"),
        ms if ms < 60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        ms => format!("{}m{}s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// Reads what a starting daemon tells, line by line, until it ends.
pub fn listen(from: impl std::io::Read) -> impl Iterator<Item = Progress> {
    std::io::BufReader::new(from).lines().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_heard() {
        let told = [Progress::Step { what: "etcd".into(), millis: 12 }, Progress::Ready];
        let text: String = told.iter().map(|t| serde_json::to_string(t).expect("json") + "\n").collect();
        let heard: Vec<Progress> = listen(format!("noise\n{text}").as_bytes()).collect();
        assert_eq!(heard, told);
    }

    #[test]
    fn durations_read_well() {
        let shown = [5, 1234, 125_000].map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(shown, ["5 ms", "1.2 s", "2m5s"]);
    }
}
