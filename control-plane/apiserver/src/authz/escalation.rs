//! Nobody hands out more than they have: whether one list of rules covers another, and how what is missing reads.
//! Pure; the RBAC plugin of the admission chain asks.

use std::collections::BTreeSet;

use super::rules::Rule;
use crate::authn::UserInfo;

/// Most permissions that are looked at one by one, a verb on one thing each: lists multiply, and a body of some kilobytes
/// holds a billion. What is covered as a whole is not taken apart.
const MAX_PARTS: usize = 10_000;

/// Everything there is: what an aggregated role may come to hold.
pub fn full_authority() -> Vec<Rule> {
    let all = || vec!["*".to_owned()];
    let resources = Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() };
    vec![resources, Rule { verbs: all(), paths: all(), ..Rule::default() }]
}

/// Why `user`, who has the rules `have`, may not give the rules `wanted`; `None` when they may.
pub fn refusal(user: &UserInfo, have: &[Rule], wanted: &[Rule]) -> Option<String> {
    let wanted: Vec<&Rule> = wanted.iter().filter(|whole| !have.iter().any(|rule| gives(rule, whole))).collect();
    let count = wanted.iter().fold(0, |sum: usize, rule| sum.saturating_add(count(rule)));
    if count > MAX_PARTS {
        return Some(format!(
            "user {} (groups={}) is attempting to grant {count} RBAC permissions that no single rule of theirs covers: \
             at most {MAX_PARTS} are looked at, so give them in rules with shorter lists",
            meta::text::quote(&user.name),
            list(&user.groups)
        ));
    }
    let missing = missing(have, wanted);
    if missing.is_empty() {
        return None;
    }
    let lines: BTreeSet<String> = compact(missing).iter().map(describe).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    Some(format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        meta::text::quote(&user.name),
        list(&user.groups),
        lines.join("\n")
    ))
}

/// The parts of `wanted`, one verb on one thing each, that no single rule of `have` gives.
fn missing<'a>(have: &[Rule], wanted: impl IntoIterator<Item = &'a Rule>) -> Vec<Rule> {
    let parts = wanted.into_iter().flat_map(parts);
    parts.filter(|part| !have.iter().any(|rule| gives(rule, part))).collect()
}

/// How many [`parts`] a rule has.
fn count(rule: &Rule) -> usize {
    let things = [rule.groups.len(), rule.resources.len(), rule.names.len().max(1)];
    let things = things.into_iter().fold(1, usize::saturating_mul).saturating_add(rule.paths.len());
    things.saturating_mul(rule.verbs.len())
}

/// A rule taken apart into rules with one verb on one thing.
fn parts(rule: &Rule) -> Vec<Rule> {
    let one = |text: &String| vec![text.clone()];
    let mut all = Vec::new();
    for group in &rule.groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let part = Rule { verbs: one(verb), groups: one(group), resources: one(resource), ..Rule::default() };
                if rule.names.is_empty() {
                    all.push(part);
                } else {
                    all.extend(rule.names.iter().map(|name| Rule { names: one(name), ..part.clone() }));
                }
            }
        }
    }
    for path in &rule.paths {
        all.extend(rule.verbs.iter().map(|verb| Rule { verbs: one(verb), paths: one(path), ..Rule::default() }));
    }
    all
}

fn gives(rule: &Rule, part: &Rule) -> bool {
    let has = |list: &[String], wanted: &String| list.iter().any(|v| v == "*" || v == wanted);
    let resource = |wanted: &String| {
        let any_with_sub = wanted.split_once('/').map(|(_, sub)| format!("*/{sub}"));
        has(&rule.resources, wanted) || any_with_sub.is_some_and(|any| rule.resources.contains(&any))
    };
    let path = |wanted: &String| {
        let covers = |have: &String| have.strip_suffix('*').is_some_and(|prefix| wanted.starts_with(prefix));
        rule.paths.iter().any(|have| have == wanted || covers(have))
    };
    // A part without names asks for every name: only a rule without names gives that.
    let named = rule.names.is_empty() || (!part.names.is_empty() && part.names.iter().all(|n| rule.names.contains(n)));
    part.verbs.iter().all(|verb| has(&rule.verbs, verb))
        && part.groups.iter().all(|group| has(&rule.groups, group))
        && part.resources.iter().all(resource)
        && part.paths.iter().all(path)
        && named
}

/// Parts about the same thing joined into one rule with all the verbs.
fn compact(parts: Vec<Rule>) -> Vec<Rule> {
    let mut joined: Vec<Rule> = Vec::new();
    for part in parts {
        let same = |rule: &&mut Rule| {
            part.paths.is_empty()
                && (&rule.groups, &rule.resources, &rule.names) == (&part.groups, &part.resources, &part.names)
                && rule.paths.is_empty()
        };
        match joined.iter_mut().find(same) {
            Some(rule) => {
                for verb in part.verbs {
                    if !rule.verbs.contains(&verb) {
                        rule.verbs.push(verb);
                    }
                }
            }
            None => joined.push(part),
        }
    }
    joined
}

