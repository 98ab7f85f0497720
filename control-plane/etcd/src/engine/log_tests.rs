//! The engine over a log that commits when it is told to, and loses leadership: nobody hears of what is not committed, and
//! what is overruled was never there, in memory, on disk or for watchers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use wire::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::etcd::request_op::Request;
use wire::etcd::{Compare, DeleteRangeRequest, PutRequest, PutResponse, RangeRequest, RequestOp, TxnRequest};

use super::log::Log;
use super::wal::Wal;
use super::writer::{MOST_PENDING, Message};
use super::{Etcd, Options, WatchMessage, WatchOptions};
use crate::cluster::Leadership;
use crate::error::Error;
use crate::frame::Frame;

/// What a test says to the log.
struct Said {
    committed: u64,
    leadership: Leadership,
    overruled: Option<u64>,
}

/// Frames are on disk at once, as a leader's own, and committed when the test says so.
struct Delayed {
    wal: Wal,
    said: Arc<Mutex<Said>>,
    /// Index of the newest frame.
    last: watch::Sender<u64>,
}

impl Log for Delayed {
    fn wal(&mut self) -> &mut Wal {
        let committed = self.said.lock().committed;
        self.wal.commit(committed);
        &mut self.wal
    }

    fn propose(&mut self, frame: Frame, revision: i64) -> Result<Vec<u8>, Error> {
        let term = self.said.lock().leadership.term;
        let bytes = self.wal().append(frame, term, revision)?;
        self.last.send_replace(self.wal.last_index());
        Ok(bytes)
    }

    fn committed(&self) -> u64 {
        self.said.lock().committed
    }

    fn leadership(&self) -> Leadership {
        self.said.lock().leadership
    }

    fn overruled(&self) -> Option<u64> {
        self.said.lock().overruled
    }

    fn truncate_after(&mut self, index: u64) -> Result<(), Error> {
        self.wal().truncate_after(index)?;
        self.said.lock().overruled = None;
        self.last.send_replace(self.wal.last_index());
        Ok(())
    }
}

/// A store over such a log.
struct Rig {
    etcd: Etcd,
    said: Arc<Mutex<Said>>,
    last: watch::Receiver<u64>,
    writer: Sender<Message>,
}

type Put = JoinHandle<Result<PutResponse, Error>>;

impl Rig {
    /// Grants the lease 7 for four seconds, in the second frame.
    async fn leased(&self) {
        let etcd = self.etcd.clone();
        let granted = tokio::spawn(async move { etcd.lease_grant(7, 4).await });
        self.reached(2).await;
        self.commit(2);
        answered(granted).await.expect("grant");
    }

    /// Opens it; the frame that says that it leads is committed.
    fn open(dir: &std::path::Path) -> Rig {
        let options = Options {
            segment_bytes: 1 << 20,
            max_request_bytes: 16 << 10,
            // Values are read from the frames that are on their way.
            recent_bytes: 4000,
            ..Options::new(dir)
        };
        let mut made = None;
        let etcd = Etcd::open_over(options, |wal, member, writer| {
            let leadership = Leadership { term: wal.last_term() + 1, leader: Some(member), member };
            let said = Said { committed: wal.last_index() + 1, leadership, overruled: None };
            let (said, (last, told)) = (Arc::new(Mutex::new(said)), watch::channel(wal.last_index()));
            made = Some((said.clone(), told, writer.clone()));
            Box::new(Delayed { wal, said, last })
        });
        let (said, last, writer) = made.expect("the log was made");
        Rig { etcd: etcd.expect("open"), said, last, writer }
    }

