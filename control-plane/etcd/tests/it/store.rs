//! The in-process store: reads, watches, leases, compaction, checkpoints, quota, snapshots.

use std::time::Duration;

use etcd::cluster::Member;
use etcd::{Error, Etcd, Options, WatchMessage, WatchOptions, Watcher};
use wire::etcd::{DeleteRangeRequest, RangeRequest};

use crate::support::{all, bytes, contents, get, put, small};

fn prefix(text: &str) -> WatchOptions {
    let mut end = text.as_bytes().to_vec();
    *end.last_mut().expect("not empty") += 1;
    WatchOptions { key: bytes(text), range_end: end.into(), ..WatchOptions::default() }
}

/// Reads changes until `count` have come, as `revision key value`.
async fn changes(watch: &mut Watcher, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    while told.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(10), watch.next());
        match next.await.expect("in time") {
            Some(WatchMessage::Changes { changes, .. }) => told.extend(changes.iter().map(|c| {
                let (key, value) = (String::from_utf8_lossy(&c.kv.key), String::from_utf8_lossy(&c.kv.value));
                format!("{} {key} {}", c.kv.mod_revision, if c.deleted { "deleted".into() } else { value })
            })),
            other => panic!("{other:?}"),
        }
    }
    told
}

#[tokio::test]
async fn what_is_written_is_read_at_every_revision_and_after_a_restart() {
    let dir = tempfile::tempdir().expect("dir");
    let etcd = Etcd::open(small(dir.path())).expect("open");
    assert_eq!(etcd.revision(), 1);
    etcd.put(put("a", "1")).await.expect("put");
    etcd.put(put("a", "2")).await.expect("put");
    etcd.delete(DeleteRangeRequest { key: bytes("a"), ..Default::default() }).await.expect("delete");
    for _ in 0..2 {
        let at = |revision| RangeRequest { revision, ..get("a") };
        assert_eq!(etcd.range(at(2)).await.expect("range").kvs[0].value, "1");
        assert_eq!(etcd.range(at(3)).await.expect("range").kvs[0].version, 2);
        assert!(etcd.range(at(0)).await.expect("range").kvs.is_empty());
        assert_eq!(etcd.range(at(9)).await, Err(Error::FutureRevision { current: 4 }));
        etcd.defragment().await.expect("defragment");
    }
    etcd.close();
    drop(etcd);
    let etcd = Etcd::open(small(dir.path())).expect("open");
    assert_eq!(etcd.revision(), 4);
    assert_eq!(etcd.range(RangeRequest { revision: 3, ..get("a") }).await.expect("range").kvs[0].value, "2");
    etcd.close();
    assert_eq!(etcd.put(put("a", "3")).await, Err(Error::Stopped));
}

#[tokio::test]
async fn a_watch_sees_history_then_the_present_and_misses_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let options = Options { recent_bytes: 2000, ..small(dir.path()) };
    let etcd = Etcd::open(options.clone()).expect("open");
    for n in 0..20 {
        etcd.put(put(format!("k/{n:02}"), "x")).await.expect("put");
        etcd.put(put("other", "y")).await.expect("put");
    }
    let mut old = etcd.watch(WatchOptions { start_revision: 1, ..prefix("k/") });
    let mut now = etcd.watch(prefix("k/"));
    let mut one = etcd.watch(WatchOptions { key: bytes("k/05"), start_revision: 50, ..WatchOptions::default() });
    let delete = DeleteRangeRequest { key: bytes("k/"), range_end: bytes("k/10"), prev_kv: true };
    assert_eq!(etcd.delete(delete).await.expect("delete").prev_kvs.len(), 10);
    let seen = changes(&mut old, 30).await;
    assert_eq!((seen[0].as_str(), seen[19].as_str(), seen[20].as_str()), ("2 k/00 x", "40 k/19 x", "42 k/00 deleted"));
    assert_eq!(changes(&mut now, 10).await, seen[20..]);
    for n in 0..10 {
        etcd.put(put("k/05", format!("{n}"))).await.expect("put");
    }
    assert_eq!(changes(&mut one, 3).await, ["50 k/05 7", "51 k/05 8", "52 k/05 9"], "a start in the future");
    etcd.compact(45, true).await.expect("compact");
    let mut late = etcd.watch(WatchOptions { start_revision: 44, ..prefix("k/") });
    assert!(matches!(late.next().await, Some(WatchMessage::Compacted { compact_revision: 45 })));
    let mut just = etcd.watch(WatchOptions { start_revision: 45, prev_kv: true, ..prefix("k/") });
    assert_eq!(changes(&mut just, 8).await[0], "45 k/05 2");
    etcd.close();
    assert!(just.next().await.is_none(), "a closed store ends its watches");
}

