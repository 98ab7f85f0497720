//! Commands: what may be asked, what it answers, what it changes. Pure: applies to the store and writes the log frame,
//! with time as an argument. One command is one revision at most. Caller: the engine's writer.

use std::sync::Arc;

use bytes::Bytes;
use wire::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::etcd::request_op::Request;
use wire::etcd::response_op::Response;
use wire::etcd::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, KeyValue, LeaseGrantResponse, PutRequest, PutResponse,
    RangeRequest, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};

use crate::error::Error;
use crate::frame::Frame;
use crate::mvcc::{Store, Undo, Values, Version, Writing};
use crate::query;
use crate::recent::Change;
use crate::span::Span;

/// What a caller asks the writer to do. Checked by [`check_put`] and its siblings before it gets here.
#[derive(Debug)]
pub enum Command {
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact {
        revision: i64,
    },
    Grant {
        id: i64,
        ttl: i64,
    },
    Revoke {
        id: i64,
    },
    /// Nothing: answered when all before it is durable.
    Barrier,
}

/// The writer's answer.
#[derive(Debug)]
pub enum Reply {
    Put(PutResponse),
    Delete(DeleteRangeResponse),
    Txn(TxnResponse),
    Grant(LeaseGrantResponse),
    /// Revision after the command.
    Done {
        revision: i64,
    },
}

/// What applying commands left to do: the log to write, the changes to publish, how to take it back.
pub struct Applied {
    pub frame: Frame,
    pub changes: Vec<Arc<Change>>,
    pub undo: Vec<Undo>,
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

// ---- checks that need no state

pub fn check_put(put: &PutRequest) -> Result<(), Error> {
    if put.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

pub fn check_delete(delete: &DeleteRangeRequest) -> Result<(), Error> {
    if delete.key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

/// Operations of a transaction with those inside it, as a multiple of the most in one list: each is compared with all
/// others, so their number may not grow as a product of lists in lists.
const MOST_NESTED: usize = 32;

/// Checks a transaction and those inside it: `max_ops` bounds each list, and shrinks with depth.
pub fn check_txn(txn: &TxnRequest, max_ops: usize) -> Result<(), Error> {
    check_shape(txn, max_ops)?;
    if count(txn) > max_ops.saturating_mul(MOST_NESTED) {
        return Err(Error::TooManyOps);
    }
    check_duplicates(&txn.success)?;
    check_duplicates(&txn.failure)?;
    Ok(())
}

/// Operations in all lists, those of transactions inside included. `check_shape` bounded the depth.
fn count(txn: &TxnRequest) -> usize {
    let one = |op: &RequestOp| match &op.request {
        Some(Request::RequestTxn(inner)) => 1 + count(inner),
        _ => 1,
    };
    txn.success.iter().chain(&txn.failure).map(one).sum()
}

fn check_shape(txn: &TxnRequest, max_ops: usize) -> Result<(), Error> {
    let longest = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    if longest > max_ops {
        return Err(Error::TooManyOps);
    }
    if txn.compare.iter().any(|c| c.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => query::check(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_delete(delete)?,
            Some(Request::RequestTxn(inner)) => check_shape(inner, max_ops - longest)?,
            None => return Err(Error::KeyNotFound),
        }
    }
    Ok(())
}

/// Keys and ranges that one path through a list of operations may write.
#[derive(Default)]
struct Touched {
    puts: Vec<Bytes>,
    deletes: Vec<Span>,
}

impl Touched {
    fn put(&mut self, key: &Bytes) -> Result<(), Error> {
        if self.puts.contains(key) || self.deletes.iter().any(|d| d.contains(key)) {
            return Err(Error::DuplicateKey);
        }
        self.puts.push(key.clone());
        Ok(())
    }
}

/// A key is written at most once on each path.
fn check_duplicates(ops: &[RequestOp]) -> Result<Touched, Error> {
    let mut all = Touched::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            all.deletes.push(Span::new(delete.key.clone(), delete.range_end.clone()));
        }
    }
    for op in ops {
        let Some(Request::RequestTxn(inner)) = &op.request else { continue };
        let (success, failure) = (check_duplicates(&inner.success)?, check_duplicates(&inner.failure)?);
        // The two branches may write the same keys, as only one of them happens.
        let mut inner_puts = success.puts;
        inner_puts.extend(failure.puts.into_iter().filter(|k| !inner_puts.contains(k)).collect::<Vec<_>>());
        if inner_puts.iter().any(|k| all.puts.contains(k) || all.deletes.iter().any(|d| d.contains(k))) {
            return Err(Error::DuplicateKey);
        }
        let inner_deletes: Vec<Span> = success.deletes.into_iter().chain(failure.deletes).collect();
        if inner_deletes.iter().any(|d| all.puts.iter().any(|k| d.contains(k))) {
            return Err(Error::DuplicateKey);
        }
        all.puts.extend(inner_puts);
        all.deletes.extend(inner_deletes);
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            all.put(&put.key)?;
        }
    }
    Ok(all)
}