    fn say(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.said.lock());
        self.writer.send(Message::Look).expect("the writer runs");
    }

    fn commit(&self, index: u64) {
        self.say(|said| said.committed = index);
    }

    /// Another member leads, whose log has nothing after `kept`; returns when this one has nothing either.
    async fn lose(&self, kept: u64) {
        self.say(|said| {
            said.overruled = Some(kept);
            said.leadership = Leadership { term: said.leadership.term + 1, leader: None, ..said.leadership };
        });
        while self.said.lock().overruled.is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn lead(&self) {
        self.say(|said| {
            let Leadership { term, member, .. } = said.leadership;
            said.leadership = Leadership { term: term + 1, leader: Some(member), member };
        });
    }

    fn newest(&self) -> u64 {
        *self.last.borrow()
    }

    /// Waits until the newest frame has this index.
    async fn reached(&self, index: u64) {
        let mut last = self.last.clone();
        let reached = tokio::time::timeout(Duration::from_secs(20), last.wait_for(|last| *last == index)).await;
        assert!(reached.is_ok(), "the newest frame is {}, not {index}", self.newest());
    }

    /// Starts a put; returns when it is proposed.
    async fn propose(&self, key: &str, value: &str) -> Put {
        let next = self.newest() + 1;
        let put = self.start(key, value);
        self.reached(next).await;
        put
    }

    fn start(&self, key: &str, value: &str) -> Put {
        let etcd = self.etcd.clone();
        let put = put(key, value);
        tokio::spawn(async move { etcd.put(put).await })
    }

    /// What readers that ask nobody see.
    async fn seen(&self) -> Vec<(Bytes, Bytes)> {
        contents(&self.etcd).await
    }
}

async fn contents(etcd: &Etcd) -> Vec<(Bytes, Bytes)> {
    let everything = Bytes::from_static(b"\0");
    let all = RangeRequest { key: everything.clone(), range_end: everything, serializable: true, ..Default::default() };
    let answer = etcd.range(all).await.expect("range");
    answer.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect()
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn pairs(all: &[(&str, &str)]) -> Vec<(Bytes, Bytes)> {
    all.iter().map(|(key, value)| (bytes(key), bytes(value))).collect()
}

/// Creates the key unless it exists, and shows it if it does.
fn create(key: &str) -> TxnRequest {
    let op = |request| vec![RequestOp { request: Some(request) }];
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key: bytes(key),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::ModRevision(0)),
        }],
        success: op(Request::RequestPut(put(key, "created"))),
        failure: op(Request::RequestRange(RangeRequest { key: bytes(key), ..RangeRequest::default() })),
    }
}

async fn answered<T>(task: JoinHandle<T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("in time").expect("no panic")
}

#[tokio::test]
async fn nobody_hears_of_a_write_before_it_is_committed() {
    let dir = tempfile::tempdir().expect("dir");
    let rig = Rig::open(dir.path());
    let options = WatchOptions { key: bytes("a"), range_end: bytes("z"), ..WatchOptions::default() };
    let mut watcher = rig.etcd.watch(options);
    let first = rig.propose("a", "1").await;
    // It finds the first one, so that its answer would tell of it. It writes nothing.
    let etcd = rig.etcd.clone();
    let losing = tokio::spawn(async move { etcd.txn(create("a")).await });
    let second = rig.propose("b", "2").await;
    let third = rig.propose("c", "3").await;
    // The writer is past all of them.
    assert!(!first.is_finished() && !losing.is_finished() && !second.is_finished() && !third.is_finished());
    assert_eq!((rig.seen().await, rig.etcd.revision(), rig.etcd.status().applied_index), (vec![], 1, 0));
    assert_eq!((rig.etcd.read_index().await, rig.etcd.published()), (Ok(1), 1));
    assert!(watcher.try_next().is_none());
    // Commits may come several at a time.
    rig.commit(3);
    let (first, losing) = (answered(first).await.expect("put"), answered(losing).await.expect("txn"));
    assert_eq!((first.header.map(|h| h.revision), losing.succeeded), (Some(2), false));
    answered(second).await.expect("put");
    assert_eq!((rig.seen().await, third.is_finished()), (pairs(&[("a", "1"), ("b", "2")]), false));
    let mut told = Vec::new();
    while told.len() < 2 {
        let Some(WatchMessage::Changes { changes, .. }) = watcher.next().await else { panic!("no changes") };
        told.extend(changes.iter().map(|change| change.kv.key.clone()));
    }
    assert_eq!(told, ["a", "b"]);
    rig.commit(4);
    answered(third).await.expect("put");
    assert_eq!(rig.etcd.revision(), 4);
    rig.etcd.close();
}

