//! Acting as somebody else, as `kubectl --as` does.

use serde_json::{Value, json};

use crate::world::World;

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn the_request_is_judged_as_the_other_users() {
    let world = World::new().await;
    let jane = [("Impersonate-User", "jane"), ("Impersonate-Group", "dev"), ("Impersonate-Extra-scopes", "view")];
    let reply = world.as_admin_acting(&jane, "POST", WHO, json!({})).await;
    let user = &reply.ok()["status"]["userInfo"];
    assert_eq!((&user["username"], &user["groups"]), (&json!("jane"), &json!(["dev", "system:authenticated"])));
    assert_eq!(user["extra"], json!({"scopes": ["view"]}));
    let reply = world.as_admin_acting(&jane, "GET", PODS, Value::Null).await;
    assert_eq!(reply.code, 403);
    assert!(reply.message().contains("User \"jane\" cannot list"), "{}", reply.message());
    world.grant("jane", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}])).await;
    assert_eq!(world.as_admin_acting(&jane, "GET", PODS, Value::Null).await.code, 200);
    let ask = json!({"spec": {"resourceAttributes": {"verb": "delete", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let may = world.as_admin_acting(&jane, "POST", path, ask).await.ok();
    assert_eq!(may["status"]["allowed"], false, "auth can-i asks for jane");
}

#[tokio::test]
async fn nobody_becomes_another_without_the_right() {
    let world = World::new().await;
    let bob = world.user("bob", &[]);
    let masters = [("Impersonate-User", "x"), ("Impersonate-Group", "system:masters")];
    let reply = world.call(Some(&bob), &masters, "GET", PODS, Value::Null).await;
    assert_eq!(reply.code, 403);
    assert_eq!(
        reply.message(),
        "pods is forbidden: User \"bob\" cannot impersonate-on:user-info:list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    world.grant("bob", json!([{"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"]}])).await;
    let reply = world.call(Some(&bob), &masters, "GET", PODS, Value::Null).await;
    assert_eq!(reply.code, 403, "the right to be a user is none to be in a group");
    let one = [("Impersonate-User", "x")];
    let who = world.call(Some(&bob), &one, "POST", WHO, json!({})).await.ok();
    assert_eq!(who["status"]["userInfo"]["username"], "x");
    let anonymous = world.call(None, &one, "GET", "/version", Value::Null).await;
    assert_eq!(anonymous.code, 403, "{anonymous:?}");
    let groups = [("Impersonate-Group", "dev")];
    assert_eq!(world.as_admin_acting(&groups, "GET", PODS, Value::Null).await.code, 400);
}

#[tokio::test]
async fn a_constrained_right_reaches_no_further() {
    let world = World::new().await;
    let rule = |group: &str, resource: &str, verb: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
    world.grant("jane", json!([rule("", "pods", "*")])).await;
    let rights = [
        rule("authentication.k8s.io", "users", "impersonate:user-info"),
        rule("", "pods", "impersonate-on:user-info:list"),
    ];
    world.grant("bot", json!(rights)).await;
    let bot = world.user("bot", &[]);
    let jane = [("Impersonate-User", "jane")];
    assert_eq!(world.call(Some(&bot), &jane, "GET", PODS, Value::Null).await.code, 200);
    let reply = world.call(Some(&bot), &jane, "DELETE", PODS, Value::Null).await;
    assert_eq!(reply.code, 403);
    assert!(reply.message().contains("cannot impersonate-on:user-info:deletecollection"), "{}", reply.message());
}
