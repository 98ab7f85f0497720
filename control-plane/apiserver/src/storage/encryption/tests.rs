//! Values as upstream stores them, and a whole server over a store that encrypts.

use std::io::Write as _;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::EncryptedStore;
use super::config::Resources;
use crate::authn::{MASTERS, UserInfo};
use crate::config::Config;
use crate::http::body::request_body;
use crate::server::Server;
use crate::storage::memory::MemoryStore;
use crate::storage::{RangeRequest, Store, StoreEvent, Txn, TxnOutcome};

/// What upstream's transformers (k8s.io/apiserver 0.34) made of four values with keys of each size.
const UPSTREAM: &str = include_str!("upstream-vectors.json");

const KEY_A: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const KEY_B: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

fn config(parts: &Value) -> Vec<u8> {
    let whole = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": parts,
    });
    whole.to_string().into_bytes()
}

fn keyed(provider: &str, keys: &[(&str, &str)]) -> Value {
    let keys: Vec<_> = keys.iter().map(|(name, secret)| json!({"name": name, "secret": secret})).collect();
    json!({provider: {"keys": keys}})
}

fn one(resources: &[&str], providers: &[Value]) -> Value {
    json!([{"resources": resources, "providers": providers}])
}

fn file(parts: &Value) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("file");
    file.write_all(&config(parts)).expect("write");
    file
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn all(prefix: &str) -> RangeRequest {
    RangeRequest {
        key: bytes(prefix),
        end: crate::storage::keys::prefix_end(prefix.as_bytes()),
        ..RangeRequest::default()
    }
}

#[test]
fn what_upstream_stored_is_read_and_bound_to_its_key() {
    let vectors: Vec<Value> = serde_json::from_str(UPSTREAM).expect("vectors");
    assert_eq!(vectors.len(), 28);
    for vector in vectors {
        let text = |field: &str| vector[field].as_str().expect("text");
        let decode = |field: &str| Bytes::from(STANDARD.decode(text(field)).expect("base64"));
        let (provider, path) = (text("provider"), text("path").as_bytes());
        let parts = one(&["secrets"], &[keyed(provider, &[(text("keyName"), text("key"))])]);
        let resources = Resources::parse(&config(&parts)).expect("configuration");
        let keys = resources.of("/registry", path);
        let (plain, stored) = (decode("plain"), decode("stored"));
        assert_eq!(keys.decrypt(&stored, path).expect("decrypts"), plain, "{provider}");
        assert!(!keys.is_stale(&stored));
        let ours = keys.encrypt(&plain, path).expect("encrypts");
        assert_eq!((ours.len(), &ours[..20]), (stored.len(), &stored[..20]), "{provider}: the same form");
        assert_ne!(ours, stored, "no two values are stored alike");
        assert_eq!(keys.decrypt(&ours, path).expect("decrypts"), plain);
        let elsewhere = keys.decrypt(&stored, b"/registry/secrets/default/other");
        assert_eq!(elsewhere.is_err(), provider == "aesgcm", "{provider}");
        for at in 0..stored.len() {
            assert!(
                keys.decrypt(&stored.slice(..at), path).is_err() || at == 0 || provider == "aescbc",
                "{provider} cut at {at}"
            );
        }
    }
}

