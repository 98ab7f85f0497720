//! Changes to a kubeconfig's text that leave every other line as it is: comments, order, fields that nobody knows. Pure.
//!
//! YAML has more ways to write a list than are known here. So each change is made twice, on the lines and on the
//! value; when they don't agree, the file is written anew from the value, which loses comments but no content.

use anyhow::Result;
use serde_json::{Value, json};

use super::{merge, parse, remove, to_yaml};

const LISTS: [&str; 3] = ["clusters", "users", "contexts"];

/// The text with the cluster's entries of `admin` in it, its context the current one.
pub fn with(text: &str, value: &Value, admin: &Value) -> Result<String> {
    let mut wanted = value.clone();
    merge(&mut wanted, admin);
    let edited = LISTS.iter().try_fold(text.to_owned(), |text, list| put(&text, list, &admin[list][0]));
    let edited = edited.and_then(|text| set_current(&text, admin["current-context"].as_str()?));
    agreed(edited, &wanted)
}

/// The text without the entries named `name`; what `before` had under that name comes back.
pub fn without(text: &str, value: &Value, name: &str, before: &Value) -> Result<String> {
    let mut wanted = value.clone();
    remove(&mut wanted, name, before);
    let mut edited = Some(text.to_owned());
    for list in LISTS {
        edited = edited.and_then(|text| match super::entry(before, list, name) {
            Some(entry) => put(&text, list, entry),
            None => take(&text, list, name),
        });
    }
    if value["current-context"] == name {
        edited = edited.and_then(|text| set_current(&text, wanted["current-context"].as_str()?));
    }
    agreed(edited, &wanted)
}

/// The text with the credentials of `admin` in the place of those that the same user of the same cluster had. A file
/// that doesn't have them, or has others under the name, stays as it is.
pub fn renewed(text: &str, value: &Value, admin: &Value) -> Result<String> {
    let user = &admin["users"][0];
    let name = user["name"].as_str().unwrap_or_default();
    let ours = super::entry(value, "clusters", name).is_some_and(|theirs| *theirs == admin["clusters"][0]);
    let items = value["users"].as_array();
    let Some(at) = items.and_then(|items| items.iter().position(|i| i["name"] == name)).filter(|_| ours) else {
        return Ok(text.to_owned());
    };
    let mut wanted = value.clone();
    wanted["users"][at] = user.clone();
    agreed(put(text, "users", user), &wanted)
}

fn agreed(edited: Option<String>, wanted: &Value) -> Result<String> {
    match edited.filter(|text| parse(text).is_ok_and(|value| value == *wanted)) {
        Some(text) => Ok(text),
        None => to_yaml(wanted),
    }
}

/// A list of the file: where its key stands, and the lines of each item.
struct List {
    key: usize,
    /// Blanks before the dashes.
    indent: usize,
    items: Vec<std::ops::Range<usize>>,
}

/// Finds a list that is written as a block, or is empty.
fn find(lines: &[&str], key: &str) -> Option<List> {
    let at = lines.iter().position(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))?;
    let value = lines[at][key.len() + 1..].split(" #").next().unwrap_or_default().trim();
    if !["", "[]", "null", "~"].contains(&value) {
        return None;
    }
    let of_list =
        |line: &&&str| line.trim().is_empty() || line.starts_with([' ', '#', '-']) && !line.starts_with("---");
    let end = at + 1 + lines[at + 1..].iter().take_while(of_list).count();
    let body = at + 1..end;
    let Some(first) = body.clone().find(|i| is_content(lines[*i])) else {
        return Some(List { key: at, indent: 0, items: Vec::new() });
    };
    let indent = lines[first].len() - lines[first].trim_start().len();
    let begins = |line: &str| {
        let rest = line.get(indent..).unwrap_or_default();
        line.len() - line.trim_start().len() == indent && (rest.starts_with("- ") || rest.trim_end() == "-")
    };
    let starts: Vec<usize> = body.filter(|i| begins(lines[*i])).collect();
    let ends = starts.iter().skip(1).copied().chain([end]);
    let items = starts.iter().zip(ends).map(|(start, end)| {
        // Comments and blank lines after an item speak of what follows it.
        let last = (*start..end).rev().find(|i| is_content(lines[*i])).unwrap_or(*start);
        *start..last + 1
    });
    Some(List { key: at, indent, items: items.collect() })
}

fn is_content(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with('#')
}

/// The item of this name.
fn named(lines: &[&str], list: &List, name: &str) -> Option<std::ops::Range<usize>> {
    let is_it = |item: &&std::ops::Range<usize>| {
        let text = lines[(*item).clone()].join("\n");
        parse(&text).is_ok_and(|value| value[0]["name"] == name)
    };
    list.items.iter().find(is_it).cloned()
}

/// Puts an entry into a list, in the place of one that has its name.
fn put(text: &str, key: &str, entry: &Value) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let item = serde_saphyr::to_string(&json!([entry])).ok()?;
    let Some(list) = find(&lines, key) else {
        let there = lines.iter().any(|line| line.starts_with(&format!("{key}:")));
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return (!there).then(|| format!("{text}{end}{key}:\n{item}"));
    };
    let indent = " ".repeat(list.indent);
    let item: Vec<String> = item.lines().map(|line| format!("{indent}{line}")).collect();
    let item: Vec<&str> = item.iter().map(String::as_str).collect();
    let header = format!("{key}:");
    let place = match (named(&lines, &list, entry["name"].as_str()?), list.items.last()) {
        (Some(there), _) => there,
        (None, Some(last)) => last.end..last.end,
        (None, None) => {
            return Some(joined(&lines, list.key..list.key + 1, &[&[header.as_str()][..], &item[..]].concat()));
        }
    };
    Some(joined(&lines, place, &item))
}

