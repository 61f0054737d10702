//! What raft nodes say to each other, as it goes over a [`Transport`](crate::ports::Transport).
//!
//! MessagePack with field names, so that a later release may add fields. Every message names the raft id it is meant
//! for: a peer whose disk was replaced has a new id, and must not answer for the old one.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use crate::catchup::AnnexAsk;

use super::types::{NodeId, SnapshotMeta, TypeConfig, Vote};

/// A message to a raft node.
#[derive(Debug, Serialize, Deserialize)]
pub struct RaftCall {
    /// Whom it is for.
    pub to: NodeId,
    /// The sender's clock, see [`Deadline`](super::Deadline).
    #[serde(default)]
    pub clock: u64,
    /// What it says.
    pub message: RaftMessage,
}

/// What a raft node is told or asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum RaftMessage {
    /// Log entries, or a heartbeat.
    Append(AppendEntriesRequest<TypeConfig>),
    /// A request for a vote.
    Vote(VoteRequest<TypeConfig>),
    /// Whether a request for a vote would be granted.
    PreVote(VoteRequest<TypeConfig>),
    /// The offer of leadership.
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// A snapshot is to be offered: which log index is your state of?
    SnapshotBase,
    /// Catch up with a snapshot: what it shows, and what every shard is in it.
    SnapshotOffer {
        /// The sender's random number for it.
        transfer: u64,
        /// The leader's vote.
        vote: Vote,
        /// What the snapshot shows.
        meta: SnapshotMeta,
        /// The manifest is an excerpt, for a state of this log index.
        #[serde(default)]
        base: Option<u64>,
        /// Its manifest, see [`decode_manifest`](crate::catchup::decode_manifest).
        manifest: Bytes,
        /// The sums of its annex, see [`AnnexSums`](crate::catchup::AnnexSums).
        annex: Bytes,
    },
    /// Some rows of the snapshot's annex, of those that were asked for, in order.
    SnapshotAnnex {
        /// Which snapshot.
        transfer: u64,
        /// Which group of rows, from 0.
        sequence: u64,
        /// The rows, compressed; empty at the end.
        rows: Bytes,
    },
    /// How far has the snapshot come? Answered when it is installed, or after a moment.
    SnapshotWait {
        /// Which snapshot.
        transfer: u64,
    },
}

/// What a raft node answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum RaftReply {
    /// To [`RaftMessage::Append`].
    Append(AppendEntriesResponse<TypeConfig>),
    /// To [`RaftMessage::Vote`] and [`RaftMessage::PreVote`].
    Vote(VoteResponse<TypeConfig>),
    /// To [`RaftMessage::TransferLeader`].
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    /// To [`RaftMessage::SnapshotWait`], when it is installed.
    Snapshot(SnapshotResponse<TypeConfig>),
    /// To [`RaftMessage::SnapshotAnnex`]: go on. To [`RaftMessage::SnapshotWait`]: it is on its way.
    Continue,
    /// To [`RaftMessage::SnapshotBase`]; none: there is no state yet.
    Base(Option<u64>),
    /// To [`RaftMessage::SnapshotOffer`]: the excerpt does not fit the state here, all of the manifest is needed.
    NeedsManifest,
    /// To [`RaftMessage::SnapshotOffer`]: its annex is here already, and its shards are on their way.
    Joined,
    /// To [`RaftMessage::SnapshotOffer`]: what is wanted of its annex.
    Lacks(AnnexAsk),
    /// The node cannot answer: it is another one, it is stopping, or the message makes no sense.
    Refused(String),
}
