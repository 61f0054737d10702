//! Writes that were accepted without a quorum: where they wait, and what the state remembers of those that were merged.
//!
//! Contract:
//! * a peer acts on what it **shows**: the pins of the log, and over them the eventual writes it knows that are not in the
//!   log yet. Listings, indexes and the tracker follow what is shown; digests, shards and tails follow the log;
//! * the pin as the log has it is kept beside the shown one ([`super::Changes::committed`]) for as long as a write on it
//!   waits;
//! * waiting writes are kept in the order they came, each once, with a number that is never used again;
//! * what belongs to merging ([`super::Changes::histories`], [`super::Changes::merged`]) is part of the state: the same on
//!   every peer, and it travels with snapshots. The outbox and the event log are this peer's own and survive the
//!   installation of a snapshot.

use async_trait::async_trait;
use cluster_types::{Cid, Pin, Timestamp};

use super::state::StateError;
use crate::crdt::merge::{Conflict, Eventual, History, VersionId};

/// A change of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboxChange {
    /// A write comes in. It is not there yet.
    Put {
        /// The write.
        write: Box<Eventual>,
        /// Whether this peer accepted it.
        own: bool,
    },
    /// A write leaves. It is there.
    Remove {
        /// The pin it is about.
        cid: Cid,
        /// Its name.
        id: VersionId,
    },
}

/// A write that waits for the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its number here: grows with every write that comes in.
    pub number: u64,
    /// Whether this peer accepted it.
    pub own: bool,
    /// The write.
    pub write: Eventual,
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxCount {
    /// Writes that this peer accepted.
    pub own: u64,
    /// All writes, those of others included.
    pub all: u64,
    /// The number of the last write of its own that this peer ever accepted; 0: none.
    pub last_own: u64,
}

/// When a write was merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergedAt {
    /// Index of the entry.
    pub index: u64,
    /// The entry's time.
    pub time: Timestamp,
}

/// A wish that lost against another, as the event log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictEvent {
    /// Index of the entry that merged them.
    pub index: u64,
    /// Its number among those of the entry.
    pub place: u32,
    /// The time of the entry.
    pub time: Timestamp,
    /// Who lost against whom.
    pub conflict: Conflict,
}

/// The part of a consistent view that is about merging.
pub trait MergeView {
    /// A pin as this peer shows it.
    fn shown(&self, cid: &Cid) -> Result<Option<Pin>, StateError>;
    /// How much waits; costs nothing.
    fn outbox_count(&self) -> OutboxCount;
    /// The writes on a CID that wait.
    fn waiting(&self, cid: &Cid) -> Result<Vec<Waiting>, StateError>;
    /// How many CIDs have a history; costs nothing.
    fn histories(&self) -> u64;
    /// What the last merge left of a CID.
    fn history(&self, cid: &Cid) -> Result<Option<History>, StateError>;
    /// The CIDs with a history into which nothing was merged for longest, at most `limit`: with the index of the last merge,
    /// by that and by listing order.
    fn oldest_histories(&self, limit: usize) -> Result<Vec<(Cid, u64)>, StateError>;
    /// Whether a write was merged.
    fn is_merged(&self, id: &VersionId) -> Result<bool, StateError>;
    /// The merged writes that are remembered longest, at most `limit`, by index and name.
    fn oldest_merged(&self, limit: usize) -> Result<Vec<(VersionId, MergedAt)>, StateError>;
}

/// Keeps the outbox and the event log.
#[async_trait]
pub trait OutboxStore: Send + Sync + 'static {
    /// The writes that wait, by number, from behind `after`: at most `limit`, and no more than come to
    /// [`PAGE_BYTES`](super::PAGE_BYTES). Only an empty page is the end.
    async fn outbox(&self, after: u64, limit: usize) -> Result<Vec<Waiting>, StateError>;
    /// How much waits; costs nothing.
    fn waiting_count(&self) -> OutboxCount;
    /// How many CIDs on which writes wait are settled: shown with those on top of the log's record, which is kept beneath.
    /// Costs nothing.
    fn settled_count(&self) -> u64;
    /// Everything updated so far survives a power cut when this returns.
    async fn flush(&self) -> Result<(), StateError>;
    /// Conflicts, newest first, from before `before` (index and place): at most `limit`, and no more than come to
    /// [`PAGE_BYTES`](super::PAGE_BYTES). Only an empty page is the end.
    async fn conflicts(&self, before: Option<(u64, u32)>, limit: usize) -> Result<Vec<ConflictEvent>, StateError>;
}
