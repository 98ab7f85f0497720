//! Certificates that are replaced while the server runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use serving::Http;
use serving::tls::{CertKeyPair, Clients, Files, Tls, client, roots};
use serving::x509::Subject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::start;

pub struct Authority(pub Issuer<'static, KeyPair>);

impl Authority {
    pub fn new(dir: &Path) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(dir.join("ca.crt"), certificate.pem()).unwrap();
        Authority(Issuer::new(params, key))
    }

    pub fn issue(&self, dir: &Path, name: &str, common_name: &str) -> Files {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let files = Files { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        std::fs::write(&files.cert, certificate.pem()).unwrap();
        files
    }
}

async fn connect(address: std::net::SocketAddr, config: &Arc<rustls::ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config.clone()).connect(name, stream).await.unwrap()
}

async fn get(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    let mut buffer = vec![0; 1024];
    let length = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut buffer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn server_name(stream: &TlsStream<TcpStream>) -> String {
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    Subject::of(&chain[0]).unwrap().common_name
}

#[tokio::test]
async fn a_new_certificate_is_served_without_dropping_connections() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new(dir.path());
    let files = ca.issue(dir.path(), "server", "old");
    let ca_file = dir.path().join("ca.crt");
    let tls = Tls::new(files.clone(), &Clients::Of(ca_file.clone())).unwrap();
    let server = start(16, Http { tls: Some(tls), ..Http::default() }).await;
    let identity = CertKeyPair::load(ca.issue(dir.path(), "client", "first")).unwrap();
    let config = Arc::new(client(Some(roots(&ca_file).unwrap()), Some(identity)).unwrap());
    let mut before = connect(server.address, &config).await;
    assert_eq!((server_name(&before).as_str(), get(&mut before, "/a").await.ends_with("/a")), ("old", true));

    // A key whose certificate has not come yet leaves both as they were.
    let (key, cert) = (std::fs::read(&files.key).unwrap(), std::fs::read(&files.cert).unwrap());
    ca.issue(dir.path(), "server", "new");
    let (new_key, new_cert) = (std::fs::read(&files.key).unwrap(), std::fs::read(&files.cert).unwrap());
    std::fs::write(&files.cert, &cert).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(server_name(&connect(server.address, &config).await), "old");
    assert_ne!(key, new_key);

    std::fs::write(&files.cert, &new_cert).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(server_name(&connect(server.address, &config).await), "new");
    assert!(get(&mut before, "/b").await.ends_with("/b"), "the connection from before goes on");
}

#[tokio::test]
async fn a_new_authority_of_clients_is_taken_and_the_old_one_no_more() {
    let (old, new, server_dir) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old_ca, new_ca) = (Authority::new(old.path()), Authority::new(new.path()));
    let files = Authority::new(server_dir.path()).issue(server_dir.path(), "server", "server");
    let clients = server_dir.path().join("clients.crt");
    let trust = |dir: &Path| std::fs::copy(dir.join("ca.crt"), &clients).unwrap();
    trust(old.path());
    let tls = Tls::new(files, &Clients::OnlyOf(clients.clone())).unwrap();
    let server = start(16, Http { tls: Some(tls), ..Http::default() }).await;
    let shows = |files: Files| {
        let roots = roots(&server_dir.path().join("ca.crt")).unwrap();
        Arc::new(client(Some(roots), Some(CertKeyPair::load(files).unwrap())).unwrap())
    };
    let ann = shows(old_ca.issue(old.path(), "ann", "ann"));
    let bob = shows(new_ca.issue(new.path(), "bob", "bob"));
    let mut before = connect(server.address, &ann).await;
    assert!(get(&mut before, "/a").await.ends_with("/a"));
    assert!(!is_served(server.address, &bob).await, "of an authority that nobody named");

    trust(new.path());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(is_served(server.address, &bob).await);
    assert!(!is_served(server.address, &ann).await, "of an authority that is named no more");
    assert!(get(&mut before, "/b").await.ends_with("/b"), "the connection from before goes on");

    std::fs::write(&clients, "nothing").unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(is_served(server.address, &bob).await, "what can't be used changes nothing");
}

/// Whether a request is answered; a handshake that the server refuses is whole for the client, and then over.
async fn is_served(address: std::net::SocketAddr, config: &Arc<rustls::ClientConfig>) -> bool {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let Ok(mut stream) = TlsConnector::from(config.clone()).connect(name, stream).await else { return false };
    let mut answer = Vec::new();
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let _ = stream.read_to_end(&mut answer).await;
    answer.starts_with(b"HTTP/1.1 200")
}

#[tokio::test]
async fn a_client_shows_its_new_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new(dir.path());
    let identity = CertKeyPair::load(ca.issue(dir.path(), "client", "first")).unwrap();
    let shown = |identity: &Arc<CertKeyPair>| {
        use rustls::client::ResolvesClientCert;
        let schemes = [rustls::SignatureScheme::ECDSA_NISTP256_SHA256];
        Subject::of(&identity.resolve(&[], &schemes).unwrap().cert[0]).unwrap().common_name
    };
    assert_eq!(shown(&identity), "first");
    ca.issue(dir.path(), "client", "second");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(shown(&identity), "second");
}

#[tokio::test]
async fn handshakes_that_are_not_begun_end() {
    let dir = tempfile::tempdir().unwrap();
    let tls = Tls::new(Authority::new(dir.path()).issue(dir.path(), "s", "s"), &Clients::Anyone).unwrap();
    let server = start(16, Http { tls: Some(tls), deadlines: super::SHORT, ..Http::default() }).await;
    let mut silent = server.connect().await;
    assert!(super::closes_within(&mut silent, Duration::from_secs(2)).await);
    let mut half = server.connect().await;
    half.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
    assert!(super::closes_within(&mut half, Duration::from_secs(2)).await);
}
