//! What proves who somebody is: tokens, certificates, requests for certificates, PEM, challenges of registries.

use apiserver::authn::jwt::{self, Signer, Verifier};
use apiserver::authn::x509;
use apiserver::storage::encryption::Resources;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use client::delegated::User;
use controller_manager::controllers::certificates::request::Request;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use meta::pem;
use runtime::images::Challenge;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use serde_json::json;
use serving::x509::Subject;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::input::{join, parts, text, texts};
use crate::table::{DEEP, FLAT, JSON, Target, YAML};

pub const TARGETS: &[Target] = &[
    Target { name: "jwt", what: "bearer tokens", run: token, seeds: tokens, memory: 400, nests: FLAT, depth: 0 },
    Target {
        name: "certificate",
        what: "client certificates",
        run: certificate,
        seeds: certificates,
        memory: 400,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "csr",
        what: "certificate signing requests",
        run: request,
        seeds: requests,
        memory: 400,
        nests: FLAT,
        depth: 0,
    },
    Target { name: "pem", what: "PEM files and keys", run: pems, seeds: pem_seeds, memory: 400, nests: FLAT, depth: 0 },
    Target {
        name: "challenge",
        what: "WWW-Authenticate of registries",
        run: challenge,
        seeds: challenges,
        memory: 64,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "pull-secret",
        what: "credentials for registries out of Secrets",
        run: pull_secret,
        seeds: pull_secrets,
        memory: 600,
        nests: JSON,
        depth: DEEP,
    },
    Target {
        name: "encryption",
        what: "configurations of encryption at rest, and values that they open",
        run: encryption,
        seeds: encryptions,
        memory: 3000,
        nests: YAML,
        depth: DEEP,
    },
];

struct Key {
    pem: String,
    signer: Signer,
}

static KEY: LazyLock<Key> = LazyLock::new(|| {
    let pem = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    Key { signer: Signer::from_pem(pem.as_bytes()).expect("a signer"), pem }
});

fn tokens() -> Vec<Vec<u8>> {
    let claims = json!({"iss": "https://kubernetes.default.svc.cluster.local", "sub": "system:serviceaccount:a:b", "aud": ["x"], "exp": 2_000_000_000, "iat": 1, "nbf": 1,
        "kubernetes.io": {"namespace": "a", "serviceaccount": {"name": "b", "uid": "c"}, "pod": {"name": "d", "uid": "e"}}});
    let mut all: Vec<Vec<u8>> = KEY.signer.sign(&claims).ok().into_iter().map(String::into_bytes).collect();
    all.extend(texts(&["eyJhbGciOiJub25lIn0.e30.", "a.b.c", "eyJhbGciOiJIUzI1NiJ9.e30.AAAA", "..", "."]));
    all
}

fn token(input: &[u8]) {
    let text = text(input);
    let _ = jwt::peek(&text);
    let keys = [KEY.signer.verifier().expect("a key")];
    if let Ok(claims) = jwt::verify(&text, &keys) {
        assert_eq!(jwt::peek(&text), Some(claims), "what is verified is what is read");
    }
}

fn self_signed() -> Option<rcgen::Certificate> {
    let key = rcgen::KeyPair::from_pem(&KEY.pem).ok()?;
    let mut params = rcgen::CertificateParams::new(vec!["a.b".to_owned()]).ok()?;
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
    params.self_signed(&key).ok()
}

fn certificates() -> Vec<Vec<u8>> {
    self_signed().map(|c| c.der().to_vec()).into_iter().collect()
}

static VERIFIER: LazyLock<Option<Arc<dyn ClientCertVerifier>>> = LazyLock::new(|| {
    let params = rcgen::CertificateParams::default();
    let authorities = vec![params.self_signed(&rcgen::KeyPair::generate().ok()?).ok()?.der().clone()];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    serving::clients::verifier(authorities, provider, false).ok()
});

fn certificate(input: &[u8]) {
    let certificate = CertificateDer::from(input);
    let _ = x509::identity(&certificate);
    if let Some(verifier) = VERIFIER.as_ref() {
        // 2026-07-01.
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_782_864_000));
        assert!(verifier.verify_client_cert(&certificate, &[], now).is_err(), "no authority signed it");
    }
    if let Ok(subject) = Subject::of(input) {
        let _ = User::of_subject(&subject);
    }
}

fn requests() -> Vec<Vec<u8>> {
    let made = || {
        let key = rcgen::KeyPair::from_pem(&KEY.pem).ok()?;
        let mut params = rcgen::CertificateParams::new(vec!["a.b".to_owned(), "10.0.0.1".to_owned()]).ok()?;
        params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:n");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        params.serialize_request(&key).ok().map(|request| request.der().to_vec())
    };
    made().into_iter().collect()
}

/// The bytes are the request's own: in the API they come in PEM and base64.
fn request(input: &[u8]) {
    let text = pem::encode("CERTIFICATE REQUEST", input);
    if let Ok(request) = Request::parse(text.as_bytes()) {
        let usages = ["digital signature", "client auth"].map(str::to_owned);
        let _ = (request.check_kubelet_client(&usages), request.check_kubelet_serving(&usages));
    }
    let Some(kind) = kinds::by_kind("certificates.k8s.io", "v1", "CertificateSigningRequest") else { return };
    let object = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "a"},
        "spec": {"request": BASE64.encode(&text), "signerName": "kubernetes.io/kube-apiserver-client-kubelet", "usages": ["client auth"]},
        "status": {"certificate": BASE64.encode(pem::encode("CERTIFICATE", input))}});
    let _ = (kind.check(&object), (kind.hooks.validate_status)(&object, &object));
}

