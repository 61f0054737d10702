//! Answers other raft nodes.
//!
//! **Invariant:** a message for another raft id is refused, so a replaced disk never answers for the lost one.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cluster_types::PeerId;
use tokio::sync::Mutex;

use super::message::{RaftCall, RaftMessage, RaftReply};
use super::quorum::Heard;
use super::state_machine::StateMachine;
use super::types::{NodeId, Snapshot, SnapshotMeta, TypeConfig, Vote};
use crate::ports::{SnapshotReceiver, StateStore};

/// openraft, as this cluster runs it.
pub(super) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// Hands messages of other raft nodes to openraft.
pub struct RaftReceiver {
    node_id: NodeId,
    raft: Raft,
    state: Arc<dyn StateStore>,
    heard: Heard,
    incoming: Mutex<Option<Incoming>>,
}

/// A snapshot on its way in. There is one at a time: a new one replaces it.
struct Incoming {
    from: PeerId,
    transfer: u64,
    next: u64,
    receiver: Box<dyn SnapshotReceiver>,
}

impl fmt::Debug for RaftReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftReceiver").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl RaftReceiver {
    pub(super) fn new(node_id: NodeId, raft: Raft, state: Arc<dyn StateStore>, heard: Heard) -> Self {
        Self { node_id, raft, state, heard, incoming: Mutex::new(None) }
    }

    /// Answers one message.
    pub async fn receive(&self, from: PeerId, call: RaftCall) -> RaftReply {
        if call.to != self.node_id {
            return RaftReply::Refused(format!("this is raft node {}, not {}", self.node_id, call.to));
        }
        let answer = match call.message {
            RaftMessage::Append(request) => {
                let answer = self.raft.append_entries(request).await;
                answer
                    .inspect(|answer| self.heard.answered(answer))
                    .map(RaftReply::Append)
                    .map_err(|error| error.to_string())
            }
            RaftMessage::Vote(request) => {
                self.raft.vote(request).await.map(RaftReply::Vote).map_err(|error| error.to_string())
            }
            RaftMessage::PreVote(request) => {
                self.raft.pre_vote(request).await.map(RaftReply::Vote).map_err(|error| error.to_string())
            }
            RaftMessage::TransferLeader(request) => self
                .raft
                .handle_transfer_leader(request)
                .await
                .map(RaftReply::TransferLeader)
                .map_err(|error| error.to_string()),
            RaftMessage::SnapshotBegin { transfer } => self.begin(from, transfer).await,
            RaftMessage::SnapshotChunk { transfer, sequence, data } => self.chunk(from, transfer, sequence, data).await,
            RaftMessage::SnapshotEnd { transfer, vote, meta, applied } => {
                self.end(from, transfer, vote, meta, applied).await
            }
        };
        answer.unwrap_or_else(RaftReply::Refused)
    }

    async fn begin(&self, from: PeerId, transfer: u64) -> Result<RaftReply, String> {
        let mut incoming = self.incoming.lock().await;
        *incoming = None;
        let receiver = self.state.receive_snapshot().await.map_err(|error| error.to_string())?;
        *incoming = Some(Incoming { from, transfer, next: 0, receiver });
        Ok(RaftReply::Continue)
    }

    async fn chunk(&self, from: PeerId, transfer: u64, sequence: u64, data: Bytes) -> Result<RaftReply, String> {
        let mut incoming = self.incoming.lock().await;
        let expected = incoming
            .as_mut()
            .filter(|incoming| incoming.from == from && incoming.transfer == transfer && incoming.next == sequence)
            .ok_or("no such snapshot is on its way in, or a piece is missing")?;
        expected.receiver.chunk(data).await.map_err(|error| error.to_string())?;
        expected.next += 1;
        Ok(RaftReply::Continue)
    }

    async fn end(
        &self,
        from: PeerId,
        transfer: u64,
        vote: Vote,
        meta: SnapshotMeta,
        applied: Bytes,
    ) -> Result<RaftReply, String> {
        let whole = self
            .incoming
            .lock()
            .await
            .take_if(|incoming| incoming.from == from && incoming.transfer == transfer)
            .ok_or("no such snapshot is on its way in")?;
        let handle = whole.receiver.finish(applied).await.map_err(|error| error.to_string())?;
        let snapshot = Snapshot { meta, snapshot: handle };
        let response = self.raft.install_full_snapshot(vote, snapshot).await.map_err(|error| error.to_string())?;
        Ok(RaftReply::Snapshot(response))
    }
}
