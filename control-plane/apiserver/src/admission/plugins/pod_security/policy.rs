//! Which of the Pod Security Standards holds in a namespace, from the namespace's labels. Pure.

use std::fmt;

use meta::FieldError;
use serde_json::Value;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a standard forbids; more with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

/// The minor release whose standard is meant; the newest one when unset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Version(pub Option<u32>);

impl Version {
    /// Whether a rule that came with this minor release is part of the standard.
    pub fn has(self, since: u32) -> bool {
        self.0.is_none_or(|minor| minor >= since)
    }
}

/// A standard, written `baseline:v1.25` or `restricted:latest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standard {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version.0 {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

fn level(text: &str) -> Option<Level> {
    Some(match text {
        "privileged" => Level::Privileged,
        "baseline" => Level::Baseline,
        "restricted" => Level::Restricted,
        _ => return None,
    })
}

fn version(text: &str) -> Option<Version> {
    if text == "latest" {
        return Some(Version(None));
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
    plain.then(|| minor.parse().ok()).flatten().map(|minor| Version(Some(minor)))
}

/// What holds where a namespace says nothing, and for whom nothing holds: `PodSecurityConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    enforce: Standard,
    audit: Standard,
    warn: Standard,
    namespaces: Vec<String>,
    usernames: Vec<String>,
    runtime_classes: Vec<String>,
}

impl Defaults {
    const GROUP: &str = "pod-security.admission.config.k8s.io/";

    pub fn of(configuration: &Value) -> Result<Defaults, String> {
        let word = |field: &str| configuration[field].as_str().unwrap_or_default();
        if !word("apiVersion").starts_with(Self::GROUP) || word("kind") != "PodSecurityConfiguration" {
            return Err(format!("PodSecurity: {configuration} is no PodSecurityConfiguration of {}v1", Self::GROUP));
        }
        let standard = |mode: &str| -> Result<Standard, String> {
            let said = |field: &str, otherwise: &str| {
                let text = configuration["defaults"][field].as_str().filter(|text| !text.is_empty());
                text.unwrap_or(otherwise).to_owned()
            };
            let (level_text, version_text) = (said(mode, "privileged"), said(&format!("{mode}-version"), "latest"));
            let level = level(&level_text)
                .ok_or_else(|| format!("PodSecurity: defaults.{mode}: Invalid value: {level_text:?}: must be one of baseline, privileged, restricted"))?;
            let version = version(&version_text)
                .ok_or_else(|| format!("PodSecurity: defaults.{mode}-version: Invalid value: {version_text:?}: must be \"latest\" or \"v1.x\""))?;
            Ok(Standard { level, version })
        };
        let names = |field: &str| -> Vec<String> {
            let list = configuration["exemptions"][field].as_array().into_iter().flatten();
            list.into_iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
        };
        Ok(Defaults {
            enforce: standard("enforce")?,
            audit: standard("audit")?,
            warn: standard("warn")?,
            namespaces: names("namespaces"),
            usernames: names("usernames"),
            runtime_classes: names("runtimeClasses"),
        })
    }

    /// Why nothing is asked of pods that are made here, or by this user: the audit log's word.
    pub fn exempt(&self, namespace: &str, user: &str) -> Option<&'static str> {
        let among = |list: &[String], name: &str| list.iter().any(|known| known == name);
        let reasons = [("namespace", among(&self.namespaces, namespace)), ("user", among(&self.usernames, user))];
        reasons.into_iter().find(|(_, so)| *so).map(|(reason, _)| reason)
    }

    /// What runs this pod is exempt.
    pub fn exempt_class(&self, pod: &Value) -> bool {
        let class = pod["spec"]["runtimeClassName"].as_str();
        class.is_some_and(|class| self.runtime_classes.iter().any(|known| known == class))
    }
}

/// What a namespace asks for.
#[derive(Debug, Default)]
pub struct Policy {
    /// Pods that break it are refused.
    pub enforce: Standard,
    /// What breaks it is told in the audit log.
    pub audit: Standard,
    /// What breaks it is answered with a warning.
    pub warn: Standard,
    /// What is wrong with the labels.
    pub errors: Vec<FieldError>,
}

impl Policy {
    pub fn of(namespace: &Value, defaults: &Defaults) -> Policy {
        let mut policy = Policy::default();
        let labels = &namespace["metadata"]["labels"];
        let (enforce, enforced) = policy.read(labels, "enforce", Level::Restricted, defaults.enforce);
        let (audit, _) = policy.read(labels, "audit", Level::Privileged, defaults.audit);
        let (warn, warned) = policy.read(labels, "warn", Level::Privileged, defaults.warn);
        policy.enforce = enforce;
        policy.audit = audit;
        policy.warn = warn;
        if warned.is_none() && enforced == Some(true) && enforce.level > warn.level {
            policy.warn = enforce;
        }
        policy
    }

