//! What the tracker remembers: which pins the node should hold or drop, how often it was tried, and when next.
//!
//! Contract:
//! * records are written by the same batch that changes the pin ([`super::Changes::tracker`]), so no change is ever
//!   missed, and by [`TrackerStore::settle`];
//! * `settle` takes effect only while the record still has the generation it was read with; thus a change of the pin
//!   always wins over a job that was under way;
//! * a record with a due time is found by [`TrackerStore::due`] in the order priority first, then due time;
//! * settling is not flushed: after a power cut the last seconds of progress may be repeated, never skipped.

use async_trait::async_trait;
use cluster_types::{Cid, StatusFilter, Timestamp, TrackerStatus};

use super::state::StateError;

/// What the tracker knows of one pin on this peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackerRecord {
    /// The log index that asked for it; grows with every change of the pin.
    pub generation: u64,
    /// `pin_queued`, `pinning`, `pinned`, `pin_error`, `unpin_queued`, `unpinning`, `unpin_error` or
    /// `unexpectedly_unpinned`.
    pub status: TrackerStatus,
    /// Attempts so far.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub error: String,
    /// When the record last changed.
    pub changed: Timestamp,
    /// When to try next; `None`: not by itself.
    pub due: Option<Timestamp>,
    /// Whether it goes before others.
    pub priority: bool,
}

/// A record and the pin it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackedTask {
    /// The pin.
    pub cid: Cid,
    /// What is known of it.
    pub record: TrackerRecord,
}

/// What became of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The pin.
    pub cid: Cid,
    /// The generation the job was started with.
    pub generation: u64,
    /// What to remember; `None`: nothing more (unpinned).
    pub record: Option<TrackerRecord>,
}

/// How many records there are, by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackerCounts {
    /// Waiting to be pinned or unpinned.
    pub queued: u64,
    /// Those of them that wait to be unpinned.
    pub unpins_queued: u64,
    /// Failed at the last attempt.
    pub failed: u64,
    /// Those of them that failed to be unpinned.
    pub unpins_failed: u64,
    /// Pinned.
    pub pinned: u64,
}

impl TrackerCounts {
    /// Counts a record in. What is under way counts as waiting until it is settled.
    pub fn add(&mut self, status: TrackerStatus) {
        for number in self.numbers(status).into_iter().flatten() {
            *number = number.saturating_add(1);
        }
    }

    /// Counts a record out.
    pub fn remove(&mut self, status: TrackerStatus) {
        for number in self.numbers(status).into_iter().flatten() {
            *number = number.saturating_sub(1);
        }
    }

    fn numbers(&mut self, status: TrackerStatus) -> [Option<&mut u64>; 2] {
        use TrackerStatus as S;
        match status {
            S::PinQueued | S::Pinning => [Some(&mut self.queued), None],
            S::UnpinQueued | S::Unpinning => [Some(&mut self.queued), Some(&mut self.unpins_queued)],
            S::PinError => [Some(&mut self.failed), None],
            S::UnpinError => [Some(&mut self.failed), Some(&mut self.unpins_failed)],
            S::Pinned => [Some(&mut self.pinned), None],
            S::Undefined | S::ClusterError | S::Unpinned | S::Remote | S::Sharded | S::UnexpectedlyUnpinned => {
                [None, None]
            }
        }
    }
}

/// Keeps the tracker's records.
#[async_trait]
pub trait TrackerStore: Send + Sync + 'static {
    /// What is known of one pin.
    async fn tracked(&self, cid: Cid) -> Result<Option<TrackerRecord>, StateError>;
    /// At most `limit` records that are due at `now`, most urgent first.
    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<TrackedTask>, StateError>;
    /// When the next record is due after nothing is due any more.
    async fn next_due(&self) -> Result<Option<Timestamp>, StateError>;
    /// Writes what became of jobs; says of each whether it still counted.
    async fn settle(&self, settled: Vec<Settled>) -> Result<Vec<bool>, StateError>;
    /// At most `limit` records in one of the statuses after `after`, in the order of the pinset's listing.
    async fn by_status(
        &self,
        filter: StatusFilter,
        after: Option<Cid>,
        limit: usize,
    ) -> Result<Vec<TrackedTask>, StateError>;
    /// How many records there are; costs nothing.
    fn counts(&self) -> TrackerCounts;
}
