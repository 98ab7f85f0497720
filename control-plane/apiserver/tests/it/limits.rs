//! Who gets in when somebody asks too much.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::World;

/// A POST of which everything but the body has come, as the account sends it.
const HALF: &[u8] = b"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews HTTP/1.1\r\nhost: localhost\r\n\
    content-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
/// More than all places for writes together.
const FLOOD: usize = 260;

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_requests_stop_nobody() {
    let world = World::new().await;
    world.grant("flood", json!([])).await;
    world.grant("bob", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}])).await;
    let flood = world.user("flood", &[]);
    let mut held = Vec::new();
    for _ in 0..FLOOD {
        let mut stream = world.connect(Some(&flood)).await;
        stream.write_all(HALF).await.unwrap();
        held.push(stream);
    }
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    world.by(&flood, "POST", path, review).await.ok();
    let bob = world.user("bob", &[]);
    for name in ["a", "b", "c"] {
        let object = json!({"metadata": {"name": name}});
        world.by(&bob, "POST", "/api/v1/namespaces/default/configmaps", object).await.ok();
    }
    world.by(&bob, "GET", "/readyz", Value::Null).await.ok();
    // Who may not at all is told without being waited for.
    let mut stream = world.connect(Some(&bob)).await;
    let wrong = b"POST /api/v1/namespaces/default/pods HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{";
    stream.write_all(wrong).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 403");
}
