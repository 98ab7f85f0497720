//! The downward API: values of a pod that containers may ask for, by `fieldRef` and `resourceFieldRef` in variables and
//! files. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::{pods, quantity, resources};

/// What the pod object itself does not say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    pub host_ips: Vec<String>,
    pub pod_ips: Vec<String>,
    /// What the node gives to pods: the value of a limit that is not set.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// The value of `path`; `Err` names what is wrong.
pub fn field(pod: &Pod, facts: &Facts, path: &str) -> Result<String, String> {
    let ips = |list: &[String]| list.join(",");
    let spec = pods::spec(pod);
    if let Some((map, key)) = subscript(path) {
        let values = match map {
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            "metadata.labels" => pod.metadata.labels.as_ref(),
            _ => return Err(format!("fieldPath \"{path}\" does not support subscript")),
        };
        return Ok(values.and_then(|v| v.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => pods::name(pod).to_owned(),
        "metadata.namespace" => pods::namespace(pod).to_owned(),
        "metadata.uid" => pods::uid(pod).to_owned(),
        "metadata.annotations" => map_text(pod.metadata.annotations.as_ref()),
        "metadata.labels" => map_text(pod.metadata.labels.as_ref()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => facts.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => ips(&facts.host_ips),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => ips(&facts.pod_ips),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    Some((map, key))
}

/// `key="value"` lines in the order of keys.
fn map_text(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={}", quoted(v))).collect();
    lines.join("\n")
}

/// As Go's `%q` writes a string.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a resource field of the named container, or of `own` when none is named.
pub fn resource(
    pod: &Pod,
    facts: &Facts,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
    let found = named.map(|n| pods::container(pod, n).map(|(_, c)| c).ok_or(format!("container {n} not found")));
    let container = match (found, own) {
        (Some(found), _) => found?,
        (None, Some(own)) => own.clone(),
        (None, None) => return Err("container name is required".into()),
    };
    let (side, name) = selector.resource.split_once('.').unwrap_or((&selector.resource, ""));
    let amount = match side {
        // Of a resource that the node doesn't have, not even the pod's own limit is told: as upstream.
        "limits" => resources::of_container(&container, name, true).or_else(|| {
            let whole = resources::limit_of(pod, &container, name).filter(|_| matches!(name, "cpu" | "memory"));
            facts.allocatable.get(name).map(|node| whole.unwrap_or(node))
        }),
        "requests" => resources::of_container(&container, name, false),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let zero = Quantity("0".into());
    let divisor = selector.divisor.as_ref().filter(|d| !d.0.is_empty());
    Ok(quantity::divided(amount.unwrap_or(&zero), divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_of_a_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"b": "2", "a": "x\"y\n"}},
            "spec": {"nodeName": "node", "containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}}}]}}))
        .unwrap();
        let facts = Facts {
            pod_ips: vec!["10.0.0.1".into(), "fd::1".into()],
            allocatable: [("memory".to_owned(), Quantity("64Mi".into()))].into(),
            ..Facts::default()
        };
        let get = |path: &str| field(&pod, &facts, path);
        assert_eq!(get("metadata.labels").unwrap(), "a=\"x\\\"y\\n\"\nb=\"2\"");
        assert_eq!(get("metadata.labels['b']").unwrap(), "2");
        assert_eq!(get("status.podIPs").unwrap(), "10.0.0.1,fd::1");
        assert!(get("spec.other").is_err());
        let ask = |resource: &str| ResourceFieldSelector {
            container_name: Some("c".into()),
            resource: resource.into(),
            ..ResourceFieldSelector::default()
        };
        assert_eq!(super::resource(&pod, &facts, None, &ask("limits.cpu")).unwrap(), "2");
        assert_eq!(super::resource(&pod, &facts, None, &ask("requests.cpu")).unwrap(), "2");
        assert_eq!(super::resource(&pod, &facts, None, &ask("limits.memory")).unwrap(), "67108864");
        let mut whole = pod.clone();
        let limits = json!({"limits": {"cpu": "3", "memory": "32Mi"}});
        whole.spec.as_mut().unwrap().resources = serde_json::from_value(limits).unwrap();
        assert_eq!(super::resource(&whole, &facts, None, &ask("limits.memory")).unwrap(), "33554432");
        assert_eq!(super::resource(&whole, &facts, None, &ask("limits.cpu")).unwrap(), "2");
    }
}
