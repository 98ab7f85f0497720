//! The few calls of etcd's v3 API that leases need, over gRPC to whichever endpoint answers. I/O: sockets, certificate
//! files. Callers: [`super::Registry`], and whoever else reads an etcd that is not the API server's.
//!
//! A call that fails at one endpoint goes to the next. Each may have happened all the same: what is called here is done
//! again without harm, or is a transaction whose condition the first one has changed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serving::tls::{CertKeyPair, Files};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use wire::etcd;

use super::login::{Login, Secret};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);
/// How often a connection is probed, and how long the probe may take: a watch of a server that is gone must end.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer: all leases of a network of 10,000 hosts, each as long as is read.
const MAX_MESSAGE: usize = 160 << 20;

/// `--etcd-endpoints` and the flags beside it.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// `http://host:2379` or `https://…`.
    pub urls: Vec<String>,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Nobody, where it is empty.
    pub username: String,
    pub password: Secret,
}

/// What a flag says that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag}: {problem}")]
pub struct FlagError {
    pub flag: &'static str,
    pub problem: String,
}

impl FlagError {
    fn new(flag: &'static str, problem: impl Into<String>) -> FlagError {
        FlagError { flag, problem: problem.into() }
    }
}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("etcd: {0}")]
pub struct CallError(pub String);

fn failed(status: &Status) -> CallError {
    match status.code() {
        Code::Unavailable => CallError(format!("no endpoint answers: {}", status.message())),
        code => CallError(format!("{code:?}: {}", status.message())),
    }
}

/// Connections to the endpoints. Cloning shares them.
#[derive(Clone)]
pub struct Client {
    channels: Arc<Vec<Channel>>,
    current: Arc<AtomicUsize>,
    login: Login,
}

/// A way to an endpoint, with the user's token.
type Way = InterceptedService<Channel, Login>;

impl Client {
    /// Nothing is connected yet.
    pub fn new(endpoints: &Endpoints) -> Result<Client, FlagError> {
        if endpoints.urls.is_empty() {
            return Err(FlagError::new(ENDPOINTS, "names no endpoint"));
        }
        let channels: Result<Vec<_>, _> = endpoints.urls.iter().map(|url| channel(url, endpoints)).collect();
        let login = Login::new(&endpoints.username, &endpoints.password);
        Ok(Client { channels: Arc::new(channels?), current: Arc::default(), login })
    }

