//! Services and slices to test with.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

/// `default/NAME` with a cluster address and ports (protocol, port, node port or 0).
pub fn service(name: &str, cluster_ip: &str, ports: &[(&str, u16, u16)], extra: Value) -> Arc<Service> {
    let ports: Vec<_> = ports
        .iter()
        .map(|(protocol, port, node)| {
            let name = format!("{}-{port}", protocol.to_lowercase());
            let node = (*node != 0).then_some(node);
            json!({"name": name, "protocol": protocol, "port": port, "nodePort": node})
        })
        .collect();
    let mut spec = json!({"type": "NodePort", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "ports": ports});
    let mut object = json!({"metadata": {"namespace": "default", "name": name}, "spec": null});
    for (key, value) in extra.as_object().into_iter().flatten() {
        match key.as_str() {
            "labels" => object["metadata"]["labels"] = value.clone(),
            "created" => object["metadata"]["creationTimestamp"] = value.clone(),
            "status" => object["status"] = value.clone(),
            key => spec[key] = value.clone(),
        }
    }
    object["spec"] = spec;
    Arc::new(serde_json::from_value(object).unwrap())
}

/// A slice of a Service: endpoints (address, node, condition) behind ports (protocol, service port, target port).
pub fn slice(of: &str, ports: &[(&str, u16, u16)], endpoints: &[(&str, &str, &str)]) -> Arc<EndpointSlice> {
    let ports: Vec<_> = ports
        .iter()
        .map(|(protocol, port, target)| {
            json!({"name": format!("{}-{port}", protocol.to_lowercase()), "protocol": protocol, "port": target})
        })
        .collect();
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(address, node, condition)| {
            let conditions = match *condition {
                "ready" => json!({"ready": true, "serving": true, "terminating": false}),
                "terminating" => json!({"ready": false, "serving": true, "terminating": true}),
                _ => json!({"ready": false, "serving": false, "terminating": false}),
            };
            json!({"addresses": [address], "nodeName": node, "conditions": conditions})
        })
        .collect();
    let family =
        if endpoints.iter().any(|e| e["addresses"][0].as_str().unwrap().contains(':')) { "IPv6" } else { "IPv4" };
    let object = json!({
        "metadata": {
            "namespace": "default", "name": format!("{of}-abcde"),
            "labels": {"kubernetes.io/service-name": of},
        },
        "addressType": family, "ports": ports, "endpoints": endpoints,
    });
    Arc::new(serde_json::from_value(object).unwrap())
}
