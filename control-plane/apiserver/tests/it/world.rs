//! A server with a CA of its own on loopback, its store in memory, and clients that come with whatever identity a test
//! gives them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use apiserver::authn::jwt::Signer;
use apiserver::authn::service_account::{self, Grant};
use apiserver::config::{Config, KeyPair};
use apiserver::daemon;
use apiserver::server::Core;
use apiserver::storage::memory::MemoryStore;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DnType, Issuer, SigningKey};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::certificates::as_v1;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = rcgen::KeyPair::generate().unwrap();
        Identity { certificate: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    /// A client certificate, valid from 2020 until the end of the given year.
    pub fn client(&self, name: &str, groups: &[&str], until: i32) -> Identity {
        self.sign(client(name, groups, until))
    }

    /// The same of X.509 v1.
    pub fn client_of_v1(&self, name: &str, groups: &[&str], until: i32) -> Identity {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = client(name, groups, until).signed_by(&key, &self.issuer).unwrap();
        let old = as_v1(certificate.der(), |bytes| self.issuer.key().sign(bytes).unwrap());
        Identity { certificate: testkit::certificates::pem(&old), key: key.serialize_pem() }
    }
}

fn client(name: &str, groups: &[&str], until: i32) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 12, 31);
    params
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Identity {
    certificate: String,
    key: String,
}

pub type TlsStream = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

/// Shows what it has: the library itself can't read certificates of X.509 v1.
impl ResolvesClientCert for Identity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        Some(Arc::new(CertifiedKey::new(vec![certificate], key)))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub code: u16,
    pub body: Value,
    pub warnings: Vec<String>,
    pub audit_id: String,
}

impl Reply {
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// The body of a request that must have succeeded.
    pub fn ok(self) -> Value {
        assert!(self.code < 300, "{self:?}");
        self.body
    }
}

pub const FAR: i32 = 2099;

