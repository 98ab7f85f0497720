//! The checks of the CIS Kubernetes benchmark (numbers of 1.11) by what they mean: one process without upstream's files
//! and flags fails them by form, so each is asked of the running cluster itself. Pure: what is looked at is gathered in
//! [`facts`], [`ROWS`] judges it. Called by `check --cis`.

mod control_plane;
pub mod facts;
mod node;
mod policies;

use serde::Serialize;

use self::facts::Facts;

/// What came of a check, in the benchmark's words; `Na` where there is nothing that it could be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum State {
    #[serde(rename = "PASS")]
    Pass,
    #[serde(rename = "FAIL")]
    Fail,
    #[serde(rename = "MANUAL")]
    Manual,
    #[serde(rename = "N-A")]
    Na,
}

impl State {
    pub const ALL: [State; 4] = [State::Pass, State::Fail, State::Manual, State::Na];

    pub fn word(self) -> &'static str {
        match self {
            State::Pass => "PASS",
            State::Fail => "FAIL",
            State::Manual => "MANUAL",
            State::Na => "N-A",
        }
    }
}

/// The answer to one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    state: State,
    why: String,
    set: &'static str,
}

fn pass(why: impl Into<String>) -> Verdict {
    Verdict { state: State::Pass, why: why.into(), set: "" }
}

fn fail(why: impl Into<String>, set: &'static str) -> Verdict {
    Verdict { state: State::Fail, why: why.into(), set }
}

fn manual(why: impl Into<String>, set: &'static str) -> Verdict {
    Verdict { state: State::Manual, why: why.into(), set }
}

fn na(why: impl Into<String>) -> Verdict {
    Verdict { state: State::Na, why: why.into(), set: "" }
}

/// Passes when it holds.
fn holds(so: bool, why: impl Into<String>, otherwise: impl Into<String>, set: &'static str) -> Verdict {
    if so { pass(why) } else { fail(otherwise, set) }
}

/// One check of the benchmark.
pub struct Row {
    id: &'static str,
    title: &'static str,
    judge: fn(&Facts) -> Verdict,
}

const fn row(id: &'static str, title: &'static str, judge: fn(&Facts) -> Verdict) -> Row {
    Row { id, title, judge }
}

/// Every check, in the benchmark's order.
pub const ROWS: [&[Row]; 3] = [control_plane::ROWS, node::ROWS, policies::ROWS];

/// A check and what came of it, as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub id: &'static str,
    pub title: &'static str,
    pub state: State,
    pub why: String,
    /// What to set, where it is not as it should be.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub set: &'static str,
}

/// Judges everything.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let rows = ROWS.iter().flat_map(|rows| rows.iter());
    rows.map(|row| {
        let Verdict { state, why, set } = (row.judge)(facts);
        Finding { id: row.id, title: row.title, state, why, set }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_of_the_benchmark_is_there_once_in_order() {
        let ids: Vec<Vec<u32>> = ROWS
            .iter()
            .flat_map(|rows| rows.iter())
            .map(|row| row.id.split('.').map(|n| n.parse().expect("a number")).collect())
            .collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        let of = |group: &[u32]| ids.iter().filter(|id| id.starts_with(group)).count();
        let groups: [(&[u32], usize); 17] = [
            (&[1, 1], 21),
            (&[1, 2], 30),
            (&[1, 3], 7),
            (&[1, 4], 2),
            (&[2], 7),
            (&[3, 1], 3),
            (&[3, 2], 2),
            (&[4, 1], 10),
            (&[4, 2], 14),
            (&[4, 3], 1),
            (&[5, 1], 13),
            (&[5, 2], 13),
            (&[5, 3], 2),
            (&[5, 4], 2),
            (&[5, 5], 1),
            (&[5, 6], 4),
            (&[6], 0),
        ];
        for (group, count) in groups {
            assert_eq!(of(group), count, "{group:?}");
        }
    }

    /// A cluster as `up` makes it passes nothing that it doesn't do, and one as `up --hardened` makes it fails little.
    #[test]
    fn hardened_is_what_turns_checks_from_fail_to_pass() {
        let states = |facts: &Facts| -> std::collections::BTreeMap<&'static str, State> {
            judge(facts).into_iter().map(|f| (f.id, f.state)).collect()
        };
        let (plain, hardened) = (states(&Facts::sample(false)), states(&Facts::sample(true)));
        let turned = [
            "1.2.3", "1.2.9", "1.2.16", "1.2.17", "1.2.18", "1.2.19", "1.2.27", "1.2.28", "1.2.30", "3.2.1", "3.2.2",
            "4.2.13", "4.2.14", "5.1.5", "5.2.1", "5.2.2", "5.2.12",
        ];
        for id in turned {
            assert_eq!((plain.get(id), hardened.get(id)), (Some(&State::Fail), Some(&State::Pass)), "{id}");
        }
        for id in ["1.1.9", "1.1.11", "1.1.21", "1.2.6", "1.3.7", "2.2", "4.2.1", "4.3.1"] {
            assert_eq!((plain.get(id), hardened.get(id)), (Some(&State::Pass), Some(&State::Pass)), "{id}");
        }
        // Settings alone are not enough: it must be so in the log and in the store.
        let mut broken = Facts::sample(true);
        (broken.unlogged, broken.plain_secrets) = (Some(vec![""; facts::ASKED]), 1);
        let broken = states(&broken);
        for id in ["1.2.16", "1.2.17", "1.2.27", "3.2.1", "3.2.2"] {
            assert_eq!(broken.get(id), Some(&State::Fail), "{id}");
        }
        assert_eq!(hardened.get("5.3.1"), Some(&State::Fail), "stored policies are not enforced: it must say so");
    }
}
