//! Label selectors ready to match. The server has validated them; an operator that is unknown here matches nothing.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

type Labels = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Never,
}

/// All requirements must hold. Without any, everything matches.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Selector(Vec<Requirement>);

impl Selector {
    pub fn of(selector: &LabelSelector) -> Selector {
        let mut all: Vec<Requirement> = equal(selector.match_labels.as_ref());
        for e in selector.match_expressions.iter().flatten() {
            let (key, values) = (e.key.clone(), e.values.clone().unwrap_or_default());
            all.push(match e.operator.as_str() {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::Absent(key),
                _ => Requirement::Never,
            });
        }
        Selector(all)
    }

    /// A selector of labels that must be equal, as Services and ReplicationControllers have.
    pub fn of_labels(labels: &Labels) -> Selector {
        Selector(equal(Some(labels)))
    }

    /// Selects nothing: what an absent selector means.
    pub fn nothing() -> Selector {
        Selector(vec![Requirement::Never])
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches(&self, labels: Option<&Labels>) -> bool {
        let get = |key: &str| labels.and_then(|l| l.get(key));
        self.0.iter().all(|r| match r {
            Requirement::In(key, values) => get(key).is_some_and(|v| values.contains(v)),
            Requirement::NotIn(key, values) => get(key).is_none_or(|v| !values.contains(v)),
            Requirement::Exists(key) => get(key).is_some(),
            Requirement::Absent(key) => get(key).is_none(),
            Requirement::Never => false,
        })
    }
}

fn equal(labels: Option<&Labels>) -> Vec<Requirement> {
    labels.into_iter().flatten().map(|(k, v)| Requirement::In(k.clone(), vec![v.clone()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    #[test]
    fn expressions_match_as_documented() {
        let labels: Labels = [("a".to_owned(), "1".to_owned())].into();
        let matches = |operator: &str, key: &str, values: &[&str]| {
            let e = LabelSelectorRequirement {
                key: key.into(),
                operator: operator.into(),
                values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
            };
            Selector::of(&LabelSelector { match_expressions: Some(vec![e]), match_labels: None }).matches(Some(&labels))
        };
        assert!(matches("In", "a", &["1", "2"]) && !matches("In", "b", &["1"]));
        assert!(matches("NotIn", "b", &["1"]), "an absent label is not in any set");
        assert!(!matches("NotIn", "a", &["1"]) && matches("Exists", "a", &[]) && matches("DoesNotExist", "b", &[]));
        assert!(!matches("Gt", "a", &["0"]));
        assert!(Selector::default().matches(None) && !Selector::nothing().matches(Some(&labels)));
    }
}
