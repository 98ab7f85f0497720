//! Label selectors of typed objects, ready to match. The matcher is [`meta::labels::Selector`]; here is what the fields
//! of the API mean to it. Callers: every controller with a selector, the scheduler's affinity and spreading.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use meta::labels::{Op, Requirement};

pub use meta::labels::Selector;

/// Labels as typed objects carry them.
pub type Labels = BTreeMap<String, String>;

/// What a `LabelSelector` selects: an absent one nothing, an empty one everything. One that can't be read (an operator
/// that nobody knows, `In` without values) selects nothing: upstream's helper answers an error there, and its callers
/// then act on no object.
pub fn selector<'a>(selector: impl Into<Option<&'a LabelSelector>>) -> Selector {
    let Some(selector) = selector.into() else { return Selector::nothing() };
    let expressions = selector.match_expressions.iter().flatten().map(|e| {
        let op = match e.operator.as_str() {
            "In" => Op::In,
            "NotIn" => Op::NotIn,
            "Exists" => Op::Exists,
            "DoesNotExist" => Op::DoesNotExist,
            other => return Err(format!("{other:?} is no operator of a label selector")),
        };
        Requirement::new(&e.key, op, e.values.iter().flatten().cloned(), "")
    });
    let equal = selector.match_labels.iter().flatten().map(|(key, value)| Ok(equal(key, value)));
    let all: Result<Vec<Requirement>, String> = equal.chain(expressions).collect();
    all.map_or_else(|_| Selector::nothing(), Selector::from_requirements)
}

/// Selects what has all of these labels: the plain map that Services and ReplicationControllers select by.
pub fn equal_to(labels: &Labels) -> Selector {
    Selector::from_requirements(labels.iter().map(|(key, value)| equal(key, value)).collect())
}

/// Selects what has this value under the key, or what has another or none: `matchLabelKeys` and `mismatchLabelKeys`.
pub fn compared(key: &str, value: &str, equal: bool) -> Selector {
    let op = if equal { Op::Equals } else { Op::NotEquals };
    Selector::from_requirements(vec![Requirement { key: key.to_owned(), op, values: vec![value.to_owned()] }])
}

fn equal(key: &str, value: &str) -> Requirement {
    Requirement { key: key.to_owned(), op: Op::Equals, values: vec![value.to_owned()] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn matches(of: Value, labels: &[(&str, &str)]) -> bool {
        let of: LabelSelector = serde_json::from_value(of).unwrap();
        selector(&of).matches(&labels)
    }

    #[test]
    fn expressions_match_as_documented() {
        let e = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        let labels = [("a", "1"), ("tier", "db")];
        for (selector, expected, why) in [
            (e("a", "In", &["1", "2"]), true, "one of the values"),
            (e("a", "In", &["2"]), false, "another value"),
            (e("b", "In", &["1"]), false, "an absent label has no value"),
            (e("a", "NotIn", &["1"]), false, "the value"),
            (e("b", "NotIn", &["1"]), true, "an absent label is not in any set"),
            (e("a", "Exists", &[]), true, "it is there"),
            (e("b", "Exists", &[]), false, "it is not"),
            (e("b", "DoesNotExist", &[]), true, "it is not"),
            (e("a", "DoesNotExist", &[]), false, "it is there"),
            (json!({"matchLabels": {"a": "1", "tier": "db"}}), true, "all labels"),
            (json!({"matchLabels": {"a": "1", "tier": "web"}}), false, "one of them differs"),
            (json!({}), true, "an empty selector selects everything"),
        ] {
            assert_eq!(matches(selector.clone(), &labels), expected, "{why}: {selector}");
        }
        assert!(!selector(None::<&LabelSelector>).matches(&[("a", "1")].as_slice()), "no selector selects nothing");
        assert!(equal_to(&Labels::new()).matches(&[("a", "1")].as_slice()));
    }

    /// One bad requirement makes the whole selector select nothing, whatever the others say.
    #[test]
    fn what_cannot_be_read_selects_nothing() {
        for bad in [
            json!({"key": "a", "operator": "Gt", "values": ["0"]}),
            json!({"key": "a", "operator": "In", "values": []}),
            json!({"key": "a", "operator": "Exists", "values": ["1"]}),
            json!({"key": "-", "operator": "NotIn", "values": ["x"]}),
        ] {
            assert!(!matches(json!({"matchExpressions": [bad]}), &[("a", "1")]), "{bad}");
        }
    }
}
