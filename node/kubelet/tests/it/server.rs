//! The kubelet's HTTPS API: who may, logs, streams that pass through.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use testkit::http2::{Answer, Ask, ask};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kubelet::{NODE, Node};

struct Pki {
    roots: RootCertStore,
    client: (rustls::pki_types::CertificateDer<'static>, Vec<u8>),
}

/// A certificate authority in files, with a certificate for the server, and one for a client called `name`.
fn pki(dir: &std::path::Path, name: &str) -> Pki {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    std::fs::write(dir.join("ca.crt"), ca.pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(dir.join("tls.crt"), server.pem()).unwrap();
    std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let client = params.signed_by(&key, &issuer).unwrap();
    Pki { roots, client: (client.der().clone(), key.serialize_der()) }
}

struct Client {
    port: u16,
    tls: Arc<rustls::ClientConfig>,
}

impl Client {
    async fn send(&self, request: http::request::Builder) -> http::Response<Incoming> {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request.header("host", "localhost").body(Empty::<Bytes>::new()).unwrap()).await.unwrap()
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let answer = self.send(Request::get(path)).await;
        let status = answer.status();
        (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }
}

async fn node_with_api(name: &str) -> (Node, Client, Client) {
    let mut made = None;
    let node = Node::start(|config, dir| {
        made = Some(pki(dir, name));
        config.server.tls_cert_file = Some(dir.join("tls.crt"));
        config.server.tls_private_key_file = Some(dir.join("tls.key"));
        config.server.client_ca_file = Some(dir.join("ca.crt"));
    })
    .await;
    let pki = made.unwrap();
    let object = node.api.get(NODE).unwrap();
    let port = object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap() as u16;
    let builder = || {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(pki.roots.clone())
    };
    let key = PrivateKeyDer::try_from(pki.client.1.clone()).unwrap();
    let known = builder().with_client_auth_cert(vec![pki.client.0.clone()], key).unwrap();
    let unknown = builder().with_no_client_auth();
    (node, Client { port, tls: Arc::new(known) }, Client { port, tls: Arc::new(unknown) })
}

#[tokio::test]
async fn only_those_who_may_get_in() {
    let (_node, someone, nobody) = node_with_api("someone").await;
    assert_eq!(someone.get("/healthz").await, (StatusCode::OK, "ok".into()));
    assert_eq!(nobody.get("/pods").await.0, StatusCode::UNAUTHORIZED);
    let with = |token: &str| Request::get("/pods").header("authorization", format!("Bearer {token}"));
    assert_eq!(nobody.send(with("good")).await.status(), StatusCode::OK);
    assert_eq!(nobody.send(with("bad")).await.status(), StatusCode::UNAUTHORIZED);
    let (_node, other, _) = node_with_api("other").await;
    let (status, text) = other.get("/exec/ns/p/c").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(text, "Forbidden (user=other, verb=create, resource=nodes, subresource(s)=[\"proxy\"])\n");
}

#[tokio::test]
async fn a_request_whose_authority_is_none_is_answered() {
    let (_node, someone, _) = node_with_api("someone").await;
    for authority in ["https://127.0.0.1:10250", "%2Frun%2Fkubelet.sock", ""] {
        let mut tls = (*someone.tls).clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", someone.port)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        let answer = ask(&mut stream, &Ask { authority, path: "/healthz", grpc: false }).await.unwrap();
        assert_eq!(answer, Answer::Status(200), "{authority:?}");
    }
}

#[tokio::test]
async fn silent_connections_do_not_close_the_kubelets_port() {
    let (_node, someone, _) = node_with_api("someone").await;
    let mut silent = Vec::new();
    // More than the port holds.
    for _ in 0..2500 {
        silent.push(tokio::net::TcpStream::connect(("127.0.0.1", someone.port)).await.unwrap());
    }
    let answer = tokio::time::timeout(Duration::from_secs(5), someone.get("/healthz")).await;
    assert_eq!(answer.expect("in time"), (StatusCode::OK, "ok".into()));
}

#[tokio::test]
async fn logs_are_read_and_followed_to_the_end() {
    let (node, client, _) = node_with_api("someone").await;
    node.create("l", json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]})).await;
    node.until_ready("l").await;
    let id = node.runtime.running("c").unwrap();
    node.runtime.write_log(&id, &["one", "two", "three"]);
    assert_eq!(client.get("/containerLogs/ns/l/c").await.1, "one\ntwo\nthree\n");
    assert_eq!(client.get("/containerLogs/ns/l/c?tailLines=1&timestamps=true").await.1, "2026-01-01T00:00:00Z three\n");
    assert_eq!(client.get("/containerLogs/ns/l/c?limitBytes=5").await.1, "one\nt");
    let (status, text) = client.get("/containerLogs/ns/l/c?previous=true").await;
    assert_eq!(
        (status, text.as_str()),
        (StatusCode::BAD_REQUEST, "previous terminated container \"c\" in pod \"l\" not found")
    );
    assert_eq!(client.get("/containerLogs/ns/none/c").await.0, StatusCode::NOT_FOUND);
    let mut answer = client.send(Request::get("/containerLogs/ns/l/c?follow=true&tailLines=1")).await;
    let first = answer.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "three\n");
    node.runtime.write_log(&id, &["four"]);
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "four\n");
    node.runtime.exit(&id, 0);
    let end =
        tokio::time::timeout(Duration::from_secs(5), answer.frame()).await.expect("the follow ends with the container");
    assert!(end.is_none());
    for query in ["tailLines=-1", "sinceSeconds=0", "limitBytes=0"] {
        let (status, _) = client.get(&format!("/containerLogs/ns/l/c?{query}")).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
    }
    let (_, pods) = client.get("/pods").await;
    let pods: Value = serde_json::from_str(&pods).unwrap();
    assert_eq!((&pods["kind"], &pods["items"][0]["metadata"]["name"]), (&json!("PodList"), &json!("l")));
}

#[tokio::test]
async fn exec_passes_through_to_the_runtime() {
    let (node, client, _) = node_with_api("someone").await;
    node.create("e", json!({"containers": [{"name": "c", "image": "i"}]})).await;
    node.until_ready("e").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    node.runtime.state.lock().stream_url = format!("http://{}/exec/token", listener.local_addr().unwrap());
    // A streaming server of a few lines: agrees to the upgrade and gives everything back.
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let size = stream.read(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head[..size]).to_lowercase();
        let hello = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(hello).await.unwrap();
        let mut block = [0; 5];
        stream.read_exact(&mut block).await.unwrap();
        stream.write_all(&block).await.unwrap();
        head
    });
    let request =
        Request::post("/exec/ns/e/c?command=ls&output=1").header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
    let mut answer = client.send(request).await;
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
    let head = server.await.unwrap();
    assert!(head.starts_with("post /exec/token http/1.1") && head.contains("upgrade: spdy/3.1"), "{head}");
    assert_eq!(client.get("/exec/ns/e/c").await.0, StatusCode::BAD_REQUEST, "no stream is wanted");
    assert_eq!(client.get("/exec/ns/e/none?output=1").await.0, StatusCode::NOT_FOUND);
}
