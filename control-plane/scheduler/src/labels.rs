//! Selectors of the scheduling API, compiled once per pod and matched against many: label selectors of affinity and
//! spreading terms, node selector terms of node affinity.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

pub type Labels = BTreeMap<String, String>;

/// One requirement on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
    /// An operator that nobody knows matches nothing.
    Never,
}

impl Requirement {
    fn new(key: &str, operator: &str, values: &[String]) -> Requirement {
        let number = || values.first().and_then(|v| v.parse().ok());
        match (operator, number()) {
            ("In", _) => Requirement::In(key.into(), values.to_vec()),
            ("NotIn", _) => Requirement::NotIn(key.into(), values.to_vec()),
            ("Exists", _) => Requirement::Exists(key.into()),
            ("DoesNotExist", _) => Requirement::Absent(key.into()),
            ("Gt", Some(n)) => Requirement::Greater(key.into(), n),
            ("Lt", Some(n)) => Requirement::Less(key.into(), n),
            _ => Requirement::Never,
        }
    }

    fn matches(&self, labels: &Labels) -> bool {
        let number = |key: &String| labels.get(key).and_then(|v| v.parse::<i64>().ok());
        match self {
            Requirement::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
            Requirement::Greater(key, n) => number(key).is_some_and(|v| v > *n),
            Requirement::Less(key, n) => number(key).is_some_and(|v| v < *n),
            Requirement::Never => false,
        }
    }
}

/// A label selector: all requirements hold. No selector at all matches nothing, an empty one everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector(Option<Vec<Requirement>>);

impl Selector {
    pub fn of(selector: Option<&LabelSelector>) -> Selector {
        Selector(selector.map(|s| {
            let equal = s.match_labels.iter().flatten();
            let equal = equal.map(|(k, v)| Requirement::In(k.clone(), vec![v.clone()]));
            let terms = s.match_expressions.iter().flatten();
            let terms = terms.map(|e| Requirement::new(&e.key, &e.operator, e.values.as_deref().unwrap_or_default()));
            equal.chain(terms).collect()
        }))
    }

    pub fn equal_to(labels: &Labels) -> Selector {
        Selector(Some(labels.iter().map(|(k, v)| Requirement::In(k.clone(), vec![v.clone()])).collect()))
    }

    /// Adds `key in (value)` or `key notin (value)`: matchLabelKeys and mismatchLabelKeys.
    pub fn and(mut self, key: &str, value: &str, equal: bool) -> Selector {
        if let Some(requirements) = &mut self.0 {
            let (key, values) = (key.to_owned(), vec![value.to_owned()]);
            requirements.push(if equal { Requirement::In(key, values) } else { Requirement::NotIn(key, values) });
        }
        self
    }

    /// What both select.
    pub fn both(self, other: Selector) -> Selector {
        Selector(self.0.zip(other.0).map(|(mut all, more)| {
            all.extend(more);
            all
        }))
    }

    /// Whether it selects nothing at all or everything: no group either way.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(Vec::is_empty)
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.as_ref().is_some_and(|rs| rs.iter().all(|r| r.matches(labels)))
    }
}

/// One term of node affinity: labels, and the node's name as the only field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTerm {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

impl NodeTerm {
    pub fn of(term: &NodeSelectorTerm) -> NodeTerm {
        let compile = |list: &Option<Vec<NodeSelectorRequirement>>| {
            let list = list.iter().flatten();
            list.map(|r| Requirement::new(&r.key, &r.operator, r.values.as_deref().unwrap_or_default())).collect()
        };
        NodeTerm { labels: compile(&term.match_expressions), fields: compile(&term.match_fields) }
    }

    /// An empty term matches no node.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        if self.labels.is_empty() && self.fields.is_empty() {
            return false;
        }
        let field = |r: &Requirement| match r {
            Requirement::In(key, values) => key == "metadata.name" && values.iter().any(|v| v == name),
            Requirement::NotIn(key, values) => key == "metadata.name" && values.iter().all(|v| v != name),
            _ => false,
        };
        self.labels.iter().all(|r| r.matches(labels)) && self.fields.iter().all(field)
    }

    /// The node names that the term's fields allow, when they are all that it says of names.
    pub fn names(&self) -> Option<&[String]> {
        self.fields.iter().find_map(|r| match r {
            Requirement::In(key, values) if key == "metadata.name" => Some(values.as_slice()),
            _ => None,
        })
    }
}

/// Terms of which one must match.
pub fn node_terms(selector: &NodeSelector) -> Vec<NodeTerm> {
    selector.node_selector_terms.iter().map(NodeTerm::of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn operators_follow_upstream() {
        let node = labels(&[("zone", "a"), ("size", "5")]);
        let values = |v: &[&str]| v.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let holds = |key, op, v: &[&str]| Requirement::new(key, op, &values(v)).matches(&node);
        assert!(holds("zone", "In", &["a", "b"]) && !holds("zone", "NotIn", &["a"]));
        assert!(holds("rack", "NotIn", &["1"]) && holds("rack", "DoesNotExist", &[]));
        assert!(holds("size", "Gt", &["4"]) && !holds("size", "Lt", &["5"]) && !holds("zone", "Gt", &["1"]));
        assert!(!holds("zone", "Sounds", &["like"]));
    }

    #[test]
    fn no_selector_matches_nothing_and_an_empty_one_everything() {
        assert!(!Selector::of(None).matches(&labels(&[("a", "b")])));
        assert!(Selector::of(Some(&LabelSelector::default())).matches(&labels(&[])));
    }
}
