//! Upstream's documented rewrites: what is asked inside, and what the answer is changed back to.

use super::*;
use crate::corefile::{Facts, Files, parse};

fn rules(lines: &str) -> Vec<Rule> {
    let text = format!(". {{\n{lines}\n}}\n");
    let files = Files { own: [("Corefile".to_owned(), text)].into(), ..Files::default() };
    let facts = Facts { port: 53, domain: Name::parse("cluster.local").unwrap() };
    parse(&files, &facts).unwrap().servers.remove(0).rewrites
}

fn question(name: &str, kind: u16) -> Question {
    let mut bytes = vec![7, 7, flag::RD, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(Name::parse(name).unwrap().as_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    Question::parse(&bytes).unwrap()
}

/// The name that is asked for inside, and what its own name and a name below it are called in the answer.
fn asked(lines: &str, name: &str) -> (String, String) {
    let changed = request(&rules(lines), &question(name, kind::A)).unwrap();
    let Some(changed) = changed else { return ("same".to_owned(), String::new()) };
    let inside = Name::from_wire(changed.question.name()).unwrap().to_string();
    let owner = changed.undo.iter().rev().fold(inside.clone(), |text, undo| match undo {
        Undo::Name(replace) => replace.apply(&text),
        _ => text,
    });
    (inside, owner)
}

#[test]
fn names_match_as_upstreams() {
    for (line, name, inside, owner) in [
        ("rewrite name example.net Example.org", "example.net", "example.org.", "example.net."),
        ("rewrite name example.net example.org", "a.example.net", "same", ""),
        ("rewrite name suffix .schmoogle.com. .google.com.", "www.schmoogle.com", "www.google.com.", "www.google.com."),
        ("rewrite stop {\n name suffix .a.b .c answer auto\n}", "x.a.b", "x.c.", "x.a.b."),
        ("rewrite name prefix foo bar", "foo.example.com", "bar.example.com.", "bar.example.com."),
        ("rewrite name prefix foo bar answer auto", "foo.example.com", "bar.example.com.", "foo.example.com."),
        (
            "rewrite name substring service.us.example.org service.us.consul",
            "ftp.service.us.example.org",
            "ftp.service.us.consul.",
            "ftp.service.us.consul.",
        ),
        (
            r"rewrite name regex (.*)-(us-west-1)\.example\.org {1}.service.{2}.consul answer auto",
            "ftp-us-west-1.example.org",
            "ftp.service.us-west-1.consul.",
            "ftp-us-west-1.example.org.",
        ),
        (
            "rewrite stop {\n name regex (.*)-(us)\\.a\\.b {1}.service.{2}.consul\n answer name (.*)\\.service\\.(us)\\.consul \
          {1}-{2}.a.b\n}",
            "ftp-us.a.b",
            "ftp.service.us.consul.",
            "ftp-us.a.b.",
        ),
        (
            "rewrite continue name suffix .a .b answer auto\nrewrite name suffix .b .c answer auto",
            "x.a",
            "x.c.",
            "x.a.",
        ),
        ("rewrite name suffix .a .b\nrewrite name suffix .b .c", "x.a", "x.b.", "x.b."),
    ] {
        assert_eq!(asked(line, name), (inside.to_owned(), owner.to_owned()), "{line} {name}");
    }
}

#[test]
fn types_and_times_are_changed() {
    let all = rules("rewrite continue type AAAA A\nrewrite ttl regex .*\\.b 30-300");
    let changed = request(&all, &question("a.b", kind::AAAA)).unwrap().unwrap();
    assert_eq!(changed.question.kind, kind::A);
    assert!(matches!(changed.undo[..], [Undo::Ttl { least: 30, most: 300 }]), "{:?}", changed.undo);
    assert!(request(&all, &question("a.c", kind::A)).unwrap().is_none());
}

#[test]
fn what_becomes_no_name_is_a_failure() {
    let long = "x".repeat(60);
    let all = rules(&format!("rewrite name regex (.*) {long}{{1}}"));
    let name = format!("{long}.{long}.{long}.a");
    assert_eq!(request(&all, &question(&name, kind::A)).unwrap_err(), NoName);
    let multiplied = rules(&format!("rewrite name regex (.*) {}", "{1}".repeat(300)));
    assert_eq!(request(&multiplied, &question(&name, kind::A)).unwrap_err(), NoName);
}

/// Each rule takes what the one before has made.
#[test]
fn rules_that_multiply_a_name_end_with_the_first_that_makes_it_none() {
    let one = format!("rewrite continue name substring . {}", ".a".repeat(400));
    let all = rules(&[one.as_str(); 20].join("\n"));
    assert_eq!(request(&all, &question("a.b", kind::A)).unwrap_err(), NoName);
}

#[test]
fn a_name_that_no_rule_changes_stays_the_same_bytes() {
    let mut bytes = vec![7, 7, flag::RD, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(b"\x03a.b\x02\xc3\x28\x00\x00\x1c\x00\x01");
    let asked = Question::parse(&bytes).unwrap();
    let changed = request(&rules("rewrite type AAAA A"), &asked).unwrap().unwrap();
    assert_eq!((changed.question.name(), changed.question.kind), (asked.name(), kind::A));
}