    /// Whether nothing is forbidden, told or warned of: to pods, or to templates, for which nothing is enforced.
    pub fn asks_nothing(&self, enforce: bool) -> bool {
        let all = [(self.enforce, enforce), (self.audit, true), (self.warn, true)];
        self.errors.is_empty() && all.into_iter().all(|(standard, asked)| !asked || standard.level == Level::Privileged)
    }

    /// The standard of one mode, and whether a level is given and whether it is one. `wrong` is what a level that is
    /// none counts as.
    fn read(&mut self, labels: &Value, mode: &str, wrong: Level, default: Standard) -> (Standard, Option<bool>) {
        let mut standard = default;
        let mut given = None;
        if let Some(text) = labels[format!("{PREFIX}{mode}")].as_str() {
            let known = level(text);
            given = Some(known.is_some());
            standard.level = known.unwrap_or(wrong);
            if known.is_none() {
                self.refuse(mode, text, "must be one of privileged, baseline, restricted");
            }
        }
        if let Some(text) = labels[format!("{PREFIX}{mode}-version")].as_str() {
            let known = version(text);
            standard.version = known.unwrap_or_default();
            if known.is_none() {
                self.refuse(&format!("{mode}-version"), text, "must be \"latest\" or \"v1.x\"");
            }
        }
        (standard, given)
    }

    fn refuse(&mut self, label: &str, value: &str, why: &str) {
        self.errors.push(FieldError::invalid(format!("metadata.labels[{PREFIX}{label}]"), value, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(labels: &[(&str, &str)]) -> (String, String, usize) {
        let labels: serde_json::Map<String, Value> =
            labels.iter().map(|(key, value)| (format!("{PREFIX}{key}"), json!(value))).collect();
        let policy = Policy::of(&json!({"metadata": {"labels": labels}}), &Defaults::default());
        (policy.enforce.to_string(), policy.warn.to_string(), policy.errors.len())
    }

    #[test]
    fn labels_become_standards() {
        type Row<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str, usize);
        let cases: [Row; 8] = [
            (&[], "privileged:latest", "privileged:latest", 0),
            (&[("enforce", "baseline")], "baseline:latest", "baseline:latest", 0),
            (&[("enforce", "baseline"), ("enforce-version", "v1.24")], "baseline:v1.24", "baseline:v1.24", 0),
            (&[("enforce", "baseline"), ("warn", "restricted")], "baseline:latest", "restricted:latest", 0),
            (&[("enforce", "restricted"), ("warn", "privileged")], "restricted:latest", "privileged:latest", 0),
            (&[("warn", "baseline"), ("warn-version", "v1.0")], "privileged:latest", "baseline:v1.0", 0),
            // A mistake closes the door and is told.
            (&[("enforce", "strict")], "restricted:latest", "privileged:latest", 1),
            (
                &[("enforce-version", "1.24"), ("audit", "x"), ("warn", "y")],
                "privileged:latest",
                "privileged:latest",
                3,
            ),
        ];
        for (labels, enforce, warn, errors) in cases {
            assert_eq!(policy(labels), (enforce.to_owned(), warn.to_owned(), errors), "{labels:?}");
        }
        for wrong in ["v1.01", "v1.", "v2.0", "v1.x", "v1.99999999999"] {
            assert!(version(wrong).is_none(), "{wrong}");
        }
    }
    #[test]
    fn defaults_hold_where_labels_say_nothing_and_not_for_the_exempt() {
        let defaults = |enforce: &str| {
            Defaults::of(
                &json!({"apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
                "defaults": {"enforce": enforce, "audit": "restricted", "warn": "restricted", "warn-version": "v1.30"},
                "exemptions": {"namespaces": ["kube-system"], "usernames": ["system:serviceaccount:a:b"],
                    "runtimeClasses": ["kata"]}}),
            )
        };
        let given = defaults("baseline").expect("right");
        let of = |labels: Value| {
            let policy = Policy::of(&json!({"metadata": {"labels": labels}}), &given);
            (policy.enforce.to_string(), policy.audit.to_string(), policy.warn.to_string())
        };
        let words = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(of(json!({})), words("baseline:latest", "restricted:latest", "restricted:v1.30"));
        assert_eq!(
            of(
                json!({"pod-security.kubernetes.io/enforce": "privileged", "pod-security.kubernetes.io/audit": "baseline"})
            ),
            words("privileged:latest", "baseline:latest", "restricted:v1.30")
        );
        let pod = json!({"spec": {"runtimeClassName": "kata"}});
        assert_eq!(given.exempt("kube-system", "u"), Some("namespace"));
        assert_eq!(given.exempt("x", "system:serviceaccount:a:b"), Some("user"));
        assert_eq!(given.exempt("x", "u"), None);
        assert!(given.exempt_class(&pod) && !given.exempt_class(&json!({"spec": {}})));
        assert!(defaults("strict").expect_err("wrong").contains("defaults.enforce: Invalid value: \"strict\""));
        assert!(Defaults::of(&json!({"kind": "Pod"})).is_err());
    }
}