/// `["a" "b"]`, as Go prints a list of quoted strings.
fn list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| meta::text::quote(text)).collect();
    format!("[{}]", quoted.join(" "))
}

fn describe(rule: &Rule) -> String {
    let fields = [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.paths),
        ("ResourceNames", &rule.names),
        ("Verbs", &rule.verbs),
    ];
    let given = fields.iter().filter(|(_, texts)| !texts.is_empty());
    let shown: Vec<String> = given.map(|(name, texts)| format!("{name}:{}", list(texts))).collect();
    format!("{{{}}}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rules(list: Value) -> Vec<Rule> {
        Rule::all(&json!({"rules": list}))
    }

    fn lacks(have: Value, wanted: Value) -> Option<String> {
        let bob = UserInfo { name: "bob".into(), groups: vec!["dev".into()], ..UserInfo::default() };
        refusal(&bob, &rules(have), &rules(wanted))
    }

    fn on(resource: &str, verbs: &[&str]) -> Value {
        json!({"apiGroups": [""], "resources": [resource], "verbs": verbs})
    }

    #[test]
    fn what_somebody_has_they_may_give() {
        let cases = [
            (json!([on("pods", &["get", "list"])]), json!([on("pods", &["list"])])),
            (json!([on("pods", &["get"]), on("pods", &["list"])]), json!([on("pods", &["get", "list"])])),
            (json!([on("*", &["*"])]), json!([on("pods/log", &["get"]), on("secrets", &["delete"])])),
            (json!([on("*/scale", &["get"])]), json!([on("deployments/scale", &["get"])])),
            (
                json!([on("secrets", &["get"])]),
                json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get"]}]),
            ),
            (
                json!([{"nonResourceURLs": ["/healthz/*"], "verbs": ["get"]}]),
                json!([{"nonResourceURLs": ["/healthz/etcd", "/healthz/*"], "verbs": ["get"]}]),
            ),
        ];
        for (have, wanted) in cases {
            assert_eq!(lacks(have.clone(), wanted.clone()), None, "{have} covers {wanted}");
        }
        assert!(missing(&full_authority(), &rules(json!([on("x", &["y"])]))).is_empty());
    }

    /// A billion permissions in fifteen kilobytes were taken apart in memory, for anybody who may make roles.
    #[test]
    fn lists_that_multiply_cost_no_memory() {
        let many = |prefix: &str| (0..1000).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
        let wanted = json!([{"apiGroups": many("g"), "resources": many("r"), "verbs": many("v")}]);
        let said = lacks(json!([on("pods", &["get"])]), wanted.clone()).expect("refused");
        assert!(said.contains("is attempting to grant 1000000000 RBAC permissions"), "{said}");
        let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
        assert_eq!(lacks(all, wanted), None, "who has all may give all");
        for rule in rules(json!([on("pods", &["get", "list"]), {"nonResourceURLs": ["/a", "/b"], "verbs": ["get"]}])) {
            assert_eq!(count(&rule), parts(&rule).len());
        }
    }

    #[test]
    fn what_somebody_lacks_they_may_not_give() {
        let one_secret =
            json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get"]}]);
        let cases = [
            (json!([]), json!([on("pods", &["get"])])),
            (json!([on("pods", &["get"])]), json!([on("pods/exec", &["get"])])),
            (json!([on("pods", &["get"])]), json!([on("*", &["get"])])),
            (json!([on("pods", &["get"])]), json!([on("pods", &["*"])])),
            (json!([on("*/scale", &["get"])]), json!([on("deployments", &["get"])])),
            (one_secret.clone(), json!([on("secrets", &["get"])])),
            (json!([{"apiGroups": ["apps"], "resources": ["*"], "verbs": ["*"]}]), json!([on("pods", &["get"])])),
            (
                json!([{"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]),
                json!([{"nonResourceURLs": ["/*"], "verbs": ["get"]}]),
            ),
        ];
        for (have, wanted) in cases {
            assert!(lacks(have.clone(), wanted.clone()).is_some(), "{have} does not cover {wanted}");
        }
    }

    #[test]
    fn the_refusal_lists_what_is_missing_once_each() {
        let wanted = json!([
            {"apiGroups": ["", "apps"], "resources": ["pods"], "verbs": ["get", "delete"]},
            {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
            on("pods", &["delete"]),
        ]);
        assert_eq!(
            lacks(json!([on("pods", &["get"])]), wanted).as_deref(),
            Some(
                "user \"bob\" (groups=[\"dev\"]) is attempting to grant RBAC permissions not currently held:\n\
                 {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}\n\
                 {APIGroups:[\"apps\"], Resources:[\"pods\"], Verbs:[\"get\" \"delete\"]}\n\
                 {NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]}"
            )
        );
    }
}
