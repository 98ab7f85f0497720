//! Where the proxies of pods, services and nodes lead, and where not: to what listens on the host itself.

use serde_json::{Value, json};

use crate::world::World;

const HERE: &str = "/api/v1/namespaces/default";

#[tokio::test]
async fn no_endpoint_and_no_status_leads_to_the_host() {
    let world = World::new().await;
    world.account("default").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Endpoints: refused when they are written.
    for ip in ["127.0.0.1", "::ffff:127.0.0.1", "::1", "::ffff:169.254.169.254", "0.0.0.0", "::ffff:0.0.0.0"] {
        let subset = json!([{"addresses": [{"ip": ip}], "ports": [{"name": "h", "port": port}]}]);
        let endpoints = json!({"metadata": {"name": "s"}, "subsets": subset});
        assert_eq!(world.admin("POST", &format!("{HERE}/endpoints"), endpoints).await.code, 422, "{ip}");
        let family = if ip.contains(':') && !ip.contains('.') { "IPv6" } else { "IPv4" };
        let slice = json!({"metadata": {"name": "s"}, "addressType": family, "endpoints": [{"addresses": [ip]}]});
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        assert_eq!(world.admin("POST", slices, slice).await.code, 422, "{ip}");
    }
    // A pod's status is what its writer says.
    world.pod("default", "p", json!({"nodeName": "n1"})).await;
    for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254"] {
        let status = json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}});
        world.admin("PATCH", &format!("{HERE}/pods/p/status"), status).await.ok();
        let reply = world.admin("GET", &format!("{HERE}/pods/p:{port}/proxy/"), Value::Null).await;
        assert_eq!((reply.code, reply.message()), (400, "address not allowed"), "{ip}");
    }
    // An address of a Service's endpoints that is no pod's.
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "h", "port": 80}]}});
    world.admin("POST", &format!("{HERE}/services"), service).await.ok();
    for target in [Value::Null, json!({"kind": "Pod", "namespace": "default", "name": "p"})] {
        let address = json!({"ip": "10.9.8.7", "targetRef": target});
        let subset = json!([{"addresses": [address], "ports": [{"name": "h", "port": port}]}]);
        let endpoints = json!({"metadata": {"name": "s"}, "subsets": subset});
        world.admin("PUT", &format!("{HERE}/endpoints/s"), endpoints).await.ok();
        let reply = world.admin("GET", &format!("{HERE}/services/s:h/proxy/"), Value::Null).await;
        assert_eq!((reply.code, reply.message()), (503, "no endpoints available for service \"s\""));
    }
    // Another port of a node.
    let node = json!({"metadata": {"name": "n1"}});
    world.admin("POST", "/api/v1/nodes", node).await.ok();
    for address in ["127.0.0.1", "localhost"] {
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
        world.admin("PATCH", "/api/v1/nodes/n1/status", status).await.ok();
        let reply = world.admin("GET", &format!("/api/v1/nodes/n1:{port}/proxy/"), Value::Null).await;
        assert_eq!((reply.code, reply.message()), (400, "address not allowed"), "{address}");
    }
    let reached = tokio::time::timeout(std::time::Duration::from_millis(50), listener.accept()).await;
    assert!(reached.is_err(), "something was asked on the host");
}