#[tokio::test]
async fn a_watch_that_falls_behind_catches_up() {
    let dir = tempfile::tempdir().expect("dir");
    let etcd = Etcd::open(Options { recent_bytes: 10_000, ..Options::new(dir.path()) }).expect("open");
    let mut watch = etcd.watch(WatchOptions { prev_kv: true, ..prefix("k") });
    let writes = (0..9000).map(|n| etcd.put(put(format!("k{}", n % 100), format!("{n}"))));
    for done in futures::future::join_all(writes).await {
        done.expect("put");
    }
    let mut expected = 2;
    while expected < 9002 {
        let Some(WatchMessage::Changes { changes, .. }) = watch.next().await else { panic!("no changes") };
        for change in changes {
            assert_eq!(change.kv.mod_revision, expected);
            let before = change.prev_kv.get().expect("loaded").as_ref().map(|kv| kv.value.clone());
            assert_eq!(before.is_some(), expected >= 102, "revision {expected}");
            expected += 1;
        }
    }
    etcd.close();
}

#[tokio::test]
async fn progress_says_up_to_where_a_watch_is() {
    let dir = tempfile::tempdir().expect("dir");
    let etcd = Etcd::open(small(dir.path())).expect("open");
    let mut watch = etcd.watch(WatchOptions { progress: true, ..prefix("k") });
    etcd.put(put("elsewhere", "1")).await.expect("put");
    etcd.request_progress();
    assert!(matches!(watch.next().await, Some(WatchMessage::Progress { revision: 2 })));
    etcd.close();
}

#[tokio::test]
async fn a_lease_takes_its_keys_along() {
    let dir = tempfile::tempdir().expect("dir");
    let etcd = Etcd::open(small(dir.path())).expect("open");
    let short = etcd.lease_grant(0, 1).await.expect("grant");
    let long = etcd.lease_grant(77, 600).await.expect("grant");
    assert_eq!((long.id, long.ttl, etcd.leases().len()), (77, 600, 2));
    assert_eq!(etcd.lease_grant(77, 5).await.err(), Some(Error::LeaseExists));
    let on = |key: &str, lease| wire::etcd::PutRequest { lease, ..put(key, "v") };
    etcd.put(on("short", short.id)).await.expect("put");
    etcd.put(on("long", 77)).await.expect("put");
    assert_eq!(etcd.put(on("none", 5)).await.err(), Some(Error::LeaseNotFound));
    let mut watch = etcd.watch(WatchOptions { key: bytes("short"), ..WatchOptions::default() });
    assert_eq!(etcd.lease_time_to_live(77, true).keys, [bytes("long")]);
    assert_eq!(etcd.lease_keep_alive(77), Ok(600));
    assert_eq!(changes(&mut watch, 1).await, ["4 short deleted"], "expiry");
    assert_eq!(etcd.lease_time_to_live(short.id, true).ttl, -1);
    etcd.close();
    drop(etcd);
    let etcd = Etcd::open(small(dir.path())).expect("open");
    assert_eq!(etcd.leases(), [77]);
    assert_eq!(etcd.lease_revoke(77).await, Ok(5));
    assert_eq!(contents(&etcd).await, []);
    etcd.close();
}

#[tokio::test]
async fn checkpoints_bound_the_disk_and_lose_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let options = Options { checkpoint_bytes: 256 << 10, recent_bytes: 4000, ..small(dir.path()) };
    let etcd = Etcd::open(options.clone()).expect("open");
    for round in 0..60 {
        let writes = (0..20).map(|n| etcd.put(put(format!("k{n:02}"), format!("{round}-{n}-{}", "x".repeat(2000)))));
        futures::future::try_join_all(writes).await.expect("puts");
        if round % 3 == 0 {
            etcd.compact(etcd.revision(), true).await.expect("compact");
        }
        for (key, value) in contents(&etcd).await {
            assert!(value.starts_with(&format!("{round}-{}-", key[1..].parse::<u32>().expect("number"))));
        }
    }
    etcd.compact(etcd.revision(), true).await.expect("compact");
    etcd.defragment().await.expect("defragment");
    let on_disk: u64 = std::fs::read_dir(dir.path())
        .expect("list")
        .map(|e| e.expect("entry").metadata().expect("metadata").len())
        .sum();
    assert!(on_disk < 4 * (64 << 10), "2.4 MB were written, 41 KB are kept: {on_disk}");
    let before = contents(&etcd).await;
    let hash = etcd.hash_kv(0).await.expect("hash");
    etcd.close();
    drop(etcd);
    let etcd = Etcd::open(options).expect("open");
    assert_eq!(contents(&etcd).await, before);
    assert_eq!(etcd.hash_kv(0).await.expect("hash"), hash);
    etcd.close();
}

