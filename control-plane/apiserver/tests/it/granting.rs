//! Nobody grants what they do not hold.

use serde_json::{Value, json};

use crate::world::{Identity, Reply, World};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn rule(group: &str, resource: &str, verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
}

/// `bob` manages roles and bindings and reads pods; nothing else.
async fn world() -> (World, Identity) {
    let world = World::new().await;
    let roles = ["roles", "clusterroles", "rolebindings", "clusterrolebindings"];
    let mut rules: Vec<Value> =
        roles.map(|kind| rule("rbac.authorization.k8s.io", kind, &["create", "update", "patch"])).to_vec();
    rules.push(rule("", "pods", &["get", "list"]));
    world.grant("bob", json!(rules)).await;
    let bob = world.user("bob", &["dev"]);
    (world, bob)
}

async fn role(world: &World, who: &Identity, name: &str, rules: Value) -> Reply {
    let path = format!("{RBAC}/namespaces/default/roles");
    world.by(who, "POST", &path, json!({"metadata": {"name": name}, "rules": rules})).await
}

#[tokio::test]
async fn a_role_holds_no_more_than_its_maker() {
    let (world, bob) = world().await;
    role(&world, &bob, "pods", json!([rule("", "pods", &["get"])])).await.ok();
    let reply = role(&world, &bob, "more", json!([rule("", "secrets", &["get", "list"])])).await;
    assert_eq!(reply.code, 403);
    assert_eq!(
        reply.message(),
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"bob\" (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}"
    );
    let path = format!("{RBAC}/namespaces/default/roles/pods");
    let wider = json!({"rules": [rule("", "pods", &["*"])]});
    assert_eq!(world.by(&bob, "PATCH", &path, wider.clone()).await.code, 403);
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    world.by(&bob, "PATCH", &path, labelled).await.ok();
    // What somebody mightier has put there stays out of reach, but lets go of what it holds.
    world.admin("PATCH", &path, wider).await.ok();
    let released = json!({"metadata": {"finalizers": ["example.com/x"]}});
    world.by(&bob, "PATCH", &path, released).await.ok();
    assert_eq!(world.by(&bob, "PATCH", &path, json!({"metadata": {"labels": {"a": "c"}}})).await.code, 403);
    let escalating =
        json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["escalate"]}]);
    world.grant("bob:more", json!([])).await;
    let subject = json!({"rules": escalating});
    world.admin("PATCH", &format!("{RBAC}/clusterroles/bob-more"), subject).await.ok();
    let binding = json!({"subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}]});
    world.admin("PATCH", &format!("{RBAC}/clusterrolebindings/bob-more"), binding).await.ok();
    role(&world, &bob, "more", json!([rule("", "secrets", &["get"])])).await.ok();
}

#[tokio::test]
async fn aggregation_is_for_those_who_may_do_everything() {
    let (world, bob) = world().await;
    let aggregated = json!({
        "metadata": {"name": "all"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}, "rules": [],
    });
    let path = format!("{RBAC}/clusterroles");
    let reply = world.by(&bob, "POST", &path, aggregated.clone()).await;
    assert_eq!(reply.code, 403);
    assert!(reply.message().ends_with("must have cluster-admin privileges to use the aggregationRule"), "{reply:?}");
    world.admin("POST", &path, aggregated).await.ok();
}

#[tokio::test]
async fn a_binding_gives_no_more_than_its_maker_has() {
    let (world, bob) = world().await;
    let binding = |name: &str, role: &str| {
        json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}],
        })
    };
    let cluster = format!("{RBAC}/clusterrolebindings");
    let local = format!("{RBAC}/namespaces/default/rolebindings");
    for path in [&cluster, &local] {
        let reply = world.by(&bob, "POST", path, binding("mine", "cluster-admin")).await;
        assert_eq!(reply.code, 403, "{path}");
        assert!(reply.message().contains("attempting to grant RBAC permissions not currently held"), "{reply:?}");
        assert_eq!(world.by(&bob, "POST", path, binding("mine", "no-such-role")).await.code, 404);
        world.by(&bob, "POST", path, binding("same", "bob")).await.ok();
    }
    let bind = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": ["view"], "verbs": ["bind"]}]);
    world.grant("bob:bind", bind).await;
    let subject = json!({"subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}]});
    world.admin("PATCH", &format!("{cluster}/bob-bind"), subject).await.ok();
    world.by(&bob, "POST", &local, binding("view", "view")).await.ok();
    assert_eq!(world.by(&bob, "POST", &local, binding("edit", "edit")).await.code, 403);
}