/// Whether a transaction can write.
pub fn is_read_only(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(Request::RequestRange(_)) => true,
        Some(Request::RequestTxn(inner)) => is_read_only(inner),
        _ => false,
    })
}

/// Whether all that a read-only transaction reads may be as old as this member is behind.
pub fn is_serializable(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(Request::RequestRange(range)) => range.serializable,
        Some(Request::RequestTxn(inner)) => is_serializable(inner),
        _ => false,
    })
}

/// Bytes that a command may add to the log and the store; 0 for what only frees or reads.
pub fn cost(command: &Command) -> usize {
    /// What an entry adds to its bytes, in the log and in the index.
    const ENTRY: usize = 128;
    fn of_txn(txn: &TxnRequest) -> usize {
        let branch = |ops: &[RequestOp]| {
            ops.iter()
                .map(|op| match &op.request {
                    Some(Request::RequestPut(put)) => put.key.len() + put.value.len() + ENTRY,
                    Some(Request::RequestDeleteRange(d)) => d.key.len() + d.range_end.len() + ENTRY,
                    Some(Request::RequestTxn(inner)) => of_txn(inner),
                    _ => 0,
                })
                .sum::<usize>()
        };
        branch(&txn.success).max(branch(&txn.failure))
    }
    match command {
        Command::Put(put) => put.key.len() + put.value.len() + ENTRY,
        Command::Delete(delete) => delete.key.len() + delete.range_end.len() + ENTRY,
        Command::Txn(txn) => of_txn(txn),
        Command::Compact { .. } | Command::Grant { .. } | Command::Revoke { .. } => ENTRY,
        Command::Barrier => 0,
    }
}

/// Whether a command may make the store larger: what a used-up quota refuses.
pub fn grows(command: &Command) -> bool {
    fn puts(ops: &[RequestOp]) -> bool {
        ops.iter().any(|op| match &op.request {
            Some(Request::RequestPut(_)) => true,
            Some(Request::RequestTxn(inner)) => puts(&inner.success) || puts(&inner.failure),
            _ => false,
        })
    }
    match command {
        Command::Put(_) | Command::Grant { .. } => true,
        Command::Txn(txn) => puts(&txn.success) || puts(&txn.failure),
        _ => false,
    }
}

// ---- compares

/// Whether every compare of a transaction holds at `at`.
fn holds(store: &Store, compares: &[Compare], at: i64, values: &dyn Values) -> Result<bool, Error> {
    for compare in compares {
        let span = Span::new(compare.key.clone(), compare.range_end.clone());
        let by_value = compare.target == CompareTarget::Value as i32;
        let mut found = false;
        for (key, version) in store.scan(&span, None, at) {
            found = true;
            let mut kv = version.without_value(key.clone());
            if by_value {
                kv.value = store.value(version, values)?;
            }
            if !holds_for(compare, &kv) {
                return Ok(false);
            }
        }
        // A missing key has no value at all, but its numbers are 0.
        if !found && (by_value || !holds_for(compare, &KeyValue::default())) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let wanted = compare.target_union.as_ref();
    let number = |actual: i64, pick: fn(&TargetUnion) -> Option<i64>| actual.cmp(&wanted.and_then(pick).unwrap_or(0));
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => {
            number(kv.version, |t| if let TargetUnion::Version(n) = t { Some(*n) } else { None })
        }
        Ok(CompareTarget::Create) => {
            number(kv.create_revision, |t| if let TargetUnion::CreateRevision(n) = t { Some(*n) } else { None })
        }
        Ok(CompareTarget::Mod) => {
            number(kv.mod_revision, |t| if let TargetUnion::ModRevision(n) = t { Some(*n) } else { None })
        }
        Ok(CompareTarget::Lease) => number(kv.lease, |t| if let TargetUnion::Lease(n) = t { Some(*n) } else { None }),
        Ok(CompareTarget::Value) => {
            let value = if let Some(TargetUnion::Value(v)) = wanted { v.as_ref() } else { &[] };
            kv.value.as_ref().cmp(value)
        }
        Err(_) => std::cmp::Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Err(_) => true,
    }
}

// ---- transactions

/// The branch that a transaction takes, and those inside it: decided on the state before any of its writes.
struct Path<'a> {
    succeeded: bool,
    ops: &'a [RequestOp],
    /// One for each inner transaction, in order.
    inner: Vec<Path<'a>>,
}