#[test]
fn a_resource_is_found_by_its_key_and_the_nearest_rule_holds() {
    let parts = json!([
        {"resources": ["secrets", "deployments.apps"], "providers": [keyed("secretbox", &[("named", KEY_A)])]},
        {"resources": ["*.apps", "widgets.example.com", "events"], "providers": [keyed("aesgcm", &[("group", KEY_A)])]},
        {"resources": ["statefulsets.apps"], "providers": [keyed("aesgcm", &[("masked", KEY_A)])]},
        {"resources": ["*."], "providers": [keyed("aescbc", &[("core", KEY_A)])]},
        {"resources": ["*.*"], "providers": [keyed("aescbc", &[("rest", KEY_A)])]},
    ]);
    let resources = Resources::parse(&config(&parts)).expect("configuration");
    for (key, prefix) in [
        ("/secrets/default/a", "k8s:enc:secretbox:v1:named:"),
        ("/deployments/default/a", "k8s:enc:secretbox:v1:named:"),
        ("/statefulsets/default/a", "k8s:enc:aesgcm:v1:group:"),
        ("/example.com/widgets/default/a", "k8s:enc:aesgcm:v1:group:"),
        ("/events/default/a", "k8s:enc:aesgcm:v1:group:"),
        ("/configmaps/default/a", "k8s:enc:aescbc:v1:core:"),
        ("/minions/a", "k8s:enc:aescbc:v1:core:"),
        ("/services/specs/default/a", "k8s:enc:aescbc:v1:core:"),
        ("/apiextensions.k8s.io/customresourcedefinitions/a.b", "k8s:enc:aescbc:v1:rest:"),
        ("/example.com/gadgets/a", "k8s:enc:aescbc:v1:rest:"),
        ("/ranges/servicenodeports/1", "{}"),
        ("/health", "{}"),
    ] {
        let key = format!("/other{key}").into_bytes();
        let stored = resources.of("/other", &key).encrypt(&bytes("{}"), &key).expect("encrypts");
        assert!(stored.starts_with(prefix.as_bytes()), "{}: {}", key.escape_ascii(), stored.escape_ascii());
    }
}

#[test]
fn wrong_configurations_are_refused_in_upstreams_words_and_never_show_a_key() {
    let good = || keyed("aescbc", &[("k", KEY_A)]);
    for (parts, refusal) in [
        (json!([]), "resources: Required value"),
        (one(&[], &[good()]), "at least one resources[0].resources is required"),
        (one(&["secrets"], &[]), "at least one resources[0].providers is required"),
        (one(&["secrets"], &[json!({})]), "provider does not contain any of the expected providers"),
        (one(&["secrets"], &[json!({"identity": {}, "aescbc": good()["aescbc"]})]), "more than one provider specified"),
        (one(&["secrets"], &[json!({"kms": {"name": "x"}})]), "providers[0].kms: Unsupported value"),
        (one(&["secrets"], &[json!({"rot13": {}})]), "unknown field `rot13`"),
        (one(&["secrets"], &[keyed("aesgcm", &[])]), "at least one resources[0].providers[0].aesgcm.keys is required"),
        (one(&["secrets"], &[keyed("aesgcm", &[("", KEY_A)])]), "name is a mandatory field for a key"),
        (one(&["secrets"], &[keyed("aesgcm", &[("k", "")])]), "secret is a mandatory field for a key"),
        (one(&["secrets"], &[keyed("aesgcm", &[("k", "!SECRET!")])]), "secrets must be base64 encoded"),
        (one(&["secrets"], &[keyed("aesgcm", &[("k", "U0VDUkVU")])]), "got 6, expected one of [16 24 32]"),
        (one(&["secrets"], &[keyed("secretbox", &[("k", "AAECAwQFBgcICQoLDA0ODw==")])]), "expected one of [32]"),
        (one(&["Secrets"], &[good()]), "should not contain capital letters"),
        (one(&["*"], &[good()]), "use '*.' to encrypt all the resources from core API group"),
        (one(&["pods/status"], &[good()]), "resources which do not have REST API/s cannot be encrypted"),
        (one(&["secrets", "*."], &[good()]), "using overlapping resources"),
        (one(&["secrets", "secrets"], &[good()]), "cannot be specified multiple times"),
        (one(&["*.extensions"], &[good()]), "'extensions' group has been removed"),
        (one(&["*.events.k8s.io"], &[good()]), "Use 'events' instead"),
        (one(&["secrets.*"], &[good()]), "across groups is not supported"),
    ] {
        let refused = Resources::parse(&config(&parts)).err().unwrap_or_else(|| panic!("{parts}"));
        assert!(refused.contains(refusal), "{parts}: {refused}");
        assert!(!refused.contains("SECRET") && !refused.contains("U0VDUkVU"), "{refused}");
    }
    let other = br#"{"apiVersion":"v1","kind":"EncryptionConfig","resources":[]}"#;
    assert!(Resources::parse(other).err().expect("refused").contains("no kind \"EncryptionConfig\" is registered"));
}

