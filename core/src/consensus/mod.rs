//! How peers agree on the pinset.
//!
//! [`Consensus`] is all that the rest of the core sees: submit a [`Request`], read at a barrier, watch the position,
//! change the membership. Behind it: the leader's sequencer turns requests into [`Operation`](operation::Operation)s,
//! the log orders them, apply judges them.

pub mod apply;
mod deciding;
pub mod digest;
pub mod eventual;
pub mod log;
mod merging;
pub mod operation;
pub mod overlay;
pub(crate) mod report;
mod request_ids;
pub mod sequencer;

use std::time::Duration;

use crate::watch;
use async_trait::async_trait;
use cluster_types::{Cid, Commit, ErrorClass, Multiaddr, PeerId, Pin, RequestNumber, Role, StateReport, WireError};
use serde::{Deserialize, Serialize};

pub use deciding::MAX_PIN_BYTES;
pub use request_ids::RequestIds;

use crate::crdt::merge::Eventual;

/// A wish to change the shared state. The leader decides what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Pin, or pin again with other options. Replication factors are set; `allocations` are kept when not empty.
    /// With `pin_update`, the pin it names is copied. Requests of the pinning service stay, and with `requests`, these come
    /// to those that are there, and a pin that is there stays otherwise as it is.
    Pin(Box<Pin>),
    /// Remove a pin.
    Unpin {
        /// The pin.
        cid: Cid,
    },
    /// Remove a part of a sharded pin: a shard or a block of its cluster DAG.
    UnpinPart {
        /// The part.
        cid: Cid,
    },
    /// Allocate an existing pin anew, away from some peers.
    Reallocate {
        /// The pin.
        cid: Cid,
        /// Peers that must not hold it any more.
        exclude: Vec<PeerId>,
    },
    /// Remove a pin whose time is over; nothing happens if its time has been changed meanwhile.
    Expire {
        /// The pin.
        cid: Cid,
    },
    /// Take a request of the pinning service back. The last one takes the pin with it, unless somebody wants it by other
    /// means.
    Withdraw {
        /// The pin.
        cid: Cid,
        /// Whose request it is.
        user: String,
        /// Which one.
        id: RequestNumber,
    },
    /// Bring writes that were accepted without a quorum into the log.
    Merge(Vec<Eventual>),
}

impl Request {
    /// The pin it is about; none for a merge.
    pub fn cid(&self) -> Option<Cid> {
        match self {
            Self::Pin(pin) => Some(pin.cid),
            Self::Unpin { cid }
            | Self::UnpinPart { cid }
            | Self::Reallocate { cid, .. }
            | Self::Expire { cid }
            | Self::Withdraw { cid, .. } => Some(*cid),
            Self::Merge(_) => None,
        }
    }
}

/// What became of a request, as decided when its entry was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The pin as it now stands.
    Pinned(Box<Pin>),
    /// The pin as it stood before it was removed.
    Unpinned(Box<Pin>),
    /// Nothing needed to be changed.
    Unchanged,
    /// Refused: nothing was changed.
    Refused(WireError),
}

/// Proof that a request is kept: on a quorum and applied here, or, without one, on the disk of this peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// How it was accepted.
    pub commit: Commit,
    /// What became of it.
    pub outcome: Outcome,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The peer.
    pub peer: PeerId,
    /// Its raft id, never used twice.
    pub node_id: u64,
    /// Whether it votes.
    pub voter: bool,
    /// Where it was first reached.
    pub addresses: Vec<Multiaddr>,
}

/// Where this peer is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Index of the last entry applied here.
    pub applied: u64,
    /// Index of the last entry known to be on a quorum.
    pub committed: u64,
    /// Term of the ordering.
    pub term: u64,
    /// What this peer is.
    pub role: Role,
    /// The leader, if one is known.
    pub leader: Option<PeerId>,
    /// The members, sorted by peer. Empty until this peer has joined.
    pub members: Vec<Member>,
    /// Whether this peer was a member and is one no longer.
    pub removed: bool,
}

/// Agreement failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsensusError {
    /// The write was not accepted, and has no effect.
    #[error("no quorum: {reason}. Nothing was changed; try again when a majority of the voters is back")]
    NoQuorum {
        /// What is missing.
        reason: String,
    },
    /// It may or may not have been accepted.
    #[error("the write was sent to the leader, but no answer came within {after:?}. It may still take effect")]
    OutcomeUnknown {
        /// How long was waited.
        after: Duration,
    },
    /// It was accepted here, and the disk failed then: after a restart it may be there or not.
    #[error("the write was accepted here, but it could not be flushed to the disk: {reason}. It may still take effect")]
    Unflushed {
        /// What failed.
        reason: String,
    },
    /// There is too much to do.
    #[error("too many writes are waiting; nothing was changed, try again")]
    Overloaded,
    /// A change of the membership was refused.
    #[error("{reason}")]
    Membership {
        /// Why.
        reason: String,
        /// What may be done.
        class: ErrorClass,
    },
    /// This peer only follows.
    #[error("{}", crate::follower::READ_ONLY)]
    ReadOnly,
    /// This peer's ordering has stopped.
    #[error("consensus has stopped on this peer: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

impl ConsensusError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NoQuorum { .. } | Self::Overloaded => ErrorClass::Unavailable,
            Self::OutcomeUnknown { .. } | Self::Unflushed { .. } => ErrorClass::Unknown,
            Self::Membership { class, .. } => *class,
            Self::ReadOnly => ErrorClass::Invalid,
            Self::Stopped { .. } => ErrorClass::Fatal,
        }
    }
}

/// Agreement among peers.
#[async_trait]
pub trait Consensus: Send + Sync + 'static {
    /// Has a request ordered and applied, from any peer. Returns when it is applied *here*. Dropping the future does
    /// not take the request back.
    async fn submit(&self, request: Request) -> Result<Receipt, ConsensusError>;
    /// Returns when everything acknowledged before the call is applied here.
    async fn read_barrier(&self) -> Result<(), ConsensusError>;
    /// Where this peer is, always up to date.
    fn position(&self) -> watch::Receiver<Position>;
    /// For how long no quorum has been heard where writes are accepted without one; `None` while one is heard, and where
    /// they are refused. Whoever hears a leader that has lost its quorum does not know of it. Costs nothing.
    fn alone_for(&self) -> Option<Duration>;
    /// Position and digest of one instant.
    async fn report(&self) -> Result<StateReport, ConsensusError>;
    /// Makes a peer a member; already being one is success. Where writes are accepted without a quorum it does nothing, since
    /// there a peer joins by itself.
    async fn add_peer(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<(), ConsensusError>;
    /// Removes a member; not being one is success.
    async fn remove_peer(&self, peer: PeerId) -> Result<(), ConsensusError>;
    /// Gives up leadership to another voter, if there is one and this peer leads.
    async fn hand_over(&self);
}