fn decide<'a>(store: &Store, txn: &'a TxnRequest, at: i64, values: &dyn Values) -> Result<Path<'a>, Error> {
    let succeeded = holds(store, &txn.compare, at, values)?;
    let ops = if succeeded { &txn.success } else { &txn.failure };
    let mut inner = Vec::new();
    for op in ops {
        if let Some(Request::RequestTxn(txn)) = &op.request {
            inner.push(decide(store, txn, at, values)?);
        }
    }
    Ok(Path { succeeded, ops, inner })
}

/// Whether every operation on the path can be done, so that none is done when one can't.
fn check_path(store: &Store, path: &Path<'_>, newest: i64) -> Result<(), Error> {
    let mut inner = path.inner.iter();
    for op in path.ops {
        match &op.request {
            Some(Request::RequestRange(range)) => drop(store.readable(range.revision, newest)?),
            Some(Request::RequestPut(put)) => check_put_state(store, put)?,
            Some(Request::RequestTxn(_)) => match inner.next() {
                Some(path) => check_path(store, path, newest)?,
                None => unreachable!("decide made a path for each inner transaction"),
            },
            _ => {}
        }
    }
    Ok(())
}

fn check_put_state(store: &Store, put: &PutRequest) -> Result<(), Error> {
    if (put.ignore_value || put.ignore_lease) && live(store, &put.key).is_none() {
        return Err(Error::KeyNotFound);
    }
    if put.lease != 0 && store.leases.get(put.lease).is_none() {
        return Err(Error::LeaseNotFound);
    }
    Ok(())
}

fn live(store: &Store, key: &[u8]) -> Option<Version> {
    store.history(key)?.at(i64::MAX).copied()
}

/// A transaction that only reads, at what is durable.
pub fn read_txn(store: &Store, txn: &TxnRequest, durable: i64, values: &dyn Values) -> Result<TxnResponse, Error> {
    let path = decide(store, txn, durable, values)?;
    check_path(store, &path, durable)?;
    read_path(store, &path, durable, values)
}

fn read_path(store: &Store, path: &Path<'_>, durable: i64, values: &dyn Values) -> Result<TxnResponse, Error> {
    let mut inner = path.inner.iter();
    let mut responses = Vec::with_capacity(path.ops.len());
    for op in path.ops {
        let response = match &op.request {
            Some(Request::RequestRange(range)) => Response::ResponseRange(query::run(store, range, durable, values)?),
            Some(Request::RequestTxn(_)) => {
                let path = inner.next().expect("decide made a path for each inner transaction");
                Response::ResponseTxn(read_path(store, path, durable, values)?)
            }
            _ => return Err(Error::KeyNotFound),
        };
        responses.push(ResponseOp { response: Some(response) });
    }
    Ok(TxnResponse { header: header(durable), succeeded: path.succeeded, responses })
}

/// Applies one command to the store and adds it to the frame. An error changes nothing.
pub fn apply(
    store: &mut Store,
    applied: &mut Applied,
    command: &Command,
    values: &dyn Values,
    now_ms: u64,
) -> Result<Reply, Error> {
    let reply = match command {
        Command::Put(put) => {
            check_put_state(store, put)?;
            revision(store, applied, |tx| tx.put(put, values)).map(Reply::Put)
        }
        Command::Delete(request) => revision(store, applied, |tx| tx.delete(request, values)).map(Reply::Delete),
        Command::Txn(txn) => {
            let path = decide(store, txn, i64::MAX, values)?;
            check_path(store, &path, store.revision())?;
            revision(store, applied, |tx| tx.run(&path, values)).map(Reply::Txn)
        }
        Command::Compact { revision } => {
            applied.undo.push(store.compact(*revision)?);
            applied.frame.compact(*revision);
            Ok(Reply::Done { revision: store.revision() })
        }
        Command::Grant { id, ttl } => {
            let ttl = store.leases.grant(*id, *ttl, now_ms)?;
            applied.undo.push(Undo::Granted(*id));
            applied.frame.grant(*id, ttl);
            let revision = store.revision();
            Ok(Reply::Grant(LeaseGrantResponse { header: header(revision), id: *id, ttl, error: String::new() }))
        }
        Command::Revoke { id } => {
            let changes = revoke(store, *id).ok_or(Error::LeaseNotFound)?;
            applied.undo.push(Undo::Revoked(*id, changes.1));
            applied.changes.extend(changes.0);
            applied.frame.revoke(*id);
            Ok(Reply::Done { revision: store.revision() })
        }
        Command::Barrier => Ok(Reply::Done { revision: store.revision() }),
    }?;
    store.applied_index += 1;
    Ok(reply)
}

