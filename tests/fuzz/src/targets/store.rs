//! etcd: requests of its gRPC interface against a store, and the files of a data directory that somebody damaged. I/O.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use etcd::{Etcd, Options};
use prost::Message;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use wire::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::etcd::request_op::Request;
use wire::etcd::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

use crate::input::{join, parts};
use crate::table::{FLAT, Target};

pub const TARGETS: &[Target] = &[
    Target {
        name: "etcd-requests",
        what: "requests to etcd",
        run: requests,
        seeds: request_seeds,
        memory: 3000,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "wal",
        what: "a data directory: its log, damaged",
        run: log,
        seeds: logs,
        memory: 200,
        nests: FLAT,
        depth: 0,
    },
    Target {
        name: "snapshot",
        what: "a snapshot to restore",
        run: snapshot,
        seeds: snapshots,
        memory: 200,
        nests: FLAT,
        depth: 0,
    },
];

/// Memory where there is some: thousands of stores are made, and none must last.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a directory")
}

/// Small files, so that an input is a whole one.
fn options(dir: &Path) -> Options {
    Options {
        segment_bytes: 16 << 10,
        checkpoint_bytes: 1 << 30,
        max_request_bytes: 8 << 10,
        recent_bytes: 64 << 10,
        ..Options::new(dir)
    }
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

/// One store for all requests of a process; what they write is little, and compacted away.
static STORE: LazyLock<(TempDir, Etcd)> = LazyLock::new(|| {
    let dir = directory();
    let etcd = Etcd::open(options(dir.path())).expect("a store");
    (dir, etcd)
});

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..PutRequest::default() }
}

fn request_seeds() -> Vec<Vec<u8>> {
    let op = |request| RequestOp { request: Some(request) };
    let range = RangeRequest { key: "a".into(), range_end: "z".into(), limit: 3, ..RangeRequest::default() };
    let delete = DeleteRangeRequest { key: "a".into(), prev_kv: true, ..DeleteRangeRequest::default() };
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: "a".into(),
        target_union: Some(TargetUnion::ModRevision(0)),
        ..Compare::default()
    };
    let inner = TxnRequest {
        compare: vec![compare.clone()],
        success: vec![op(Request::RequestRange(range.clone()))],
        failure: vec![],
    };
    let txn = TxnRequest {
        compare: vec![compare],
        success: vec![op(Request::RequestPut(put("a", "b"))), op(Request::RequestTxn(inner))],
        failure: vec![op(Request::RequestDeleteRange(delete.clone())), op(Request::RequestRange(range.clone()))],
    };
    let with = |kind: u8, message: Vec<u8>| [vec![kind], message].concat();
    vec![
        with(0, range.encode_to_vec()),
        with(1, put("k", "v").encode_to_vec()),
        with(2, delete.encode_to_vec()),
        with(3, txn.encode_to_vec()),
    ]
}

fn requests(input: &[u8]) {
    let Some((kind, message)) = input.split_first() else { return };
    let etcd = &STORE.1;
    // The server refuses more before it comes here.
    if message.len() > etcd.options().max_request_bytes {
        return;
    }
    let before = etcd.revision();
    let _: Option<()> = RUNTIME.block_on(async {
        match kind % 4 {
            0 => drop(etcd.range(decoded(message)?).await),
            1 => drop(etcd.put(decoded(message)?).await),
            2 => drop(etcd.delete(decoded(message)?).await),
            _ => drop(etcd.txn(decoded(message)?).await),
        }
        let now = etcd.revision();
        assert!(now == before || now == before + 1, "one request is one revision at most");
        if now % 256 == 0 && now > 1 {
            let _ = etcd.compact(now - 1, true).await;
        }
        Some(())
    });
}

fn decoded<T: Message + Default>(message: &[u8]) -> Option<T> {
    T::decode(message).ok()
}

