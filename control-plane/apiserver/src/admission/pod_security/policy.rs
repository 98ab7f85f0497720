//! Which of the Pod Security Standards holds in a namespace, from the namespace's labels. Pure.

use std::fmt;

use meta::FieldError;
use serde_json::Value;

use super::settings::Settings;

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

pub fn level(text: &str) -> Option<Level> {
    Some(match text {
        "privileged" => Level::Privileged,
        "baseline" => Level::Baseline,
        "restricted" => Level::Restricted,
        _ => return None,
    })
}

pub fn version(text: &str) -> Option<Version> {
    if text == "latest" {
        return Some(Version(None));
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
    plain.then(|| minor.parse().ok()).flatten().map(|minor| Version(Some(minor)))
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
    /// What the labels of a namespace ask for, and the defaults where they say nothing.
    pub fn of(namespace: &Value, defaults: &Settings) -> Policy {
        let mut policy = Policy::default();
        let labels = &namespace["metadata"]["labels"];
        let (enforce, enforced) = policy.read(labels, "enforce", defaults.enforce, Level::Restricted);
        // A level that is none is audited as the strictest, as upstream has it.
        let (audit, _) = policy.read(labels, "audit", defaults.audit, Level::Restricted);
        let (warn, warned) = policy.read(labels, "warn", defaults.warn, Level::Privileged);
        policy.enforce = enforce;
        policy.audit = audit;
        policy.warn = warn;
        if warned.is_none() && enforced == Some(true) && enforce.level > warn.level {
            policy.warn = enforce;
        }
        policy
    }

    /// The standard of one mode, and whether a level is given and whether it is one. `wrong` is what a level that is
    /// none counts as.
    fn read(&mut self, labels: &Value, mode: &str, default: Standard, wrong: Level) -> (Standard, Option<bool>) {
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
        let policy = Policy::of(&json!({"metadata": {"labels": labels}}), &Settings::default());
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
        let defaults = Settings {
            enforce: Standard { level: Level::Baseline, ..Standard::default() },
            warn: Standard { level: Level::Restricted, ..Standard::default() },
            ..Settings::default()
        };
        let said = |labels: Value| {
            let policy = Policy::of(&json!({"metadata": {"labels": labels}}), &defaults);
            (policy.enforce.to_string(), policy.warn.to_string())
        };
        assert_eq!(said(json!({})), ("baseline:latest".to_owned(), "restricted:latest".to_owned()));
        let labels = json!({"pod-security.kubernetes.io/enforce": "privileged"});
        assert_eq!(said(labels), ("privileged:latest".to_owned(), "restricted:latest".to_owned()));
        for wrong in ["v1.01", "v1.", "v2.0", "v1.x", "v1.99999999999"] {
            assert!(version(wrong).is_none(), "{wrong}");
        }
    }
}
