//! What the audit log says of requests, and what it does not.

use apiserver::audit::log::{Format, Mode, Options};
use serde_json::{Value, json};

use crate::world::World;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server that logs by these rules, and its log.
async fn logged(rules: &str) -> (World, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.yaml");
    std::fs::write(&policy, format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}")).unwrap();
    let path = dir.path().join("audit.log");
    let world = World::with(|config| {
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
    assert_eq!(world.call(None, &bad, "GET", "/api/v1/pods?bad=1", Value::Null).await.code, 401);
    let refused = &events(&dir, "bad=1")[0];
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
    let acting = [("impersonate-user", "bob"), ("impersonate-group", "dev")];
    world.as_admin_acting(&acting, "GET", "/version?as=1", Value::Null).await.ok();
    let seen = &events(&dir, "as=1")[1];
    assert_eq!(seen["user"]["username"], "admin");
    assert_eq!(seen["impersonatedUser"]["username"], "bob");
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
