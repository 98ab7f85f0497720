//! Answers of the daemon as tables and paragraphs. Pure. Called by [`super::show`].

use std::collections::BTreeSet;
use std::fmt::Write;

use bgpd::control::view::{Families, FilterView, NeighborView, PathView, RouteView, Summary};
use meta::duration::human;

/// What stands over neighbours.
pub const NEIGHBORS: [&str; 7] = ["NEIGHBOR", "AS", "STATE", "SINCE", "IPV4 RECEIVED", "IPV6 RECEIVED", "LAST ERROR"];
/// What stands over routes.
pub const ROUTES: [&str; 7] = ["", "PREFIX", "NEXT HOP", "FROM", "PREF", "MED", "AS PATH"];

/// What stands before paths.
const MARKS: [(char, &str); 4] =
    [('>', "the best"), ('=', "used with it"), ('x', "refused"), ('s', "kept over the end of its session (stale)")];
/// The same, for who asks what there is.
pub const MARKS_HELP: &str = "Before a path: > the best, = used with it, x refused, s kept over the end of its session (stale); \
none: one that would be next";

/// Rows that are printed together; those that follow keep the widths.
pub struct Table<const N: usize> {
    head: Option<[String; N]>,
    widths: [usize; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub fn new(head: [&str; N]) -> Table<N> {
        Table { head: Some(head.map(str::to_owned)), widths: head.map(str::len), rows: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn add(&mut self, row: [String; N]) {
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push(row);
    }

    /// The rows so far; the head goes with the first.
    pub fn take(&mut self) -> String {
        let mut text = String::new();
        for row in self.head.take().into_iter().chain(std::mem::take(&mut self.rows)) {
            let cells = row.iter().zip(self.widths).map(|(cell, width)| format!("{cell:<width$}"));
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
            text.push('\n');
        }
        text
    }
}

fn age(seconds: u64) -> String {
    human(i64::try_from(seconds).unwrap_or(i64::MAX))
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

pub fn summary(summary: &Summary) -> String {
    let mut text = format!(
        "AS {}, router id {}, cluster id {}{}, for {}\n",
        summary.number,
        summary.router_id,
        summary.cluster_id,
        summary.vrf.as_ref().map(|vrf| format!(", VRF {vrf}")).unwrap_or_default(),
        age(summary.uptime_seconds)
    );
    let listening: Vec<String> = summary.listening.iter().map(ToString::to_string).collect();
    let _ = writeln!(text, "listening  {}", if listening.is_empty() { "nowhere".into() } else { listening.join(", ") });
    let _ = writeln!(text, "neighbors  {}, {} with a session", summary.neighbors, summary.established);
    let (prefixes, sets) = (&summary.prefixes, summary.attribute_sets);
    let _ = writeln!(
        text,
        "prefixes   {} of IPv4, {} of IPv6, with {sets} sets of attributes",
        prefixes.ipv4, prefixes.ipv6
    );
    match &summary.kernel {
        None => text += "kernel     left alone\n",
        Some(kernel) => {
            let _ = write!(text, "kernel     {} routes of {} wanted", kernel.there, kernel.wanted);
            if kernel.kept > 0 {
                let _ = write!(text, ", {} of an earlier process", kernel.kept);
            }
            if kernel.refused > 0 {
                let _ = write!(text, ", {} refused: {}", kernel.refused, kernel.refusal.as_deref().unwrap_or("?"));
            }
            text.push('\n');
        }
    }
    if summary.waiting_for_neighbors {
        text += "restarted: nothing is decided before all neighbors have told their routes\n";
    }
    text
}

/// His AS, or what is wanted of it.
fn number(neighbor: &NeighborView) -> String {
    neighbor.number.map_or_else(|| neighbor.remote_as.clone(), |number| number.to_string())
}

fn last_error(neighbor: &NeighborView) -> Option<String> {
    let error = neighbor.last_error.as_ref()?;
    let ago = neighbor.last_error_seconds.map(|seconds| format!(" ({} ago)", age(seconds)));
    Some(format!("{error}{}", ago.unwrap_or_default()))
}

pub fn neighbor_row(neighbor: &NeighborView) -> [String; 7] {
    let up = neighbor.state == "Established";
    // Of a session that is there: what keeps routes from it.
    let next = neighbor.next.clone();
    let reason = if up {
        neighbor.reason()
    } else {
        last_error(neighbor).into_iter().chain(next).collect::<Vec<_>>().join("; ")
    };
    let count = |count: u32| if up { count.to_string() } else { "-".to_owned() };
    [
        neighbor.name(),
        number(neighbor),
        neighbor.state.clone(),
        age(neighbor.since_seconds),
        count(neighbor.received.ipv4),
        count(neighbor.received.ipv6),
        reason,
    ]
}

pub fn neighbor(neighbor: &NeighborView, accepted: Families<u32>, told: Families<u32>) -> String {
    let n = neighbor;
    let mut text = format!("{}, AS {}, {} for {}\n", n.name(), number(n), n.state, age(n.since_seconds));
    let messages = |m: &bgpd::control::view::Messages| {
        format!(
            "{} OPEN, {} UPDATE, {} KEEPALIVE, {} NOTIFICATION, {} ROUTE-REFRESH",
            m.open, m.update, m.keepalive, m.notification, m.route_refresh
        )
    };
    let ends = n.local.zip(n.remote).map(|(local, remote)| format!("{local} - {remote}"));
    let count = |ipv4: String, ipv6: String| format!("{ipv4} of IPv4, {ipv6} of IPv6");
    let numbers = |of: Families<u32>| Some(count(of.ipv4.to_string(), of.ipv6.to_string()));
    let lines: [(&str, Option<String>); 20] = [
        ("description", Some(n.description.clone()).filter(|text| !text.is_empty())),
        ("group", n.group.clone()),
        ("let in by", n.range.map(|range| range.to_string())),
        ("interface", n.interface.clone()),
        ("router id", n.router_id.map(|id| id.to_string())),
        ("connection", ends),
        ("hold time", n.hold_time_seconds.map(|seconds| format!("{seconds}s"))),
        ("agreed", Some(n.capabilities.join(", ")).filter(|text| !text.is_empty())),
        ("BFD", n.bfd.clone()),
        ("client", n.client.then(|| "of this route reflector".to_owned())),
        ("filters", Some(format!("import {}, export {}", n.import, n.export))),
        ("has told", numbers(n.received)),
        ("accepted of that", numbers(accepted)),
        ("all of", Some(n.end_of_rib.join(", ")).filter(|text| !text.is_empty())),
        ("is told", numbers(told)),
        ("is yet to be told", Some(count(n.waiting.ipv4.to_string(), n.waiting.ipv6.to_string()))),
        ("messages received", Some(messages(&n.messages_received))),
        ("messages sent", Some(messages(&n.messages_sent))),
        ("last error", last_error(n)),
        ("next", n.next.clone()),
    ];
    for (name, value) in lines {
        if let Some(value) = value {
            let _ = writeln!(text, "  {name:<17}  {value}");
        }
    }
    if n.faults + n.left_out + n.next_hops_left_out > 0 {
        let told = format!(
            "{} updates with an error, {} routes not kept, {} by a next hop too many not used",
            n.faults, n.left_out, n.next_hops_left_out
        );
        let _ = writeln!(text, "  {:<17}  {told}", "faults");
    }
    text
}

/// By [`MARKS`].
fn mark(path: &PathView) -> String {
    let place = match (path.best, path.used, path.refused) {
        (true, _, _) => ">",
        (_, true, _) => "=",
        (_, _, true) => "x",
        _ => " ",
    };
    format!("{place}{}", if path.stale { "s" } else { "" })
}

/// Notes which marks the rows of a route have.
pub fn note_marks(route: &RouteView, all: bool, seen: &mut BTreeSet<char>) {
    seen.extend(
        route
            .paths
            .iter()
            .filter(|path| all || path.best)
            .flat_map(|path| mark(path).into_bytes().into_iter().map(char::from)),
    );
}

/// What the marks mean that are there.
pub fn legend(seen: &BTreeSet<char>) -> String {
    let words = MARKS.iter().filter(|(mark, _)| seen.contains(mark)).map(|(mark, words)| format!("{mark} {words}"));
    let words = words.collect::<Vec<_>>().join(", ");
    if words.is_empty() { words } else { format!("\n{words}\n") }
}

fn from(path: &PathView) -> String {
    match (&path.neighbor, &path.interface) {
        (Some(neighbor), _) => neighbor.to_string(),
        (None, Some(interface)) => format!("{} {interface}", path.source),
        (None, None) => path.source.clone(),
    }
}

pub fn route_rows(route: &RouteView, all: bool) -> Vec<[String; 7]> {
    let shown = route.paths.iter().filter(|path| all || path.best);
    let row = |path: &PathView| {
        let set = &path.attributes;
        [
            mark(path),
            route.prefix.to_string(),
            or_dash(set.next_hop),
            from(path),
            or_dash(set.local_preference),
            or_dash(set.med),
            set.as_path.clone(),
        ]
    };
    shown.map(row).collect()
}

pub fn route(route: &RouteView) -> String {
    let mut text = format!("{}, paths: {}\n", route.prefix, route.paths.len());
    for path in &route.paths {
        let set = &path.attributes;
        let next_hop = set.next_hop.map_or_else(|| "this host".to_owned(), |address| format!("by {address}"));
        let _ = writeln!(text, "{} {next_hop}, from {}, {}", mark(path), from(path), age(path.age_seconds));
        let lines = [
            ("why", Some(path.why.clone())),
            ("AS path", Some(set.as_path.clone()).filter(|path| !path.is_empty())),
            ("origin", Some(set.origin.clone())),
            ("local preference", set.local_preference.map(|value| value.to_string())),
            ("MED", set.med.map(|value| value.to_string())),
            ("communities", Some(set.communities.join(" ")).filter(|text| !text.is_empty())),
            ("originator", set.originator_id.map(|id| id.to_string())),
            ("clusters", Some(set.cluster_list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))),
            ("only to customer", set.only_to_customer.map(|value| value.to_string())),
            ("path id", Some(path.path_id).filter(|id| *id != 0).map(|id| id.to_string())),
            ("kept", path.stale.then(|| if path.long_lived { "long-lived" } else { "stale" }.to_owned())),
        ];
        for (name, value) in lines {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let _ = writeln!(text, "    {name:<16}  {value}");
            }
        }
    }
    text
}

pub fn filter(filter: &FilterView) -> String {
    let used = if filter.used_by.is_empty() { "used by nobody".to_owned() } else { filter.used_by.join(", ") };
    let mut text = format!("{}: {used}\n", filter.name);
    let rules = filter.written["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    for rule in rules {
        let _ = writeln!(text, "  - {rule}");
    }
    let _ = writeln!(text, "  default: {}", filter.written["default"].as_str().unwrap_or("reject"));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn path(neighbor: Option<&str>, more: &Value) -> Value {
        let mut path = json!({
            "neighbor": neighbor, "source": if neighbor.is_some() { "external" } else { "direct" }, "interface": null,
            "used": true, "best": true, "why": "shortest AS path", "refused": false, "stale": false, "longLived": false,
            "ageSeconds": 90, "pathId": 0, "nextHop": "10.0.0.2", "nextHopLinkLocal": null, "asPath": "65001 7",
            "origin": "igp", "localPreference": null, "med": 5, "communities": ["64512:7", "no-export"],
            "originatorId": null, "clusterList": [], "onlyToCustomer": null, "aggregator": null,
            "atomicAggregate": false, "unknown": [],
        });
        let fields = more.as_object().expect("fields").clone();
        path.as_object_mut().expect("fields").extend(fields);
        path
    }

    fn two() -> RouteView {
        let lost = json!({"used": false, "best": false, "refused": true, "why": "refused by the import filter"});
        let own = json!({"nextHop": null, "asPath": "", "interface": "eth0", "med": null});
        let paths = [path(None, &own), path(Some("10.0.0.2"), &lost)];
        serde_json::from_value(json!({"prefix": "10.1.0.0/16", "paths": paths})).expect("a route")
    }

    #[test]
    fn routes_are_a_row_for_the_best_or_for_each_path() {
        let mut table = Table::new(ROUTES);
        route_rows(&two(), true).into_iter().for_each(|row| table.add(row));
        let text = table.take();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["PREFIX", "NEXT", "HOP", "FROM", "PREF", "MED", "AS", "PATH"]);
        assert_eq!(lines[1], [">", "10.1.0.0/16", "-", "direct", "eth0", "-", "-"]);
        assert_eq!(lines[2], ["x", "10.1.0.0/16", "10.0.0.2", "10.0.0.2", "-", "5", "65001", "7"]);
        assert_eq!(route_rows(&two(), false).len(), 1);
        table.add(route_rows(&two(), false).remove(0));
        assert_eq!(table.take().lines().count(), 1, "the head stands once");
    }

    #[test]
    fn marks_that_are_there_are_explained() {
        let of = |all| {
            let mut seen = BTreeSet::new();
            note_marks(&two(), all, &mut seen);
            legend(&seen)
        };
        assert_eq!(of(false), "\n> the best\n");
        assert_eq!(of(true), "\n> the best, x refused\n");
        assert_eq!(legend(&BTreeSet::new()), "");
        assert!(MARKS.iter().all(|(mark, words)| MARKS_HELP.contains(&format!("{mark} {words}"))), "{MARKS_HELP}");
    }

    #[test]
    fn of_one_route_every_path_says_why_it_is_where_it_is() {
        let text = route(&two());
        assert!(text.starts_with("10.1.0.0/16, paths: 2\n> this host, from direct eth0, 90s\n"), "{text}");
        assert!(text.contains("why               refused by the import filter"), "{text}");
        assert!(text.contains("communities       64512:7 no-export"), "{text}");
    }

    #[test]
    fn a_neighbour_without_a_session_says_why() {
        let view = json!({
            "address": "fe80::2", "interface": "eth1", "description": "", "group": "rack", "range": null, "as": 65001,
            "remoteAs": "external",
            "state": "Active", "enabled": true, "sinceSeconds": 5, "sessions": 0, "routerId": null, "local": null,
            "remote": null, "holdTimeSeconds": null, "capabilities": [], "received": {"ipv4": 0, "ipv6": 0},
            "waiting": {"ipv4": 0, "ipv6": 0}, "endOfRib": [],
            "messagesReceived": {"open": 0, "update": 0, "notification": 1, "keepalive": 0, "routeRefresh": 0},
            "messagesSent": {"open": 1, "update": 0, "notification": 0, "keepalive": 0, "routeRefresh": 0},
            "faults": 1, "leftOut": 0, "client": true, "import": "a", "export": "b", "lastError": "bad peer AS",
            "lastErrorSeconds": 7, "next": "tried again in 9s", "bfd": "Down",
        });
        let view: NeighborView = serde_json::from_value(view).expect("a neighbor");
        let row = neighbor_row(&view);
        assert_eq!(
            row.each_ref().map(String::as_str),
            ["fe80::2%eth1", "65001", "Active", "5s", "-", "-", "bad peer AS (7s ago); tried again in 9s"]
        );
        let text = neighbor(&view, Families { ipv4: 3, ipv6: 0 }, Families { ipv4: 4, ipv6: 0 });
        for words in [
            "fe80::2%eth1, AS 65001, Active for 5s",
            "of this route reflector",
            "import a, export b",
            "1 updates with",
            "accepted of that   3 of IPv4",
            "is told            4 of IPv4",
            "last error         bad peer AS (7s ago)",
            "next               tried again in 9s",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let unknown = NeighborView { number: None, ..view.clone() };
        assert_eq!(neighbor_row(&unknown)[1], "external");
        let unfound = NeighborView { address: std::net::Ipv6Addr::UNSPECIFIED.into(), ..view.clone() };
        assert_eq!(neighbor_row(&unfound)[0], "eth1");
        let gone = NeighborView { state: "Established".into(), ..view };
        assert_eq!(neighbor_row(&gone)[6], "", "what was is past");
    }

    #[test]
    fn a_filter_is_shown_as_it_was_written() {
        let written = json!({"name": "x", "rules": [{"match": {"source": ["static"]}, "action": "accept"}]});
        let text = filter(&FilterView { name: "x".into(), written, used_by: vec!["export to 10.0.0.2".into()] });
        assert!(text.starts_with("x: export to 10.0.0.2\n  - {"), "{text}");
        assert!(text.ends_with("default: reject\n") && text.contains("\"source\":[\"static\"]"), "{text}");
    }
}
