//! What the tests share: small stores in temporary directories, and requests.

use bytes::Bytes;
use etcd::{Etcd, Options};
use wire::etcd::{PutRequest, RangeRequest};

/// Options of a store with small files, so that tests see them change.
pub fn small(dir: &std::path::Path) -> Options {
    Options { segment_bytes: 64 << 10, checkpoint_bytes: 1 << 30, max_request_bytes: 16 << 10, ..Options::new(dir) }
}

pub fn bytes(text: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref())
}

pub fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

pub fn get(key: impl AsRef<[u8]>) -> RangeRequest {
    RangeRequest { key: bytes(key), ..RangeRequest::default() }
}

/// Every key.
pub fn all() -> RangeRequest {
    RangeRequest { range_end: bytes([0]), ..get([0]) }
}

/// All keys and values, as text.
pub async fn contents(etcd: &Etcd) -> Vec<(String, String)> {
    let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
    let answer = etcd.range(all()).await.expect("range");
    answer.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
}
