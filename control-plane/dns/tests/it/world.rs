//! Questions, objects, and answers in text to compare.

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

/// A question as a client sends it.
pub fn question(name: &str, kind: &str) -> Message {
    let mut message = Message::query();
    message.metadata.id = 4711;
    message.metadata.recursion_desired = true;
    let kind: RecordType = kind.parse().unwrap();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// The code, and the records of each section in text: `NAME KIND DATA`, sorted.
pub fn told(answer: &[u8]) -> (String, Vec<String>, Vec<String>, Vec<String>) {
    let message = Message::from_vec(answer).unwrap();
    let text = |records: &[hickory_proto::rr::Record]| {
        let mut all: Vec<_> = records
            .iter()
            .map(|r| {
                let data = match &r.data {
                    RData::SOA(soa) => format!("{} {}", soa.mname, soa.rname),
                    data => data.to_string(),
                };
                format!("{} {} {data}", r.name, r.record_type())
            })
            .collect();
        all.sort();
        all
    };
    let code = message.metadata.response_code.to_str().to_owned();
    (code, text(&message.answers), text(&message.authorities), text(&message.additionals))
}

pub fn service(name: &str, spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"namespace": "default", "name": name}, "spec": spec})).unwrap()
}

/// Endpoints (address, hostname or "", ready) behind ports (name, protocol, number).
pub fn slice(of: &str, ports: &[(&str, &str, u16)], endpoints: &[(&str, &str, bool)]) -> EndpointSlice {
    let ports: Vec<_> = ports.iter().map(|(n, p, port)| json!({"name": n, "protocol": p, "port": port})).collect();
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(addr, hostname, ready)| {
            let hostname = (!hostname.is_empty()).then_some(hostname);
            json!({"addresses": [addr], "hostname": hostname, "conditions": {"ready": ready}})
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "default", "name": format!("{of}-x"), "labels": {"kubernetes.io/service-name": of},
        },
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    }))
    .unwrap()
}
