//! A real etcd cluster as the store: the v3 gRPC API, several endpoints, TLS. I/O: sockets, certificate files.
//!
//! Calls go to one endpoint until it fails, then to the next, and so on while a cluster that lost a member chooses another
//! leader. What a failed endpoint has done of a write is unknown; it is sent again all the same, and [`outcome`] tells.

mod outcome;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use wire::etcd;

use super::{
    RangeRequest, RangeResponse, Store, StoreError, StoreEvent, StoreStatus, Txn, TxnOutcome, WatchBatch, WatchStream,
    v3,
};
use crate::config::KeyPair;
use crate::error::Error;
use crate::http::tls;
use crate::proxy::Stream as ByteStream;

/// Largest answer: a list of everything; upstream's client has no bound but the size of an int.
const MAX_MESSAGE: usize = 1 << 30;
/// How long one call may take in all: an election takes two seconds.
const CALL: Duration = Duration::from_secs(10);
/// How long an endpoint is waited for where there are others.
const ATTEMPT: Duration = Duration::from_secs(4);
/// The pause after all endpoints have failed.
const ROUND: Duration = Duration::from_millis(100);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(2);
/// How long the first contact is tried for.
const FIRST_CONTACT: Duration = Duration::from_secs(20);
const FIRST_CONTACT_RETRY: Duration = Duration::from_millis(250);
/// How often an idle connection is probed, and how long the probe may take.
/// etcd takes it ill more often than every five seconds.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests queued on a watch stream: one to create it, the rest to ask for progress.
const WATCH_QUEUE: usize = 16;

/// `--etcd-servers` and the flags beside it.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `https://host:2379` or `http://…`.
    pub endpoints: Vec<String>,
    /// `--etcd-cafile`
    pub ca_file: Option<PathBuf>,
    /// `--etcd-certfile`, `--etcd-keyfile`
    pub client: Option<KeyPair>,
}

/// A connected store. Cloning shares connections.
#[derive(Clone)]
pub struct RemoteStore {
    inner: Arc<Inner>,
}

struct Inner {
    channels: Vec<Channel>,
    current: AtomicUsize,
    /// Request halves of the open watch streams.
    watches: Mutex<Vec<mpsc::Sender<etcd::WatchRequest>>>,
}

/// Connects; an error when no endpoint answers for a while.
pub async fn connect(config: Config) -> Result<RemoteStore, Error> {
    const FLAG: &str = "--etcd-servers";
    if config.endpoints.is_empty() {
        return Err(Error::Flag { flag: FLAG, reason: "names no server".to_owned() });
    }
    let mut channels = Vec::new();
    for endpoint in &config.endpoints {
        channels.push(channel(endpoint, &config)?);
    }
    let inner = Inner { channels, current: AtomicUsize::new(0), watches: Mutex::default() };
    let store = RemoteStore { inner: Arc::new(inner) };
    let patience = tokio::time::Instant::now() + FIRST_CONTACT;
    loop {
        match store.revision().await {
            Ok(_) => return Ok(store),
            Err(error) if tokio::time::Instant::now() >= patience => return Err(error.into()),
            Err(_) => tokio::time::sleep(FIRST_CONTACT_RETRY).await,
        }
    }
}

fn channel(endpoint: &str, config: &Config) -> Result<Channel, Error> {
    let bad = |reason: String| Error::Flag { flag: "--etcd-servers", reason: format!("{endpoint}: {reason}") };
    let uri: Uri = endpoint.parse().map_err(|_| bad("not a URL such as https://127.0.0.1:2379".to_owned()))?;
    let host = uri.host().ok_or_else(|| bad("names no host".to_owned()))?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(2379);
    let tls = match uri.scheme_str() {
        Some("http") => None,
        Some("https") => Some((tls_config(config)?, server_name(&host).map_err(bad)?)),
        _ => return Err(bad("must begin with http:// or https://".to_owned())),
    };
    // The connector does TLS itself: to tonic every endpoint is plain.
    let plain = format!("http://{}", uri.authority().map_or("", |authority| authority.as_str()));
    let endpoint = Endpoint::from_shared(plain).map_err(|error| bad(error.to_string()))?;
    let endpoint = endpoint
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| dial(host.clone(), port, tls.clone()))))
}

