//! The KV service.

use std::pin::Pin;

use futures::Stream;
use prost::Message;
use tonic::{Request, Response, Status, async_trait};
use wire::etcd::kv_server::Kv;
use wire::etcd::range_request::{SortOrder, SortTarget};
use wire::etcd::request_op::Request as Op;
use wire::etcd::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RangeStreamResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};

use super::{Server, own};
use crate::error::Error;

/// Values owned apart from the request's buffer.
fn own_put(put: &mut PutRequest) {
    put.value = own(&put.value);
}

fn own_ops(ops: &mut [RequestOp]) {
    for op in ops {
        match &mut op.request {
            Some(Op::RequestPut(put)) => own_put(put),
            Some(Op::RequestTxn(txn)) => {
                own_ops(&mut txn.success);
                own_ops(&mut txn.failure);
            }
            _ => {}
        }
    }
}

impl Server {
    fn check_size(&self, message: &impl Message) -> Result<(), Error> {
        let fits = message.encoded_len() <= self.etcd().options().max_request_bytes;
        if fits { Ok(()) } else { Err(Error::TooLarge) }
    }

    fn fill(&self, header: Option<ResponseHeader>) -> Option<ResponseHeader> {
        self.header(header.map_or(0, |h| h.revision))
    }
}

#[async_trait]
impl Kv for Server {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let mut answer = self.etcd().range(request.into_inner()).await?;
        answer.header = self.fill(answer.header);
        Ok(Response::new(answer))
    }

    type RangeStreamStream = Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

    async fn range_stream(&self, request: Request<RangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        let request = request.into_inner();
        let order = SortOrder::try_from(request.sort_order);
        let plain = request.sort_target == SortTarget::Key as i32 && !matches!(order, Ok(SortOrder::Descend));
        if !plain {
            return Err(Status::unimplemented("etcdserver: range stream does not support non-default sort order"));
        }
        crate::query::check(&request)?;
        let pieces = Pieces { server: self.clone(), limit: FIRST_PIECE, sent: 0, next: Some(request) };
        let stream = futures::stream::try_unfold(pieces, |mut pieces| async move {
            Ok(pieces.next().await?.map(|answer| (RangeStreamResponse { range_response: Some(answer) }, pieces)))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let mut request = request.into_inner();
        self.check_size(&request)?;
        own_put(&mut request);
        let mut answer = self.etcd().put(request).await?;
        answer.header = self.fill(answer.header);
        Ok(Response::new(answer))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let mut answer = self.etcd().delete(request.into_inner()).await?;
        answer.header = self.fill(answer.header);
        Ok(Response::new(answer))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let mut request = request.into_inner();
        self.check_size(&request)?;
        own_ops(&mut request.success);
        own_ops(&mut request.failure);
        let mut answer = self.etcd().txn(request).await?;
        answer.header = self.fill(answer.header);
        Ok(Response::new(answer))
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        let CompactionRequest { revision, physical } = request.into_inner();
        let revision = self.etcd().compact(revision, physical).await?;
        Ok(Response::new(CompactionResponse { header: self.header(revision) }))
    }
}

/// Keys in the first piece of a streamed range; then as many as make about [`PIECE_BYTES`].
const FIRST_PIECE: i64 = 64;
const PIECE_BYTES: usize = 1 << 20;

/// A range read piece by piece at one revision.
struct Pieces {
    server: Server,
    limit: i64,
    /// Keys told so far.
    sent: i64,
    next: Option<RangeRequest>,
}

impl Pieces {
    /// The next piece; the last one carries header, count and whether there is more.
    async fn next(&mut self) -> Result<Option<RangeResponse>, Status> {
        let Some(request) = self.next.take() else { return Ok(None) };
        let left = if request.limit > 0 { request.limit - self.sent } else { i64::MAX };
        let whole = request.count_only || request.range_end.is_empty();
        let ask = RangeRequest { limit: if whole { request.limit } else { self.limit.min(left) }, ..request.clone() };
        let mut answer = self.server.etcd().range(ask).await?;
        let revision = answer.header.take().map_or(0, |h| h.revision);
        let told = self.sent;
        self.sent += answer.kvs.len() as i64;
        let complete = whole || !answer.more || answer.kvs.len() as i64 >= left;
        let last = answer.kvs.last().filter(|_| !complete);
        let Some(last) = last else {
            answer.header = self.server.header(revision);
            answer.count += told;
            return Ok(Some(answer));
        };
        let mut key = last.key.to_vec();
        key.push(0);
        let at = if request.revision > 0 { request.revision } else { revision };
        self.next = Some(RangeRequest { key: key.into(), revision: at, ..request });
        let size: usize = answer.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
        self.limit = if size < PIECE_BYTES / 2 { self.limit * 2 } else { (self.limit / 2).max(1) };
        Ok(Some(RangeResponse { kvs: answer.kvs, ..RangeResponse::default() }))
    }
}
