//! Taints and who tolerates them. Asked by the scheduler (may it go there), the kubelet (may it start), taint-eviction
//! (must it go) and the daemon set controller (should there be one): were their answers to differ, a pod would be bound
//! to a node that refuses it, or be spared by one and refused by the other, for ever.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Pods that don't tolerate the taint aren't bound to the node; those that run stay.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// The scheduler avoids the node, and takes it when there is no better.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// As `NoSchedule`, and pods that run are evicted.
pub const NO_EXECUTE: &str = "NoExecute";

/// Whether the toleration is for this taint: upstream's `ToleratesTaint`.
///
/// An empty effect is every effect, an empty key every key, an absent operator is `Equal`. An operator that is not
/// known tolerates nothing: with upstream's defaults that is also `Lt` and `Gt` (TaintTolerationComparisonOperators is
/// alpha and off in 1.37, and our API server refuses them as its does).
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let (effect, key) = (or_empty(&toleration.effect), or_empty(&toleration.key));
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match or_empty(&toleration.operator) {
        "" | "Equal" => or_empty(&toleration.value) == or_empty(&taint.value),
        "Exists" => true,
        _ => false,
    }
}

fn or_empty(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

/// Whether one of them is for this taint.
pub fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// The first taint with one of these effects that nothing tolerates: upstream's `FindMatchingUntoleratedTaint`.
pub fn untolerated<'a>(taints: &'a [Taint], effects: &[&str], tolerations: &[Toleration]) -> Option<&'a Taint> {
    taints.iter().filter(|taint| effects.contains(&taint.effect.as_str())).find(|taint| !tolerated(taint, tolerations))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// (key, operator, value, effect)
    fn toleration((key, operator, value, effect): (&str, &str, &str, &str)) -> Toleration {
        Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        }
    }

    /// (key, value, effect)
    fn taint((key, value, effect): (&str, &str, &str)) -> Taint {
        Taint { key: key.into(), value: some(value), effect: effect.into(), time_added: None }
    }

    #[test]
    fn upstreams_cases() {
        for (wants, has, expected, why) in [
            (("foo", "Exists", "", "NoSchedule"), ("foo", "", "NoSchedule"), true, "the key is there"),
            (("foo", "Exists", "", "NoSchedule"), ("foo", "bar", "NoSchedule"), true, "with whatever value"),
            (("", "Exists", "", "NoSchedule"), ("foo", "bar", "NoSchedule"), true, "every key"),
            (("", "Exists", "", ""), ("foo", "bar", "NoExecute"), true, "every key and effect"),
            (("foo", "Equal", "bar", "NoSchedule"), ("foo", "bar", "NoSchedule"), true, "key, value and effect"),
            (("foo", "", "bar", "NoSchedule"), ("foo", "bar", "NoSchedule"), true, "an absent operator is Equal"),
            (("foo", "", "", ""), ("foo", "", "NoSchedule"), true, "no value on either side"),
            (("foo", "Equal", "value1", "NoSchedule"), ("foo", "value2", "NoSchedule"), false, "another value"),
            (("foo", "Equal", "bar", "NoSchedule"), ("foo", "bar", "NoExecute"), false, "another effect"),
            (("foo", "Exists", "", ""), ("other", "", "NoSchedule"), false, "another key"),
        ] {
            assert_eq!(tolerates(&toleration(wants), &taint(has)), expected, "{why}: {wants:?} {has:?}");
        }
    }

    /// The API server lets no such toleration in, but static pods and objects of other writers may have one: the
    /// scheduler, the kubelet and taint-eviction once answered differently.
    #[test]
    fn an_empty_key_is_every_key_also_with_equal() {
        let wants = toleration(("", "Equal", "bar", ""));
        assert!(tolerates(&wants, &taint(("foo", "bar", "NoExecute"))));
        assert!(!tolerates(&wants, &taint(("foo", "other", "NoExecute"))));
    }

    /// The kubelet once read them as `Equal`.
    #[test]
    fn an_unknown_operator_tolerates_nothing() {
        for operator in ["Lt", "Gt", "exists", "In"] {
            assert!(!tolerates(&toleration(("k", operator, "5", "")), &taint(("k", "5", "NoExecute"))), "{operator}");
        }
    }

    #[test]
    fn the_first_untolerated_taint_of_these_effects_is_found() {
        let taints =
            [taint(("a", "", NO_EXECUTE)), taint(("b", "", PREFER_NO_SCHEDULE)), taint(("c", "", NO_SCHEDULE))];
        let tolerations = [toleration(("a", "Exists", "", ""))];
        let key = |effects: &[&str]| untolerated(&taints, effects, &tolerations).map(|t| t.key.as_str());
        assert_eq!(key(&[NO_EXECUTE]), None);
        assert_eq!(key(&[NO_SCHEDULE, NO_EXECUTE]), Some("c"));
        assert_eq!(key(&[PREFER_NO_SCHEDULE]), Some("b"));
    }
}
