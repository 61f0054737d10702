//! Answers other raft nodes.
//!
//! **Invariant:** a message for another raft id is refused, so a replaced disk never answers for the lost one.
//! **Invariant:** nothing reaches raft but what a member sends in its own name (see [`roster`](super::roster)).

use std::fmt;
use std::sync::Arc;

use cluster_types::PeerId;
use openraft::raft::AppendEntriesRequest;

use super::admission::Admission;
use super::catch_up::{CatchingUp, Offer};
use super::deadline::Tick;
use super::message::{RaftCall, RaftMessage, RaftReply};
use super::quorum::Heard;
use super::roster::MembersTold;
use super::state_machine::StateMachine;
use super::types::{NodeId, TypeConfig};

/// openraft, as this cluster runs it.
pub(super) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// Hands messages of other raft nodes to openraft.
pub struct RaftReceiver {
    node_id: NodeId,
    raft: Raft,
    inbox: Inbox,
}

/// What a receiver hands messages to.
pub(super) struct Inbox {
    pub(super) admission: Arc<Admission>,
    pub(super) catching_up: Arc<CatchingUp>,
    pub(super) heard: Heard,
}

impl fmt::Debug for RaftReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftReceiver").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl RaftReceiver {
    pub(super) fn new(node_id: NodeId, raft: Raft, inbox: Inbox) -> Self {
        Self { node_id, raft, inbox }
    }

    async fn append(&self, request: AppendEntriesRequest<TypeConfig>, clock: u64) -> Result<RaftReply, String> {
        let tick = Tick::of(&request, clock);
        let response = self.raft.append_entries(request).await.map_err(|error| error.to_string())?;
        self.inbox.heard.answered(&response, tick);
        Ok(RaftReply::Append(response))
    }

    /// Who the members are, by the newest membership that is known here to be on a quorum.
    pub async fn members(&self) -> MembersTold {
        self.inbox.admission.members().await
    }

    /// Whether a peer may do what members may.
    pub fn is_member(&self, peer: PeerId) -> bool {
        self.inbox.admission.is_member(peer)
    }

    /// Answers one message.
    pub async fn receive(&self, from: PeerId, call: RaftCall) -> RaftReply {
        if call.to != self.node_id {
            let reason = format!("raft node {} is gone: this peer is node {} now", call.to, self.node_id);
            return RaftReply::Refused(reason);
        }
        if let Err(reason) = self.inbox.admission.admit(from, &call.message).await {
            return RaftReply::Refused(reason);
        }
        let answer = match call.message {
            RaftMessage::Append(request) => self.append(request, call.clock).await,
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
            RaftMessage::SnapshotBase => self.inbox.catching_up.base().await.map(RaftReply::Base),
            RaftMessage::SnapshotOffer { transfer, vote, meta, base, manifest, annex } => {
                self.inbox.catching_up.offer(from, Offer { transfer, vote, meta, base, manifest, annex }).await
            }
            RaftMessage::SnapshotAnnex { transfer, sequence, rows } => {
                self.inbox.catching_up.annex(from, transfer, sequence, &rows).await
            }
            RaftMessage::SnapshotWait { transfer } => self.inbox.catching_up.wait(from, transfer).await,
        };
        answer.unwrap_or_else(RaftReply::Refused)
    }
}
