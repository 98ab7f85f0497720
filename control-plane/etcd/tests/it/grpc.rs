//! The gRPC services, through generated clients: what the real client's tests can't see or rely on.

use std::time::Duration;

use etcd::daemon::{Config, Daemon};
use futures::stream;
use testkit::http2::{Answer, Ask, ask};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Streaming};
use wire::etcd::kv_client::KvClient;
use wire::etcd::lease_client::LeaseClient;
use wire::etcd::watch_client::WatchClient;
use wire::etcd::watch_request::RequestUnion;
use wire::etcd::{
    CompactionRequest, LeaseGrantRequest, LeaseKeepAliveRequest, RangeRequest, WatchCancelRequest, WatchCreateRequest,
    WatchProgressRequest, WatchRequest, WatchResponse,
};

use crate::support::{all, bytes, get, put};

/// A server in this process; stops when dropped.
struct Serving {
    url: String,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serving(change: impl FnOnce(&mut Config)) -> Serving {
    let dir = tempfile::tempdir().expect("dir");
    let mut config = Config {
        data_dir: dir.path().join("data"),
        listen_client_urls: vec!["http://127.0.0.1:0".into()],
        ..Config::default()
    };
    change(&mut config);
    let daemon = Daemon::start(config).await.expect("start");
    let (url, stop) = (daemon.urls()[0].clone(), CancellationToken::new());
    tokio::spawn(daemon.serve(stop.clone()));
    Serving { url, stop, _dir: dir }
}

#[tokio::test]
async fn silent_connections_do_not_close_etcds_port() {
    let server = serving(|_| ()).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut silent = Vec::new();
    // More than the port holds.
    for _ in 0..2500 {
        silent.push(tokio::net::TcpStream::connect(&address).await.expect("connected"));
    }
    let call = async {
        let mut client = KvClient::connect(server.url.clone()).await.expect("connect");
        client.range(RangeRequest { key: b"a".to_vec().into(), ..RangeRequest::default() }).await
    };
    assert!(tokio::time::timeout(Duration::from_secs(5), call).await.expect("in time").is_ok());
}

#[tokio::test]
async fn open_watches_and_leases_do_not_keep_a_server_from_ending() {
    let dir = tempfile::tempdir().expect("dir");
    let urls = vec!["http://127.0.0.1:0".to_owned()];
    let config = Config { data_dir: dir.path().join("data"), listen_client_urls: urls, ..Config::default() };
    let daemon = Daemon::start(config).await.expect("start");
    let (url, stop) = (daemon.urls()[0].clone(), CancellationToken::new());
    let serving = tokio::spawn(daemon.serve(stop.clone()));
    let mut watching = Watching::open(&url).await;
    watching.create(WatchCreateRequest { key: bytes("a"), ..WatchCreateRequest::default() });
    assert!(watching.next().await.created);
    let (_requests, mut waiting) = mpsc::unbounded_channel::<LeaseKeepAliveRequest>();
    let mut client = LeaseClient::connect(url.clone()).await.expect("connect");
    let mut alive =
        client.lease_keep_alive(stream::poll_fn(move |cx| waiting.poll_recv(cx))).await.expect("open").into_inner();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(2), serving).await.expect("it ends at once").expect("served");
    // Not an end in order: then clients would take it for the end of the watch.
    let told = watching.answers.message().await.expect_err("the server stopped");
    assert_eq!((told.code(), told.message()), (Code::Unavailable, "etcdserver: server stopped"));
    assert_eq!(alive.message().await.expect_err("the server stopped").code(), Code::Unavailable);
}

#[tokio::test]
async fn a_call_whose_authority_is_a_whole_url_is_answered() {
    let server = serving(|_| ()).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    // As etcdctl 3.4 says it, and as clients of a unix socket do.
    for authority in [&server.url, &address, "%2Frun%2Fetcd.sock", "/run/etcd.sock", ""] {
        for (path, grpc) in
            [("/etcdserverpb.Maintenance/Status", true), ("/etcdserverpb.KV/Range", true), ("/health", false)]
        {
            let mut stream = tokio::net::TcpStream::connect(&address).await.expect("connected");
            let answer = ask(&mut stream, &Ask { authority, path, grpc }).await.expect("an answer");
            assert_eq!(answer, Answer::Status(200), "{authority:?} {path}");
        }
    }
}

