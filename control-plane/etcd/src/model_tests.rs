//! The store against a naive model: every state at every revision kept whole. Random commands, failed batches,
//! compactions; after each, reads of every readable revision agree, and so does a store replayed from the log.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use wire::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::etcd::request_op::Request;
use wire::etcd::{Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RequestOp, TxnRequest};

use crate::error::Error;
use crate::frame::{self, FRAME_HEADER, Format, Found, Frame, Stamp, VALUE_HEADER, check_value};
use crate::mvcc::{Place, Store, Values};
use crate::query;
use crate::replay::replay;
use crate::txn::{self, Applied, Command, Reply};

/// The log as a byte vector that values are read from.
#[derive(Default)]
struct Log(Vec<u8>);

const SALT: u64 = 9;

impl Values for Log {
    fn load(&self, place: Place, len: u32) -> Result<Bytes, Error> {
        let at = place.offset() as usize;
        let stored = Bytes::copy_from_slice(&self.0[at..at + VALUE_HEADER + len as usize]);
        Ok(check_value(stored).expect("a place names a value"))
    }
}

/// One state per revision, whole.
#[derive(Default, Clone)]
struct Model {
    states: BTreeMap<i64, BTreeMap<Bytes, KeyValue>>,
    leases: BTreeSet<i64>,
    revision: i64,
    compacted: i64,
}

#[derive(Debug, Clone)]
enum Write {
    Put(u8, u8, i64),
    Delete(u8, u8),
}

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<Write>),
    /// If the key's version equals: the writes, else none.
    Guarded(u8, i64, Vec<Write>),
    IgnoreValue(u8),
    Grant(i64),
    Revoke(i64),
    Compact(u8),
    Collect,
}

fn key(n: u8) -> Bytes {
    Bytes::from(format!("k{n}"))
}

fn value(n: u8) -> Bytes {
    Bytes::from(vec![n; usize::from(n) % 40])
}

impl Model {
    fn new() -> Model {
        Model { states: BTreeMap::from([(1, BTreeMap::new())]), revision: 1, ..Model::default() }
    }

    fn now(&self) -> BTreeMap<Bytes, KeyValue> {
        self.states[&self.revision].clone()
    }

    /// Applies writes as one revision; false when they are refused.
    fn write(&mut self, writes: &[Write]) -> bool {
        let mut puts = BTreeSet::new();
        for w in writes {
            if let Write::Put(k, _, lease) = w {
                let deleted = writes.iter().any(|w| matches!(w, Write::Delete(a, b) if within(*k, *a, *b)));
                if !puts.insert(*k) || deleted || (*lease != 0 && !self.leases.contains(lease)) {
                    return false;
                }
            }
        }
        let mut state = self.now();
        let revision = self.revision + 1;
        let mut changed = false;
        for w in writes {
            match w {
                Write::Put(k, v, lease) => {
                    let old = state.get(&key(*k));
                    let kv = KeyValue {
                        key: key(*k),
                        value: value(*v),
                        create_revision: old.map_or(revision, |o| o.create_revision),
                        version: old.map_or(1, |o| o.version + 1),
                        mod_revision: revision,
                        lease: *lease,
                    };
                    state.insert(key(*k), kv);
                    changed = true;
                }
                Write::Delete(a, b) => {
                    let before = state.len();
                    state.retain(|k, _| !in_keys(k, *a, *b));
                    changed |= state.len() != before;
                }
            }
        }
        if changed {
            self.revision = revision;
            self.states.insert(revision, state);
        }
        true
    }

