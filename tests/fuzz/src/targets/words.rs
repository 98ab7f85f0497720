//! Little languages in fields, flags and queries: selectors, quantities, durations, times, names, schedules, addresses.

use controller_manager::controllers::cronjob::schedule::Schedule;
use jiff::Timestamp;
use kubelet::config::Threshold;
use meta::Prefix;
use meta::{FieldSelector, Quantity, Selector, duration, gvk, names, time};
use serde_json::Value;

use super::none;
use crate::input::{join, parts, text, texts, value};
use crate::table::{FLAT, Target};

pub const TARGETS: &[Target] = &[
    Target {
        name: "label-selector",
        what: "label selectors",
        run: labels,
        seeds: label_seeds,
        memory: 600,
        nests: &[("a,", "b", "")],
        depth: 20_000,
    },
    Target {
        name: "field-selector",
        what: "field selectors",
        run: fields,
        seeds: field_seeds,
        memory: 400,
        nests: &[("a=b,", "c=d", "")],
        depth: 20_000,
    },
    Target {
        name: "quantity",
        what: "quantities",
        run: quantity,
        seeds: quantities,
        memory: 64,
        nests: &[("9", "1", "0")],
        depth: 20_000,
    },
    Target {
        name: "duration",
        what: "durations of Go, and times",
        run: times,
        seeds: time_seeds,
        memory: 64,
        nests: &[("1h", "1", "s")],
        depth: 20_000,
    },
    Target {
        name: "names",
        what: "names, labels, group versions",
        run: every_name,
        seeds: none,
        memory: 400,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "schedule",
        what: "schedules of cron jobs and their time zones",
        run: schedule,
        seeds: schedules,
        memory: 400,
        nests: &[("1,", "2", "")],
        depth: 20_000,
    },
    Target { name: "cidr", what: "addresses and ranges", run: cidr, seeds: cidrs, memory: 64, nests: FLAT, depth: 0 },
    Target {
        name: "formats",
        what: "formats of custom schemas",
        run: formats,
        seeds: format_seeds,
        memory: 400,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "pattern",
        what: "patterns of custom schemas",
        run: patterns,
        seeds: pattern_seeds,
        memory: 1_000,
        nests: &[("(", "a", ")"), ("(?:a", "b", ")*"), ("(?:a|", "b", ")"), ("[", "a", "]"), ("a|", "b", "")],
        depth: 40_000,
    },
    Target {
        name: "expansion",
        what: "$(VAR) in commands and variables",
        run: expansion,
        seeds: expansions,
        memory: 400,
        nests: &[("$(", "A", ")")],
        depth: 20_000,
    },
    Target {
        name: "threshold",
        what: "eviction thresholds",
        run: threshold,
        seeds: thresholds,
        memory: 64,
        nests: FLAT,
        depth: 0,
    },
];

fn label_seeds() -> Vec<Vec<u8>> {
    texts(&["a=b,c==d,e!=f", "a in (b, c),d notin (e,),!f,g", "x.io/a>1,b<2", "a in (),b=", "a ,  b"])
}

fn labels(input: &[u8]) {
    let text = text(input);
    let parsed = Selector::parse(&text);
    if let Ok(selector) = &parsed {
        let again = Selector::parse(&selector.to_string()).expect("what was written is read");
        assert_eq!(again.to_string(), selector.to_string(), "as it was");
        let _ = selector.matches(&serde_json::Map::from_iter([("a".to_owned(), Value::from("b"))]));
    }
    let _ = Selector::from_object(value(input).as_ref());
}

fn field_seeds() -> Vec<Vec<u8>> {
    texts(&["metadata.name=a,status.phase!=Running", r"a=b\,c\=\\d,", "metadata.name==x", "=,!="])
}

fn fields(input: &[u8]) {
    let Ok(selector) = FieldSelector::parse(&text(input)) else { return };
    let again = FieldSelector::parse(&selector.to_string()).expect("what was written is read");
    assert_eq!(again, selector, "as it was");
}

fn quantities() -> Vec<Vec<u8>> {
    texts(&["1500m", "1.5Gi", "-1e3", "1E-9", "0.1Ki", "9223372036854775807Ei", ".5n", "+12k"])
}

fn quantity(input: &[u8]) {
    let text = text(input);
    let Ok(quantity) = text.parse::<Quantity>() else { return };
    let written = quantity.to_string();
    let again: Quantity = written.parse().expect("what was written is read");
    assert_eq!(again.nanos(), quantity.nanos(), "{written}: as it was");
    assert_eq!(again.to_string(), written, "canonical at once");
    let _ = (quantity.value(), quantity.milli(), quantity.as_f64(), quantity.rounded_to_milli().to_string());
    let _ = quantity.plus(again).minus(quantity).to_string();
    let _ = (Quantity::canonical(&text), Quantity::canonical_milli(&text));
}

fn time_seeds() -> Vec<Vec<u8>> {
    texts(&["1h2m3.5s", "-1.5h", "300ms1us2µs", "2026-01-02T03:04:05.678901Z", "2026-12-31T23:59:60+14:00", "0"])
}

fn times(input: &[u8]) {
    let text = text(input);
    if let Ok(nanos) = duration::parse_nanos(&text) {
        assert_eq!(duration::parse_nanos(&duration::format_nanos(nanos)), Ok(nanos), "as it was");
        let _ = duration::human(nanos / 1_000_000_000);
    }
    if let Some(time) = time::parse(&text) {
        let written = time::format_micro(time);
        assert_eq!(time::parse(&written).map(time::format_micro), Some(written), "as it was");
    }
    let _ = (duration::parse(&text), time::canonical(&text), time::canonical_micro(&text));
}