/// A watch stream: requests in, answers out.
struct Watching {
    requests: mpsc::UnboundedSender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Watching {
    async fn open(url: &str) -> Watching {
        let (requests, mut waiting) = mpsc::unbounded_channel();
        let mut client = WatchClient::connect(url.to_owned()).await.expect("connect");
        let answers = client.watch(stream::poll_fn(move |cx| waiting.poll_recv(cx))).await.expect("watch");
        Watching { requests, answers: answers.into_inner() }
    }

    fn ask(&self, request: RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(request) }).expect("open");
    }

    fn create(&self, create: WatchCreateRequest) {
        self.ask(RequestUnion::CreateRequest(create));
    }

    async fn next(&mut self) -> WatchResponse {
        let next = tokio::time::timeout(Duration::from_secs(10), self.answers.message());
        next.await.expect("in time").expect("no error").expect("not the end")
    }
}

fn watch_all() -> WatchCreateRequest {
    WatchCreateRequest { key: bytes("k"), range_end: bytes("l"), ..WatchCreateRequest::default() }
}

#[tokio::test]
async fn a_watch_stream_creates_tells_and_cancels() {
    let server = serving(|_| {}).await;
    let mut kv = KvClient::connect(server.url.clone()).await.expect("connect");
    let mut watching = Watching::open(&server.url).await;
    watching.create(watch_all());
    let created = watching.next().await;
    assert_eq!((created.created, created.watch_id, created.header.expect("header").revision), (true, 0, 1));
    watching.create(WatchCreateRequest { watch_id: 9, prev_kv: true, filters: vec![1], ..watch_all() });
    assert_eq!(watching.next().await.watch_id, 9);
    watching.create(WatchCreateRequest { watch_id: 9, ..watch_all() });
    let refused = watching.next().await;
    assert!(refused.created && refused.canceled && refused.watch_id == -1);
    assert_eq!(refused.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    watching.create(WatchCreateRequest { range_end: bytes("a"), ..watch_all() });
    assert_eq!(watching.next().await.cancel_reason, "mvcc: watcher range is empty");

    kv.put(put("k1", "a")).await.expect("put");
    kv.put(put("k1", "b")).await.expect("put");
    let mut told = std::collections::BTreeMap::<i64, Vec<_>>::new();
    while told.values().map(Vec::len).sum::<usize>() < 4 {
        let answer = watching.next().await;
        told.entry(answer.watch_id).or_default().extend(answer.events);
    }
    assert!(told[&0].iter().all(|e| e.prev_kv.is_none()));
    assert_eq!(told[&9][1].prev_kv.as_ref().expect("previous").value, "a");

    watching.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 }));
    let canceled = watching.next().await;
    assert!(canceled.canceled && canceled.watch_id == 0 && canceled.compact_revision == 0);
    watching.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    let progress = watching.next().await;
    assert_eq!((progress.watch_id, progress.header.expect("header").revision, progress.events.len()), (-1, 3, 0));

    kv.compact(CompactionRequest { revision: 3, physical: true }).await.expect("compact");
    watching.create(WatchCreateRequest { start_revision: 2, ..watch_all() });
    assert!(watching.next().await.created);
    let compacted = watching.next().await;
    assert!(compacted.canceled && compacted.compact_revision == 3);
}