    fn step(&mut self, step: &Step) -> bool {
        match step {
            Step::Write(writes) => self.write(writes),
            Step::Guarded(k, version, writes) => {
                let holds = self.now().get(&key(*k)).map_or(0, |kv| kv.version) == *version;
                // Refused whatever the compare says, as malformed requests are.
                let mut probe = self.clone();
                probe.leases.extend(-5..5);
                if !probe.write(writes) {
                    return false;
                }
                !holds || self.write(writes)
            }
            Step::IgnoreValue(k) => {
                let mut state = self.now();
                let Some(kv) = state.get_mut(&key(*k)) else { return false };
                self.revision += 1;
                (kv.mod_revision, kv.version, kv.lease) = (self.revision, kv.version + 1, 0);
                self.states.insert(self.revision, state);
                true
            }
            Step::Grant(id) => self.leases.insert(*id),
            Step::Revoke(id) => {
                let mut state = self.now();
                let before = state.len();
                state.retain(|_, kv| kv.lease != *id);
                if state.len() != before {
                    self.revision += 1;
                    self.states.insert(self.revision, state);
                }
                self.leases.remove(id)
            }
            Step::Compact(back) => {
                let at = self.revision - i64::from(*back);
                let fine = at > self.compacted;
                if fine {
                    self.compacted = at;
                }
                fine
            }
            Step::Collect => true,
        }
    }
}

fn in_keys(k: &Bytes, a: u8, b: u8) -> bool {
    if a == b { *k == key(a) } else { *k >= key(a) && *k < key(b) }
}

fn within(k: u8, a: u8, b: u8) -> bool {
    in_keys(&key(k), a, b)
}

fn end(a: u8, b: u8) -> Bytes {
    if a == b { Bytes::new() } else { key(b) }
}

fn ops(writes: &[Write]) -> Vec<RequestOp> {
    let op = |w: &Write| match w {
        Write::Put(k, v, lease) => {
            Request::RequestPut(PutRequest { key: key(*k), value: value(*v), lease: *lease, ..PutRequest::default() })
        }
        Write::Delete(a, b) => {
            Request::RequestDeleteRange(DeleteRangeRequest { key: key(*a), range_end: end(*a, *b), prev_kv: true })
        }
    };
    writes.iter().map(|w| RequestOp { request: Some(op(w)) }).collect()
}

fn command(step: &Step, revision: i64) -> Option<Command> {
    Some(match step {
        Step::Write(writes) => Command::Txn(TxnRequest { compare: vec![], success: ops(writes), failure: vec![] }),
        Step::Guarded(k, version, writes) => Command::Txn(TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal as i32,
                target: CompareTarget::Version as i32,
                key: key(*k),
                range_end: Bytes::new(),
                target_union: Some(TargetUnion::Version(*version)),
            }],
            success: ops(writes),
            failure: vec![],
        }),
        Step::IgnoreValue(k) => Command::Put(PutRequest { key: key(*k), ignore_value: true, ..PutRequest::default() }),
        Step::Grant(id) => Command::Grant { id: *id, ttl: 100 },
        Step::Revoke(id) => Command::Revoke { id: *id },
        Step::Compact(back) => Command::Compact { revision: revision - i64::from(*back) },
        Step::Collect => return None,
    })
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let write = prop_oneof![
        4 => (0..12u8, any::<u8>(), prop_oneof![3 => Just(0), 1 => 1..4i64]).prop_map(|(k, v, l)| Write::Put(k, v, l)),
        1 => (0..12u8, 0..12u8).prop_map(|(a, b)| Write::Delete(a.min(b), a.max(b))),
    ];
    prop::collection::vec(write, 1..4)
}

fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
    let step = prop_oneof![
        6 => writes().prop_map(Step::Write),
        3 => (0..12u8, 0..3i64, writes()).prop_map(|(k, v, w)| Step::Guarded(k, v, w)),
        1 => (0..12u8).prop_map(Step::IgnoreValue),
        1 => (1..4i64).prop_map(Step::Grant),
        1 => (1..4i64).prop_map(Step::Revoke),
        1 => (0..6u8).prop_map(Step::Compact),
        1 => Just(Step::Collect),
    ];
    prop::collection::vec((step, prop::bool::weighted(0.2)), 1..60)
}

fn all() -> RangeRequest {
    RangeRequest { key: Bytes::from_static(b"\0"), range_end: Bytes::from_static(b"\0"), ..RangeRequest::default() }
}

fn check(store: &Store, model: &Model, log: &Log) {
    assert_eq!(store.revision(), model.revision);
    for (revision, state) in model.states.range(model.compacted.max(1)..) {
        let request = RangeRequest { revision: *revision, ..all() };
        let answer = query::run(store, &request, model.revision, log).expect("readable");
        let expected: Vec<KeyValue> = state.values().cloned().collect();
        assert_eq!(answer.kvs, expected, "at revision {revision}");
    }
    let attached: BTreeSet<(i64, Bytes)> =
        store.leases.iter().flat_map(|(id, l)| l.keys.iter().map(move |k| (id, k.clone()))).collect();
    let expected = model.now().into_values().filter(|kv| kv.lease != 0).map(|kv| (kv.lease, kv.key)).collect();
    assert_eq!(attached, expected, "keys on leases");
}

