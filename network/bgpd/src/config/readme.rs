//! What README's chapter says of the file, beside what the parser takes: every field and every word that one can be has its
//! place there, in the table of its structure. The parser's own refusals are asked for the names.

use std::collections::BTreeSet;

use bgp::policy::{Change, Filter, Pattern, Rule};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::document::{Decision, Document, Kernel, Listen, Mrt, Network};
use super::settings::{AoKeySettings, BfdSettings, LimitSettings, ROLES, RestartSettings, Settings};

const README: &str = include_str!("../../../../README.md");

/// What stands between backticks in some lines, word by word.
fn words<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let code = lines.flat_map(|line| line.split('`').skip(1).step_by(2));
    code.flat_map(|span| span.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')).collect()
}

/// The words of a table, by how it begins.
fn table(head: &str) -> BTreeSet<&'static str> {
    let mut lines = README.lines().skip_while(|line| !line.starts_with(&format!("| {head} |")));
    assert!(lines.next().is_some(), "README has no table {head:?}");
    words(lines.take_while(|line| line.starts_with('|')))
}

/// What a structure says that it knows, where there is something in a value that it doesn't.
fn known<T: DeserializeOwned>(value: Value) -> Vec<String> {
    let refusal = match serde_json::from_value::<T>(value.clone()) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{value} was taken"),
    };
    let (_, expected) = refusal.split_once("expected ").unwrap_or_else(|| panic!("{refusal}"));
    let names: Vec<String> = expected.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(!names.is_empty(), "{refusal}");
    names
}

fn fields<T: DeserializeOwned>() -> Vec<String> {
    known::<T>(json!({ "?": 0 }))
}

fn says(head: &str, names: &[String]) {
    let table = table(head);
    let missing: Vec<&String> = names.iter().filter(|name| !table.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "README's table {head:?} lacks {missing:?}");
}

#[test]
fn every_field_of_the_file_is_in_its_table_of_the_readme() {
    let (neighbor, network) = ("field of a neighbour", "field of a network, of `decision`, of `mrt`");
    let filter = "field of a filter, of a rule";
    for (head, names) in [
        ("field of the file", fields::<Document>()),
        ("field of the file", fields::<Listen>()),
        (neighbor, fields::<Settings>()),
        (neighbor, fields::<LimitSettings>()),
        (neighbor, known::<LimitSettings>(json!({"ipv4": {"?": 0}}))),
        (neighbor, fields::<RestartSettings>()),
        (neighbor, fields::<BfdSettings>()),
        ("field of `graceful-restart`", fields::<RestartSettings>()),
        ("field of `bfd`", fields::<BfdSettings>()),
        ("field of a key of `tcp-ao`", fields::<AoKeySettings>()),
        ("field of `kernel`", fields::<Kernel>()),
        ("field of `kernel`", known::<Kernel>(json!({"direct": {"?": 0}}))),
        ("field of `kernel`", known::<Kernel>(json!({"learn": {"?": 0}}))),
        (network, fields::<Network>()),
        (network, fields::<Decision>()),
        (network, fields::<Mrt>()),
        (filter, fields::<Filter>()),
        (filter, fields::<Rule>()),
        ("field of `match`", fields::<Pattern>()),
        ("field of `match`", known::<Pattern>(json!({"prefixes": [{"?": 0}]}))),
        ("field of `match`", known::<Pattern>(json!({"as-path": {"?": 0}}))),
        ("field of `match`", known::<Pattern>(json!({"med": {"?": 0}}))),
        ("field of `set`", fields::<Change>()),
        ("field of `set`", known::<Change>(json!({"communities": {"?": 0}}))),
        ("field of `set`", known::<Change>(json!({"prepend": {"?": 0}}))),
    ] {
        says(head, &names);
    }
}

#[test]
fn every_word_that_a_field_can_be_is_there() {
    let key = json!({"send-id": 1, "receive-id": 1, "algorithm": "?", "key": "a"});
    for (head, names) in [
        ("field of a neighbour", ROLES.map(|(name, _)| name.to_owned()).to_vec()),
        ("field of a neighbour", known::<Settings>(json!({"families": ["?"]}))),
        ("field of a neighbour", known::<Settings>(json!({"add-path": "?"}))),
        ("field of a neighbour", known::<Settings>(json!({"next-hop": "?"}))),
        ("field of `graceful-restart`", known::<RestartSettings>(json!({"mode": "?"}))),
        ("field of a key of `tcp-ao`", known::<AoKeySettings>(key)),
        (
            "field of a network, of `decision`, of `mrt`",
            known::<Network>(json!({"prefix": "10.0.0.0/8", "kernel": "?"})),
        ),
        ("field of a filter, of a rule", known::<Filter>(json!({"name": "a", "default": "?"}))),
        ("field of `match`", known::<Pattern>(json!({"peer-type": "?"}))),
        ("field of `match`", known::<Pattern>(json!({"source": ["?"]}))),
    ] {
        says(head, &names);
    }
}

/// The numbers in brackets, where they are somebody's constants.
#[test]
fn defaults_are_as_the_readme_has_them() {
    let session = bgp::session::Config::new(1, bgp::session::config::RemoteAs::Internal, [10, 0, 0, 1].into());
    let (restart, bfd) = (bgp::session::config::Restart::default(), bgp::bfd::Config::default());
    let kernel = crate::kernel::Config::default();
    let limit = bgp::session::config::DEFAULT_PREFIX_LIMIT;
    let minutes = |time: std::time::Duration| format!("{}m", time.as_secs() / 60);
    for said in [
        format!("silence that ends the session [{}s;", session.hold_time),
        format!("the least that he may ask for [{}s]", session.least_hold_time),
        format!("until a connection is tried again [{}s]", session.connect_retry.as_secs()),
        format!("the rest after a failure [{}s]", session.idle_hold.as_secs()),
        format!("up to this [{}s]", session.most_idle_hold.as_secs()),
        format!(
            "in which time we are back [{}s]; until he has told all again [{}]",
            restart.time,
            minutes(restart.stale_paths)
        ),
        format!(
            "10ms to 1m [{}ms], and how many may be lost [{}]",
            bfd.desired_min_tx.as_millis(),
            bfd.detect_multiplier
        ),
        format!("how many at once [{}]", super::limit_of(&Settings::default())),
        format!("known: two speakers with one table need two [{}]", kernel.protocol),
        format!("beside the kernel's news [{}s]", kernel.scan.as_secs()),
        format!("| [{}]; 2147483647 less", crate::kernel::METRIC),
        format!("[50,000 and {};", minutes(limit.restart.expect("a pause"))),
        format!("[`{}`], and where Prometheus does", super::CONTROL_SOCKET),
    ] {
        assert!(README.contains(&said), "README lacks {said:?}");
    }
    assert_eq!((limit.most, super::TABLE_INTERVAL.as_secs(), super::PORT), (50_000, 3600, 179));
}
