//! openraft's network over the [`Transport`] port: one client per target and purpose.
//!
//! Deadlines are ours, not openraft's: its own follow the heartbeat interval, which one slow flush of a busy disk
//! exceeds. A call that could not be sent is reported as unreachable, so that openraft backs off; everything else is
//! repeated at once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};

use super::chance::Chance;
use super::message::{RaftCall, RaftMessage, RaftReply};
use super::types::{Node, NodeId, Snapshot, TypeConfig, Vote};
use crate::ports::{Purpose, SnapshotHandle, Transport, TransportError};
use crate::rpc;

/// How long a follower may take to write entries to disk and answer.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a heartbeat may take.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one piece of a snapshot may take.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the installation of a whole snapshot may take.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(3600);

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

/// Makes clients for openraft.
#[derive(Clone)]
pub(super) struct Network {
    transport: Arc<dyn Transport>,
    chance: Chance,
}

impl Network {
    pub(super) fn new(transport: Arc<dyn Transport>, chance: Chance) -> Self {
        Self { transport, chance }
    }

    fn client(&self, to: NodeId, node: &Node, append: Purpose, append_timeout: Duration) -> Client {
        Client {
            to,
            peer: node.peer,
            append,
            append_timeout,
            transport: Arc::clone(&self.transport),
            chance: self.chance.clone(),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, node: &Node) -> Client {
        self.client(target, node, Purpose::Append, APPEND_TIMEOUT)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &Node) -> Client {
        self.client(target, node, Purpose::Control, HEARTBEAT_TIMEOUT)
    }
}

/// Speaks to one raft node.
pub(super) struct Client {
    to: NodeId,
    peer: cluster_types::PeerId,
    append: Purpose,
    append_timeout: Duration,
    transport: Arc<dyn Transport>,
    chance: Chance,
}

impl Client {
    async fn call(&self, purpose: Purpose, message: RaftMessage, timeout: Duration) -> Rpc<RaftReply> {
        let body = rpc::encode_raft(&RaftCall { to: self.to, message }).map_err(|error| lost(&error))?;
        let answer = self.transport.call(self.peer, purpose, body, timeout).await;
        let answer = answer.map_err(|error| {
            let seen = !matches!(error, TransportError::NotSent { .. });
            if seen { lost(&error) } else { RPCError::Unreachable(Unreachable::new(&error)) }
        })?;
        let reply = rpc::decode_raft_reply(&answer).map_err(|error| lost(&error))?;
        if let RaftReply::Refused(reason) = reply {
            return Err(RPCError::Unreachable(Unreachable::new(&AnyError::error(reason))));
        }
        Ok(reply)
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let transfer = self.chance.draw();
        self.call(Purpose::Bulk, RaftMessage::SnapshotBegin { transfer }, CHUNK_TIMEOUT).await?;
        let mut chunks = snapshot.snapshot.chunks();
        let mut sequence = 0;
        while let Some(chunk) = chunks.next().await {
            let data: Bytes = chunk.map_err(|error| StreamingError::from(lost(&error)))?;
            let message = RaftMessage::SnapshotChunk { transfer, sequence, data };
            self.call(Purpose::Bulk, message, CHUNK_TIMEOUT).await?;
            sequence += 1;
        }
        let applied = snapshot.snapshot.applied();
        let end = RaftMessage::SnapshotEnd { transfer, vote, meta: snapshot.meta, applied };
        let RaftReply::Snapshot(response) = self.call(Purpose::Bulk, end, INSTALL_TIMEOUT).await? else {
            return Err(StreamingError::from(misfit()));
        };
        Ok(response)
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = Arc<dyn SnapshotHandle>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let RaftReply::Append(response) =
            self.call(self.append, RaftMessage::Append(request), self.append_timeout).await?
        else {
            return Err(misfit());
        };
        Ok(response)
    }

    async fn vote(&mut self, request: VoteRequest<TypeConfig>, option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        let RaftReply::Vote(response) =
            self.call(Purpose::Control, RaftMessage::Vote(request), option.hard_ttl()).await?
        else {
            return Err(misfit());
        };
        Ok(response)
    }

    async fn pre_vote(&mut self, request: VoteRequest<TypeConfig>, option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        let RaftReply::Vote(response) =
            self.call(Purpose::Control, RaftMessage::PreVote(request), option.hard_ttl()).await?
        else {
            return Err(misfit());
        };
        Ok(response)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let RaftReply::TransferLeader(response) =
            self.call(Purpose::Control, RaftMessage::TransferLeader(request), option.hard_ttl()).await?
        else {
            return Err(misfit());
        };
        Ok(response)
    }
}

fn lost(error: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}

fn misfit() -> RPCError<TypeConfig> {
    lost(&AnyError::error("the answer is to another question"))
}