/// Ends a lease and deletes its keys at one revision. Used by the writer and by recovery.
pub fn revoke(store: &mut Store, id: i64) -> Option<(Vec<Arc<Change>>, crate::lease::Lease)> {
    let lease = store.leases.remove(id)?;
    let mut writing = store.begin();
    let changes = lease.keys.iter().filter_map(|key| store.delete(&mut writing, key)).collect();
    store.finish(writing);
    Some((changes, lease))
}

/// Runs the writes of one command as one revision; one that fails half-way is taken back.
fn revision<T>(
    store: &mut Store,
    applied: &mut Applied,
    run: impl FnOnce(&mut Tx<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let before = store.revision();
    let mark = applied.frame.mark();
    let changes = applied.changes.len();
    let writing = store.begin();
    let mut tx = Tx { store, applied, writing };
    let result = run(&mut tx);
    let Tx { store, applied, writing } = tx;
    if result.is_err() {
        applied.frame.rewind(mark);
        applied.changes.truncate(changes);
        store.rollback(before, Vec::new());
        return result;
    }
    if writing.subs > 0 {
        applied.frame.commit();
    } else {
        applied.frame.rewind(mark);
    }
    store.finish(writing);
    result
}

/// A revision being written.
struct Tx<'a> {
    store: &'a mut Store,
    applied: &'a mut Applied,
    writing: Writing,
}

impl Tx<'_> {
    /// Revision that a read inside the transaction answers with.
    fn revision(&self) -> i64 {
        if self.writing.subs > 0 { self.writing.revision } else { self.writing.revision - 1 }
    }

    fn previous(&self, key: &Bytes, values: &dyn Values) -> Result<Option<KeyValue>, Error> {
        let Some(version) = live(self.store, key) else { return Ok(None) };
        let value = self.store.value(&version, values)?;
        Ok(Some(KeyValue { value, ..version.without_value(key.clone()) }))
    }

    fn put(&mut self, put: &PutRequest, values: &dyn Values) -> Result<PutResponse, Error> {
        let old = live(self.store, &put.key);
        let prev_kv = if put.prev_kv { self.previous(&put.key, values)? } else { None };
        let lease = old.filter(|_| put.ignore_lease).map_or(put.lease, |old| old.lease);
        let (value, place) = match old.filter(|_| put.ignore_value) {
            Some(old) => {
                let value = self.store.value(&old, values)?;
                self.applied.frame.touch(&put.key, lease);
                (value, old.place)
            }
            None => (put.value.clone(), self.applied.frame.put(&put.key, lease, &put.value)),
        };
        let change = self.store.put(&mut self.writing, &put.key, value, lease, place);
        self.applied.changes.push(change);
        Ok(PutResponse { header: header(self.writing.revision), prev_kv })
    }

    fn delete(&mut self, request: &DeleteRangeRequest, values: &dyn Values) -> Result<DeleteRangeResponse, Error> {
        let span = Span::new(request.key.clone(), request.range_end.clone());
        let keys = self.store.live_keys(&span);
        let mut prev_kvs = Vec::new();
        for key in keys.iter().filter(|_| request.prev_kv) {
            prev_kvs.extend(self.previous(key, values)?);
        }
        if !keys.is_empty() {
            self.applied.frame.delete(&request.key, &request.range_end);
        }
        for key in &keys {
            self.applied.changes.extend(self.store.delete(&mut self.writing, key));
        }
        Ok(DeleteRangeResponse { header: header(self.revision()), deleted: keys.len() as i64, prev_kvs })
    }

    fn range(&self, request: &RangeRequest, values: &dyn Values) -> Result<Response, Error> {
        // Reads of the newest see what this transaction wrote so far.
        let newest = self.revision();
        query::run(self.store, request, newest, values).map(Response::ResponseRange)
    }

    fn run(&mut self, path: &Path<'_>, values: &dyn Values) -> Result<TxnResponse, Error> {
        let mut inner = path.inner.iter();
        let mut responses = Vec::with_capacity(path.ops.len());
        for op in path.ops {
            let response = match &op.request {
                Some(Request::RequestRange(range)) => self.range(range, values)?,
                Some(Request::RequestPut(put)) => Response::ResponsePut(self.put(put, values)?),
                Some(Request::RequestDeleteRange(d)) => Response::ResponseDeleteRange(self.delete(d, values)?),
                Some(Request::RequestTxn(_)) => {
                    let path = inner.next().expect("decide made a path for each inner transaction");
                    Response::ResponseTxn(self.run(path, values)?)
                }
                None => return Err(Error::KeyNotFound),
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(TxnResponse { header: header(self.revision()), succeeded: path.succeeded, responses })
    }
}
