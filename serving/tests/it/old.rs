//! Client certificates of X.509 v1, and what is said of those that are refused.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rcgen::SigningKey;
use rustls::pki_types::ServerName;
use serving::tls::{CertKeyPair, Clients, Files, Tls, certificates, roots};
use serving::{Http, x509::Subject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::renewal::Authority;
use super::{Server, start};

/// A client's certificate as `openssl x509 -req` without extensions makes it.
fn old(ca: &Authority, dir: &Path, name: &str) -> Files {
    let files = ca.issue(dir, name, name);
    let certificate = certificates(&files.cert).unwrap().remove(0);
    let old = testkit::certificates::as_v1(&certificate, |bytes| ca.0.key().sign(bytes).unwrap());
    std::fs::write(&files.cert, testkit::certificates::pem(&old)).unwrap();
    files
}

async fn server(dir: &Path, ca: &Authority, clients: &Clients) -> Server {
    let tls = Tls::new(ca.issue(dir, "server", "server"), clients).unwrap();
    start(16, Http { tls: Some(tls), ..Http::default() }).await
}

/// What is answered to a client with this certificate.
async fn get(server: &Server, dir: &Path, files: Files, version: &'static rustls::SupportedProtocolVersion) -> String {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let builder = builder.with_root_certificates(roots(&dir.join("ca.crt")).unwrap());
    let config = builder.with_client_cert_resolver(CertKeyPair::load(files).unwrap());
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(name, stream).await else {
        return String::new();
    };
    let mut all = Vec::new();
    let _ = stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let _ = stream.read_to_end(&mut all).await;
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn a_client_certificate_of_x509_v1_is_taken_by_every_tls() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ca, foreign) = (Authority::new(ours.path()), Authority::new(theirs.path()));
    let dir = ours.path();
    let ca_file = dir.join("ca.crt");
    for clients in [Clients::OnlyOf(ca_file.clone()), Clients::Of(ca_file), Clients::Anyone] {
        let server = server(dir, &ca, &clients).await;
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let answer = get(&server, dir, old(&ca, dir, "ann"), version).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{clients:?} {version:?}: {answer:?}");
            let answer = get(&server, dir, old(&foreign, theirs.path(), "ann"), version).await;
            assert_eq!(answer.starts_with("HTTP/1.1 200"), clients == Clients::Anyone, "{clients:?} {version:?}");
            // The certificate is nobody's who hasn't its key.
            let (mine, other) = (old(&ca, dir, "ann"), old(&ca, dir, "bob"));
            assert!(CertKeyPair::load(Files { cert: mine.cert, key: other.key }).is_err());
        }
    }
    let shown = certificates(&old(&ca, dir, "ann").cert).unwrap();
    assert_eq!(Subject::of(&shown[0]).unwrap().common_name, "ann");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_refused_handshake_is_told_once_of_its_kind() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ca, foreign) = (Authority::new(ours.path()), Authority::new(theirs.path()));
    let server = server(ours.path(), &ca, &Clients::OnlyOf(ours.path().join("ca.crt"))).await;
    for _ in 0..3 {
        let files = old(&foreign, theirs.path(), "ann");
        assert_eq!(get(&server, ours.path(), files, &rustls::version::TLS13).await, "");
        server.talk("GET / HTTP/1.1\r\n\r\n").await;
    }
    let text = String::from_utf8_lossy(&log.0.lock()).into_owned();
    let told: Vec<&str> = text.lines().filter(|line| line.contains("a TLS handshake was refused")).collect();
    assert_eq!(told.len(), 2, "{text}");
    assert!(
        told[0].contains("WARN") && told[0].contains("invalid peer certificate") && told[0].contains("127.0.0.1:"),
        "{text}"
    );
}