fn every_name(input: &[u8]) {
    let text = text(input);
    let rules: [fn(&str) -> Vec<String>; 14] = [
        names::dns1123_label,
        names::dns1123_subdomain,
        names::dns1123_subdomain_underscore,
        names::wildcard_dns1123_subdomain,
        names::dns1035_label,
        names::qualified_name,
        names::label_value,
        names::env_var_name,
        names::config_map_key,
        names::percent,
        names::http_header_name,
        names::c_identifier,
        names::port_name,
        names::path_segment,
    ];
    for rule in rules {
        let _ = rule(&text);
    }
    if names::dns1123_label(&text).is_empty() {
        assert!(names::dns1123_subdomain(&text).is_empty(), "a label is a subdomain");
    }
    let (group, version) = gvk::split_api_version(&text);
    let _ = gvk::join_api_version(group, version);
    let _ = (names::ip(&text), names::cidr(&text), meta::text::quote(&text), names::mask_trailing_dash(&text));
}

fn schedules() -> Vec<Vec<u8>> {
    let of = |schedule: &str, zone: &str| join(&[schedule.as_bytes(), zone.as_bytes()]);
    vec![
        of("*/5 1-3,7 * JAN-MAR MON", "Europe/Berlin"),
        of("@every 1h30m", ""),
        of("0 0 30 2 *", ""),
        of("? * 1/2 * 7", "UTC"),
        of("@daily", "Asia/Kathmandu"),
        of("@every 0s", ""),
    ]
}

fn schedule(input: &[u8]) {
    let [schedule, zone] = parts(input);
    let (schedule, zone) = (text(schedule), text(zone));
    let Ok(schedule) = Schedule::parse(&schedule, Some(&zone)) else { return };
    let after = Timestamp::from_second(1_767_323_045).expect("a time");
    if let Some(next) = schedule.next(after) {
        assert!(next > after, "next is later");
        let last = schedule.last_between(after, next);
        assert_eq!(last, Some(next), "nothing is between");
    }
    let _ = schedule.next(Timestamp::MAX);
    let days_before = Timestamp::from_second(after.as_second() - 3 * 86_400).expect("a time");
    let _ = schedule.last_between(days_before, after);
}

fn cidrs() -> Vec<Vec<u8>> {
    texts(&[
        "10.0.0.0/8",
        "fd00::/64",
        "::ffff:10.0.0.1/96",
        "1.2.3.4",
        "10.0.0.1/33",
        "::/0",
        "010.0.0.1/8",
        "0.0.0.0/0",
    ])
}

fn cidr(input: &[u8]) {
    let text = text(input);
    if let Ok(prefix) = text.parse::<Prefix>() {
        assert_eq!(prefix.to_string().parse(), Ok(prefix), "what was written is read, as it was");
        assert!(prefix.overlaps(&prefix) && prefix.covers(&prefix.network()), "with itself");
        assert!(
            prefix.contains(prefix.addr) && prefix.contains(prefix.last()) && prefix.contains(prefix.network().addr)
        );
        let _ = (prefix.nth(0), prefix.nth(1), prefix.nth(u128::MAX), prefix.mask_bytes());
    }
    let _ = (names::ip(&text), names::cidr(&text), apiserver::service::Range::parse(&text));
}

fn format_seeds() -> Vec<Vec<u8>> {
    let of = |format: &str, text: &str| join(&[format.as_bytes(), text.as_bytes()]);
    vec![
        of("date-time", "2026-01-02T03:04:05Z"),
        of("email", "a@b.c"),
        of("uri", "http://a/b?c#d"),
        of("ipv6", "::1"),
        of("cidr", "10.0.0.0/8"),
        of("hostname", "a.b"),
        of("mac", "00:11:22:33:44:55"),
        of("uuid", "00000000-0000-0000-0000-000000000000"),
        of("isbn13", "978-3-16-148410-0"),
        of("creditcard", "4111111111111111"),
        of("rgbcolor", "rgb(1,2,3)"),
        of("byte", "aGk="),
        of("duration", "1h2m"),
        of("k8s-long-name", "a.b"),
    ]
}

fn formats(input: &[u8]) {
    let [format, value] = parts(input);
    let _ = schema::formats::accepts(&text(format), &text(value));
}

fn pattern_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        r"(?i:\pL{2,3}|\P{^Greek})\Q.*\E\x{e9}\12",
        r"[[:alpha:]&&\d\-]{0,3}(?P<n>a)\b",
    ])
}

/// What is told to be an expression compiles, and its text matches or not.
fn patterns(input: &[u8]) {
    let text = text(input);
    let pattern = schema::Pattern::new(&*text);
    if pattern.check().is_ok() && text.len() < 200 {
        let either = schema::Pattern::new(format!("(?:{text})|"));
        assert!(either.check().is_err() || either.is_match(""), "{text}");
    }
}

fn expansions() -> Vec<Vec<u8>> {
    texts(&["$(A) $$(A) $(B", "$(A)$(A)$", "$$$$(A)", "$()"])
}

fn expansion(input: &[u8]) {
    let text = text(input);
    let most = 2 * text.len() + 16;
    if let Ok(expanded) = kubelet::expand::expand(&text, most, |name| (name == "A").then_some("value")) {
        assert!(expanded.len() <= most, "no longer than was allowed");
    }
    let _ = kubelet::expand::unknown(&text, |name| (name == "A").then_some(""));
}

fn thresholds() -> Vec<Vec<u8>> {
    texts(&["10%", "100Mi", "0.5%", "-1%"])
}

fn threshold(input: &[u8]) {
    let _ = text(input).parse::<Threshold>();
}