#[tokio::test]
async fn a_used_up_quota_hits_writes_only_and_clears_itself() {
    let dir = tempfile::tempdir().expect("dir");
    let etcd = Etcd::open(Options { quota_bytes: 50_000, ..small(dir.path()) }).expect("open");
    let mut writes = 0;
    let refused = loop {
        match etcd.put(put("key", vec![b'x'; 4000])).await {
            Ok(_) => writes += 1,
            Err(e) => break e,
        }
    };
    assert_eq!((refused, etcd.status().no_space), (Error::NoSpace, true));
    assert!(writes >= 10, "{writes}");
    assert_eq!(etcd.range(all()).await.expect("reads go on").count, 1);
    assert_eq!(etcd.lease_grant(1, 100).await.err(), Some(Error::NoSpace));
    etcd.compact(etcd.revision(), true).await.expect("compaction goes on");
    etcd.barrier().await.expect("barrier");
    assert!(!etcd.status().no_space);
    etcd.put(put("key", "again")).await.expect("writes are taken again");
    etcd.close();
}

#[tokio::test]
async fn regular_compaction_bounds_memory_and_disk() {
    const VALUE: usize = 60 << 10;
    let dir = tempfile::tempdir().expect("dir");
    let options = Options { checkpoint_bytes: 256 << 10, segment_bytes: 256 << 10, ..small(dir.path()) };
    let etcd = Etcd::open(Options { max_request_bytes: 64 << 10, ..options }).expect("open");
    let (mut before, mut written) = (0, 0);
    for _ in 0..40 {
        let newest = etcd.revision();
        for _ in 0..10 {
            etcd.put(put("key", vec![b'x'; VALUE])).await.expect("put");
            written += VALUE as u64;
        }
        if before > 0 {
            // What an API server does every few minutes: nobody asks for the space, nobody defragments.
            etcd.compact(before, false).await.expect("compact");
        }
        before = newest;
    }
    etcd.barrier().await.expect("barrier");
    let status = etcd.status();
    assert!(status.used_bytes < 32 * VALUE as u64, "{status:?}");
    assert!(status.disk_bytes < written / 3, "{} written, {status:?}", written);
    etcd.close();
}

#[tokio::test]
async fn a_snapshot_can_be_restored() {
    use sha2::{Digest, Sha256};
    use std::io::Read;
    let dir = tempfile::tempdir().expect("dir");
    let etcd = Etcd::open(small(&dir.path().join("a"))).expect("open");
    for n in 0..50 {
        etcd.put(put(format!("k{n}"), format!("v{n}"))).await.expect("put");
    }
    etcd.lease_grant(5, 100).await.expect("grant");
    let mut snapshot = Vec::new();
    etcd.snapshot().await.expect("snapshot").read_to_end(&mut snapshot).expect("read");
    etcd.close();
    // What the server adds when a client saves it.
    snapshot.resize(snapshot.len().next_multiple_of(512), 0);
    let hash = Sha256::digest(&snapshot);
    snapshot.extend_from_slice(&hash);
    let file = dir.path().join("snapshot.db");
    std::fs::write(&file, &snapshot).expect("write");
    let options = small(&dir.path().join("b"));
    etcd::engine::restore::restore(&file, &options).expect("restore");
    let restored = Etcd::open(options.clone()).expect("open");
    assert_eq!(contents(&restored).await, contents(&etcd).await);
    assert_eq!((restored.leases(), restored.revision()), (vec![5], 51));
    restored.close();
    let refused = etcd::engine::restore::restore(&file, &options).expect_err("not empty");
    assert!(refused.to_string().contains("not empty"), "{refused}");
    snapshot[700] ^= 1;
    std::fs::write(&file, &snapshot).expect("write");
    let refused = etcd::engine::restore::restore(&file, &small(&dir.path().join("c"))).expect_err("damaged");
    assert!(refused.to_string().contains("SHA-256"), "{refused}");
}