#[tokio::test]
async fn what_another_leader_overrules_was_never_there() {
    let dir = tempfile::tempdir().expect("dir");
    let rig = Rig::open(dir.path());
    let kept = rig.propose("kept", "1").await;
    rig.commit(2);
    answered(kept).await.expect("put");
    let lost: Vec<Put> = vec![rig.propose("kept", "2").await, rig.propose("new", "3").await];
    let etcd = rig.etcd.clone();
    let delete = DeleteRangeRequest { key: bytes("kept"), ..DeleteRangeRequest::default() };
    let deleted = tokio::spawn(async move { etcd.delete(delete).await });
    rig.reached(5).await;
    let etcd = rig.etcd.clone();
    let leased = tokio::spawn(async move { etcd.lease_grant(7, 600).await });
    rig.reached(6).await;
    let etcd = rig.etcd.clone();
    let compacted = tokio::spawn(async move { etcd.compact(3, true).await });
    rig.reached(7).await;
    let term = rig.etcd.leadership().term;
    rig.lose(2).await;
    for put in lost {
        assert_eq!(answered(put).await, Err(Error::LeaderChanged));
    }
    assert_eq!(answered(deleted).await, Err(Error::LeaderChanged));
    assert_eq!(answered(leased).await.map(|_| ()), Err(Error::LeaderChanged));
    assert_eq!(answered(compacted).await, Err(Error::LeaderChanged));
    assert_eq!((rig.seen().await, rig.etcd.revision()), (pairs(&[("kept", "1")]), 2));
    assert_eq!((rig.etcd.leases(), rig.etcd.status().compact_revision), (vec![], 0));
    // Without a leader nothing is written, and only who doesn't mind is answered.
    assert_eq!(answered(rig.start("x", "y")).await, Err(Error::NoLeader));
    let newest = RangeRequest { key: bytes("kept"), ..RangeRequest::default() };
    assert_eq!(rig.etcd.range(newest).await, Err(Error::NoLeader));
    assert_eq!(rig.etcd.lease_keep_alive(7), Err(Error::NoLeader));
    assert_eq!(rig.etcd.read_index().await, Err(Error::NoLeader));
    // Elected again, it goes on where the log ends now: what says so is the first frame.
    rig.lead();
    rig.reached(3).await;
    let next = rig.propose("next", "4").await;
    rig.commit(4);
    assert_eq!(answered(next).await.expect("put").header.map(|h| h.revision), Some(3));
    assert_eq!(rig.etcd.header(0).raft_term, term + 2);
    let hash = rig.etcd.hash_kv(0).await.expect("hash");
    rig.etcd.close();
    drop(rig);
    // The disk has no more of it than memory.
    let etcd = Etcd::open(Options::new(dir.path())).expect("open");
    assert_eq!(contents(&etcd).await, pairs(&[("kept", "1"), ("next", "4")]));
    assert_eq!((etcd.hash_kv(0).await, etcd.leadership().term), (Ok(hash), term + 3));
    etcd.close();
}

#[tokio::test]
async fn what_was_proposed_before_leadership_was_lost_may_still_be_committed() {
    let dir = tempfile::tempdir().expect("dir");
    let rig = Rig::open(dir.path());
    let (first, second) = (rig.propose("a", "1").await, rig.propose("b", "2").await);
    rig.lose(2).await;
    assert_eq!(answered(second).await, Err(Error::LeaderChanged));
    assert!(!first.is_finished());
    rig.commit(2);
    answered(first).await.expect("the next leader has it");
    assert_eq!(rig.seen().await, pairs(&[("a", "1")]));
    rig.etcd.close();
}

#[tokio::test]
async fn only_a_leader_ends_leases_and_a_new_one_gives_them_their_time() {
    let dir = tempfile::tempdir().expect("dir");
    let rig = Rig::open(dir.path());
    rig.leased().await;
    rig.lose(2).await;
    tokio::time::sleep(Duration::from_millis(4300)).await;
    assert_eq!((rig.newest(), rig.etcd.leases()), (2, vec![7]), "its time is over, and that is the leader's to say");
    rig.lead();
    rig.reached(3).await;
    assert!(rig.etcd.lease_time_to_live(7, false).ttl > 0, "a new leader does not know when it was renewed");
    rig.commit(3);
    // Now it is this member's, which ends it.
    rig.reached(4).await;
    rig.etcd.close();
}

#[tokio::test]
async fn a_lease_whose_time_is_over_ends_in_the_next_frame_however_many_writes_wait() {
    let dir = tempfile::tempdir().expect("dir");
    let rig = Rig::open(dir.path());
    rig.leased().await;
    for n in 0..MOST_PENDING {
        rig.propose(&format!("{n}"), "x").await;
    }
    let _waiting: Vec<Put> = (0..10).map(|n| rig.start(&format!("later{n}"), "x")).collect();
    tokio::time::sleep(Duration::from_millis(4300)).await;
    let full = rig.newest();
    // Room for one frame.
    rig.commit(3);
    rig.reached(full + 1).await;
    assert!(rig.etcd.leases().is_empty());
    rig.etcd.close();
}