fn tls_config(config: &Config) -> Result<Arc<ClientConfig>, Error> {
    let flags = tls::ClientFlags { authority: "--etcd-cafile", certificate: "--etcd-certfile", key: "--etcd-keyfile" };
    let mut client = tls::client(flags, config.ca_file.as_ref(), config.client.as_ref())?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(client))
}

fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())
}

async fn dial(
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
) -> std::io::Result<TokioIo<Box<dyn ByteStream>>> {
    let connected = async {
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn ByteStream> = match tls {
            Some((config, name)) => Box::new(TlsConnector::from(config).connect(name, stream).await?),
            None => Box::new(stream),
        };
        Ok(TokioIo::new(stream))
    };
    tokio::time::timeout(CONNECT, connected).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

fn trouble(status: &tonic::Status) -> StoreError {
    let text = status.message();
    match status.code() {
        Code::OutOfRange if text.contains("compacted") => StoreError::Compacted { compact_revision: 0 },
        Code::OutOfRange if text.contains("future revision") => StoreError::FutureRevision { current: 0 },
        Code::ResourceExhausted if text.contains("space") => StoreError::NoSpace(text.to_owned()),
        Code::InvalidArgument if text.contains("too large") => StoreError::TooLarge(text.to_owned()),
        Code::NotFound if text.contains("lease") => StoreError::LeaseNotFound,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::ResourceExhausted => {
            StoreError::Unavailable(text.to_owned())
        }
        _ => StoreError::Fault(format!("{:?}: {text}", status.code())),
    }
}

/// The endpoint was not reached at all, so nothing happened there.
fn unreached(status: &tonic::Status) -> bool {
    status.code() == Code::Unavailable && status.message().contains("connect")
}

/// What a call was answered.
struct Answer<T> {
    value: T,
    /// An endpoint before may have carried it out, and was not heard.
    twice: bool,
}

impl RemoteStore {
    /// Calls one endpoint after the other until one answers, or [`CALL`] is over.
    async fn call<T, F>(&self, make: impl Fn(Channel) -> F) -> Result<Answer<T>, StoreError>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let (count, until) = (self.inner.channels.len(), tokio::time::Instant::now() + CALL);
        let patience = if count > 1 { ATTEMPT } else { CALL };
        let mut at = self.inner.current.load(Ordering::Relaxed);
        let (mut tries, mut twice) = (0, false);
        loop {
            let error = match tokio::time::timeout(patience, make(self.inner.channels[at].clone())).await {
                Ok(Ok(answer)) => {
                    self.inner.current.store(at, Ordering::Relaxed);
                    return Ok(Answer { value: answer.into_inner(), twice });
                }
                Ok(Err(status)) => {
                    let error = trouble(&status);
                    if !matches!(error, StoreError::Unavailable(_)) {
                        return Err(error);
                    }
                    twice |= !unreached(&status);
                    error
                }
                Err(_) => {
                    twice = true;
                    StoreError::Unavailable("no answer in time".to_owned())
                }
            };
            (at, tries) = ((at + 1) % count, tries + 1);
            if tokio::time::Instant::now() + ROUND >= until {
                return Err(error);
            }
            if tries % count == 0 {
                tokio::time::sleep(ROUND).await;
            }
        }
    }
}

/// A request that a member answers only while it has a leader: one that is cut off from the others would else be silent.
fn led<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
    request
}