/// Takes the entry of this name out of a list.
fn take(text: &str, key: &str, name: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let list = find(&lines, key)?;
    let Some(item) = named(&lines, &list, name) else { return Some(text.to_owned()) };
    if list.items.len() > 1 {
        return Some(joined(&lines, item, &[]));
    }
    let empty = format!("{key}: []");
    let rest = joined(&lines, item, &[]);
    Some(joined(&rest.lines().collect::<Vec<_>>(), list.key..list.key + 1, &[&empty]))
}

fn set_current(text: &str, name: &str) -> Option<String> {
    const KEY: &str = "current-context:";
    let line = format!("{KEY} {}", serde_json::to_string(name).ok()?);
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    let line = if plain { format!("{KEY} {name}") } else { line };
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|l| l.starts_with(KEY)).map_or(lines.len()..lines.len(), |at| at..at + 1);
    Some(joined(&lines, at, &[&line]))
}

/// The lines with some in the place of others.
fn joined(lines: &[&str], place: std::ops::Range<usize>, with: &[&str]) -> String {
    let all = lines[..place.start].iter().chain(with).chain(&lines[place.end..]);
    all.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubeconfig::tests::admin;

    const MINE: &str = "\
# my clusters
apiVersion: v1
kind: Config
x-of-mine: {keep: yes}
contexts:
  # the one at work
  - name: work
    context: {cluster: work, user: me, namespace: 'team'}

# where they are
clusters:
  - cluster:
      server: https://work.example # by VPN
    name: work
users:
- name: me
  user:
    token: |
      several
      lines
current-context: work
preferences: {}
# the end
";

    fn merged(text: &str, name: &str) -> String {
        with(text, &parse(text).expect("yaml"), &admin(name)).expect("merged")
    }

    fn removed(text: &str, name: &str, before: &Value) -> String {
        without(text, &parse(text).expect("yaml"), name, before).expect("removed")
    }

    #[test]
    fn a_new_certificate_takes_the_place_of_the_old_and_nothing_else_changes() {
        let text = merged(MINE, "ferrokube").replace("current-context: ferrokube", "current-context: work");
        let mut next = admin("ferrokube");
        next["users"][0]["user"]["token"] = json!("new");
        let renewed = |text: &str| renewed(text, &parse(text).expect("yaml"), &next).expect("renewed");
        assert_eq!(renewed(&text), text.replace("token: t\n", "token: new\n"));
        assert_eq!(renewed(MINE), MINE, "it is not in there");
        let other = text.replace("127.0.0.1:6443", "127.0.0.1:7443");
        assert_eq!(renewed(&other), other, "another cluster of that name");
    }

    #[test]
    fn every_other_line_stays() {
        let text = merged(MINE, "ferrokube");
        let kept = |line: &&str| !line.starts_with("current-context");
        for line in MINE.lines().filter(kept) {
            assert!(text.lines().any(|l| l == line), "{line:?} is in\n{text}");
        }
        assert!(text.contains("current-context: ferrokube\n"), "{text}");
        assert_eq!(parse(&text).expect("yaml")["users"][1]["user"]["token"], "t");
        assert_eq!(merged(&text, "ferrokube"), text, "again changes nothing");
        let before = parse(MINE).expect("yaml");
        assert_eq!(removed(&text, "ferrokube", &before), MINE);
    }

    #[test]
    fn two_clusters_come_and_go_in_any_order() {
        let both = merged(&merged(MINE, "one"), "two");
        let before = parse(MINE).expect("yaml");
        let second = removed(&both, "one", &before);
        assert!(second.contains("current-context: two"), "{second}");
        assert_eq!(removed(&second, "two", &before), MINE);
    }

    #[test]
    fn what_had_the_name_before_comes_back() {
        let before = parse(MINE).expect("yaml");
        let text = merged(MINE, "work");
        assert!(!text.contains("work.example"));
        assert_eq!(parse(&removed(&text, "work", &before)).expect("yaml"), before);
    }

    #[test]
    fn unusual_files_are_written_anew_and_lose_nothing() {
        for text in [
            r#"{"apiVersion":"v1","clusters":[{"name":"work","host":{"server":"https://w"}}],"contexts":[],"users":null}"#,
            "clusters: [{name: work, cluster: {server: 'https://w'}}]\n",
            "clusters: &all\n- name: work\n  cluster: {server: 'https://w'}\n",
        ] {
            let value = parse(&merged(text, "ferrokube")).expect("yaml");
            assert_eq!(value["clusters"].as_array().map(Vec::len), Some(2), "{value}");
            assert_eq!(value["clusters"][0]["cluster"]["server"], "https://w");
            assert_eq!(value["current-context"], "ferrokube");
        }
        for text in ["", "clusters: []\nusers: ~ # none\n", "apiVersion: v1"] {
            let value = parse(&merged(text, "ferrokube")).expect("yaml");
            assert_eq!(value["users"].as_array().map(Vec::len), Some(1), "{value}");
        }
    }
}
