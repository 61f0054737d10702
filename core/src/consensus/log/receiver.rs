//! Answers other raft nodes.
//!
//! **Invariant:** a message for another raft id is refused, so a replaced disk never answers for the lost one.

use std::fmt;
use std::sync::Arc;

use cluster_types::PeerId;

use super::catch_up::CatchingUp;
use super::message::{RaftCall, RaftMessage, RaftReply};
use super::state_machine::StateMachine;
use super::types::{NodeId, TypeConfig};

/// openraft, as this cluster runs it.
pub(super) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// Hands messages of other raft nodes to openraft.
pub struct RaftReceiver {
    node_id: NodeId,
    raft: Raft,
    catching_up: Arc<CatchingUp>,
}

impl fmt::Debug for RaftReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftReceiver").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl RaftReceiver {
    pub(super) fn new(node_id: NodeId, raft: Raft, catching_up: Arc<CatchingUp>) -> Self {
        Self { node_id, raft, catching_up }
    }

    /// Answers one message.
    pub async fn receive(&self, from: PeerId, call: RaftCall) -> RaftReply {
        if call.to != self.node_id {
            return RaftReply::Refused(format!("this is raft node {}, not {}", self.node_id, call.to));
        }
        let answer = match call.message {
            RaftMessage::Append(request) => {
                self.raft.append_entries(request).await.map(RaftReply::Append).map_err(|error| error.to_string())
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
            RaftMessage::SnapshotOffer { transfer, vote, meta, manifest } => {
                self.catching_up.offer(from, transfer, vote, meta, &manifest).await
            }
            RaftMessage::SnapshotAnnex { transfer, sequence, rows } => {
                self.catching_up.annex(from, transfer, sequence, &rows).await
            }
            RaftMessage::SnapshotWait { transfer } => self.catching_up.wait(from, transfer).await,
        };
        answer.unwrap_or_else(RaftReply::Refused)
    }
}