#[tokio::test]
async fn an_idle_watch_is_told_the_revision_and_large_answers_come_in_fragments() {
    let server = serving(|config| {
        config.watch_progress_notify_interval = Duration::from_millis(200);
        config.max_request_bytes = 300 << 10;
    })
    .await;
    let mut kv = KvClient::connect(server.url.clone()).await.expect("connect");
    for n in 0..8 {
        kv.put(put(format!("k{n}"), vec![b'x'; 250 << 10])).await.expect("put");
    }
    let mut watching = Watching::open(&server.url).await;
    watching.create(WatchCreateRequest { start_revision: 2, fragment: true, progress_notify: true, ..watch_all() });
    assert!(watching.next().await.created);
    let mut events = 0;
    let mut fragments = 0;
    while events < 8 {
        let answer = watching.next().await;
        events += answer.events.len();
        fragments += usize::from(answer.fragment);
    }
    assert!(fragments >= 1, "2 MB in pieces of 0.8 MB");
    kv.put(put("elsewhere", "x")).await.expect("put");
    loop {
        let progress = watching.next().await;
        assert!(progress.events.is_empty() && progress.watch_id == 0);
        if progress.header.expect("header").revision == 10 {
            break;
        }
    }
}

#[tokio::test]
async fn errors_have_upstreams_codes() {
    let server = serving(|_| {}).await;
    let mut kv = KvClient::connect(server.url.clone()).await.expect("connect");
    kv.put(put("k", "v")).await.expect("put");
    let future = kv.range(RangeRequest { revision: 99, ..get("k") }).await.expect_err("future");
    assert_eq!(
        (future.code(), future.message()),
        (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
    );
    let empty = kv.put(put("", "v")).await.expect_err("no key");
    assert_eq!((empty.code(), empty.message()), (Code::InvalidArgument, "etcdserver: key is not provided"));
    let large = kv.put(put("k", vec![0; 1_600_000])).await.expect_err("too large");
    assert_eq!((large.code(), large.message()), (Code::InvalidArgument, "etcdserver: request is too large"));
    let lease = kv.put(wire::etcd::PutRequest { lease: 5, ..put("k", "v") }).await.expect_err("no lease");
    assert_eq!((lease.code(), lease.message()), (Code::NotFound, "etcdserver: requested lease not found"));
}

#[tokio::test]
async fn a_streamed_range_is_the_range_in_pieces() {
    let server = serving(|_| {}).await;
    let mut kv = KvClient::connect(server.url.clone()).await.expect("connect");
    for n in 0..300 {
        kv.put(put(format!("k{n:03}"), "v")).await.expect("put");
    }
    for request in
        [all(), RangeRequest { limit: 100, ..all() }, RangeRequest { count_only: true, ..all() }, get("k005")]
    {
        let whole = kv.range(request.clone()).await.expect("range").into_inner();
        let mut pieces = kv.range_stream(request).await.expect("stream").into_inner();
        let mut merged = wire::etcd::RangeResponse::default();
        let mut count = 0;
        while let Some(piece) = pieces.message().await.expect("piece") {
            let piece = piece.range_response.expect("a range");
            merged.kvs.extend(piece.kvs);
            merged.header = piece.header.or(merged.header);
            (merged.more, merged.count) = (piece.more, piece.count);
            count += 1;
        }
        assert_eq!(merged, whole);
        assert!(count > 1 || whole.kvs.len() <= 64);
    }
}

#[tokio::test]
async fn a_lease_is_kept_alive_by_its_stream() {
    let server = serving(|_| {}).await;
    let mut leases = LeaseClient::connect(server.url.clone()).await.expect("connect");
    let id = leases.lease_grant(LeaseGrantRequest { ttl: 100, id: 0 }).await.expect("grant").into_inner().id;
    let asked = stream::iter([id, 12345].map(|id| LeaseKeepAliveRequest { id }));
    let mut answers = leases.lease_keep_alive(asked).await.expect("keep alive").into_inner();
    assert_eq!(answers.message().await.expect("answer").expect("first").ttl, 100);
    assert_eq!(answers.message().await.expect("answer").expect("second").ttl, 0, "0 tells that the lease is gone");
}

#[tokio::test]
async fn an_unknown_service_and_a_taken_port_are_refused() {
    let server = serving(|_| {}).await;
    let dir = tempfile::tempdir().expect("dir");
    let data = dir.path().join("data");
    let config = Config { data_dir: data.clone(), listen_client_urls: vec![server.url.clone()], ..Config::default() };
    let refused = Daemon::start(config).await.err().expect("in use").to_string();
    assert!(refused.contains(&server.url) && refused.contains("in use"), "{refused}");
    assert!(!data.exists(), "nothing is left behind");
    let bad = Config { data_dir: data, listen_client_urls: vec!["localhost".into()], ..Config::default() };
    let refused = Daemon::start(bad).await.err().expect("no URL").to_string();
    assert!(refused.contains("http://127.0.0.1:2379"), "{refused}");
}

#[tokio::test]
async fn a_message_that_goes_on_behind_its_length_is_refused_and_not_gathered() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let server = serving(|_| {}).await;
    let mut channel =
        tonic::transport::Channel::from_shared(server.url.clone()).expect("url").connect().await.expect("connect");
    let sent = Arc::new(AtomicUsize::new(0));
    const PIECE: usize = 64 << 10;
    const MOST: usize = 64 << 20;
    let counted = sent.clone();
    let pieces = stream::unfold(true, move |first| {
        let sent = counted.fetch_add(PIECE, Ordering::Relaxed);
        // "Not compressed, 5 bytes", and then whatever comes.
        let head = if first { vec![0, 0, 0, 0, 5] } else { vec![1; PIECE] };
        let frame = http_body::Frame::data(hyper::body::Bytes::from(head));
        async move { (sent < MOST).then_some((Ok::<_, std::convert::Infallible>(frame), false)) }
    });
    let body = tonic::body::Body::new(http_body_util::StreamBody::new(pieces));
    let request = hyper::Request::post(format!("{}/etcdserverpb.KV/Range", server.url))
        .header("content-type", "application/grpc")
        .body(body)
        .expect("request");
    std::future::poll_fn(|cx| tonic::codegen::Service::poll_ready(&mut channel, cx)).await.expect("ready");
    let answer = tonic::codegen::Service::call(&mut channel, request).await.expect("an answer");
    assert_eq!(answer.headers().get("grpc-status").map(|s| s.as_bytes()), Some(&b"13"[..]), "{answer:?}");
    assert!(sent.load(Ordering::Relaxed) < 16 << 20, "{} bytes were taken", sent.load(Ordering::Relaxed));
}

