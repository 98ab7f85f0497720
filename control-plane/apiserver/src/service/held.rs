//! What says whose an address or a node port is: an IPAddress object, and a key below `ranges/servicenodeports/`. Pure.
//! Called by the admission plugin that gives them away, and by [`super::repair`].

use std::net::IpAddr;

use serde_json::{Value, json};

/// Addresses as the server serves them: group and resource.
pub const ADDRESSES: (&str, &str) = ("networking.k8s.io", "ipaddresses");
/// The family of an address, as a label.
pub const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// Who looks after an address, as a label.
pub const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// The API servers do.
pub const ALLOCATOR: &str = "ipallocator.k8s.io";

/// What all keys of node ports begin with; `root` is `--etcd-prefix`.
pub fn node_ports_prefix(root: &str) -> String {
    format!("{root}/ranges/servicenodeports/")
}

/// The IPAddress object of a Service's address, in the words of a client that makes it.
pub fn address(address: &str, namespace: &str, service: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": address,
            "labels": {FAMILY: super::families::of(address), MANAGED_BY: ALLOCATOR},
        },
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": service}},
    })
}

/// The Service that an IPAddress object names: namespace and name; none when it names something else.
pub fn service_of(address: &Value) -> Option<(&str, &str)> {
    let parent = &address["spec"]["parentRef"];
    let is_service = parent["group"].as_str().unwrap_or_default().is_empty() && parent["resource"] == "services";
    is_service.then(|| (parent["namespace"].as_str().unwrap_or_default(), parent["name"].as_str().unwrap_or_default()))
}

/// Whether the API servers look after an address.
pub fn is_managed(address: &Value) -> bool {
    address["metadata"]["labels"][MANAGED_BY] == ALLOCATOR
}

/// Whether its labels say what they have to.
pub fn is_labelled(address: &Value) -> bool {
    let labels = &address["metadata"]["labels"];
    is_managed(address)
        && labels[FAMILY] == super::families::of(address["metadata"]["name"].as_str().unwrap_or_default())
}

/// An address in its one canonical form, by which its object is called.
pub fn canonical(address: &str) -> Option<IpAddr> {
    address.parse().ok()
}

/// What is stored of a node port.
pub fn port(port: u16, namespace: &str, service: &str) -> Value {
    json!({"metadata": {"name": port.to_string()}, "owner": format!("{namespace}/{service}")})
}

/// Whose a node port is: namespace and name of a Service.
pub fn owner(port: &Value) -> Option<(&str, &str)> {
    port["owner"].as_str()?.split_once('/')
}
