//! A light client of the Kubernetes API: one keep-alive HTTP/1.1 connection over TLS, JSON as bytes. It costs little,
//! because client and server share the machine's cores. I/O: sockets, a kubeconfig.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Pods and large lists come in chunks of this size at most.
const READ_BUFFER: usize = 64 << 10;
/// Clients of [`create_all`]: enough to keep every server busy.
const CREATORS: usize = 32;

/// Where an API server is and who we are, out of a kubeconfig.
#[derive(Clone)]
pub struct Api {
    pub kubeconfig: PathBuf,
    address: String,
    connector: TlsConnector,
}

impl Api {
    pub fn read(kubeconfig: &Path) -> Result<Api> {
        let shown = kubeconfig.display().to_string();
        let text = std::fs::read_to_string(kubeconfig).with_context(|| shown.clone())?;
        let config: Value = serde_saphyr::from_str(&text).with_context(|| shown.clone())?;
        let field = |pointer: &str| {
            config.pointer(pointer).and_then(Value::as_str).ok_or_else(|| anyhow!("{shown} has no {pointer}"))
        };
        let pem = |pointer: &str| Ok::<_, anyhow::Error>(base64::prelude::BASE64_STANDARD.decode(field(pointer)?)?);
        let mut roots = rustls::RootCertStore::empty();
        for ca in CertificateDer::pem_slice_iter(&pem("/clusters/0/cluster/certificate-authority-data")?) {
            roots.add(ca?)?;
        }
        let cert = pem("/users/0/user/client-certificate-data")?;
        let chain = CertificateDer::pem_slice_iter(&cert).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&pem("/users/0/user/client-key-data")?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        let server = field("/clusters/0/cluster/server")?;
        let address = server.strip_prefix("https://").context("the server is not https")?.to_owned();
        Ok(Api { kubeconfig: kubeconfig.to_owned(), address, connector: TlsConnector::from(Arc::new(tls)) })
    }

    /// A connection that says nothing.
    pub async fn silent(&self) -> Result<TcpStream> {
        TcpStream::connect(&self.address).await.with_context(|| self.address.clone())
    }

    pub async fn connect(&self) -> Result<Connection> {
        let tcp = self.silent().await?;
        tcp.set_nodelay(true)?;
        let host = self.address.split(':').next().unwrap_or_default().to_owned();
        let stream = self.connector.connect(ServerName::try_from(host)?, tcp).await?;
        let address = self.address.clone();
        Ok(Connection {
            stream: BufReader::with_capacity(READ_BUFFER, stream),
            address,
            accept: "application/json",
            out: Vec::new(),
        })
    }

    /// One request on a connection of its own.
    pub async fn once(&self, method: &str, path: &str, body: &str) -> Result<Answer> {
        self.connect().await?.request(method, path, body.as_bytes()).await
    }
}

/// Status and body of an answer.
pub struct Answer {
    pub code: u16,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body of an answer that must be one of success.
    pub fn ok(self) -> Result<Vec<u8>> {
        ensure!((200..300).contains(&self.code), "answered {}: {}", self.code, String::from_utf8_lossy(&self.body));
        Ok(self.body)
    }
}

enum Framing {
    Length(usize),
    Chunked,
}

/// One connection.
pub struct Connection {
    stream: BufReader<TlsStream<TcpStream>>,
    address: String,
    accept: &'static str,
    out: Vec<u8>,
}

impl Connection {
    /// The same, asking for another form of answers.
    pub fn asking(self, accept: &'static str) -> Connection {
        Connection { accept, ..self }
    }

    pub async fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        self.send(method, path, body).await?;
        let (code, framing) = self.head().await?;
        let mut answer = Answer { code, body: Vec::new() };
        match framing {
            Framing::Length(length) => {
                answer.body.resize(length, 0);
                self.stream.read_exact(&mut answer.body).await?;
            }
            Framing::Chunked => while self.chunk(&mut answer.body).await? {},
        }
        Ok(answer)
    }

    /// Opens a watch: [`Connection::event`] gives its events.
    pub async fn watch(&mut self, path: &str) -> Result<()> {
        self.send("GET", path, b"").await?;
        let (code, framing) = self.head().await?;
        ensure!(code == 200 && matches!(framing, Framing::Chunked), "the watch was answered with {code}");
        Ok(())
    }

    /// The next event; `rest` holds what came after it.
    pub async fn event(&mut self, rest: &mut Vec<u8>) -> Result<Value> {
        loop {
            if let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            ensure!(self.chunk(rest).await?, "the watch ended");
        }
    }

    /// Asks; what comes back is for whoever reads it.
    pub async fn send(&mut self, method: &str, path: &str, body: &[u8]) -> Result<()> {
        self.send_some(method, path, body, body.len()).await
    }

    /// Asks with a body of which the last part never comes.
    pub async fn send_some(&mut self, method: &str, path: &str, body: &[u8], length: usize) -> Result<()> {
        self.out.clear();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: {}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
            self.address, self.accept
        );
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(body);
        self.stream.get_mut().write_all(&self.out).await?;
        Ok(self.stream.get_mut().flush().await?)
    }

    async fn head(&mut self) -> Result<(u16, Framing)> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line).await? > 0, "the server closed the connection");
        let code = line.split(' ').nth(1).and_then(|c| c.parse().ok()).context("no HTTP answer")?;
        let mut framing = Framing::Length(0);
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line).await? > 0, "the server closed the connection");
            if line == "\r\n" {
                return Ok((code, framing));
            }
            let Some((name, value)) = line.split_once(':') else { bail!("odd header {line:?}") };
            if name.eq_ignore_ascii_case("content-length") {
                framing = Framing::Length(value.trim().parse()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                framing = Framing::Chunked;
            }
        }
    }

    /// Adds the next chunk; false at the end.
    async fn chunk(&mut self, into: &mut Vec<u8>) -> Result<bool> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        let length = usize::from_str_radix(line.trim(), 16).with_context(|| format!("odd chunk {line:?}"))?;
        let at = into.len();
        into.resize(at + length + 2, 0);
        self.stream.read_exact(&mut into[at..]).await?;
        into.truncate(at + length);
        Ok(length > 0)
    }
}

/// Creates objects 0 to `count` of a collection by some clients at a time.
pub async fn create_all(api: &Api, path: &'static str, count: usize, object: fn(usize) -> Value) -> Result<()> {
    post_all(api, path, count, move |i| object(i).to_string().into_bytes()).await
}

/// The same of bodies that may have been written before.
pub async fn post_all(
    api: &Api,
    path: &'static str,
    count: usize,
    body: impl Fn(usize) -> Vec<u8> + Clone + Send + 'static,
) -> Result<()> {
    let mut creators = Vec::new();
    for creator in 0..CREATORS {
        let mut connection = api.connect().await?;
        let body = body.clone();
        creators.push(tokio::spawn(async move {
            for i in (creator..count).step_by(CREATORS) {
                connection.request("POST", path, &body(i)).await?.ok()?;
            }
            anyhow::Ok(())
        }));
    }
    for creator in creators {
        creator.await??;
    }
    Ok(())
}

/// A runtime of one thread, for the clients: it leaves the most to the servers.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