#[tokio::test]
async fn reads_watches_and_conflicts_are_plain_and_what_lies_in_the_store_is_not() {
    let inner = MemoryStore::default();
    let file = file(&one(&["secrets"], &[keyed("aesgcm", &[("a", KEY_A)]), json!({"identity": {}})]));
    let store = EncryptedStore::open(Arc::new(inner.clone()), file.path(), "/registry").expect("store");
    let key = bytes("/registry/secrets/default/a");
    let mut watch = store.watch(key.clone(), Bytes::new(), 1).await.expect("watch");
    watch.next().await;
    // From before encryption was turned on.
    inner.txn(Txn::create(bytes("/registry/secrets/default/old"), bytes("plain"), 0)).await.expect("txn");
    let made = store.txn(Txn::create(key.clone(), bytes("hidden"), 0)).await.expect("txn");
    let TxnOutcome::Committed { revision } = made else { panic!("{made:?}") };
    let raw = inner.range(all("/registry/secrets/")).await.expect("range");
    let stored: Vec<_> = raw.kvs.iter().map(|kv| kv.value.clone()).collect();
    assert!(stored[0].starts_with(b"k8s:enc:aesgcm:v1:a:") && !stored[0].windows(6).any(|w| w == b"hidden"));
    assert_eq!(stored[1], "plain");
    let values = |kvs: Vec<crate::storage::KeyValue>| kvs.into_iter().map(|kv| kv.value).collect::<Vec<_>>();
    assert_eq!(values(store.range(all("/registry/secrets/")).await.expect("range").kvs), ["hidden", "plain"]);
    assert!(store.is_stale(bytes("/registry/secrets/default/old")).await.expect("asked"));
    assert!(!store.is_stale(key.clone()).await.expect("asked"));
    let batch = watch.next().await.expect("event").expect("event");
    let [StoreEvent::Put(kv)] = &batch.events[..] else { panic!("{batch:?}") };
    assert_eq!((kv.value.clone(), kv.mod_revision), (bytes("hidden"), revision));
    let lost = store.txn(Txn::update(key.clone(), bytes("x"), revision + 9, 0)).await.expect("txn");
    let TxnOutcome::Conflict { current, .. } = lost else { panic!("{lost:?}") };
    assert_eq!(current[0].as_ref().expect("there").value, "hidden");
    let won = store.txn(Txn::update(key.clone(), bytes("y"), revision, 0)).await.expect("txn");
    assert!(matches!(won, TxnOutcome::Committed { .. }));
    // The key goes: what it sealed is handed on as it lies there, and the others are read.
    std::fs::write(file.path(), config(&one(&["secrets"], &[json!({"identity": {}})]))).expect("write");
    store.reload(file.path()).expect("reload");
    let left = values(store.range(all("/registry/secrets/")).await.expect("range").kvs);
    assert!(left[0].starts_with(b"k8s:enc:") && left[1] == "plain");
    // A wrong file changes nothing.
    std::fs::write(file.path(), "resources: [").expect("write");
    assert!(store.reload(file.path()).is_err());
    assert!(store.is_stale(key).await.expect("asked"));
}

async fn text(server: &Server, target: &str) -> String {
    let user = UserInfo { name: "me".to_owned(), groups: vec![MASTERS.to_owned()], ..UserInfo::default() };
    let request = Request::builder().uri(target).body(request_body(Full::new(Bytes::new()))).expect("request");
    let body = server.handle(request, Arc::new(user)).await.into_body().collect().await.expect("body");
    String::from_utf8_lossy(&body).into_owned()
}

