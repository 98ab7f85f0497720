//! What the audit log says of requests, and what it does not.

use apiserver::audit::log::{Format, Mode, Options};
use serde_json::{Value, json};

use crate::world::World;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server that logs by these rules, and its log.
async fn logged(rules: &str) -> (World, tempfile::TempDir) {
    logged_with(rules, None).await
}

/// The same, with this configuration of admission.
async fn logged_with(rules: &str, admission: Option<Value>) -> (World, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.yaml");
    std::fs::write(&policy, format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}")).unwrap();
    let path = dir.path().join("audit.log");
    let admission_file = dir.path().join("admission.yaml");
    if let Some(admission) = &admission {
        std::fs::write(&admission_file, admission.to_string()).unwrap();
    }
    let world = World::with(|config| {
        config.admission_control_config_file = admission.map(|_| admission_file);
        config.audit_policy_file = Some(policy);
        config.audit_log = Some(Options {
            path,
            max_age: 0,
            max_backup: 0,
            max_size: 0,
            format: Format::Json,
            compress: false,
            mode: Mode::BlockingStrict,
        });
    })
    .await;
    (world, dir)
}

fn text(dir: &tempfile::TempDir) -> String {
    std::fs::read_to_string(dir.path().join("audit.log")).unwrap()
}

/// The events that hold this text in their URI.
fn events(dir: &tempfile::TempDir, uri: &str) -> Vec<Value> {
    let text = text(dir);
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    all.filter(|event| event["requestURI"].as_str().unwrap().contains(uri)).collect()
}

const RULES: &str = "omitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n\
    - {level: None, users: [quiet]}\n\
    - {level: Metadata, resources: [{group: '', resources: [secrets]}]}\n\
    - {level: Request, verbs: [patch]}\n\
    - {level: RequestResponse, resources: [{group: '', resources: [configmaps]}]}\n\
    - {level: Metadata}\n";

