//! I/O: the Lease service.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status, Streaming, async_trait};
use wire::etcd::lease_server::Lease;
use wire::etcd::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};

use super::{Server, stopped};
use crate::error::Error;

impl Server {
    fn keep_alive(&self, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
        // A lease that is gone is told with a time of 0, not with an error.
        let ttl = match self.etcd().lease_keep_alive(id) {
            Err(Error::LeaseNotFound) => 0,
            other => other?,
        };
        Ok(LeaseKeepAliveResponse { header: self.header_now(), id, ttl })
    }
}

#[async_trait]
impl Lease for Server {
    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        let mut answer = self.etcd().lease_grant(id, ttl).await?;
        answer.header = self.header(answer.header.map_or(0, |h| h.revision));
        Ok(Response::new(answer))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let revision = self.etcd().lease_revoke(request.into_inner().id).await?;
        Ok(Response::new(LeaseRevokeResponse { header: self.header(revision) }))
    }

    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let open = Some((self.clone(), request.into_inner()));
        let answers = stream::unfold(open, |open| async {
            let (server, mut requests) = open?;
            let answer = tokio::select! {
                request = requests.next() => request?.and_then(|request| server.keep_alive(request.id)),
                () = server.0.ending.cancelled() => return Some((Err(stopped()), None)),
            };
            Some((answer, Some((server, requests))))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        Ok(Response::new(self.etcd().lease_time_to_live(id, keys)))
    }

    async fn lease_leases(
        &self,
        _request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let leases = self.etcd().leases().into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: self.header_now(), leases }))
    }
}
