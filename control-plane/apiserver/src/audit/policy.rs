//! Which requests are logged, and how much of each: a Policy of audit.k8s.io/v1, its rules tried in order. Pure.

use serde_json::Value;

use crate::authn::UserInfo;
use crate::http::request::RequestInfo;

/// How much of a request is logged; more with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    const ALL: [(&str, Level); 4] = [
        ("Metadata", Level::Metadata),
        ("None", Level::None),
        ("Request", Level::Request),
        ("RequestResponse", Level::RequestResponse),
    ];

    pub fn word(self) -> &'static str {
        Level::ALL.into_iter().find(|(_, level)| *level == self).map_or("", |(word, _)| word)
    }
}

/// When an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    /// Of requests that live long: the head of the answer is sent.
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    const ALL: [(&str, Stage); 4] = [
        ("RequestReceived", Stage::RequestReceived),
        ("ResponseStarted", Stage::ResponseStarted),
        ("ResponseComplete", Stage::ResponseComplete),
        ("Panic", Stage::Panic),
    ];

    pub fn word(self) -> &'static str {
        Stage::ALL.into_iter().find(|(_, stage)| *stage == self).map_or("", |(word, _)| word)
    }
}

/// What is done with one request, by upstream's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestAuditConfig {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Policy {
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
    rules: Vec<Rule>,
}

#[derive(Debug, Default)]
struct Rule {
    level: Level,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    namespaces: Vec<String>,
    resources: Vec<Resources>,
    paths: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Default)]
struct Resources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

impl Policy {
    /// From a file's object; the error names the field.
    pub fn read(policy: &Value) -> Result<Policy, String> {
        let word = |field: &str| policy[field].as_str().unwrap_or_default();
        if (word("apiVersion"), word("kind")) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!("{:?} {:?} is no Policy of audit.k8s.io/v1", word("apiVersion"), word("kind")));
        }
        known(policy, "", &["apiVersion", "kind", "metadata", "omitStages", "omitManagedFields", "rules"])?;
        let rules = policy["rules"].as_array().map_or(&[][..], Vec::as_slice);
        if rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".to_owned());
        }
        let rule = |(at, rule): (usize, &Value)| Rule::read(rule, &format!("rules[{at}]."));
        Ok(Policy {
            omit_stages: stages(policy, "")?,
            omit_managed_fields: policy["omitManagedFields"] == true,
            rules: rules.iter().enumerate().map(rule).collect::<Result<_, _>>()?,
        })
    }

    /// What the first rule says that is about the request; without one nothing is logged. `user` is who was
    /// authenticated, `None` for a caller whose credentials were refused.
    pub fn evaluate(&self, info: &RequestInfo, user: Option<&UserInfo>) -> RequestAuditConfig {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(info, user)) else {
            return RequestAuditConfig::default();
        };
        let mut omit_stages = self.omit_stages.clone();
        omit_stages.extend(&rule.omit_stages);
        let omit_managed_fields = rule.omit_managed_fields.unwrap_or(self.omit_managed_fields);
        RequestAuditConfig { level: rule.level, omit_stages, omit_managed_fields }
    }
}

impl Rule {
    fn read(rule: &Value, path: &str) -> Result<Rule, String> {
        const FIELDS: [&str; 9] = [
            "level",
            "users",
            "userGroups",
            "verbs",
            "namespaces",
            "resources",
            "nonResourceURLs",
            "omitStages",
            "omitManagedFields",
        ];
        known(rule, path, &FIELDS)?;
        let given = rule["level"].as_str().unwrap_or_default();
        let Some((_, level)) = Level::ALL.into_iter().find(|(word, _)| *word == given) else {
            let words = Level::ALL.map(|(word, _)| format!("{word:?}")).join(", ");
            return Err(format!("{path}level: Unsupported value: {given:?}: supported values: {words}"));
        };
        let resources = rule["resources"].as_array().map_or(&[][..], Vec::as_slice);
        let read = |(at, one): (usize, &Value)| Resources::read(one, &format!("{path}resources[{at}]."));
        let rule = Rule {
            level,
            users: texts(rule, "users", path)?,
            groups: texts(rule, "userGroups", path)?,
            verbs: texts(rule, "verbs", path)?,
            namespaces: texts(rule, "namespaces", path)?,
            resources: resources.iter().enumerate().map(read).collect::<Result<_, _>>()?,
            paths: texts(rule, "nonResourceURLs", path)?,
            omit_stages: stages(rule, path)?,
            omit_managed_fields: rule["omitManagedFields"].as_bool(),
        };
        let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
        if of_resources && !rule.paths.is_empty() {
            return Err(format!(
                "{path}nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs"
            ));
        }
        for (at, url) in rule.paths.iter().enumerate().filter(|(_, url)| *url != "*") {
            let wrong = |why: &str| Err(format!("{path}nonResourceURLs[{at}]: Invalid value: {url:?}: {why}"));
            if !url.starts_with('/') {
                return wrong("non-resource URL rules must begin with a '/' character");
            }
            if url.strip_suffix('*').unwrap_or(url).contains('*') {
                return wrong("non-resource URL wildcards '*' must be the final character of the rule");
            }
        }
        Ok(rule)
    }

