//! Who is let in: certificates and tokens that are expired, foreign or for somebody else end in 401, no credential at
//! all in anonymity, which may do next to nothing.

use apiserver::Config;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use serde_json::{Value, json};

use testkit::http2::{Answer, Ask, ask};

use crate::world::{Authority, FAR, Identity, World};

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn bearer(token: &str) -> Vec<(&'static str, String)> {
    vec![("authorization", format!("Bearer {token}"))]
}

async fn with_token(world: &World, token: &str) -> u16 {
    let headers = bearer(token);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    world.call(None, &headers, "POST", WHO, json!({})).await.code
}

#[tokio::test]
async fn a_certificate_of_the_clusters_authority_is_an_identity() {
    let world = World::new().await;
    let reply = world.by(&world.user("jane", &["dev"]), "POST", WHO, json!({})).await;
    let user = &reply.ok()["status"]["userInfo"];
    assert_eq!(user["username"], "jane");
    assert_eq!(user["groups"], json!(["dev", "system:authenticated"]));
}

#[tokio::test]
async fn a_certificate_of_x509_v1_is_an_identity() {
    let world = World::new().await;
    let old = |name: &str, until| world.authority.client_of_v1(name, &["dev"], until);
    let (status, user) = who_over_tls(&world, &old("jane", FAR)).await;
    assert_eq!((status, &user["username"]), (200, &json!("jane")), "{user}");
    assert_eq!(user["groups"], json!(["dev", "system:authenticated"]));
    let foreign = Authority::new("kubernetes").client_of_v1("admin", &["system:masters"], FAR);
    for refused in [old("jane", 2021), foreign] {
        assert_eq!(who_over_tls(&world, &refused).await.0, 401);
    }
}

/// Whom the server takes somebody for.
async fn who_over_tls(world: &World, identity: &Identity) -> (u16, Value) {
    let reply = world.by(identity, "GET", "/version", Value::Null).await;
    if reply.code != 200 {
        return (reply.code, Value::Null);
    }
    let reply = world.by(identity, "POST", WHO, json!({})).await;
    (200, reply.ok()["status"]["userInfo"].clone())
}

#[tokio::test]
async fn a_request_whose_authority_is_none_is_answered() {
    let world = World::new().await;
    for authority in ["https://127.0.0.1:6443", "%2Frun%2Fapi.sock", "a b", "", "localhost"] {
        let mut stream = world.connect_by(None, &[b"h2"]).await;
        let answer = ask(&mut stream, &Ask { authority, path: "/livez", grpc: false }).await.unwrap();
        assert_eq!(answer, Answer::Status(200), "{authority:?}");
    }
}

#[tokio::test]
async fn foreign_and_expired_certificates_are_refused() {
    let world = World::new().await;
    // Same name as the real authority: only the key tells.
    let foreign = Authority::new("kubernetes").client("admin", &["system:masters"], FAR);
    let expired = world.authority.client("admin", &["system:masters"], 2021);
    for (what, identity) in [("foreign", foreign), ("expired", expired)] {
        for path in [PODS, "/version"] {
            let reply = world.by(&identity, "GET", path, Value::Null).await;
            assert_eq!((reply.code, &reply.body["reason"]), (401, &json!("Unauthorized")), "{what} {path}");
        }
    }
}

/// kubeadm's Secret and what a machine may do that comes with its token: ask for a kubelet's certificate, no more.
#[tokio::test]
async fn a_bootstrap_token_is_an_identity_while_its_secret_says_so() {
    let world = World::with(|config| config.enable_bootstrap_token_auth = true).await;
    let token = "abcdef.0123456789abcdef";
    assert_eq!(with_token(&world, token).await, 401, "there is none yet");
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-abcdef"},
        "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:nodes"},
    });
    let admin = world.user("admin", &["system:masters"]);
    world.by(&admin, "POST", secrets, secret).await.ok();
    let headers = [("authorization", "Bearer abcdef.0123456789abcdef")];
    let reply = world.call(None, &headers, "POST", WHO, json!({})).await;
    let user = &reply.ok()["status"]["userInfo"];
    assert_eq!(user["username"], "system:bootstrap:abcdef");
    assert_eq!(user["groups"], json!(["system:bootstrappers", "system:bootstrappers:nodes", "system:authenticated"]));
    assert_eq!(world.call(None, &headers, "GET", PODS, Value::Null).await.code, 403);
    assert_eq!(with_token(&world, "abcdef.0123456789abcdeg").await, 401);
    let one = format!("{secrets}/bootstrap-token-abcdef");
    world.by(&admin, "DELETE", &one, Value::Null).await.ok();
    assert_eq!(with_token(&world, token).await, 401, "with its Secret the token goes");
}

