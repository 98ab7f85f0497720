//! Which address families a Service has: as its policy, its addresses and the cluster say. Pure.

use meta::FieldError;
use serde_json::{Value, json};

use super::fields::{headless, needs_address};

const SINGLE: &str = "SingleStack";
const REQUIRED: &str = "RequireDualStack";
const PREFERRED: &str = "PreferDualStack";

fn strings(spec: &Value, field: &str) -> Vec<String> {
    spec[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn other(family: &str) -> &'static str {
    if family == "IPv4" { "IPv6" } else { "IPv4" }
}

/// The family of an address, as the API names it.
pub fn of(address: &str) -> &'static str {
    if address.contains(':') { "IPv6" } else { "IPv4" }
}

/// Settles policy and families of a Service in a cluster with these families, the first of which is the default.
pub fn settle(spec: &mut Value, old: Option<&Value>, configured: &[&'static str]) -> Vec<FieldError> {
    if !needs_address(spec) || is_settled(spec, old) {
        return Vec::new();
    }
    let Some(default) = configured.first() else { return Vec::new() };
    let without_selector = spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    let free = headless(spec) && without_selector;
    if spec["ipFamilyPolicy"].is_null() {
        // Whoever writes the endpoints of such a Service decides about their families.
        spec["ipFamilyPolicy"] = if free { REQUIRED } else { SINGLE }.into();
    }
    let mut errors = old.map_or(Vec::new(), |old| change(spec, old));
    errors.extend(policy_fits(spec));
    errors.extend(infer(spec, configured));
    if !errors.is_empty() {
        return errors;
    }
    let policy = spec["ipFamilyPolicy"].as_str().unwrap_or_default().to_owned();
    let mut families = strings(spec, "ipFamilies");
    if !free {
        if policy == REQUIRED && configured.len() < 2 {
            let detail = "this cluster is not configured for dual-stack services";
            errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy.as_str(), detail));
        }
        for (i, family) in families.iter().enumerate().filter(|(_, family)| !configured.contains(&family.as_str())) {
            let detail = "not configured on this cluster";
            errors.push(FieldError::invalid(format!("spec.ipFamilies[{i}]"), family.as_str(), detail));
        }
        if !errors.is_empty() {
            return errors;
        }
    }
    if families.is_empty() {
        families.push((*default).to_owned());
    }
    if policy != SINGLE && families.len() == 1 && (free || configured.len() == 2) {
        families.push(other(&families[0]).to_owned());
    }
    spec["ipFamilies"] = json!(families);
    errors
}

/// One that prefers both families is neither given nor deprived of one without being asked.
fn is_settled(spec: &Value, old: Option<&Value>) -> bool {
    old.is_some_and(|old| {
        spec["ipFamilyPolicy"] == PREFERRED
            && ["ipFamilyPolicy", "clusterIPs", "ipFamilies"].iter().all(|field| spec[field] == old[field])
    })
}

/// What an update takes away it must say.
fn change(spec: &mut Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let single = spec["ipFamilyPolicy"] == SINGLE;
    for (field, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let (new, before) = (strings(spec, field), strings(old, field));
        if single && new == before && new.len() > 1 {
            spec[field] = json!([new[0]]);
        }
        let reduced = before.len() == 2 && new.len() == 1 && new[0] == before[0];
        if !single && reduced {
            let detail = format!("must be 'SingleStack' to release the secondary {what}");
            errors.push(FieldError::invalid("spec.ipFamilyPolicy", spec["ipFamilyPolicy"].clone(), detail));
        }
    }
    errors
}

fn policy_fits(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if spec["ipFamilyPolicy"] != SINGLE {
        return errors;
    }
    for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if strings(spec, field).len() == 2 {
            let detail = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.push(FieldError::invalid("spec.ipFamilyPolicy", SINGLE, detail));
        }
    }
    errors
}