    async fn call<T, F>(&self, make: impl Fn(Way) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (count, first) = (self.channels.len(), self.current.load(Ordering::Relaxed));
        let mut last = CallError("no endpoint".to_owned());
        for at in (0..count).map(|step| (first + step) % count) {
            match tokio::time::timeout(CALL, self.call_at(at, &make)).await {
                Ok(Ok(answer)) => {
                    self.current.store(at, Ordering::Relaxed);
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) => {
                    last = failed(&status);
                    if !matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) {
                        return Err(last);
                    }
                }
                Err(_) => last = CallError("no answer in time".to_owned()),
            }
        }
        Err(last)
    }

    /// At one endpoint; again when it wants to know who asks.
    async fn call_at<T, F>(&self, at: usize, make: &impl Fn(Way) -> F) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        match make(self.way(at)).await {
            Err(status) if self.login.is_wanted(&status) => {
                self.login.log_in(self.channels[at].clone()).await?;
                make(self.way(at)).await
            }
            answer => answer,
        }
    }

    fn way(&self, at: usize) -> Way {
        InterceptedService::new(self.channels[at].clone(), self.login.clone())
    }

    fn kv(way: Way) -> etcd::kv_client::KvClient<Way> {
        etcd::kv_client::KvClient::new(way).max_decoding_message_size(MAX_MESSAGE)
    }

    /// One key, or all from `key` to before `end`.
    pub async fn range(&self, key: Bytes, end: Bytes) -> Result<etcd::RangeResponse, CallError> {
        self.range_at(key, end, 0, 0).await
    }

    /// The same as it was at a revision, and so many keys at most; 0 is as it is now, and all.
    pub async fn range_at(
        &self,
        key: Bytes,
        end: Bytes,
        revision: i64,
        limit: i64,
    ) -> Result<etcd::RangeResponse, CallError> {
        let request = etcd::RangeRequest { key, range_end: end, revision, limit, ..etcd::RangeRequest::default() };
        let one = |way: Way| {
            let request = request.clone();
            async move { Client::kv(way).range(request).await }
        };
        self.call(one).await
    }

    /// With lease 0 for good.
    pub async fn put(&self, key: Bytes, value: Bytes, lease: i64) -> Result<(), CallError> {
        let request = etcd::PutRequest { key, value, lease, ..etcd::PutRequest::default() };
        let one = |way: Way| {
            let request = request.clone();
            async move { Client::kv(way).put(request).await }
        };
        self.call(one).await.map(drop)
    }

    /// Puts a key that must not be there; false when it is.
    pub async fn create(&self, key: Bytes, value: Bytes, lease: i64) -> Result<bool, CallError> {
        self.transact(vec![unchanged(key.clone(), 0)], vec![put(key, value, lease)]).await
    }

    /// Puts a key that was changed last at this revision; false when it was changed since.
    pub async fn replace(&self, key: Bytes, value: Bytes, revision: i64) -> Result<bool, CallError> {
        self.transact(vec![unchanged(key.clone(), revision)], vec![put(key, value, 0)]).await
    }

    /// Puts a key that must not be there in the place of one that was changed last at this revision; false when that was
    /// changed since, or the new one is there. Who watches hears of the old one's end first.
    pub async fn rename(
        &self,
        (from, revision): (Bytes, i64),
        to: Bytes,
        value: Bytes,
        lease: i64,
    ) -> Result<bool, CallError> {
        let old = etcd::DeleteRangeRequest { key: from.clone(), ..etcd::DeleteRangeRequest::default() };
        let old = etcd::RequestOp { request: Some(etcd::request_op::Request::RequestDeleteRange(old)) };
        let compare = vec![unchanged(from, revision), unchanged(to.clone(), 0)];
        self.transact(compare, vec![old, put(to, value, lease)]).await
    }

    /// All of it, if all of that is so.
    async fn transact(&self, compare: Vec<etcd::Compare>, success: Vec<etcd::RequestOp>) -> Result<bool, CallError> {
        let request = etcd::TxnRequest { compare, success, ..etcd::TxnRequest::default() };
        let one = |way: Way| {
            let request = request.clone();
            async move { Client::kv(way).txn(request).await }
        };
        Ok(self.call(one).await?.succeeded)
    }

    pub async fn delete(&self, key: Bytes) -> Result<(), CallError> {
        let request = etcd::DeleteRangeRequest { key, ..etcd::DeleteRangeRequest::default() };
        let one = |way: Way| {
            let request = request.clone();
            async move { Client::kv(way).delete_range(request).await }
        };
        self.call(one).await.map(drop)
    }

    /// A new lease: its number, and the seconds that it was given.
    pub async fn grant(&self, seconds: i64) -> Result<(i64, i64), CallError> {
        let request = etcd::LeaseGrantRequest { ttl: seconds, id: 0 };
        let one = |way: Way| async move { etcd::lease_client::LeaseClient::new(way).lease_grant(request).await };
        let answer = self.call(one).await?;
        Ok((answer.id, answer.ttl))
    }

    pub async fn revoke(&self, lease: i64) -> Result<(), CallError> {
        let request = etcd::LeaseRevokeRequest { id: lease };
        let one = |way: Way| async move { etcd::lease_client::LeaseClient::new(way).lease_revoke(request).await };
        self.call(one).await.map(drop)
    }

    /// Changes of all keys from `key` to before `end`, from a revision on. The stream ends when the sender is dropped.
    pub async fn watch(&self, key: Bytes, end: Bytes, from: i64) -> Result<Watch, CallError> {
        let create = etcd::WatchCreateRequest { key, range_end: end, start_revision: from, ..Default::default() };
        let create = etcd::watch_request::RequestUnion::CreateRequest(create);
        // One request a stream.
        let (sender, mut receiver) = mpsc::channel(1);
        let _ = sender.try_send(etcd::WatchRequest { request_union: Some(create) });
        let requests = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
        let mut request = Request::new(requests);
        // A member that is cut off from the others must not keep us waiting.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let at = self.current.load(Ordering::Relaxed);
        let mut client = etcd::watch_client::WatchClient::new(self.way(at)).max_decoding_message_size(MAX_MESSAGE);
        match tokio::time::timeout(CALL, client.watch(request)).await {
            Ok(Ok(answer)) => Ok(Watch { stream: answer.into_inner(), _requests: sender }),
            other => {
                // The next try goes to another server.
                self.current.store((at + 1) % self.channels.len(), Ordering::Relaxed);
                Err(match other {
                    Ok(Err(status)) => failed(&status),
                    _ => CallError("no answer in time".to_owned()),
                })
            }
        }
    }
}

/// A key is as it was at this revision; at 0 it is not there.
fn unchanged(key: Bytes, revision: i64) -> etcd::Compare {
    etcd::Compare {
        result: etcd::compare::CompareResult::Equal as i32,
        target: etcd::compare::CompareTarget::Mod as i32,
        key,
        target_union: Some(etcd::compare::TargetUnion::ModRevision(revision)),
        ..etcd::Compare::default()
    }
}