pub struct World {
    pub authority: Authority,
    address: SocketAddr,
    files: TempDir,
    signing_key: String,
    admin: Identity,
    shutdown: CancellationToken,
    /// What is behind the server, for tests that write past it.
    pub store: MemoryStore,
    /// The server from inside, for tests that count what it did.
    pub core: Arc<Core>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl World {
    pub async fn new() -> World {
        World::build(|_| {}, MemoryStore::default()).await
    }

    /// With settings of the test's own.
    pub async fn with(set: impl FnOnce(&mut Config)) -> World {
        World::build(set, MemoryStore::default()).await
    }

    /// A server over a store that may hold something already.
    pub async fn over(store: MemoryStore) -> World {
        World::build(|_| {}, store).await
    }

    /// The same with settings of the test's own: the next life of a server.
    pub async fn next(store: MemoryStore, set: impl FnOnce(&mut Config)) -> World {
        World::build(set, store).await
    }

    async fn build(set: impl FnOnce(&mut Config), store: MemoryStore) -> World {
        let files = tempfile::tempdir().unwrap();
        let authority = Authority::new("kubernetes");
        let server = authority.sign(CertificateParams::new(vec!["localhost".to_owned()]).unwrap());
        let signing_key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let write = |name: &str, text: &str| {
            let path = files.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut config = Config {
            bind_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            secure_port: 0,
            tls: Some(KeyPair {
                cert_file: write("server.crt", &server.certificate),
                key_file: write("server.key", &server.key),
            }),
            client_ca_file: Some(write("ca.crt", &authority.pem)),
            service_account_signing_key_file: Some(write("sa.key", &signing_key)),
            ..Config::default()
        };
        set(&mut config);
        let shutdown = CancellationToken::new();
        let running = daemon::start(config, Arc::new(store.clone()), shutdown.clone()).await.unwrap();
        let admin = authority.client("admin", &["system:masters"], FAR);
        let address = running.address.unwrap();
        let core = running.server.core.clone();
        World { authority, address, files, signing_key, admin, shutdown, store, core }
    }

    /// A client certificate of this cluster's authority.
    pub fn user(&self, name: &str, groups: &[&str]) -> Identity {
        self.authority.client(name, groups, FAR)
    }

    /// A token as the server makes them, with claims of the test's own.
    pub fn token(&self, account: &Value, audience: &str, expires: i64) -> String {
        let signer = Signer::from_pem(self.signing_key.as_bytes()).unwrap();
        let claims = service_account::claims(&Grant {
            issuer: &Config::default().service_account_issuer,
            audiences: &[audience.to_owned()],
            namespace: account["metadata"]["namespace"].as_str().unwrap(),
            account: account["metadata"]["name"].as_str().unwrap(),
            account_uid: account["metadata"]["uid"].as_str().unwrap(),
            bound: &[],
            now: expires - 7200,
            expires,
            warn_after: None,
        });
        signer.sign(&claims).unwrap()
    }

    /// A connection with this client certificate, or none.
    pub async fn connect(&self, identity: Option<&Identity>) -> TlsStream {
        self.connect_by(identity, &[]).await
    }

    /// The same, for a client of these protocols.
    pub async fn connect_by(&self, identity: Option<&Identity>, protocols: &[&[u8]]) -> TlsStream {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in serving::tls::certificates(&self.files.path().join("ca.crt")).unwrap() {
            roots.add(certificate).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        let mut config = match identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(identity.clone())),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// One request; `headers` beside those that every request has.
    pub async fn call(
        &self,
        identity: Option<&Identity>,
        headers: &[(&str, &str)],
        method: &str,
        path: &str,
        body: Value,
    ) -> Reply {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut all = vec![("content-type", kind), ("accept", "application/json")];
        all.extend(headers);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(identity, &all, method, path, body).await
    }

    /// As a member of system:masters, with no headers and no body but those given.
    pub async fn admin_sends(
        &self,
        headers: &[(&str, &str)],
        method: &str,
        path: &str,
        body: impl Into<bytes::Bytes>,
    ) -> Reply {
        self.send(Some(&self.admin), headers, method, path, body).await
    }

    /// As somebody with a certificate, with no headers and no body but those given.
    pub async fn send(
        &self,
        identity: Option<&Identity>,
        headers: &[(&str, &str)],
        method: &str,
        path: &str,
        body: impl Into<bytes::Bytes>,
    ) -> Reply {
        let stream = self.connect(identity).await;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|w| w.to_str().unwrap().trim_start_matches("299 - ").to_owned()).collect();
        let audit_id =
            response.headers().get("audit-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into());
        Reply { code, body, warnings, audit_id }
    }

    /// As somebody with a certificate.
    pub async fn by(&self, identity: &Identity, method: &str, path: &str, body: Value) -> Reply {
        self.call(Some(identity), &[], method, path, body).await
    }

    /// As a member of system:masters.
    pub async fn admin(&self, method: &str, path: &str, body: Value) -> Reply {
        self.by(&self.admin, method, path, body).await
    }

    pub async fn as_admin_acting(&self, headers: &[(&str, &str)], method: &str, path: &str, body: Value) -> Reply {
        self.call(Some(&self.admin), headers, method, path, body).await
    }

    /// Gives a user rules, everywhere.
    pub async fn grant(&self, user: &str, rules: Value) {
        let name = user.replace(':', "-");
        let role = json!({"metadata": {"name": name}, "rules": rules});
        self.admin("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.ok();
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
        });
        self.admin("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.ok();
    }

    /// A service account in `default`, and its object.
    pub async fn account(&self, name: &str) -> Value {
        let path = "/api/v1/namespaces/default/serviceaccounts";
        self.admin("POST", path, json!({"metadata": {"name": name}})).await.ok()
    }

    /// A pod in `namespace`, as an administrator makes it; `spec` beside one container.
    pub async fn pod(&self, namespace: &str, name: &str, spec: Value) -> Value {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        self.admin("POST", &path, pod(name, spec)).await.ok()
    }
}

pub fn pod(name: &str, more: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}
