//! Which nodes a pod may be on by `nodeSelector` and node affinity. Asked by the scheduler before it binds, by the
//! kubelet before it starts, and by the daemon set controller before it makes a pod.
//!
//! ```text
//! nodeSelector: {disk: ssd}                                       all labels, and
//! required…: nodeSelectorTerms:                                   one of the terms:
//!   - matchExpressions: [{zone In a, b}, {cores Gt 4}]            all expressions on labels, and
//!     matchFields:      [{metadata.name In n1}]                   all fields
//!   - {}                                                          an empty term: no node
//!   - matchExpressions: [{zone Sounds like}]                      one that can't be read: no node
//! ```

use k8s_openapi::api::core::v1 as core;
use meta::labels::{Labels, Op, Requirement, Selector};

use crate::labels::{Labels as Map, equal_to};

/// The only field that nodes can be selected by.
const NAME: &str = "metadata.name";

/// Terms of which one must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSelector(Vec<Term>);

/// What all must hold of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    labels: Selector,
    fields: Vec<Field>,
}

/// A field equals the value, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    key: String,
    value: String,
    equal: bool,
}

impl Term {
    /// `None` for a term that matches no node: an empty one, or one that can't be read.
    pub fn of(term: &core::NodeSelectorTerm) -> Option<Term> {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        if expressions.is_empty() && fields.is_empty() {
            return None;
        }
        let labels: Option<Vec<Requirement>> = expressions.iter().map(requirement).collect();
        let fields: Option<Vec<Field>> = fields.iter().map(field).collect();
        Some(Term { labels: Selector::from_requirements(labels?), fields: fields? })
    }

    /// Whether a node of this name with these labels fits all of the term.
    pub fn matches(&self, name: &str, labels: &impl Labels) -> bool {
        let value = |field: &Field| if field.key == NAME { name } else { "" };
        self.labels.matches(labels) && self.fields.iter().all(|f| (f.value == value(f)) == f.equal)
    }

    fn name(&self) -> Option<&str> {
        self.fields.iter().find(|f| f.equal && f.key == NAME).map(|f| f.value.as_str())
    }
}

fn requirement(r: &core::NodeSelectorRequirement) -> Option<Requirement> {
    let op = match r.operator.as_str() {
        "In" => Op::In,
        "NotIn" => Op::NotIn,
        "Exists" => Op::Exists,
        "DoesNotExist" => Op::DoesNotExist,
        "Gt" => Op::GreaterThan,
        "Lt" => Op::LessThan,
        _ => return None,
    };
    Requirement::new(&r.key, op, r.values.iter().flatten().cloned(), "").ok()
}

/// Fields know `In` and `NotIn`, of one value.
fn field(r: &core::NodeSelectorRequirement) -> Option<Field> {
    let equal = match r.operator.as_str() {
        "In" => true,
        "NotIn" => false,
        _ => return None,
    };
    let [value] = r.values.as_deref().unwrap_or_default() else { return None };
    Some(Field { key: r.key.clone(), value: value.clone(), equal })
}

impl NodeSelector {
    /// Terms that match nothing are left out: a selector of such terms alone matches no node.
    pub fn of(selector: &core::NodeSelector) -> NodeSelector {
        NodeSelector(selector.node_selector_terms.iter().filter_map(Term::of).collect())
    }

    /// Whether one of the terms matches; without any, none does.
    pub fn matches(&self, name: &str, labels: &impl Labels) -> bool {
        self.0.iter().any(|term| term.matches(name, labels))
    }

    /// The names of the only nodes that can match, when every term demands one: as in the pods of daemon sets.
    pub fn names(&self) -> Option<Vec<&str>> {
        self.0.iter().map(Term::name).collect()
    }
}

/// What a pod demands of its node: upstream's `RequiredNodeAffinity`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Required {
    selector: Selector,
    affinity: Option<NodeSelector>,
}

impl Required {
    /// `nodeSelector` and `requiredDuringSchedulingIgnoredDuringExecution`; preferences are not asked about.
    pub fn of(spec: &core::PodSpec) -> Required {
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let affinity = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        Required {
            selector: spec.node_selector.as_ref().map(equal_to).unwrap_or_default(),
            affinity: affinity.map(NodeSelector::of),
        }
    }

    /// Whether every node will do.
    pub fn is_anything(&self) -> bool {
        self.selector.is_everything() && self.affinity.is_none()
    }

    /// See [`NodeSelector::names`].
    pub fn names(&self) -> Option<Vec<&str>> {
        self.affinity.as_ref()?.names()
    }

    /// Whether both let the pod on a node of this name with these labels.
    pub fn matches(&self, name: &str, labels: &impl Labels) -> bool {
        self.selector.matches(labels) && self.affinity.as_ref().is_none_or(|terms| terms.matches(name, labels))
    }