fn put(key: Bytes, value: Bytes, lease: i64) -> etcd::RequestOp {
    let put = etcd::PutRequest { key, value, lease, ..etcd::PutRequest::default() };
    etcd::RequestOp { request: Some(etcd::request_op::Request::RequestPut(put)) }
}

/// An open watch.
pub struct Watch {
    stream: Streaming<etcd::WatchResponse>,
    _requests: mpsc::Sender<etcd::WatchRequest>,
}

impl Watch {
    /// None when the server has ended it.
    pub async fn next(&mut self) -> Result<Option<etcd::WatchResponse>, CallError> {
        self.stream.message().await.map_err(|status| failed(&status))
    }
}

const ENDPOINTS: &str = "--etcd-endpoints";

fn channel(url: &str, endpoints: &Endpoints) -> Result<Channel, FlagError> {
    let bad = |problem: &str| FlagError::new(ENDPOINTS, format!("{url}: {problem}"));
    let uri: Uri = url.parse().map_err(|_| bad("it is no URL such as http://127.0.0.1:2379"))?;
    let host = uri.host().ok_or_else(|| bad("it names no host"))?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(2379);
    let tls = match uri.scheme_str() {
        Some("http") => None,
        Some("https") => {
            let name = ServerName::try_from(host.clone()).map_err(|_| bad("its host can't be in a certificate"))?;
            Some((tls(url, endpoints)?, name))
        }
        _ => return Err(bad("it must begin with http:// or https://")),
    };
    // The connector does TLS itself: to tonic every endpoint is plain.
    let plain = format!("http://{}", uri.authority().map_or("", |authority| authority.as_str()));
    let endpoint = Endpoint::from_shared(plain).map_err(|error| bad(&error.to_string()))?;
    let endpoint = endpoint
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| dial(host.clone(), port, tls.clone()))))
}

fn tls(url: &str, endpoints: &Endpoints) -> Result<Arc<ClientConfig>, FlagError> {
    let needed = || FlagError::new("--etcd-cafile", format!("it is missing, and {url} is to be believed"));
    let ca = endpoints.ca_file.as_ref().ok_or_else(needed)?;
    let roots = serving::tls::roots(ca).map_err(|error| FlagError::new("--etcd-cafile", error.to_string()))?;
    let identity = match (&endpoints.cert_file, &endpoints.key_file) {
        (Some(cert), Some(key)) => {
            let files = Files { cert: cert.clone(), key: key.clone() };
            Some(CertKeyPair::load(files).map_err(|error| FlagError::new("--etcd-certfile", error.to_string()))?)
        }
        (None, None) => None,
        (Some(_), None) => return Err(FlagError::new("--etcd-keyfile", "--etcd-certfile has no key without it")),
        (None, Some(_)) => {
            return Err(FlagError::new("--etcd-certfile", "--etcd-keyfile has no certificate without it"));
        }
    };
    let client = serving::tls::client(Some(roots), identity);
    let mut client = client.map_err(|error| FlagError::new("--etcd-cafile", error.to_string()))?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(client))
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn dial(
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
) -> std::io::Result<TokioIo<Box<dyn Stream>>> {
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match tls {
        Some((config, name)) => Box::new(TlsConnector::from(config).connect(name, stream).await?),
        None => Box::new(stream),
    };
    Ok(TokioIo::new(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str, change: impl FnOnce(&mut Endpoints)) -> String {
        let mut endpoints = Endpoints { urls: vec![url.to_owned()], ..Endpoints::default() };
        change(&mut endpoints);
        Client::new(&endpoints).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn endpoints_that_cannot_be_are_refused_by_flag() {
        assert_eq!(refusal("http://127.0.0.1:2379", |_| ()), "");
        assert_eq!(refusal("x", |e| e.urls.clear()), "--etcd-endpoints: names no endpoint");
        for (url, said) in [
            ("127.0.0.1:2379", "--etcd-endpoints: 127.0.0.1:2379: it must begin with http:// or https://"),
            ("ftp://a", "--etcd-endpoints: ftp://a: it must begin with http:// or https://"),
            ("https://a:2379", "--etcd-cafile: it is missing, and https://a:2379 is to be believed"),
        ] {
            assert_eq!(refusal(url, |_| ()), said);
        }
        let said = refusal("https://a", |e| e.ca_file = Some("/nowhere/ca.crt".into()));
        assert!(said.starts_with("--etcd-cafile: ") && said.contains("/nowhere/ca.crt"), "{said}");
    }
}