async fn send(server: &Server, method: &str, target: &str, body: &Value) -> (u16, Value) {
    let user = UserInfo { name: "me".to_owned(), groups: vec![MASTERS.to_owned()], ..UserInfo::default() };
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request = Request::builder().method(method).uri(target).header("content-type", "application/json");
    let request = request.body(request_body(Full::new(body))).expect("request");
    let (parts, body) = server.handle(request, Arc::new(user)).await.into_parts();
    let body = body.collect().await.expect("body");
    (parts.status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn an_update_without_a_change_seals_with_the_newest_key_and_only_once() {
    let inner = MemoryStore::default();
    let key = || bytes("/registry/secrets/default/s");
    let start = |parts: Value| {
        let (inner, file) = (inner.clone(), file(&parts));
        async move {
            let config = Config {
                authorization_mode: vec!["AlwaysAllow".to_owned()],
                encryption_provider_config: Some(file.path().to_owned()),
                ..Config::default()
            };
            let (shutdown, dialer) = (CancellationToken::new(), Arc::new(crate::proxy::Tcp));
            let server = crate::daemon::assemble(config, Arc::new(inner), None, dialer, &shutdown).await;
            (server.expect("server"), shutdown.drop_guard())
        }
    };
    let path = "/api/v1/namespaces/default/secrets";
    let (server, running) = start(one(&["secrets"], &[keyed("aescbc", &[("a", KEY_A)])])).await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"p": "TOPSECRET"}});
    assert_eq!(send(&server, "POST", path, &secret).await.0, 201);
    let raw = async || inner.get(key()).await.expect("get").1.expect("there");
    assert!(raw().await.value.starts_with(b"k8s:enc:aescbc:v1:a:"));
    drop((server, running));
    let (server, _running) =
        start(one(&["secrets"], &[keyed("secretbox", &[("b", KEY_B)]), keyed("aescbc", &[("a", KEY_A)])])).await;
    let (code, object) = send(&server, "GET", &format!("{path}/s"), &Value::Null).await;
    assert_eq!((code, &object["data"]["p"]), (200, &json!(STANDARD.encode("TOPSECRET"))));
    let revision = raw().await.mod_revision;
    let (code, replaced) = send(&server, "PUT", &format!("{path}/s"), &object).await;
    assert_eq!(code, 200);
    assert!(raw().await.value.starts_with(b"k8s:enc:secretbox:v1:b:"));
    assert!(raw().await.mod_revision > revision);
    let revision = raw().await.mod_revision;
    assert_eq!(send(&server, "PUT", &format!("{path}/s"), &replaced).await.0, 200);
    assert_eq!(raw().await.mod_revision, revision, "nothing is left to do");
    let (_, list) = send(&server, "GET", path, &Value::Null).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let page = text(&server, "/metrics").await;
    for (way, provider) in [("from_storage", "aescbc"), ("to_storage", "secretbox"), ("from_storage", "secretbox")] {
        let line = format!(
            "apiserver_storage_transformation_operations_total{{resource=\"secrets\",status=\"OK\",\
             transformation_type=\"{way}\",transformer_prefix=\"k8s:enc:{provider}:v1:\"}} "
        );
        assert!(page.contains(&line), "{line}: {page}");
    }
    assert!(!page.contains("operations_total{resource=\"namespaces\""), "nothing is said of others");
    // Without its key it is an object that can't be read, and no reason for anything else to stop.
    let (server, _last) = start(one(&["secrets"], &[json!({"identity": {}})])).await;
    let (code, told) = send(&server, "GET", &format!("{path}/s"), &Value::Null).await;
    let message = told["message"].as_str().unwrap_or_default();
    assert!(code == 500 && message.contains("corrupt object") && message.contains("encrypted"), "{code} {told}");
    let (code, list) = send(&server, "GET", path, &Value::Null).await;
    assert_eq!((code, list["items"].as_array().map(Vec::len)), (200, Some(0)));
}

/// A key in the wrong place was in the message, and so in the log.
#[test]
fn a_mistake_in_the_configuration_is_told_without_the_key() {
    let file = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
                providers: [{aescbc: {keys: \"c2VjcmV0\\\"IHNlY3JldA==\"}}]\n";
    let told = Resources::parse(file.as_bytes()).err().expect("refused");
    assert!(told.contains("invalid type: string, expected") && !told.contains("c2Vj"), "{told}");
    assert!(!told.contains("IHNl"), "{told}");
}
