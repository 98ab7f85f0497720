//! The v3 gRPC services over a store, and the plain HTTP pages beside them on the same port. Answers, error texts and
//! codes are upstream's. Caller: `daemon`.

mod http;
mod kv;
mod lease;
pub mod listen;
mod maintenance;
mod status;
mod unary;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service as _;
use wire::etcd::ResponseHeader;
use wire::etcd::cluster_server::ClusterServer;
use wire::etcd::kv_server::KvServer;
use wire::etcd::lease_server::LeaseServer;
use wire::etcd::maintenance_server::MaintenanceServer;
use wire::etcd::watch_server::WatchServer;

use crate::Etcd;

/// The etcd release whose API this is; clients choose features by it.
pub const VERSION: &str = "3.7.3";
/// The cluster and storage version that goes with it.
pub const CLUSTER_VERSION: &str = "3.7.0";

/// What a request may be larger than `max_request_bytes` by, so that it is refused with etcd's own error.
const RECEIVE_SLACK: usize = 512 << 10;

/// The services of one member. Cloning shares it.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    etcd: Etcd,
    /// How often an idle watch that asked for it is told the revision.
    progress_interval: Duration,
    /// Watches that are open on all streams.
    watches: AtomicUsize,
    /// Streams that last end then: whoever stops a server would wait for them.
    ending: CancellationToken,
}

/// What a stream ends with whose server stops: clients go on elsewhere, or here later.
fn stopped() -> tonic::Status {
    tonic::Status::unavailable("etcdserver: server stopped")
}

/// What a connection is answered with.
type Response = hyper::Response<tonic::body::Body>;

impl Server {
    pub fn new(etcd: Etcd, progress_interval: Duration) -> Server {
        let (watches, ending) = (AtomicUsize::new(0), CancellationToken::new());
        Server(Arc::new(Inner { etcd, progress_interval, watches, ending }))
    }

    /// Ends the streams that last.
    pub fn end(&self) {
        self.0.ending.cancel();
    }

    fn etcd(&self) -> &Etcd {
        &self.0.etcd
    }

    fn header(&self, revision: i64) -> Option<ResponseHeader> {
        Some(self.etcd().header(revision))
    }

    /// A header at the newest revision.
    fn header_now(&self) -> Option<ResponseHeader> {
        self.header(self.etcd().revision())
    }

    /// Largest message taken off the wire.
    fn receive_limit(&self) -> usize {
        self.etcd().options().max_request_bytes + RECEIVE_SLACK
    }

    /// Answers one HTTP request: gRPC by its path, else a page.
    pub async fn answer(self, request: hyper::Request<serving::Body>) -> Response {
        let limit = self.receive_limit();
        let service = request.uri().path().strip_prefix("/etcdserverpb.").and_then(|p| p.split('/').next());
        let service = service.unwrap_or_default().to_owned();
        macro_rules! call {
            ($server:ident) => {{
                let server = $server::new(self).max_decoding_message_size(limit).max_encoding_message_size(usize::MAX);
                let mut server = server;
                server.call(request).await.unwrap_or_else(|never| match never {})
            }};
        }
        match service.as_str() {
            "KV" => match unary::Method::of(&request) {
                Some(method) => unary::answer(&self, method, request.into_body(), limit).await,
                None => call!(KvServer),
            },
            "Watch" => call!(WatchServer),
            "Lease" => call!(LeaseServer),
            "Cluster" => call!(ClusterServer),
            "Maintenance" => call!(MaintenanceServer),
            _ if http::is_grpc(&request) => http::unimplemented(),
            _ => http::page(&self, &request),
        }
    }
}

/// A copy of bytes that are a piece of a request buffer: what the store keeps must not keep the buffer.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