/// As upstream's lone member, which is elected anew at each start.
#[tokio::test]
async fn each_start_is_a_term_of_its_own_whether_the_last_one_ended_in_order_or_not() {
    let dir = tempfile::tempdir().expect("dir");
    for term in 2..5 {
        let etcd = Etcd::open(small(dir.path())).expect("open");
        assert_eq!((etcd.header(0).raft_term, etcd.leadership().term), (term, term));
        assert_eq!(etcd.leadership().leader, Some(etcd.identity().member_id));
        etcd.close();
    }
    // A process that is killed once it has answered: what is on disk then is what the next one finds.
    let killed = tempfile::tempdir().expect("dir");
    let etcd = Etcd::open(small(dir.path())).expect("open");
    assert_eq!(etcd.header(0).raft_term, 5);
    for file in std::fs::read_dir(dir.path()).expect("list") {
        let file = file.expect("entry");
        std::fs::copy(file.path(), killed.path().join(file.file_name())).expect("copy");
    }
    let again = Etcd::open(small(killed.path())).expect("open");
    assert_eq!(again.header(0).raft_term, 6);
    again.close();
    // A checkpoint knows the term of the log that it replaces.
    etcd.defragment().await.expect("checkpoint");
    etcd.close();
    drop(etcd);
    let etcd = Etcd::open(small(dir.path())).expect("open");
    assert_eq!(etcd.header(0).raft_term, 6);
    etcd.close();
}

#[tokio::test]
async fn a_member_is_in_the_table_and_has_a_name_once_it_says_so() {
    let dir = tempfile::tempdir().expect("dir");
    let etcd = Etcd::open(small(dir.path())).expect("open");
    let id = etcd.identity().member_id;
    assert_eq!(etcd.members(), [Member { id, ..Member::default() }]);
    etcd.publish("one".into(), vec!["http://peer".into()], vec!["http://client".into()]);
    let [member] = &etcd.members()[..] else { panic!("one member") };
    assert_eq!((member.id, member.name.as_str(), member.learner), (id, "one", false));
    assert_eq!(
        (&member.peer_urls[0], &member.client_urls[0]),
        (&"http://peer".to_owned(), &"http://client".to_owned())
    );
    etcd.close();
}

#[tokio::test]
async fn leases_end_while_writes_never_pause() {
    let dir = tempfile::tempdir().expect("dir");
    let etcd = Etcd::open(Options::new(dir.path())).expect("open");
    etcd.lease_grant(7, 2).await.expect("grant");
    etcd.put(wire::etcd::PutRequest { lease: 7, ..put("leased", "1") }).await.expect("put");
    let mut watch = etcd.watch(WatchOptions { key: bytes("leased"), ..WatchOptions::default() });
    let busy: Vec<_> = (0..64)
        .map(|n| {
            let etcd = etcd.clone();
            tokio::spawn(async move { while etcd.put(put(format!("busy{n}"), "x")).await.is_ok() {} })
        })
        .collect();
    let told = changes(&mut watch, 1).await;
    assert!(told[0].ends_with("leased deleted"), "{told:?}");
    etcd.close();
    for task in busy {
        task.await.expect("a writer");
    }
}

#[tokio::test]
async fn what_is_written_anew_without_its_value_keeps_it_over_a_checkpoint() {
    let dir = tempfile::tempdir().expect("dir");
    let etcd = Etcd::open(Options { recent_bytes: 1, ..small(dir.path()) }).expect("open");
    let keys = 0..1000;
    for round in 0..4 {
        let writes = keys.clone().map(|n| etcd.put(put(format!("k{n}"), format!("{round}-{n}"))));
        futures::future::try_join_all(writes).await.expect("puts");
        let touch = |n| wire::etcd::PutRequest { ignore_value: true, ..put(format!("k{n}"), "") };
        let touches = futures::future::try_join_all(keys.clone().map(|n| etcd.put(touch(n))));
        let (touched, checkpoint) = tokio::join!(touches, etcd.defragment());
        touched.expect("puts");
        checkpoint.expect("checkpoint");
        for n in keys.clone() {
            let found = etcd.range(get(format!("k{n}"))).await.expect("range");
            assert_eq!(found.kvs[0].value, format!("{round}-{n}"));
        }
    }
    etcd.close();
}
