//! Fields of a Service that follow from its type: what is carried over on an update and what must be allocated. Pure.
//! What a change of type drops is the kind's own matter (`kinds`, `prepare_update`).

use serde_json::{Value, json};

fn text<'a>(spec: &'a Value, field: &str) -> &'a str {
    spec[field].as_str().unwrap_or_default()
}

/// The type, `ClusterIP` when unset.
pub fn type_of(spec: &Value) -> &str {
    match text(spec, "type") {
        "" => "ClusterIP",
        other => other,
    }
}

/// Services of this type have addresses.
pub fn needs_address(spec: &Value) -> bool {
    type_of(spec) != "ExternalName"
}

/// Services of this type have node ports.
pub fn needs_node_ports(spec: &Value) -> bool {
    match type_of(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"].as_bool().unwrap_or(true),
        _ => false,
    }
}

/// Load balancers ask this port whether the node has endpoints.
pub fn needs_health_port(spec: &Value) -> bool {
    type_of(spec) == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

/// Whether the service chose to have no address.
pub fn headless(spec: &Value) -> bool {
    text(spec, "clusterIP") == "None"
}

fn remove(spec: &mut Value, field: &str) {
    if let Some(map) = spec.as_object_mut() {
        map.remove(field);
    }
}

fn set(spec: &mut Value, field: &str, value: Value) {
    if spec[field].is_null() && value.is_null() {
        return;
    }
    spec[field] = value;
}

/// `clusterIP` is the first of `clusterIPs`; clients may write either.
pub fn align_addresses(spec: &mut Value, old: Option<&Value>) {
    let single = text(spec, "clusterIP").to_owned();
    let many = spec["clusterIPs"].as_array().cloned().unwrap_or_default();
    let Some(old) = old else {
        if !single.is_empty() && many.is_empty() {
            spec["clusterIPs"] = json!([single]);
        }
        return;
    };
    let single_changed = single != text(old, "clusterIP");
    let many_changed = spec["clusterIPs"] != old["clusterIPs"];
    if single_changed && !many_changed {
        if single.is_empty() {
            remove(spec, "clusterIPs");
        } else {
            let mut many = many;
            match many.first_mut() {
                Some(first) => *first = single.into(),
                None => many.push(single.into()),
            }
            spec["clusterIPs"] = many.into();
        }
    } else if many_changed && !single_changed {
        match many.first() {
            Some(first) => spec["clusterIP"] = first.clone(),
            None => remove(spec, "clusterIP"),
        }
    }
}

/// What an update leaves out although it was allocated is carried over.
pub fn carry_over(spec: &mut Value, old: &Value) {
    let both = |needs: fn(&Value) -> bool, spec: &Value| needs(spec) && needs(old);
    if both(needs_address, spec) {
        if text(spec, "clusterIP").is_empty() {
            set(spec, "clusterIP", old["clusterIP"].clone());
        }
        if spec["clusterIPs"].as_array().is_none_or(Vec::is_empty) {
            set(spec, "clusterIPs", old["clusterIPs"].clone());
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if spec[field].is_null() {
                set(spec, field, old[field].clone());
            }
        }
    }
    if both(needs_node_ports, spec) {
        let known = old["ports"].as_array().cloned().unwrap_or_default();
        let mut taken: Vec<Value> = Vec::new();
        for port in spec["ports"].as_array_mut().into_iter().flatten() {
            if port["nodePort"].as_i64().unwrap_or(0) != 0 {
                taken.push(port["nodePort"].clone());
                continue;
            }
            let same = known.iter().find(|k| k["port"] == port["port"] && protocol(k) == protocol(port));
            if let Some(same) = same.filter(|same| same["nodePort"].as_i64().unwrap_or(0) != 0) {
                port["nodePort"] = same["nodePort"].clone();
            }
        }
    }
    if both(needs_health_port, spec) && spec["healthCheckNodePort"].as_i64().unwrap_or(0) == 0 {
        set(spec, "healthCheckNodePort", old["healthCheckNodePort"].clone());
    }
}

fn protocol(port: &Value) -> &str {
    match port["protocol"].as_str() {
        None | Some("") => "TCP",
        Some(other) => other,
    }
}

/// Addresses of a service, without "None".
pub fn addresses(spec: &Value) -> Vec<String> {
    let all = spec["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    all.filter(|address| *address != "None" && !address.is_empty()).map(str::to_owned).collect()
}

/// Node ports of a service, each once, the health check's included.
pub fn node_ports(spec: &Value) -> Vec<u16> {
    let ports = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
    let mut all: Vec<u16> = ports
        .chain([&spec["healthCheckNodePort"]])
        .filter_map(Value::as_u64)
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_keeps_what_was_allocated() {
        let old = json!({"type": "NodePort", "clusterIP": "10.0.0.5", "clusterIPs": ["10.0.0.5"], "ports": [{"port": 80, "nodePort": 30001}]});
        let mut new = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81}]});
        align_addresses(&mut new, Some(&old));
        carry_over(&mut new, &old);
        assert_eq!((addresses(&new), node_ports(&new)), (vec!["10.0.0.5".to_owned()], vec![30001]));
    }

    #[test]
    fn clearing_or_changing_the_single_address_is_seen_in_the_list() {
        let old = json!({"clusterIP": "10.0.0.5", "clusterIPs": ["10.0.0.5"]});
        let mut changed = json!({"clusterIP": "10.0.0.6", "clusterIPs": ["10.0.0.5"]});
        align_addresses(&mut changed, Some(&old));
        assert_eq!(changed["clusterIPs"], json!(["10.0.0.6"]));
    }
}