/// Runs the commands; `fail` ones are applied and taken back, as when the log can't be written.
fn run(steps: &[(Step, bool)]) -> (Store, Model, Log) {
    let (mut store, mut model, mut log) = (Store::new(200), Model::new(), Log::default());
    let mut index = 1;
    for (step, fail) in steps {
        let before = store.revision();
        let Some(command) = command(step, before) else {
            while store.collect(store.compacted(), 3) {}
            store.recent.forget(store.compacted());
            check(&store, &model, &log);
            continue;
        };
        let frame = Frame::new(Vec::new(), 0, log.0.len() as u64);
        let mut applied = Applied { frame, changes: Vec::new(), undo: Vec::new() };
        let checked = if let Command::Txn(txn) = &command { txn::check_txn(txn, 128) } else { Ok(()) };
        let result = checked.and_then(|()| txn::apply(&mut store, &mut applied, &command, &log, 0));
        if *fail && result.is_ok() {
            store.rollback(before, applied.undo);
            check(&store, &model, &log);
            continue;
        }
        assert_eq!(result.is_ok(), model.step(step), "{step:?} {result:?}");
        if applied.frame.entries() > 0 {
            log.0.extend(applied.frame.seal(SALT, Stamp { term: 1, index, revision: before }));
            index += 1;
        }
        let durable = store.revision();
        store.recent.trim(durable);
        check(&store, &model, &log);
    }
    (store, model, log)
}