#[tokio::test]
async fn transactions_in_transactions_and_leases_are_bounded_in_all() {
    use wire::etcd::request_op::Request as Op;
    use wire::etcd::{RequestOp, TxnRequest};

    let dir = tempfile::tempdir().expect("dir");
    let etcd = etcd::Etcd::open(etcd::Options { max_leases: 2, ..etcd::Options::new(dir.path()) }).expect("open");
    let op = |request| RequestOp { request: Some(request) };
    let nested = |lists: [usize; 3]| {
        let [outer, middle, inner] = lists;
        let txn = |success| TxnRequest { success, ..TxnRequest::default() };
        let ranges = |n: usize| (0..n).map(|_| op(Op::RequestRange(get("k")))).collect::<Vec<_>>();
        let middles: Vec<_> = (0..middle).map(|_| op(Op::RequestTxn(txn(ranges(inner))))).collect();
        txn((0..outer).map(|_| op(Op::RequestTxn(txn(middles.clone())))).collect())
    };
    etcd.txn(nested([10, 10, 10])).await.expect("a thousand are fine");
    let refused = etcd.txn(nested([40, 40, 40])).await.expect_err("64,000");
    assert_eq!(refused.to_string(), "etcdserver: too many operations in txn request");
    for _ in 0..2 {
        etcd.lease_grant(0, 60).await.expect("granted");
    }
    let refused = etcd.lease_grant(0, 60).await.expect_err("the third");
    assert_eq!(refused.to_string(), "etcdserver: too many requests");
    etcd.close();
}