    /// [`Required::matches`] for a node as the API has it.
    pub fn allows(&self, node: &core::Node) -> bool {
        static NONE: Map = Map::new();
        let labels = node.metadata.labels.as_ref().unwrap_or(&NONE);
        self.matches(node.metadata.name.as_deref().unwrap_or_default(), labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn allows(spec: Value) -> bool {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let spec: core::PodSpec = serde_json::from_value(spec).unwrap();
        let node: core::Node = serde_json::from_value(
            json!({"metadata": {"name": "n1", "labels": {"zone": "a", "cores": "8", "gpu": "yes"}}}),
        )
        .unwrap();
        Required::of(&spec).allows(&node)
    }

    fn affinity(terms: Value) -> Value {
        json!({"affinity": {"nodeAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    }

    fn e(key: &str, operator: &str, values: &[&str]) -> Value {
        json!({"key": key, "operator": operator, "values": values})
    }

    #[test]
    fn expressions_follow_upstream() {
        for (expression, expected) in [
            (e("zone", "In", &["a", "b"]), true),
            (e("zone", "In", &["b"]), false),
            (e("zone", "NotIn", &["b"]), true),
            (e("rack", "NotIn", &["1"]), true),
            (e("rack", "DoesNotExist", &[]), true),
            (e("gpu", "Exists", &[]), true),
            (e("cores", "Gt", &["4"]), true),
            (e("cores", "Gt", &["8"]), false),
            (e("cores", "Lt", &["9"]), true),
            (e("cores", "Lt", &["-9"]), false),
            (e("zone", "Gt", &["1"]), false),
            (e("rack", "Lt", &["1"]), false),
            (e("cores", "Gt", &["many"]), false),
            (e("cores", "Gt", &["4", "5"]), false),
            (e("zone", "In", &[]), false),
            (e("gpu", "Exists", &["yes"]), false),
            (e("zone", "Sounds", &["like"]), false),
        ] {
            assert_eq!(allows(affinity(json!([{"matchExpressions": [expression]}]))), expected, "{expression}");
        }
    }

    #[test]
    fn terms_are_alternatives_and_what_is_in_one_holds_together() {
        let zone = |z: &str| e("zone", "In", &[z]);
        let name = |n: &str| e("metadata.name", "In", &[n]);
        for (terms, expected, why) in [
            (json!([{"matchExpressions": [zone("b")]}, {"matchExpressions": [zone("a")]}]), true, "one of two"),
            (json!([{"matchExpressions": [zone("a"), zone("b")]}]), false, "both in one term"),
            (json!([{"matchExpressions": [zone("a")], "matchFields": [name("n1")]}]), true, "labels and fields"),
            (json!([{"matchExpressions": [zone("a")], "matchFields": [name("n2")]}]), false, "another node's name"),
            (json!([{"matchFields": [e("metadata.name", "NotIn", &["n1"])]}]), false, "not this one"),
            (json!([{"matchFields": [e("metadata.name", "NotIn", &["n2"])]}]), true, "not another one"),
            (json!([{"matchFields": [e("metadata.name", "In", &["n1", "n2"])]}]), false, "fields take one value"),
            (json!([{"matchFields": [e("metadata.name", "Exists", &[])]}]), false, "fields know two operators"),
            (json!([{}]), false, "an empty term"),
            (json!([]), false, "no terms"),
            (json!([{}, {"matchExpressions": [zone("a")]}]), true, "an empty term says nothing of the others"),
            (json!([{"matchExpressions": [e("x", "?", &[])]}, {"matchFields": [name("n1")]}]), true, "nor a bad one"),
        ] {
            assert_eq!(allows(affinity(terms.clone())), expected, "{why}: {terms}");
        }
    }

    #[test]
    fn selector_and_affinity_must_both_allow_the_node() {
        assert!(allows(json!({"nodeSelector": {"zone": "a"}})) && !allows(json!({"nodeSelector": {"zone": "b"}})));
        assert!(allows(json!({})) && allows(json!({"affinity": {"nodeAffinity": {}}})));
        let mut both = affinity(json!([{"matchExpressions": [e("gpu", "Exists", &[])]}]));
        both["nodeSelector"] = json!({"zone": "b"});
        assert!(!allows(both));
    }

    #[test]
    fn names_are_told_only_when_every_term_demands_one() {
        let of = |terms: Value| NodeSelector::of(&serde_json::from_value(json!({"nodeSelectorTerms": terms})).unwrap());
        let name = |n: &str| json!({"matchFields": [e("metadata.name", "In", &[n])]});
        assert_eq!(of(json!([name("a"), name("b")])).names(), Some(vec!["a", "b"]));
        assert_eq!(of(json!([name("a"), {"matchExpressions": [e("zone", "Exists", &[])]}])).names(), None);
        assert_eq!(of(json!([{"matchFields": [e("metadata.name", "NotIn", &["a"])]}])).names(), None);
    }
}
