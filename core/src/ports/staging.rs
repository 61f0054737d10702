//! What a peer that catches up has gathered beside its state.
//!
//! Contract:
//! * the state itself is not touched: it stays whole and readable;
//! * each call is atomic, and what it kept survives the death of the process at once, a power cut after the next flush
//!   of the log: then it may be gone, never mixed;
//! * a staged shard is kept as its difference to the state, and names the sum of what it differs from.

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::Cid;

use super::state::{AnnexRow, ShardSum, StateError};

/// A shard on its way to become the state's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StagedShard {
    /// What it is.
    pub head: StagedHead,
    /// How it differs from the shard of the state: each CID once, in the order of their bytes; `None` deletes.
    pub changes: Vec<(Cid, Option<Bytes>)>,
}

/// What a staged shard is, in short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StagedHead {
    /// Log index as of which it is.
    pub index: u64,
    /// The sum of its records.
    pub sum: ShardSum,
    /// The sum of the state's shard that the difference is to.
    pub base: ShardSum,
}

/// What is being staged, in short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StagedOverview {
    /// What it is to become, encoded; `None` when nothing was begun.
    pub manifest: Option<Bytes>,
    /// How many groups of the annex are kept, and whether these are all.
    pub annex: (u32, bool),
    /// The staged shards.
    pub shards: Vec<(u16, StagedHead)>,
}

/// Keeps what is gathered.
#[async_trait]
pub trait Staging: Send + Sync + 'static {
    /// Begins to gather what `manifest` says of the log index `index`, or goes on: shards that are staged stay, an annex
    /// goes.
    async fn stage(&self, index: u64, manifest: Bytes) -> Result<(), StateError>;
    /// Keeps the next group of the annex. `last`: these are all.
    async fn stage_annex(&self, rows: Vec<AnnexRow>, last: bool) -> Result<(), StateError>;
    /// Keeps shards, each in the place of what was staged of it; `None`: nothing.
    async fn stage_shards(&self, shards: Vec<(u16, Option<StagedShard>)>) -> Result<(), StateError>;
    /// One staged shard.
    async fn staged_shard(&self, shard: u16) -> Result<Option<StagedShard>, StateError>;
    /// What there is.
    async fn staged(&self) -> Result<StagedOverview, StateError>;
    /// Drops everything.
    async fn unstage(&self) -> Result<(), StateError>;
}
