//! System calls: a put is answered only after the fdatasync that follows its write, and whoever asks for none gets none.

use wire::etcd::PutRequest;
use wire::etcd::kv_client::KvClient;

use crate::child::{NO_FSYNC, Running};
use crate::support::{get, put};

#[tokio::test]
async fn a_put_is_answered_after_its_fdatasync() {
    let dir = tempfile::tempdir().expect("dir");
    let log = dir.path().join("trace");
    let path = log.to_str().expect("a path of ASCII");
    let calls = "trace=pwrite64,fdatasync,write,writev,sendto,sendmsg";
    let strace = ["strace", "-f", "-qq", "-s", "65536", "-e", calls, "-o", path];
    let Some(mut server) = Running::start(&dir.path().join("data"), &strace) else {
        eprintln!("skipped: strace is missing or may not trace");
        return;
    };
    let mut client = KvClient::connect(server.url.clone()).await.expect("connect");
    client.put(put("key", "value-before")).await.expect("put");
    // The answer carries the former value, which marks it in the trace.
    let second = PutRequest { prev_kv: true, ..put("key", "value-after") };
    client.put(second).await.expect("put");
    server.kill();
    let trace = std::fs::read_to_string(&log).expect("trace");
    let lines: Vec<&str> = trace.lines().collect();
    let find = |from: usize, wanted: &dyn Fn(&str) -> bool| {
        lines.iter().skip(from).position(|l| wanted(l)).map(|at| from + at)
    };
    let write = find(0, &|l| l.contains("pwrite64(") && l.contains("value-after")).expect("the log is written");
    let thread = lines[write].split_whitespace().next().expect("a thread");
    let synced = find(write, &|l| {
        l.starts_with(thread) && l.contains("fdatasync") && !l.contains("unfinished") && l.trim_end().ends_with("= 0")
    });
    let synced = synced.expect("the log is synced");
    let socket = |l: &str| {
        let call = ["write(", "writev(", "sendto(", "sendmsg("].iter().any(|c| l.contains(c));
        call && l.contains("value-before") && !l.contains("pwrite64(")
    };
    let answered = find(0, &socket).expect("the put is answered");
    assert!(synced < answered, "synced at line {synced}, answered at line {answered}:\n{}", lines[write..].join("\n"));
}

#[tokio::test]
async fn with_unsafe_no_fsync_nothing_waits_for_the_disk() {
    let dir = tempfile::tempdir().expect("dir");
    let (data, log) = (dir.path().join("data"), dir.path().join("trace"));
    let path = log.to_str().expect("a path of ASCII");
    let strace = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync,sync_file_range,execve", "-o", path];
    let Some(mut server) = Running::start_with(&data, &strace, Some(NO_FSYNC)) else {
        eprintln!("skipped: strace is missing or may not trace");
        return;
    };
    let mut client = KvClient::connect(server.url.clone()).await.expect("connect");
    for n in 0..20 {
        client.put(put(format!("key{n}"), "value")).await.expect("put");
    }
    server.kill();
    let trace = std::fs::read_to_string(&log).expect("trace");
    assert!(trace.contains("execve("), "it was traced");
    let synced: Vec<&str> = trace.lines().filter(|l| l.contains("sync")).collect();
    assert!(synced.is_empty(), "{synced:?}");
    // A process that is killed loses nothing by it.
    let server = Running::start(&data, &[]).expect("the server starts again");
    let mut client = KvClient::connect(server.url.clone()).await.expect("connect");
    let found = client.range(get("key19")).await.expect("range").into_inner();
    assert_eq!(found.kvs.first().map(|kv| kv.value.clone()), Some("value".into()));
}