/// The directory of a store that wrote a little and was killed: log and identity by name.
fn killed() -> Vec<(String, Vec<u8>)> {
    let dir = directory();
    let etcd = Etcd::open(options(dir.path())).expect("a store");
    RUNTIME.block_on(async {
        for n in 0..4 {
            let _ = etcd.put(put(&format!("key{n}"), "value")).await;
        }
        let _ = etcd.lease_grant(7, 60).await;
        let _ = etcd.delete(DeleteRangeRequest { key: "key1".into(), ..DeleteRangeRequest::default() }).await;
        let _ = etcd.compact(3, false).await;
    });
    // Before its end is written, as a power cut leaves it.
    let files = fs::read_dir(dir.path()).into_iter().flatten().flatten();
    let files = files.filter_map(|f| Some((f.file_name().into_string().ok()?, fs::read(f.path()).ok()?))).collect();
    etcd.close();
    files
}

static KILLED: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(killed);

/// The same of the release whose frames had no term, which the tests of etcd keep; without the segment made ahead.
static FORMER: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../control-plane/etcd/tests/it/format-2");
    let read = |name: &str| (name.to_owned(), fs::read(kept.join(name)).expect("a kept file"));
    ["identity", "checkpoint-0000000000000002.db", "wal-0000000000000002.log"].map(read).into()
});

fn first_log(directory: &[(String, Vec<u8>)]) -> &(String, Vec<u8>) {
    directory.iter().find(|(name, _)| name.starts_with("wal-")).expect("a log")
}

fn logs() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for whole in [&*KILLED, &*FORMER].map(|directory| &first_log(directory).1) {
        let used = whole.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        seeds.extend([used, used / 2, 64.min(used)].map(|end| whole[..end].to_vec()));
    }
    seeds
}

/// The input is the log as far as it was used; the rest of the file is zeros, as in any preallocated one. Its head says
/// whose it is.
fn log(input: &[u8]) {
    let dir = directory();
    let former = input.starts_with(b"fkwal 1") || input.starts_with(b"fkwal 2");
    let files = if former { &*FORMER } else { &*KILLED };
    let (name, whole) = first_log(files);
    for (other, bytes) in files.iter().filter(|(other, _)| other != name) {
        fs::write(dir.path().join(other), bytes).expect("a file");
    }
    let mut bytes = input.to_vec();
    bytes.resize(whole.len().max(input.len()), 0);
    fs::write(dir.path().join(name), bytes).expect("a log");
    let Ok(etcd) = Etcd::open(options(dir.path())) else { return };
    // What was opened works, and what it holds is there when it is opened again.
    let revision = etcd.revision();
    let written = RUNTIME.block_on(etcd.put(put("new", "value")));
    etcd.close();
    drop(etcd);
    let again = Etcd::open(options(dir.path())).expect("what was repaired opens again");
    assert_eq!(again.revision(), revision + i64::from(written.is_ok()), "nothing is lost or made up");
    again.close();
}

fn snapshots() -> Vec<Vec<u8>> {
    let dir = directory();
    let etcd = Etcd::open(options(dir.path())).expect("a store");
    let file = RUNTIME.block_on(async {
        let _ = etcd.put(put("key", "value")).await;
        let _ = etcd.lease_grant(7, 60).await;
        etcd.snapshot().await.ok()
    });
    let mut bytes = Vec::new();
    if let Some(mut file) = file {
        use std::io::{Read, Seek, SeekFrom};
        let _ = file.seek(SeekFrom::Start(0));
        let _ = file.read_to_end(&mut bytes);
    }
    etcd.close();
    vec![join(&[b"", &bytes])]
}

/// What a client saves is the file, padded, and its SHA-256: an input has the right one unless it begins with a byte.
fn snapshot(input: &[u8]) {
    let [wrong, body] = parts(input);
    let dir = directory();
    let file = dir.path().join("snapshot");
    let mut bytes = body.to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let sum = runtime::digest::of(&bytes);
    let hex = sum.trim_start_matches("sha256:").as_bytes();
    let sum = hex.chunks(2).filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    bytes.extend(sum);
    bytes.extend_from_slice(wrong);
    fs::write(&file, bytes).expect("a file");
    let into = dir.path().join("data");
    fs::create_dir(&into).expect("a directory");
    if etcd::engine::restore::restore(&file, &options(&into)).is_ok() {
        let etcd = Etcd::open(options(&into)).expect("what was restored opens");
        etcd.close();
    }
}