#[tokio::test]
async fn as_much_is_logged_as_the_policy_says() {
    let (world, dir) = logged(RULES).await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "TOPSECRET"}});
    world.admin("POST", SECRETS, secret).await.ok();
    world.admin("GET", &format!("{SECRETS}/s"), Value::Null).await.ok();
    world.admin("GET", SECRETS, Value::Null).await.ok();
    assert!(!text(&dir).contains("TOPSECRET") && !text(&dir).contains("VE9QU0VDUkVU"), "a secret below its level");
    let made = &events(&dir, SECRETS)[0];
    assert_eq!(
        (&made["level"], &made["stage"], &made["verb"]),
        (&json!("Metadata"), &json!("ResponseComplete"), &json!("create"))
    );
    assert_eq!(made["user"]["username"], "admin");
    assert_eq!(made["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(made["objectRef"], json!({"resource": "secrets", "namespace": "default", "apiVersion": "v1"}));
    assert_eq!(made["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(made["annotations"]["authorization.k8s.io/decision"], "allow");
    assert!(made.get("requestObject").is_none() && made.get("responseObject").is_none());
    for time in ["requestReceivedTimestamp", "stageTimestamp"] {
        assert_eq!(made[time].as_str().unwrap().len(), "2026-01-01T00:00:00.000000Z".len(), "{made}");
    }
    world.admin("POST", MAPS, json!({"metadata": {"name": "c"}, "data": {"a": "b"}})).await.ok();
    let made = &events(&dir, MAPS)[0];
    assert_eq!(made["requestObject"]["data"]["a"], "b");
    assert_eq!(
        (&made["responseObject"]["kind"], &made["responseObject"]["data"]["a"]),
        (&json!("ConfigMap"), &json!("b"))
    );
    assert_eq!(made["objectRef"]["name"], "c");
    assert!(made["responseObject"]["metadata"].get("managedFields").is_none(), "{made}");
    world.admin("GET", &format!("{MAPS}?limit=500"), Value::Null).await.ok();
    assert_eq!(events(&dir, "limit=500")[0]["responseObject"]["kind"], "ConfigMapList");
    world.admin("PATCH", &format!("{MAPS}/c"), json!({"data": {"a": "c"}})).await.ok();
    let patched = &events(&dir, "configmaps/c")[0];
    assert_eq!((&patched["requestObject"], patched.get("responseObject")), (&json!({"data": {"a": "c"}}), None));
    let gone = world.admin("GET", &format!("{MAPS}/none"), Value::Null).await;
    assert_eq!(gone.code, 404);
    let status = &events(&dir, "configmaps/none")[0]["responseStatus"];
    assert_eq!(
        (&status["code"], &status["reason"], &status["status"]),
        (&json!(404), &json!("NotFound"), &json!("Failure"))
    );
    let quiet = world.user("quiet", &["system:masters"]);
    world.by(&quiet, "GET", "/api/v1/nodes?quiet=1", Value::Null).await.ok();
    assert!(events(&dir, "quiet=1").is_empty());
}

#[tokio::test]
async fn refusals_and_borrowed_names_are_logged() {
    let (world, dir) = logged("rules:\n- {level: Metadata}\n").await;
    let bad = [("authorization", "Bearer nonsense")];
    let reply = world.call(None, &bad, "GET", "/api/v1/pods?bad=1", Value::Null).await;
    assert_eq!(reply.code, 401);
    let refused = &events(&dir, "bad=1")[0];
    assert_eq!(refused["auditID"].as_str(), Some(reply.audit_id.as_str()), "who was refused can name the event");
    let named = [bad[0], ("audit-id", "of-the-client")];
    let reply = world.call(None, &named, "GET", "/api/v1/pods?named=1", Value::Null).await;
    assert_eq!(
        (reply.audit_id.as_str(), &events(&dir, "named=1")[0]["auditID"]),
        ("of-the-client", &json!("of-the-client"))
    );
    assert_eq!(refused["stage"], "ResponseStarted");
    assert_eq!((&refused["user"], &refused["responseStatus"]["code"]), (&json!({}), &json!(401)));
    assert_eq!(refused["responseStatus"]["message"], "Authentication failed, attempted: bearer");
    assert!(!text(&dir).contains("nonsense"));
    let bob = world.user("bob", &[]);
    assert_eq!(world.by(&bob, "GET", "/api/v1/pods?bob=1", Value::Null).await.code, 403);
    let seen = events(&dir, "bob=1");
    assert_eq!(
        seen.iter().map(|event| event["stage"].as_str().unwrap()).collect::<Vec<_>>(),
        ["RequestReceived", "ResponseComplete"]
    );
    assert_eq!(seen[1]["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(seen[1]["responseStatus"]["reason"], "Forbidden");
    assert_eq!(seen[0]["auditID"], seen[1]["auditID"]);
    let acting = [("impersonate-user", "bob"), ("impersonate-group", "dev"), ("impersonate-extra-scopes", "view")];
    world.as_admin_acting(&acting, "GET", "/version?as=1", Value::Null).await.ok();
    let seen = &events(&dir, "as=1")[1];
    assert_eq!(seen["user"]["username"], "admin");
    let why = seen["annotations"]["authorization.k8s.io/reason"].as_str().unwrap();
    assert!(why.starts_with("RBAC: allowed by"), "an Allow has its reason, too: {why}");
    assert_eq!(seen["impersonatedUser"]["username"], "bob");
    assert_eq!(seen["impersonatedUser"]["extra"], json!({"scopes": ["view"]}), "a map, as upstream's readers expect");
    assert!(seen["impersonatedUser"]["groups"].as_array().unwrap().contains(&json!("dev")));
    // A watch is told when it begins and when it is over.
    world.admin("GET", &format!("{MAPS}?watch=1&timeoutSeconds=1"), Value::Null).await;
    for _ in 0..100 {
        if events(&dir, "watch=1").len() == 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let stages: Vec<Value> = events(&dir, "watch=1").iter().map(|event| event["stage"].clone()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
}

#[tokio::test]
async fn the_log_says_which_standard_was_asked_of_a_pod_and_what_breaks_the_one_to_audit() {
    let admission = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": [
        {"name": "PodSecurity", "configuration": {
            "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
            "defaults": {"enforce": "baseline", "audit": "restricted", "audit-version": "v1.30"},
            "exemptions": {"namespaces": ["kube-system"], "usernames": ["trusted"], "runtimeClasses": ["kata"]}}}]});
    let (world, dir) =
        logged_with("rules:\n- {level: Metadata, omitStages: [RequestReceived]}\n", Some(admission)).await;
    for (name, labels) in [("free", json!({"enforce": "privileged", "audit": "privileged"})), ("plain", json!({}))] {
        let labels = labels.as_object().unwrap().iter();
        let labels: Value = labels.map(|(k, v)| (format!("pod-security.kubernetes.io/{k}"), v.clone())).collect();
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        world.admin("POST", "/api/v1/namespaces", namespace).await.ok();
    }
    for namespace in ["free", "plain", "kube-system"] {
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        world.admin("POST", &accounts, json!({"metadata": {"name": "default"}})).await.ok();
    }
    let runtime = json!({"metadata": {"name": "kata"}, "handler": "kata"});
    world.admin("POST", "/apis/node.k8s.io/v1/runtimeclasses", runtime).await.ok();
    let pods = |namespace: &str, mark: &str| format!("/api/v1/namespaces/{namespace}/pods?fieldManager={mark}");
    let pod = |name: &str, more: Value| {
        let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
        more.as_object().unwrap().iter().for_each(|(key, value)| spec[key] = value.clone());
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let said = |mark: &str| -> Value {
        let key = "pod-security.kubernetes.io/";
        let all = events(&dir, mark)[0]["annotations"].as_object().unwrap().clone().into_iter();
        all.filter_map(|(k, v)| Some((k.strip_prefix(key)?.to_owned(), v))).collect()
    };
    world.admin("POST", &pods("plain", "made"), pod("p", json!({}))).await.ok();
    let made = said("=made");
    assert_eq!(made["enforce-policy"], "baseline:latest");
    let violations = made["audit-violations"].as_str().unwrap();
    assert!(
        violations.starts_with("would violate PodSecurity \"restricted:v1.30\": allowPrivilegeEscalation != false"),
        "{violations}"
    );
    let refused = world.admin("POST", &pods("plain", "refused"), pod("q", json!({"hostPID": true}))).await;
    assert_eq!(refused.code, 403);
    let refused = said("=refused");
    assert!(refused["audit-violations"].as_str().unwrap().contains("host namespaces (hostPID=true)"), "{refused}");
    assert_eq!(refused["enforce-policy"], "baseline:latest");
    world.admin("POST", &pods("free", "free"), pod("p", json!({"hostPID": true}))).await.ok();
    assert_eq!(said("=free"), json!({"enforce-policy": "privileged:latest"}));
    world.admin("POST", &pods("kube-system", "system"), pod("p", json!({"hostPID": true}))).await.ok();
    assert_eq!(said("=system"), json!({"exempt": "namespace"}));
    let kata = pod("k", json!({"hostPID": true, "runtimeClassName": "kata"}));
    world.admin("POST", &pods("plain", "kata"), kata).await.ok();
    assert_eq!(said("=kata"), json!({"exempt": "runtimeClass"}));
    let trusted = world.user("trusted", &["system:masters"]);
    world.by(&trusted, "POST", &pods("plain", "trusted"), pod("t", json!({"hostPID": true}))).await.ok();
    assert_eq!(said("=trusted"), json!({"exempt": "user"}));
    // Of a template nothing is enforced.
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod("", json!({}))["spec"]});
    let deployment = json!({"metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let path = "/apis/apps/v1/namespaces/plain/deployments?fieldManager=template";
    world.admin("POST", path, deployment).await.ok();
    let template = said("=template");
    assert!(template.get("enforce-policy").is_none() && template["audit-violations"].is_string(), "{template}");
}