#[tokio::test]
async fn what_is_on_its_way_is_bounded_and_waits_for_a_checkpoint() {
    let dir = tempfile::tempdir().expect("dir");
    let rig = Rig::open(dir.path());
    let mut puts = Vec::new();
    for n in 0..MOST_PENDING {
        puts.push(rig.propose(&format!("{n}"), "x").await);
    }
    let full = rig.newest();
    puts.extend((0..30).map(|n| rig.start(&format!("later{n}"), "x")));
    let (done, checkpoint) = oneshot::channel();
    rig.writer.send(Message::Checkpoint { done: Some(done) }).expect("the writer runs");
    let checkpoint = tokio::spawn(checkpoint);
    // The writer looks as often as it is told to, and proposes nothing more.
    (0..100).for_each(|_| rig.commit(1));
    tokio::task::yield_now().await;
    assert_eq!((rig.newest(), checkpoint.is_finished()), (full, false));
    rig.commit(full);
    answered(checkpoint).await.expect("an answer").expect("checkpoint");
    let mut committed = full;
    for put in puts {
        while !put.is_finished() {
            if rig.newest() > committed {
                committed = rig.newest();
                rig.commit(committed);
            }
            tokio::task::yield_now().await;
        }
        answered(put).await.expect("put");
    }
    assert_eq!(rig.seen().await.len(), MOST_PENDING + 30);
    rig.etcd.close();
}

/// Numbers by chance that are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Puts and deletions, commits of some of what is pending, elections lost and won again; after each, what is seen is what
/// was acknowledged, and so is what the directory holds.
#[tokio::test]
async fn whatever_happens_to_the_log_the_store_is_what_was_acknowledged() {
    for seed in 1..=12 {
        let dir = tempfile::tempdir().expect("dir");
        let mut chance = Chance(seed);
        let rig = Rig::open(dir.path());
        let mut committed = rig.newest();
        let mut seen: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        // Index, key, value, task.
        let mut pending: Vec<(u64, String, String, Put)> = Vec::new();
        for step in 0..60 {
            match chance.below(10) {
                0..=5 if rig.newest() - committed < MOST_PENDING as u64 - 2 => {
                    let (key, value) = (format!("k{}", chance.below(6)), format!("{step}").repeat(200));
                    let put = rig.propose(&key, &value).await;
                    pending.push((rig.newest(), key, value, put));
                }
                0..=7 => {
                    committed += chance.below(rig.newest() - committed + 1);
                    rig.commit(committed);
                }
                _ => {
                    let kept = committed + chance.below(rig.newest() - committed + 1);
                    rig.lose(kept).await;
                    for (_, _, _, put) in pending.extract_if(.., |(index, ..)| *index > kept) {
                        assert_eq!(answered(put).await, Err(Error::LeaderChanged), "seed {seed}");
                    }
                    rig.lead();
                    rig.reached(kept + 1).await;
                }
            }
            for (_, key, value, put) in pending.extract_if(.., |(index, ..)| *index <= committed) {
                answered(put).await.unwrap_or_else(|e| panic!("seed {seed}, step {step}: {e}"));
                seen.insert(bytes(&key), bytes(&value));
            }
            assert!(pending.iter().all(|(.., put)| !put.is_finished()), "seed {seed}, step {step}");
            assert_eq!(rig.seen().await, Vec::from_iter(seen.clone()), "seed {seed}, step {step}");
        }
        // Whatever is still on its way is lost with this member's leadership.
        rig.lose(committed).await;
        for (.., put) in pending {
            assert_eq!(answered(put).await, Err(Error::LeaderChanged), "seed {seed}");
        }
        let hash = rig.etcd.hash_kv(0).await;
        rig.etcd.close();
        drop(rig);
        let etcd = Etcd::open(Options::new(dir.path())).expect("open");
        assert_eq!(contents(&etcd).await, Vec::from_iter(seen), "seed {seed}");
        assert_eq!(etcd.hash_kv(0).await, hash, "seed {seed}");
        etcd.close();
    }
}
