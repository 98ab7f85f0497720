//! I/O: the Maintenance and Cluster services.

use std::fs::File;
use std::io::Read;
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status, async_trait};
use wire::etcd::alarm_request::AlarmAction;
use wire::etcd::cluster_server::Cluster;
use wire::etcd::maintenance_server::Maintenance;
use wire::etcd::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, DowngradeInfo,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, Member,
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
    MoveLeaderRequest, MoveLeaderResponse, ResponseHeader, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse,
};

use super::{CLUSTER_VERSION, Server, VERSION};
use crate::cluster;
use crate::engine::restore::SNAPSHOT_ALIGN;
use crate::error::Error;

impl Server {
    fn alarms(&self) -> Vec<AlarmMember> {
        let alarm = AlarmMember { member_id: self.etcd().identity().member_id, alarm: AlarmType::Nospace as i32 };
        if self.etcd().status().no_space { vec![alarm] } else { Vec::new() }
    }
}

#[async_trait]
impl Maintenance for Server {
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        let request = request.into_inner();
        let mine = request.member_id == 0 || request.member_id == self.etcd().identity().member_id;
        let no_space = request.alarm == AlarmType::Nospace as i32;
        let alarms = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => {
                let asked = |a: &AlarmMember| request.alarm == AlarmType::None as i32 || a.alarm == request.alarm;
                self.alarms().into_iter().filter(asked).collect()
            }
            Ok(AlarmAction::Activate) if no_space && mine => {
                self.etcd().set_no_space(true);
                self.alarms()
            }
            Ok(AlarmAction::Activate) => {
                return Err(Status::unimplemented("etcdserver: this alarm can't be raised by hand on this member"));
            }
            Ok(AlarmAction::Deactivate) => {
                let cleared = if no_space && mine { self.alarms() } else { Vec::new() };
                if !cleared.is_empty() {
                    self.etcd().set_no_space(false);
                }
                cleared
            }
            Err(_) => Vec::new(),
        };
        Ok(Response::new(AlarmResponse { header: self.header_now(), alarms }))
    }

    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let status = self.etcd().status();
        let mut errors: Vec<String> =
            self.alarms().iter().map(|a| format!("memberID:{} alarm:NOSPACE ", a.member_id)).collect();
        if status.leadership.leader.is_none() {
            errors.push(Error::NoLeader.to_string());
        }
        Ok(Response::new(StatusResponse {
            header: self.header(status.revision),
            version: VERSION.to_owned(),
            db_size: status.disk_bytes.cast_signed(),
            leader: status.leadership.leader.unwrap_or(0),
            raft_index: status.applied_index,
            raft_term: status.leadership.term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: status.used_bytes.cast_signed(),
            is_learner: status.learner,
            storage_version: CLUSTER_VERSION.to_owned(),
            db_size_quota: status.quota_bytes.cast_signed(),
            downgrade_info: Some(DowngradeInfo::default()),
        }))
    }

    async fn defragment(&self, _request: Request<DefragmentRequest>) -> Result<Response<DefragmentResponse>, Status> {
        self.etcd().defragment().await?;
        Ok(Response::new(DefragmentResponse { header: None }))
    }

    async fn hash(&self, _request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let hash = self.etcd().hash_kv(0).await?;
        Ok(Response::new(HashResponse { header: self.header(hash.hash_revision), hash: hash.hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let hash = self.etcd().hash_kv(request.into_inner().revision).await?;
        Ok(Response::new(HashKvResponse {
            header: self.header_now(),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
        }))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn snapshot(&self, _request: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let file = self.etcd().snapshot().await?;
        let size = file.metadata().map_err(|e| Status::internal(e.to_string()))?.len();
        let saving = Saving {
            file,
            left: size,
            padding: size.next_multiple_of(SNAPSHOT_ALIGN) - size,
            hasher: Some(Sha256::new()),
            header: self.header_now(),
        };
        let stream = futures::stream::try_unfold(saving, |mut saving| async move {
            let step = tokio::task::spawn_blocking(move || saving.next().map(|part| (part, saving)));
            let (part, saving) = step.await.map_err(|e| Status::internal(e.to_string()))??;
            Ok(part.map(|part| (part, saving)))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn move_leader(&self, _request: Request<MoveLeaderRequest>) -> Result<Response<MoveLeaderResponse>, Status> {
        Err(Status::failed_precondition("etcdserver: bad leader transferee"))
    }

    async fn downgrade(&self, _request: Request<DowngradeRequest>) -> Result<Response<DowngradeResponse>, Status> {
        Err(Status::unimplemented("etcdserver: downgrades are not supported by this member"))
    }
}

/// A snapshot on its way: the file, zeros up to a multiple of 512, and the SHA-256 of both.
struct Saving {
    file: File,
    left: u64,
    padding: u64,
    /// Gone once the hash is sent.
    hasher: Option<Sha256>,
    header: Option<ResponseHeader>,
}

impl Saving {
    fn next(&mut self) -> Result<Option<SnapshotResponse>, Status> {
        /// Bytes of one message.
        const PIECE: u64 = 64 << 10;
        /// Bytes of a SHA-256.
        const HASH: u64 = 32;
        let Some(hasher) = &mut self.hasher else { return Ok(None) };
        let blob: Bytes = if self.left > 0 {
            let mut piece = vec![0; self.left.min(PIECE) as usize];
            self.file.read_exact(&mut piece).map_err(|e| Status::internal(e.to_string()))?;
            self.left -= piece.len() as u64;
            hasher.update(&piece);
            piece.into()
        } else if self.padding > 0 {
            let piece = vec![0; std::mem::take(&mut self.padding) as usize];
            hasher.update(&piece);
            piece.into()
        } else {
            let hash = self.hasher.take().map(Sha256::finalize).unwrap_or_default();
            Bytes::copy_from_slice(&hash)
        };
        let remaining_bytes = self.left + self.padding + if self.hasher.is_some() { HASH } else { 0 };
        let header = self.header;
        Ok(Some(SnapshotResponse { header, remaining_bytes, blob, version: CLUSTER_VERSION.to_owned() }))
    }
}

fn row(member: cluster::Member) -> Member {
    let cluster::Member { id, name, peer_urls, client_urls, learner } = member;
    Member { id, name, peer_ur_ls: peer_urls, client_ur_ls: client_urls, is_learner: learner }
}

fn single() -> Status {
    Status::unimplemented("etcdserver: this etcd is a cluster of one; its members can't be changed")
}

#[async_trait]
impl Cluster for Server {
    async fn member_list(&self, _request: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        let members = self.etcd().members().into_iter().map(row).collect();
        Ok(Response::new(MemberListResponse { header: self.header(0), members }))
    }

    async fn member_add(&self, _request: Request<MemberAddRequest>) -> Result<Response<MemberAddResponse>, Status> {
        Err(single())
    }

    async fn member_remove(
        &self,
        _request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        Err(single())
    }

    async fn member_update(
        &self,
        _request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        Err(single())
    }

    async fn member_promote(
        &self,
        _request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        Err(single())
    }
}