#[tokio::test]
async fn who_shows_nothing_is_anonymous_and_sees_what_is_public() {
    let world = World::new().await;
    let reply = world.call(None, &[], "GET", PODS, Value::Null).await;
    assert_eq!(reply.code, 403);
    assert_eq!(
        reply.message(),
        "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let reply = world.call(None, &[], "GET", "/apis", Value::Null).await;
    assert_eq!(reply.code, 403, "{}", reply.message());
    for path in ["/version", "/healthz", "/livez", "/readyz"] {
        assert_eq!(world.call(None, &[], "GET", path, Value::Null).await.code, 200, "{path}");
    }
}

#[tokio::test]
async fn tokens_hold_for_their_audience_and_time() {
    let world = World::new().await;
    let account = world.account("app").await;
    let own = Config::default().service_account_issuer;
    let now = Timestamp::now().as_second();
    let good = world.token(&account, &own, now + 3600);
    assert_eq!(with_token(&world, &good).await, 201);
    let mut flipped = good.clone();
    flipped.replace_range(
        good.len() - 10..good.len() - 9,
        if good.as_bytes()[good.len() - 10] == b'A' { "B" } else { "A" },
    );
    let cases = [
        ("expired", world.token(&account, &own, now - 1)),
        ("for another audience", world.token(&account, "vault", now + 3600)),
        ("of another key", World::new().await.token(&account, &own, now + 3600)),
        ("with a changed signature", flipped),
        ("unreadable", "abc".to_owned()),
    ];
    for (what, token) in cases {
        assert_eq!(with_token(&world, &token).await, 401, "a token {what}");
    }
    // A wrong token is wrong, whatever else is public.
    let headers = [("authorization", "Bearer abc")];
    assert_eq!(world.call(None, &headers, "GET", "/version", Value::Null).await.code, 401);
}

#[tokio::test]
async fn a_token_dies_with_its_account_and_its_pod() {
    let world = World::new().await;
    world.account("app").await;
    let pod = world.pod("default", "p", json!({"serviceAccountName": "app"})).await;
    let path = "/api/v1/namespaces/default/serviceaccounts/app/token";
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]});
    let token = |spec: Value| world.admin("POST", path, json!({"spec": spec}));
    let text = |issued: Value| issued["status"]["token"].as_str().unwrap().to_owned();
    let of_pod = text(token(json!({"boundObjectRef": bound})).await.ok());
    let of_account = text(token(json!({})).await.ok());
    assert_eq!((with_token(&world, &of_pod).await, with_token(&world, &of_account).await), (201, 201));
    let now = json!({"gracePeriodSeconds": 0});
    world.admin("DELETE", "/api/v1/namespaces/default/pods/p", now).await.ok();
    assert_eq!((with_token(&world, &of_pod).await, with_token(&world, &of_account).await), (401, 201));
    world.admin("DELETE", "/api/v1/namespaces/default/serviceaccounts/app", Value::Null).await.ok();
    assert_eq!(with_token(&world, &of_account).await, 401);
}

#[tokio::test]
async fn head_has_no_body_in_http_2() {
    let world = World::new().await;
    let admin = world.user("admin", &["system:masters"]);
    let stream = TokioIo::new(world.connect(Some(&admin)).await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    for (path, code) in [("/healthz", 200), (PODS, 405), ("/version", 200)] {
        let request = Request::head(format!("https://localhost{path}")).body(String::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), code, "{path}");
        assert!(answer.headers().contains_key("content-length"), "{path}");
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty(), "{path}");
    }
}