    fn matches(&self, info: &RequestInfo, user: Option<&UserInfo>) -> bool {
        let named = |list: &[String], wanted: &str| list.iter().any(|entry| entry == wanted);
        let by = |list: &[String], has: &dyn Fn(&UserInfo) -> bool| list.is_empty() || user.is_some_and(has);
        by(&self.users, &|user| named(&self.users, &user.name))
            && by(&self.groups, &|user| user.groups.iter().any(|group| named(&self.groups, group)))
            && (self.verbs.is_empty() || named(&self.verbs, info.verb))
            && if !(self.namespaces.is_empty() && self.resources.is_empty()) {
                info.resource_request
                    && (self.namespaces.is_empty() || named(&self.namespaces, &info.namespace))
                    && (self.resources.is_empty() || self.resources.iter().any(|resources| resources.matches(info)))
            } else {
                self.paths.is_empty()
                    || (!info.resource_request && self.paths.iter().any(|path| path_matches(path, &info.path)))
            }
    }
}

fn path_matches(rule: &str, path: &str) -> bool {
    rule == path || rule.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

impl Resources {
    fn read(resources: &Value, path: &str) -> Result<Resources, String> {
        known(resources, path, &["group", "resources", "resourceNames"])?;
        let read = Resources {
            group: resources["group"].as_str().unwrap_or_default().to_owned(),
            resources: texts(resources, "resources", path)?,
            names: texts(resources, "resourceNames", path)?,
        };
        if read.resources.is_empty() && !read.names.is_empty() {
            return Err(format!("{path}resourceNames: using resourceNames requires at least one resource"));
        }
        Ok(read)
    }

    fn matches(&self, info: &RequestInfo) -> bool {
        let (resource, sub) = (info.resource.as_str(), info.subresource.as_str());
        let matches = |rule: &String| {
            let whole = match rule.split_once('/') {
                _ if rule == "*" => true,
                None => sub.is_empty() && rule == resource,
                Some(("*", wanted)) => !sub.is_empty() && wanted == sub,
                Some((wanted, "*")) => wanted == resource,
                Some((wanted, wanted_sub)) => wanted == resource && !sub.is_empty() && wanted_sub == sub,
            };
            whole && (self.names.is_empty() || self.names.contains(&info.name))
        };
        self.group == info.group && (self.resources.is_empty() || self.resources.iter().any(matches))
    }
}

/// A misspelt field would leave something out of the log that somebody relies on.
fn known(object: &Value, path: &str, fields: &[&str]) -> Result<(), String> {
    let mut given = object.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
    match given.find(|field| !fields.contains(field)) {
        Some(field) => Err(format!("{path}{field}: unknown field")),
        None => Ok(()),
    }
}

fn texts(object: &Value, field: &str, path: &str) -> Result<Vec<String>, String> {
    let text =
        |entry: &Value| entry.as_str().map(str::to_owned).ok_or_else(|| format!("{path}{field}: {entry} is no text"));
    match &object[field] {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list.iter().map(text).collect(),
        other => Err(format!("{path}{field}: {other} is no list")),
    }
}

fn stages(object: &Value, path: &str) -> Result<Vec<Stage>, String> {
    let known = |word: String| {
        let found = Stage::ALL.into_iter().find(|(stage, _)| *stage == word).map(|(_, stage)| stage);
        let allowed = Stage::ALL.map(|(stage, _)| stage).join(",");
        found.ok_or_else(|| format!("{path}omitStages: Invalid value: {word:?}: allowed stages are {allowed}"))
    };
    texts(object, "omitStages", path)?.into_iter().map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::Query;
    use http::Method;
    use serde_json::json;

    fn policy(more: Value) -> Result<Policy, String> {
        let mut policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy"});
        for (key, value) in more.as_object().into_iter().flatten() {
            policy[key] = value.clone();
        }
        Policy::read(&policy)
    }

    fn level(rule: Value, method: Method, path: &str) -> Level {
        let mut rule = rule;
        rule["level"] = json!("Metadata");
        let user = UserInfo { name: "u".to_owned(), groups: vec!["g".to_owned()], ..UserInfo::default() };
        let info = RequestInfo::parse(&method, path, &Query::default());
        policy(json!({"rules": [rule]})).expect("policy").evaluate(&info, Some(&user)).level
    }

    #[test]
    fn each_field_of_a_rule_narrows_it() {
        let secrets =
            |names: Value| json!({"resources": [{"group": "", "resources": ["secrets"], "resourceNames": names}]});
        let resources = |list: Value| json!({"resources": [{"group": "", "resources": list}]});
        let (pod, log) = ("/api/v1/namespaces/a/pods/p", "/api/v1/namespaces/a/pods/p/log");
        let cases = [
            (json!({}), pod, true),
            (json!({"users": ["u", "v"]}), pod, true),
            (json!({"users": ["v"]}), pod, false),
            (json!({"userGroups": ["g"]}), pod, true),
            (json!({"userGroups": ["h"]}), pod, false),
            (json!({"verbs": ["get"]}), pod, true),
            (json!({"verbs": ["list"]}), pod, false),
            (json!({"namespaces": ["a"]}), pod, true),
            (json!({"namespaces": ["b"]}), pod, false),
            (json!({"namespaces": [""]}), "/api/v1/nodes/n", true),
            (json!({"namespaces": ["a"]}), "/healthz", false),
            (resources(json!([])), pod, true),
            (resources(json!(["pods"])), pod, true),
            (resources(json!(["pods"])), log, false),
            (resources(json!(["pods/log"])), log, true),
            (resources(json!(["pods/*"])), log, true),
            (resources(json!(["pods/*"])), pod, true),
            (resources(json!(["*/log"])), log, true),
            (resources(json!(["*/log"])), pod, false),
            (resources(json!(["*"])), log, true),
            (json!({"resources": [{"group": "apps"}]}), pod, false),
            (secrets(json!(["s"])), "/api/v1/namespaces/a/secrets/s", true),
            (secrets(json!(["s"])), "/api/v1/namespaces/a/secrets/t", false),
            (json!({"nonResourceURLs": ["/healthz*", "/version"]}), "/healthz/ping", true),
            (json!({"nonResourceURLs": ["/version"]}), "/version/x", false),
            (json!({"nonResourceURLs": ["*"]}), "/anything", true),
            (json!({"nonResourceURLs": ["*"]}), pod, false),
        ];
        for (rule, path, matches) in cases {
            assert_eq!(level(rule.clone(), Method::GET, path) == Level::Metadata, matches, "{rule} {path}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = policy(json!({
            "omitStages": ["RequestReceived"], "omitManagedFields": true,
            "rules": [
                {"level": "None", "users": ["quiet"]},
                {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets"]}], "omitStages": ["Panic"]},
                {"level": "RequestResponse", "omitManagedFields": false},
            ],
        }));
        let policy = policy.expect("policy");
        let info = |path| RequestInfo::parse(&Method::GET, path, &Query::default());
        let user = |name: &str| UserInfo { name: name.to_owned(), ..UserInfo::default() };
        let (secret, other) = (info("/api/v1/namespaces/a/secrets/s"), info("/version"));
        assert_eq!(policy.evaluate(&secret, Some(&user("quiet"))).level, Level::None);
        let config = policy.evaluate(&secret, Some(&user("a")));
        assert_eq!(config.omit_stages, [Stage::RequestReceived, Stage::Panic]);
        assert!(config.level == Level::Metadata && config.omit_managed_fields);
        let config = policy.evaluate(&other, None);
        assert!(config.level == Level::RequestResponse && !config.omit_managed_fields);
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_told() {
        let one = |rule: Value| json!({"rules": [rule]});
        for (wrong, why) in [
            (json!({"rules": []}), "loaded illegal policy with 0 rules"),
            (json!({"kind": "Pod"}), "is no Policy of audit.k8s.io/v1"),
            (json!({"rule": []}), "rule: unknown field"),
            (one(json!({})), "rules[0].level: Unsupported value: \"\""),
            (one(json!({"level": "All"})), "rules[0].level: Unsupported value: \"All\""),
            (one(json!({"level": "None", "user": ["a"]})), "rules[0].user: unknown field"),
            (one(json!({"level": "None", "users": "a"})), "rules[0].users: \"a\" is no list"),
            (one(json!({"level": "None", "nonResourceURLs": ["healthz"]})), "must begin with a '/'"),
            (one(json!({"level": "None", "nonResourceURLs": ["/a*b"]})), "must be the final character"),
            (one(json!({"level": "None", "nonResourceURLs": ["/a"], "namespaces": ["a"]})), "cannot apply to both"),
            (one(json!({"level": "None", "resources": [{"resourceNames": ["a"]}]})), "requires at least one resource"),
            (one(json!({"level": "None", "omitStages": ["Later"]})), "allowed stages are RequestReceived,"),
        ] {
            let said = policy(wrong.clone()).expect_err("refused");
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }
}
