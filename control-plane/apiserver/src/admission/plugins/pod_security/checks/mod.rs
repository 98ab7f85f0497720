//! The rules of the Pod Security Standards, one idea a file. Each looks at a pod and tells what is wrong in upstream's
//! words, or nothing. Pure.

pub mod host;
pub mod kernel;
pub mod privileges;
pub mod profiles;
pub mod users;
pub mod volumes;

use std::collections::BTreeSet;

use serde_json::Value;

/// How a pod breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule in short.
    pub reason: String,
    /// Who breaks it, and by what.
    pub detail: String,
}

fn violation(reason: impl Into<String>, detail: impl Into<String>) -> Option<Violation> {
    Some(Violation { reason: reason.into(), detail: detail.into() })
}

/// A pod, or the template of one.
pub struct Pod<'a> {
    pub metadata: &'a Value,
    pub spec: &'a Value,
}

impl<'a> Pod<'a> {
    /// Init, ordinary and ephemeral containers.
    fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let lists = ["initContainers", "containers", "ephemeralContainers"].map(|list| self.spec[list].as_array());
        lists.into_iter().flatten().flatten()
    }

    /// Containers that a test finds wrong, by name.
    fn containers_where(&self, wrong: impl Fn(&Value) -> bool) -> Names {
        Names(self.containers().filter(|container| wrong(container)).map(|c| text(c, "name").to_owned()).collect())
    }

    fn volumes(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.spec["volumes"].as_array().into_iter().flatten()
    }

    /// Annotations, with what follows `prefix` allowed to be anything.
    fn annotations(&self, prefix: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.metadata["annotations"].as_object().into_iter().flatten();
        all.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
            .filter(move |(key, _)| key.starts_with(prefix))
    }

    /// The pod itself and its containers, as far as their security contexts satisfy a test: `pod and container "a"`.
    fn setters(&self, wrong: impl Fn(&Value) -> bool) -> Vec<String> {
        let mut setters = Vec::new();
        if wrong(&self.spec["securityContext"]) {
            setters.push("pod".to_owned());
        }
        let containers = self.containers_where(|container| wrong(&container["securityContext"]));
        if !containers.0.is_empty() {
            setters.push(containers.shown("container"));
        }
        setters
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Names of containers or volumes.
struct Names(Vec<String>);

impl Names {
    /// `container "a"`, `containers "a", "b"`.
    fn shown(&self, what: &str) -> String {
        format!("{} {}", plural(what, self.0.len()), meta::text::quoted_list(&self.0))
    }

    /// A violation by all of these containers, if there are any.
    fn violate(&self, reason: &str, must: &str) -> Option<Violation> {
        if self.0.is_empty() {
            return None;
        }
        violation(reason, format!("{} {must}", self.shown("container")))
    }
}

fn plural(word: &str, count: usize) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

/// Values in order, once each, quoted; quotes within stay as they are.
fn quoted(values: &BTreeSet<&str>) -> String {
    let values: Vec<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
    values.join(", ")
}
