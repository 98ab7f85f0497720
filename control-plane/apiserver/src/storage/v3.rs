//! The store's requests and answers as messages of etcd's v3 API, and back. Called by both stores that speak them: the
//! remote one over gRPC, and the one of the same process.

use wire::etcd;
use wire::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::etcd::request_op::Request;
use wire::etcd::response_op::Response;

use super::{KeyValue, RangeRequest, RangeResponse, Txn, TxnOutcome, Write};

pub fn key_value(kv: etcd::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        lease: kv.lease,
    }
}

/// The store's revision when it answered.
pub fn revision(header: Option<&etcd::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

pub fn range_request(request: RangeRequest) -> etcd::RangeRequest {
    etcd::RangeRequest {
        key: request.key,
        range_end: request.end,
        revision: request.revision,
        limit: request.limit as i64,
        keys_only: request.keys_only,
        count_only: request.count_only,
        ..etcd::RangeRequest::default()
    }
}

pub fn range_response(answer: etcd::RangeResponse) -> RangeResponse {
    RangeResponse {
        revision: revision(answer.header.as_ref()),
        count: answer.count as usize,
        kvs: answer.kvs.into_iter().map(key_value).collect(),
    }
}

/// Writes when every guard holds; reads the guarded keys when one doesn't.
pub fn txn_request(txn: Txn) -> etcd::TxnRequest {
    let op = |request| etcd::RequestOp { request: Some(request) };
    let compare = txn.guards.iter().map(|guard| etcd::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: guard.key.clone(),
        target_union: Some(TargetUnion::ModRevision(guard.mod_revision)),
        ..etcd::Compare::default()
    });
    let failure = txn.guards.iter().map(|guard| {
        op(Request::RequestRange(etcd::RangeRequest { key: guard.key.clone(), ..etcd::RangeRequest::default() }))
    });
    let success = txn.writes.into_iter().map(|write| match write {
        Write::Put { key, value, lease } => {
            op(Request::RequestPut(etcd::PutRequest { key, value, lease, ..etcd::PutRequest::default() }))
        }
        Write::Delete { key } => {
            op(Request::RequestDeleteRange(etcd::DeleteRangeRequest { key, ..etcd::DeleteRangeRequest::default() }))
        }
    });
    etcd::TxnRequest { compare: compare.collect(), failure: failure.collect(), success: success.collect() }
}

pub fn txn_outcome(answer: etcd::TxnResponse) -> TxnOutcome {
    let revision = revision(answer.header.as_ref());
    if answer.succeeded {
        return TxnOutcome::Committed { revision };
    }
    let current = answer.responses.into_iter().map(|response| match response.response {
        Some(Response::ResponseRange(range)) => range.kvs.into_iter().next().map(key_value),
        _ => None,
    });
    TxnOutcome::Conflict { revision, current: current.collect() }
}
