//! What guards namespaces, certificates and bindings.

use serde_json::{Value, json};

use crate::world::{World, pod};

const NAMESPACES: &str = "/api/v1/namespaces";

fn labelled(name: &str, labels: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(key, value)| (format!("pod-security.kubernetes.io/{key}"), json!(value))).collect();
    json!({"metadata": {"name": name, "labels": labels}})
}

#[tokio::test]
async fn pods_keep_to_the_standard_of_their_namespace() {
    let world = World::new().await;
    world.admin("POST", NAMESPACES, labelled("strict", &[("enforce", "baseline"), ("warn", "restricted")])).await.ok();
    world
        .admin("POST", "/api/v1/namespaces/strict/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await
        .ok();
    let pods = "/api/v1/namespaces/strict/pods";
    let reply = world.admin("POST", pods, pod("p", json!({"hostNetwork": true}))).await;
    assert_eq!(reply.code, 403);
    assert_eq!(
        reply.message(),
        "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    assert!(reply.warnings.is_empty(), "{:?}", reply.warnings);
    let mut generated = pod("", json!({"hostNetwork": true}));
    generated["metadata"] = json!({"generateName": "web-"});
    let reply = world.admin("POST", pods, generated).await;
    assert!(reply.message().starts_with("pods \"web-"), "events of controllers name the pod: {reply:?}");
    let reply = world.admin("POST", pods, pod("p", json!({}))).await;
    assert_eq!(reply.code, 201);
    assert!(
        reply.warnings[0]
            .starts_with("\"would violate PodSecurity \\\"restricted:latest\\\": allowPrivilegeEscalation")
    );
    let deployment = json!({
        "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("x", json!({"hostPID": true}))["spec"]},
        },
    });
    let reply = world.admin("POST", "/apis/apps/v1/namespaces/strict/deployments", deployment).await;
    assert_eq!(reply.code, 201);
    assert!(reply.warnings[0].contains("host namespaces (hostPID=true)"), "{:?}", reply.warnings);
    // An update that no rule looks at is none of its business.
    let tighter = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let reply = world.admin("PATCH", "/api/v1/namespaces/strict", tighter).await;
    let told = "\"existing pods in namespace \\\"strict\\\" violate the new PodSecurity enforce level \\\"restricted:latest\\\"\"";
    assert_eq!(reply.warnings[0], told);
    assert!(reply.warnings[1].starts_with("\"p: allowPrivilegeEscalation != false, "), "{:?}", reply.warnings);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    world.admin("PATCH", &format!("{pods}/p"), label).await.ok();
    let reply = world.admin("POST", NAMESPACES, labelled("wrong", &[("enforce", "strict")])).await;
    assert_eq!(reply.code, 422);
    assert_eq!(
        reply.message(),
        "Namespace \"wrong\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted"
    );
}

fn signing_request(name: &str, signer: &str, subject: &str, group: &str) -> Value {
    use base64::Engine as _;
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, subject);
    params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
    let pem = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let request = base64::engine::general_purpose::STANDARD.encode(pem);
    json!({"metadata": {"name": name}, "spec": {"request": request, "signerName": signer, "usages": ["client auth"]}})
}

/// Some certificate, as a request's status holds it.
fn certificate() -> String {
    use base64::Engine as _;
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    base64::engine::general_purpose::STANDARD.encode(certificate.pem())
}

#[tokio::test]
async fn certificates_are_approved_and_signed_by_those_who_may() {
    let world = World::new().await;
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let client = "kubernetes.io/kube-apiserver-client";
    let masters = signing_request("m", client, "jane", "system:masters");
    let reply = world.admin("POST", path, masters).await;
    assert_eq!(
        reply.message(),
        "certificatesigningrequests.certificates.k8s.io \"m\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    );
    world.admin("POST", path, signing_request("jane", client, "jane", "dev")).await.ok();
    let any = json!([{"apiGroups": ["certificates.k8s.io"], "resources": ["*"], "verbs": ["get", "update", "patch", "create"]}]);
    world.grant("bob", any).await;
    let bob = world.user("bob", &[]);
    let approve = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "x"}]}});
    let reply = world.by(&bob, "PATCH", &format!("{path}/jane/approval"), approve.clone()).await;
    assert!(
        reply.code == 403
            && reply.message().ends_with(
                "user not permitted to approve requests with signerName \"kubernetes.io/kube-apiserver-client\""
            ),
        "{reply:?}"
    );
    let signed = json!({"status": {"certificate": certificate()}});
    let reply = world.by(&bob, "PATCH", &format!("{path}/jane/status"), signed).await;
    assert!(reply.code == 403 && reply.message().contains("not permitted to sign"), "{reply:?}");
    let signers = json!([{"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["kubernetes.io/*"], "verbs": ["approve"]}]);
    world.grant("carol", signers).await;
    let carol = world.user("carol", &[]);
    let approval = format!("{path}/jane/approval");
    let reply = world.by(&carol, "PATCH", &approval, approve.clone()).await;
    assert_eq!(reply.code, 403, "approving needs the right to the subresource, too");
    let rules = json!({"rules": [
        {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval"], "verbs": ["patch"]},
        {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["kubernetes.io/*"], "verbs": ["approve"]},
    ]});
    world.admin("PATCH", "/apis/rbac.authorization.k8s.io/v1/clusterroles/carol", rules).await.ok();
    world.by(&carol, "PATCH", &approval, approve).await.ok();
}

#[tokio::test]
async fn a_kubelet_asks_for_certificates_in_its_own_name() {
    let world = World::new().await;
    let kubelet = world.user("system:node:n1", &["system:nodes"]);
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let signer = "kubernetes.io/kube-apiserver-client-kubelet";
    let other = signing_request("a", signer, "system:node:n2", "system:nodes");
    let reply = world.by(&kubelet, "POST", path, other).await;
    assert!(reply.message().ends_with("can only create a node CSR with CN=system:node:n1"), "{reply:?}");
    world.by(&kubelet, "POST", path, signing_request("b", signer, "system:node:n1", "system:nodes")).await.ok();
}

#[tokio::test]
async fn a_pod_is_bound_through_either_path() {
    let world = World::new().await;
    world.account("default").await;
    world.admin("POST", "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await.ok();
    for (name, path) in
        [("a", "/api/v1/namespaces/default/bindings"), ("b", "/api/v1/namespaces/default/pods/b/binding")]
    {
        world.pod("default", name, json!({})).await;
        let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
        let reply = world.admin("POST", path, binding.clone()).await;
        assert_eq!((reply.code, &reply.body["status"]), (201, &json!("Success")), "{path}");
        let pod = world.admin("GET", &format!("/api/v1/namespaces/default/pods/{name}"), Value::Null).await.ok();
        assert_eq!(pod["spec"]["nodeName"], "n1");
        let again = world.admin("POST", path, binding).await;
        assert_eq!(again.code, 409, "{again:?}");
    }
}