fn kv(channel: Channel) -> etcd::kv_client::KvClient<Channel> {
    etcd::kv_client::KvClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

#[async_trait]
impl Store for RemoteStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let request = v3::range_request(request);
        let answer = self
            .call(|channel| {
                let request = request.clone();
                async move { kv(channel).range(request).await }
            })
            .await?;
        Ok(v3::range_response(answer.value))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let request = v3::txn_request(txn.clone());
        let answer = self
            .call(|channel| {
                let request = request.clone();
                async move { kv(channel).txn(request).await }
            })
            .await?;
        let outcome = v3::txn_outcome(answer.value);
        Ok(if answer.twice { outcome::settle(&txn, outcome) } else { outcome })
    }

    async fn watch(&self, key: Bytes, end: Bytes, start_revision: i64) -> Result<WatchStream, StoreError> {
        let (requests, receiver) = mpsc::channel(WATCH_QUEUE);
        let create = etcd::WatchCreateRequest {
            key,
            range_end: end,
            start_revision,
            progress_notify: true,
            fragment: true,
            ..etcd::WatchCreateRequest::default()
        };
        let create = etcd::watch_request::RequestUnion::CreateRequest(create);
        let _ = requests.try_send(etcd::WatchRequest { request_union: Some(create) });
        let at = self.inner.current.load(Ordering::Relaxed);
        let mut client = etcd::watch_client::WatchClient::new(self.inner.channels[at].clone())
            .max_decoding_message_size(MAX_MESSAGE);
        let opened = tokio::time::timeout(CALL, client.watch(led(ReceiverStream::new(receiver)))).await;
        let stream = match opened {
            Ok(Ok(answer)) => answer.into_inner(),
            failed => {
                // The next try goes to another server.
                self.inner.current.store((at + 1) % self.inner.channels.len(), Ordering::Relaxed);
                return Err(match failed {
                    Ok(Err(status)) => trouble(&status),
                    _ => StoreError::Unavailable("no answer in time".to_owned()),
                });
            }
        };
        self.inner.watches.lock().push(requests);
        Ok(batches(stream))
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        let progress = etcd::watch_request::RequestUnion::ProgressRequest(etcd::WatchProgressRequest {});
        let request = etcd::WatchRequest { request_union: Some(progress) };
        self.inner.watches.lock().retain(|watch| match watch.try_send(request.clone()) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
        Ok(())
    }

    async fn grant_lease(&self, ttl_seconds: i64) -> Result<i64, StoreError> {
        let request = etcd::LeaseGrantRequest { ttl: ttl_seconds, id: 0 };
        let answer = self
            .call(|channel| async move { etcd::lease_client::LeaseClient::new(channel).lease_grant(request).await })
            .await?;
        Ok(answer.value.id)
    }

    async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        let request = etcd::CompactionRequest { revision, physical: false };
        match self.call(|channel| async move { kv(channel).compact(request).await }).await {
            // Another API server was first.
            Ok(_) | Err(StoreError::Compacted { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn revision(&self) -> Result<i64, StoreError> {
        let key = Bytes::from_static(b"/registry/health");
        let request = RangeRequest { key, limit: 1, keys_only: true, ..RangeRequest::default() };
        Ok(self.range(request).await?.revision)
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let answer = self
            .call(|channel| async move {
                etcd::maintenance_client::MaintenanceClient::new(channel).status(etcd::StatusRequest {}).await
            })
            .await?;
        Ok(StoreStatus { db_size: answer.value.db_size, revision: v3::revision(answer.value.header.as_ref()) })
    }
}

/// Answers of a watch stream as batches; fragments are put together first.
fn batches(stream: tonic::Streaming<etcd::WatchResponse>) -> WatchStream {
    let pending: Vec<StoreEvent> = Vec::new();
    let batches = futures::stream::unfold((stream, pending, false), |(mut stream, mut pending, over)| async move {
        if over {
            return None;
        }
        loop {
            let answer = match stream.next().await? {
                Ok(answer) => answer,
                Err(status) => return Some((Err(trouble(&status)), (stream, pending, true))),
            };
            if answer.canceled {
                let error = match answer.compact_revision {
                    0 => StoreError::Unavailable(format!("the watch was cancelled: {}", answer.cancel_reason)),
                    compact_revision => StoreError::Compacted { compact_revision },
                };
                return Some((Err(error), (stream, pending, true)));
            }
            if answer.created {
                continue;
            }
            let revision = v3::revision(answer.header.as_ref());
            let progress = answer.events.is_empty() && pending.is_empty();
            pending.extend(answer.events.into_iter().filter_map(event));
            if answer.fragment {
                continue;
            }
            let events = std::mem::take(&mut pending);
            let revision = if progress { revision } else { events.last().map_or(0, StoreEvent::revision) };
            return Some((Ok(WatchBatch { revision, events }), (stream, pending, false)));
        }
    });
    batches.boxed()
}

fn event(event: etcd::Event) -> Option<StoreEvent> {
    let deleted = event.r#type == etcd::EventType::Delete as i32;
    let kv = event.kv?;
    Some(match deleted {
        true => StoreEvent::Delete { revision: kv.mod_revision, key: kv.key },
        false => StoreEvent::Put(v3::key_value(kv)),
    })
}
