//! kill -9 in the middle of writes: everything acknowledged is there afterwards, and nothing that was never asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wire::etcd::kv_client::KvClient;

use crate::child::Running;
use crate::support::{get, put};

const WRITERS: usize = 8;
const ROUNDS: u64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kill_nine() {
    let dir = tempfile::tempdir().expect("dir");
    let data = dir.path().join("data");
    let asked: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    let acked: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    for round in 0..ROUNDS {
        let mut server = Running::start(&data, &[]).expect("the server starts again");
        let mut client = KvClient::connect(server.url.clone()).await.expect("connect");
        for writer in 0..WRITERS {
            let answer = client.range(get(format!("writer{writer}"))).await.expect("range").into_inner();
            let found = answer.kvs.first().map_or(0, |kv| {
                let text = String::from_utf8_lossy(&kv.value[..12]).into_owned();
                text.parse::<u64>().expect("a number")
            });
            let (acked, asked) = (acked[writer].load(Ordering::SeqCst), asked[writer].load(Ordering::SeqCst));
            assert!((acked..=asked).contains(&found), "round {round}: {found} not in {acked}..={asked}");
        }
        let tasks: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (asked, acked, mut client) = (asked.clone(), acked.clone(), client.clone());
                tokio::spawn(async move {
                    loop {
                        let n = asked[writer].fetch_add(1, Ordering::SeqCst) + 1;
                        let value = format!("{n:012}{}", "x".repeat(writer * 500));
                        if client.put(put(format!("writer{writer}"), value)).await.is_err() {
                            return;
                        }
                        acked[writer].store(n, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(50 + 60 * round)).await;
        server.kill();
        for task in tasks {
            task.await.expect("writer");
        }
    }
    assert!(acked.iter().all(|n| n.load(Ordering::SeqCst) > 0), "every writer got something done");
}
