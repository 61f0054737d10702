//! The types openraft is built with.

use std::sync::Arc;

use cluster_types::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use crate::consensus::Outcome;
use crate::consensus::operation::Entry;
use crate::ports::SnapshotHandle;

/// A member's raft id: taken from the log, never used twice.
pub type NodeId = u64;

/// A member as the membership keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The peer.
    pub peer: PeerId,
    /// Where it was first reached.
    pub addresses: Vec<Multiaddr>,
}

/// openraft's conformance suite makes up members.
#[cfg(any(test, feature = "testing"))]
impl Default for Node {
    fn default() -> Self {
        let peer = PeerId::from_bytes(&[0, 0]).expect("an identity hash of nothing is a peer id");
        Self { peer, addresses: Vec::new() }
    }
}

/// What became of an entry's operations, one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers(pub Vec<Outcome>);

openraft::declare_raft_types!(
    /// openraft, as this cluster uses it: one leader a term.
    pub TypeConfig:
        D = Entry,
        R = Answers,
        NodeId = NodeId,
        Node = Node,
        AsyncRuntime = super::runtime::Runtime,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>,
);

/// A place in the log.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// The membership, and where in the log it was decided.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot shows.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// A state of an earlier log index, and what it shows.
pub type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotContent>;

/// Where the content of a snapshot is. It never travels as a whole.
#[derive(Clone, Debug)]
pub enum SnapshotContent {
    /// Frozen here: others are served from it.
    Frozen(Arc<dyn SnapshotHandle>),
    /// Gathered from others, beside the state.
    Staged,
}

/// A vote.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