/// Addresses say their families.
fn infer(spec: &mut Value, configured: &[&'static str]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let addresses = strings(spec, "clusterIPs");
    let mut families = strings(spec, "ipFamilies");
    for (i, address) in addresses.iter().enumerate().take_while(|(_, address)| *address != "None") {
        if i < families.len() {
            continue;
        }
        let family = of(address);
        if configured.contains(&family) {
            families.push(family.to_owned());
        } else {
            let detail = format!("{family} is not configured on this cluster");
            errors.push(FieldError::invalid(format!("spec.clusterIPs[{i}]"), json!(addresses), detail));
        }
    }
    if !families.is_empty() {
        spec["ipFamilies"] = json!(families);
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[&str] = &["IPv4", "IPv6"];

    fn settled(spec: Value, old: Option<Value>, configured: &[&'static str]) -> Result<(Value, Value), String> {
        let mut spec = spec;
        let errors = settle(&mut spec, old.as_ref(), configured);
        match errors.first() {
            Some(error) => Err(error.to_string()),
            None => Ok((spec["ipFamilyPolicy"].clone(), spec["ipFamilies"].clone())),
        }
    }

    #[test]
    fn a_service_has_the_families_that_it_and_the_cluster_want() {
        let web = |extra: Value| {
            let mut spec = json!({"selector": {"app": "web"}});
            extra.as_object().unwrap().iter().for_each(|(key, value)| spec[key] = value.clone());
            spec
        };
        for (spec, configured, policy, families) in [
            (web(json!({})), BOTH, SINGLE, json!(["IPv4"])),
            (web(json!({})), &["IPv6", "IPv4"][..], SINGLE, json!(["IPv6"])),
            (web(json!({"ipFamilyPolicy": PREFERRED})), BOTH, PREFERRED, json!(["IPv4", "IPv6"])),
            (web(json!({"ipFamilyPolicy": PREFERRED})), &["IPv4"][..], PREFERRED, json!(["IPv4"])),
            (web(json!({"ipFamilyPolicy": REQUIRED, "ipFamilies": ["IPv6"]})), BOTH, REQUIRED, json!(["IPv6", "IPv4"])),
            (web(json!({"clusterIPs": ["fd00::5"]})), BOTH, SINGLE, json!(["IPv6"])),
            (
                web(json!({"ipFamilyPolicy": PREFERRED, "clusterIPs": ["fd00::5", "10.0.0.5"]})),
                BOTH,
                PREFERRED,
                json!(["IPv6", "IPv4"]),
            ),
            (json!({"clusterIP": "None"}), &["IPv4"][..], REQUIRED, json!(["IPv4", "IPv6"])),
        ] {
            assert_eq!(settled(spec.clone(), None, configured), Ok((policy.into(), families)), "{spec}");
        }
        for (spec, configured, part) in [
            (web(json!({"ipFamilyPolicy": REQUIRED})), &["IPv4"][..], "not configured for dual-stack services"),
            (web(json!({"ipFamilies": ["IPv6"]})), &["IPv4"][..], "not configured on this cluster"),
            (web(json!({"clusterIPs": ["fd00::5"]})), &["IPv4"][..], "IPv6 is not configured on this cluster"),
            (web(json!({"ipFamilyPolicy": SINGLE, "ipFamilies": ["IPv4", "IPv6"]})), BOTH, "when multiple IP families"),
        ] {
            let refused = settled(spec.clone(), None, configured).unwrap_err();
            assert!(refused.contains(part), "{spec}: {refused}");
        }
    }

    #[test]
    fn an_update_says_what_it_takes_away() {
        let old = json!({"selector": {"a": "b"}, "ipFamilyPolicy": PREFERRED, "ipFamilies": ["IPv4", "IPv6"],
            "clusterIP": "10.0.0.5", "clusterIPs": ["10.0.0.5", "fd00::5"]});
        let with = |field: &str, value: Value| {
            let mut new = old.clone();
            new[field] = value;
            new
        };
        let mut single = with("ipFamilyPolicy", SINGLE.into());
        assert!(settle(&mut single, Some(&old), BOTH).is_empty());
        assert_eq!((&single["clusterIPs"], &single["ipFamilies"]), (&json!(["10.0.0.5"]), &json!(["IPv4"])));
        let reduced = settled(with("clusterIPs", json!(["10.0.0.5"])), Some(old.clone()), BOTH).unwrap_err();
        assert!(reduced.contains("must be 'SingleStack' to release the secondary cluster IP"), "{reduced}");
        let before = json!({"selector": {"a": "b"}, "ipFamilyPolicy": PREFERRED, "ipFamilies": ["IPv4"],
            "clusterIP": "10.0.0.5", "clusterIPs": ["10.0.0.5"]});
        assert_eq!(
            settled(before.clone(), Some(before), BOTH),
            Ok((PREFERRED.into(), json!(["IPv4"]))),
            "left as it is"
        );
    }
}
