//! What the readers of YAML and of values say, in words of people who write the file: no names of the program's types, and
//! of lists and maps the form that is wanted. Pure. Called by [`super::node`] and [`super::parse`].

use serde_saphyr::Error;
use serde_saphyr::budget::BudgetBreach;

use super::node::Fault;

/// What is no list.
const NO_LIST: &str = "a list";
/// What is no map.
const NO_MAP: &str = "a map of fields";

/// What serde calls that which it expects, and what people do.
const EXPECTED: [(&str, &str); 15] = [
    ("u8", "a number from 0 to 255"),
    ("u16", "a number from 0 to 65535"),
    ("u32", "a number from 0 to 4294967295"),
    ("a boolean", "true or false"),
    ("a string", "text: put it in quotes"),
    ("path string", "a path: put it in quotes"),
    ("a sequence", NO_LIST),
    ("IP address", "an address, like 10.0.0.1 or 2001:db8::1"),
    ("IPv4 address", "an IPv4 address, like 10.0.0.1"),
    ("IPv6 address", "an IPv6 address, like 2001:db8::1"),
    ("socket address", "an address with a port, like 127.0.0.1:9179"),
    ("invalid IP address syntax", "an address, like 10.0.0.1 or 2001:db8::1"),
    ("invalid IPv4 address syntax", "an IPv4 address, like 10.0.0.1"),
    ("invalid IPv6 address syntax", "an IPv6 address, like 2001:db8::1"),
    ("invalid socket address syntax", "an address with a port, like 127.0.0.1:9179"),
];

/// One of each field that is a list of maps, or a map.
const FORMS: [(&str, &str); 26] = [
    ("", "router-id: 10.0.0.1, as: 64512, neighbors: …"),
    ("listen", "{addresses: [10.0.0.1], port: 179}"),
    ("decision", "{maximum-paths: 4}"),
    ("graceful-restart", "{mode: full, restart-time: 120s}"),
    ("groups", "{name: rack, remote-as: external}"),
    ("neighbors", "{address: 10.0.0.2, remote-as: 64512}"),
    ("dynamic", "{prefix: 10.0.2.0/24, remote-as: external}"),
    ("filters", "{name: from-rack, rules: [{match: {source: [static]}, action: accept}]}"),
    ("rules", "{match: {source: [static]}, action: accept}"),
    ("match", "{source: [static]}"),
    ("prefixes", "{prefix: 10.0.0.0/8, lengths: {min: 16, max: 24}}"),
    ("not-prefixes", "{prefix: 10.0.0.0/8, lengths: {min: 16, max: 24}}"),
    ("lengths", "{min: 16, max: 24}"),
    ("length", "{min: 1, max: 4}"),
    ("local-preference", "{min: 100, max: 200}"),
    ("med", "{min: 0, max: 100}"),
    ("as-path", "{starts-with: [65001], origin: 7}"),
    ("set", "{local-preference: 200, communities: {add: [\"64512:1\"]}}"),
    ("communities", "{add: [\"64512:1\"]}"),
    ("prepend", "{as: 64512, times: 2}"),
    ("networks", "{prefix: 192.168.7.0/24, kernel: blackhole}"),
    ("kernel", "{table: 100, export: to-kernel}"),
    ("direct", "{interfaces: [\"eth*\"]}"),
    ("learn", "{protocols: [static]}"),
    ("mrt", "{updates: /var/log/bgp.mrt}"),
    ("bfd", "{interval: 300ms, multiplier: 3}"),
];

/// One entry of each field that is a list of words.
const ENTRIES: [(&str, &str); 9] = [
    ("addresses", "10.0.0.1"),
    ("families", "ipv4"),
    ("own-addresses", "10.0.0.1"),
    ("communities", "\"64512:1\""),
    ("not-communities", "\"64512:1\""),
    ("peers", "10.0.0.2"),
    ("source", "static"),
    ("interfaces", "\"eth*\""),
    ("protocols", "static"),
];

/// What is expected, as people say it.
pub fn expected(of_serde: &str) -> &str {
    EXPECTED.iter().find(|(name, _)| *name == of_serde).map_or(of_serde, |(_, words)| words)
}

/// What is said of a text that could not be read: with the text, which readers of addresses leave out.
pub fn of_text(text: &str, problem: &str) -> String {
    match expected(problem) {
        same if same == problem => problem.to_owned(),
        words => format!("{text:?} is not {words}"),
    }
}

/// A fault whose path is known to the root: of what is no list or no map, with the form that is wanted.
pub fn with_form(mut fault: Fault) -> Fault {
    let last = fault.path.rsplit('.').next().unwrap_or_default();
    let field = last.split('[').next().unwrap_or_default();
    let of = |table: &[(&str, &'static str)]| table.iter().find(|(name, _)| *name == field).map(|(_, form)| *form);
    let no = |what: &str| fault.problem.ends_with(&format!(" is not {what}"));
    let form = if no(NO_MAP) {
        of(&FORMS).map(|form| if field.is_empty() { form.to_owned() } else { format!("`{form}`") })
    } else if no(NO_LIST) {
        // A list of words is wanted where one of maps could be, too: `communities` of a match is one, of a set a map.
        let entry = of(&ENTRIES).map(|entry| format!("`[{entry}, …]`"));
        entry.or_else(|| of(&FORMS).map(|form| format!("`- {form}` for each")))
    } else {
        None
    };
    if let Some(form) = form {
        fault.problem = format!("{}: {form}", fault.problem);
    }
    fault
}

/// What is wrong with a text that is no YAML, or too much of it.
pub fn of_yaml(error: &Error, most_depth: usize, most_nodes: usize) -> String {
    let error = error.without_snippet();
    let problem = match error {
        Error::DuplicateMappingKey { key, .. } => match key {
            Some(key) => format!("{key:?} is written twice in one map: one of both"),
            None => "a field is written twice in one map: one of both".to_owned(),
        },
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Depth { .. } => format!("lists and maps lie more than {most_depth} deep in each other"),
            BudgetBreach::Aliases { .. }
            | BudgetBreach::Anchors { .. }
            | BudgetBreach::AliasAnchorRatio { .. }
            | BudgetBreach::RecordedAnchorEvents { .. }
            | BudgetBreach::RecordedAnchorBytes { .. }
            | BudgetBreach::MergeKeys { .. } => "refers too often to other places of the file (& and *)".to_owned(),
            BudgetBreach::Documents { .. } => "has more than one document (---)".to_owned(),
            _ => format!("there are more than {most_nodes} names and values, or too long ones"),
        },
        Error::MultipleDocuments { .. } => "has more than one document (---)".to_owned(),
        other => {
            let text = other.to_string();
            return text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        }
    };
    match error.location() {
        Some(place) => format!("line {}, column {}: {problem}", place.line(), place.column()),
        None => problem,
    }
}