fn replayed(log: &Log) -> Store {
    let mut store = Store::new(100);
    let mut at = 0;
    while at < log.0.len() {
        let Found::Frame(found) = frame::read(&log.0[at..], SALT, Format::Present) else { panic!("no frame at {at}") };
        assert_eq!(found.at.revision, store.revision());
        replay(&mut store, found.payload, 0, (at + FRAME_HEADER) as u64, log).expect("replays");
        at += found.size;
        assert!(found.size >= FRAME_HEADER);
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_store_agrees_with_the_model(steps in steps()) {
        let (mut store, model, log) = run(&steps);
        let mut again = replayed(&log);
        check(&again, &model, &log);
        while store.collect(model.compacted, 7) {}
        while again.collect(model.compacted, 7) {}
        prop_assert_eq!(store.used_bytes(), again.used_bytes(), "collected and replayed stores keep the same");
    }
}

#[test]
fn compaction_frees_what_no_revision_shows() {
    let put = |v| (Step::Write(vec![Write::Put(1, v, 0)]), false);
    let gone = (Step::Write(vec![Write::Delete(1, 1)]), false);
    let (store, _, _) = run(&[put(1), put(2), put(3), gone.clone(), (Step::Compact(0), false), (Step::Collect, false)]);
    assert_eq!(store.keys.len(), 1, "the deletion at the very revision stays for watchers");
    let more = [(Step::Write(vec![Write::Put(2, 1, 0)]), false), (Step::Compact(0), false), (Step::Collect, false)];
    let steps: Vec<_> =
        [put(1), put(2), gone, (Step::Compact(0), false), (Step::Collect, false)].into_iter().chain(more).collect();
    let (store, _, _) = run(&steps);
    assert_eq!(store.keys.keys().collect::<Vec<_>>(), [&key(2)]);
}

fn reply(store: &mut Store, log: &Log, command: Command) -> Result<Reply, Error> {
    let mut applied = Applied { frame: Frame::new(Vec::new(), 0, 0), changes: Vec::new(), undo: Vec::new() };
    txn::apply(store, &mut applied, &command, log, 0)
}

#[test]
fn limits_sorting_and_filters() {
    let (mut store, log) = (Store::new(1 << 20), Log::default());
    for (k, v) in [(3, 1), (1, 3), (2, 2)] {
        let put = PutRequest { key: key(k), value: value(v), ..PutRequest::default() };
        reply(&mut store, &log, Command::Put(put)).expect("put");
    }
    let keys = |request: RangeRequest| {
        let answer = query::run(&store, &request, 4, &log).expect("range");
        let names: Vec<_> = answer.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
        (names.join(" "), answer.more, answer.count)
    };
    assert_eq!(keys(RangeRequest { limit: 2, ..all() }), ("k1 k2".into(), true, 3));
    assert_eq!(keys(RangeRequest { limit: 3, ..all() }), ("k1 k2 k3".into(), false, 3));
    assert_eq!(keys(RangeRequest { sort_order: 2, limit: 1, ..all() }), ("k3".into(), true, 3));
    assert_eq!(keys(RangeRequest { sort_target: 3, ..all() }), ("k3 k1 k2".into(), false, 3), "by mod revision");
    assert_eq!(keys(RangeRequest { sort_target: 4, sort_order: 2, ..all() }), ("k1 k2 k3".into(), false, 3));
    assert_eq!(keys(RangeRequest { min_mod_revision: 3, ..all() }), ("k1 k2".into(), false, 3));
    assert_eq!(keys(RangeRequest { max_create_revision: 2, limit: 1, ..all() }), ("k3".into(), false, 3));
    assert_eq!(keys(RangeRequest { count_only: true, ..all() }), (String::new(), false, 3));
}

#[test]
fn a_txn_is_checked_whole_before_it_starts() {
    let (mut store, log) = (Store::new(1 << 20), Log::default());
    let put = |k, lease| Write::Put(k, 1, lease);
    let txn = |success: &[Write]| TxnRequest { compare: vec![], success: ops(success), failure: vec![] };
    assert_eq!(txn::check_txn(&txn(&[put(1, 0), put(1, 0)]), 128), Err(Error::DuplicateKey));
    assert_eq!(txn::check_txn(&txn(&[put(1, 0), Write::Delete(0, 5)]), 128), Err(Error::DuplicateKey));
    assert_eq!(txn::check_txn(&txn(&[put(1, 0), put(2, 0)]), 1), Err(Error::TooManyOps));
    let refused = reply(&mut store, &log, Command::Txn(txn(&[put(1, 0), put(2, 77)])));
    assert_eq!(refused.expect_err("no such lease"), Error::LeaseNotFound);
    assert_eq!(store.revision(), 1, "the first put did not happen either");
    let future = RequestOp { request: Some(Request::RequestRange(RangeRequest { revision: 99, ..all() })) };
    let mixed = TxnRequest { success: vec![ops(&[put(1, 0)]).remove(0), future], ..TxnRequest::default() };
    let refused = reply(&mut store, &log, Command::Txn(mixed)).expect_err("a future revision");
    assert_eq!(refused, Error::FutureRevision { current: 1 });
}

#[test]
fn inner_transactions_decide_on_the_state_before() {
    let (mut store, log) = (Store::new(1 << 20), Log::default());
    let exists = Compare {
        result: CompareResult::Greater as i32,
        target: CompareTarget::Create as i32,
        key: key(1),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(0)),
    };
    let inner = TxnRequest {
        compare: vec![exists],
        success: ops(&[Write::Put(2, 1, 0)]),
        failure: ops(&[Write::Put(3, 1, 0)]),
    };
    let outer = TxnRequest {
        success: vec![
            ops(&[Write::Put(1, 1, 0)]).remove(0),
            RequestOp { request: Some(Request::RequestTxn(inner)) },
            RequestOp { request: Some(Request::RequestRange(all())) },
        ],
        ..TxnRequest::default()
    };
    assert_eq!(txn::check_txn(&outer, 128), Ok(()));
    let Reply::Txn(answer) = reply(&mut store, &log, Command::Txn(outer)).expect("txn") else { panic!() };
    assert_eq!(store.revision(), 2, "one revision for all");
    let Some(wire::etcd::response_op::Response::ResponseRange(seen)) = &answer.responses[2].response else { panic!() };
    let names: Vec<_> = seen.kvs.iter().map(|kv| kv.key.clone()).collect();
    assert_eq!(names, [key(1), key(3)], "the range sees the writes before it, the compare did not");
}