fn pem_seeds() -> Vec<Vec<u8>> {
    let certificate = self_signed().map(|c| c.pem()).unwrap_or_default();
    texts(&[
        &certificate,
        &KEY.pem,
        "-----BEGIN X-----\na: b\n\nAAAA\n-----END X-----\n-----BEGIN Y-----\n-----END Z-----",
    ])
}

fn pems(input: &[u8]) {
    let text = text(input);
    for block in pem::all(&text) {
        let written = pem::encode(&block.kind, &block.content);
        let again = pem::all(&written);
        assert_eq!(again.first().map(|b| (&b.kind, &b.content)), Some((&block.kind, &block.content)), "as it was");
    }
    let _ = Signer::from_pem(input).map(|signer| signer.verifier());
    let _ = Verifier::from_pem(input);
    let bundle = json!({"apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle", "metadata": {"name": "a"}, "spec": {"trustBundle": text}});
    if let Some(kind) = kinds::by_kind("certificates.k8s.io", "v1beta1", "ClusterTrustBundle") {
        let _ = kind.check(&bundle);
    }
}

fn challenges() -> Vec<Vec<u8>> {
    texts(&[
        "Bearer realm=\"https://a/token\",service=\"s\",scope=\"repository:a:pull\"",
        "Basic realm=\"x\"",
        "bearer realm=\"",
        "Digest a",
    ])
}

fn challenge(input: &[u8]) {
    let text = text(input);
    if let Challenge::Bearer { realm, service, scope } = Challenge::parse(&text) {
        assert!(realm.len() + service.len() + scope.len() <= 3 * text.len(), "nothing is added");
    }
}

fn pull_secrets() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"*.r.example":{"username":"a","password":"b"}}}"#,
        r#"{"r.example:5000":{"auth":"dTpw","email":"a@b","identitytoken":"t"}}"#,
    ])
}

fn pull_secret(input: &[u8]) {
    for key in [".dockerconfigjson", ".dockercfg"] {
        let data = Some([(key.to_owned(), ByteString(input.to_vec()))].into());
        let secret = Secret { data, ..Secret::default() };
        for (host, domain) in [("docker.io", "io"), ("a.r.example", "example"), ("r.example:5000", "example:5000")] {
            for found in kubelet::credentials(&secret, host) {
                let server = &found.server_address;
                assert!(server.contains(domain), "{server} is not asked with what is {host}'s");
            }
        }
    }
}

const ENCRYPTION: &str = r"apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets, '*.apps']
  providers:
  - aescbc: {keys: [{name: a, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}
  - aesgcm: {keys: [{name: b, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}
  - secretbox: {keys: [{name: c, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}
  - identity: {}
";

fn encryptions() -> Vec<Vec<u8>> {
    let key = "keys: [{name: d, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]";
    let sealed = |cipher: &str| {
        let first = format!("  providers:\n  - {cipher}: {{{key}}}\n");
        let config = ENCRYPTION.replacen("  providers:\n", &first, 1);
        let of = Resources::parse(config.as_bytes()).expect("keys");
        let value = of.of("/registry", KEY_OF_SECRET).encrypt(&Bytes::from_static(b"{\"a\":1}"), KEY_OF_SECRET);
        join(&[config.as_bytes(), &value.expect("a value")])
    };
    let plain = [join(&[ENCRYPTION.as_bytes(), b"{\"a\":1}"]), b"k8s:enc:aescbc:v1:a:0123456789abcdef".to_vec()];
    ["aescbc", "aesgcm", "secretbox"].map(sealed).into_iter().chain(plain).collect()
}

const KEY_OF_SECRET: &[u8] = b"/registry/secrets/ns/name";

fn encryption(input: &[u8]) {
    let [config, stored] = parts(input);
    static USUAL: LazyLock<Resources> = LazyLock::new(|| Resources::parse(ENCRYPTION.as_bytes()).expect("keys"));
    // What somebody else put into the store, for keys that are always the same and for those of the input.
    let with = |resources: &Resources, stored: &[u8]| {
        let of = resources.of("/registry", KEY_OF_SECRET);
        let plain = of.decrypt(&Bytes::copy_from_slice(stored), KEY_OF_SECRET);
        if let Ok(plain) = &plain {
            assert!(plain.len() <= stored.len(), "it is no longer than it was");
        }
        // What was encrypted is never taken for another thing; a plain value may be.
        let value = Bytes::from_static(b"value");
        if let Ok(sealed) = of.encrypt(&value, KEY_OF_SECRET)
            && sealed != value
        {
            assert!(of.decrypt(&sealed, KEY_OF_SECRET) == Ok(value), "what was sealed is opened");
            // Of upstream's ciphers this one knows under which key its value is.
            let moved = of.decrypt(&sealed, b"/registry/secrets/ns/other");
            assert!(!sealed.starts_with(b"k8s:enc:aesgcm:") || moved.is_err(), "at its own key alone");
        }
    };
    with(&USUAL, input);
    if let Ok(resources) = Resources::parse(config) {
        with(&resources, stored);
    }
}
