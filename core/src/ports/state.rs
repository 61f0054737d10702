//! The pinset and what belongs to it, on disk.
//!
//! Contract:
//! * [`StateStore::update`] runs its function on a consistent view and writes what it returns in one atomic batch:
//!   records, secondary indexes, digests, tails, remembered outcomes, tracker records and the applied position, all or
//!   none.
//!   It is not flushed: after a power cut the state may be older, never mixed, and the log brings it back;
//! * updates are carried out one at a time, in the order of the calls;
//! * a scan shows one instant: that of its first row. It holds a buffer, never the pinset, and a reader that stops
//!   reading costs that buffer. Rows come in the order of [`order_key`](crate::consensus::digest::order_key);
//!   a scan resumes after any CID, present or not;
//! * a snapshot is made without walking the pinset and shows the instant it was made at;
//! * what replaces the state is gathered beside it first ([`Staging`]); installing it is local, and when it is cut off
//!   (kill, power), the next start finishes it or the store refuses to open; the state in between is never served as
//!   if it were whole.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{BoxError, Cid, ErrorClass, PeerId, Pin, PinningRequest, RequestNumber, StatusFilter, Timestamp};
use futures::stream::BoxStream;

use super::outbox::{ConflictEvent, MergeView, MergedAt, OutboxChange, OutboxStore};
use super::staging::Staging;
use super::tracker_store::TrackerRecord;
use crate::crdt::merge::{History, VersionId};
use crate::crdt::{ShardMeta, TailEntry};

/// How many conflicts the event log keeps.
pub const MAX_CONFLICTS: u64 = 100_000;

/// The most bytes of records, as the store keeps them, in a page of a [`StateView`]; its first row may be larger.
pub const PAGE_BYTES: usize = 1 << 20;

/// The store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Reading or writing failed.
    #[error("the store cannot {operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        cause: BoxError,
    },
    /// What was read is not what was written.
    #[error("the store holds a damaged record: {what}")]
    Damaged {
        /// Which record, and what is wrong with it.
        what: String,
    },
    /// What was gathered to replace the state is not whole, or not what it should be; the state is untouched.
    #[error("the received snapshot cannot be used: {what}")]
    InvalidSnapshot {
        /// What is wrong with it.
        what: String,
    },
    /// The reader of a scan took nothing for so long that the scan was ended; it may begin again after its last row.
    #[error("the scan was ended: its reader took nothing for too long")]
    SlowReader,
    /// The store is being closed.
    #[error("the store is closing")]
    Closed,
}

impl StateError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Io { .. } | Self::Damaged { .. } => ErrorClass::Fatal,
            Self::InvalidSnapshot { .. } => ErrorClass::Invalid,
            Self::SlowReader | Self::Closed => ErrorClass::Unavailable,
        }
    }
}

/// The sum of a shard's records: how many, and the set hash of [`crate::consensus::digest`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSum {
    /// Number of pins in the shard.
    pub pins: u64,
    /// Set hash of the shard's records.
    pub hash: [u8; 32],
}

/// What is kept of a shard beside its records and its tail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardState {
    /// The sum of its records.
    pub sum: ShardSum,
    /// Its epochs: how far back its tail should reach.
    pub meta: ShardMeta,
    /// The log index as of which this peer received the shard from others, without the tail before; 0: it did not. It
    /// is this peer's own: sum and epochs are equal on all peers, and this is not.
    pub tail_from: u64,
}

impl ShardState {
    /// The oldest log index whose records can be derived.
    pub fn oldest(&self) -> u64 {
        self.meta.previous.max(self.tail_from)
    }

    /// Whether the records of a log index can be derived: the tail kept here reaches back to it.
    pub fn covers(&self, index: u64) -> bool {
        index >= self.oldest()
    }

    /// What is equal on all peers that applied the same entries.
    pub fn shared(&self) -> (ShardSum, ShardMeta) {
        (self.sum, self.meta)
    }
}

/// Where an entry of a tail stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TailPlace {
    /// Index of the log entry.
    pub index: u64,
    /// Its number among the tail entries of the shard that this log entry made.
    pub place: u32,
}

impl TailPlace {
    /// Behind everything that the log entries up to `index` made.
    pub fn after(index: u64) -> Self {
        Self { index, place: u32::MAX }
    }
}

/// An entry of a shard's tail, to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailRow {
    /// The shard.
    pub shard: u16,
    /// Its number among those of the shard and of the same log entry.
    pub place: u32,
    /// What it takes to undo the change.
    pub entry: TailEntry,
}

/// Names a request, so that a repeated one takes effect once. `window` is the log's own measure of time
/// ([`LogClock`](crate::consensus::apply::LogClock)); remembered outcomes are dropped a window at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKey {
    /// Window of the entry that carried it.
    pub window: u64,
    /// The caller's random number for it.
    pub id: [u8; 16],
}

/// A pin before and after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinChange {
    /// The pin.
    pub cid: Cid,
    /// What the store holds.
    pub before: Option<Pin>,
    /// What it shall hold.
    pub after: Option<Pin>,
}

/// What one update writes.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Pins as this peer shows them, each CID at most once.
    pub pins: Vec<PinChange>,
    /// Number of pins in the log, before and after, where `pins` do not tell it: they replace records that were changed
    /// behind the store's back. `None`: as `pins` say.
    pub pins_counted: Option<(u64, u64)>,
    /// Pins as the log has them, where writes wait that are shown over them; `None`: shown as the log has it.
    pub committed: Vec<(Cid, Option<Option<Pin>>)>,
    /// What comes into the outbox and leaves it.
    pub outbox: Vec<OutboxChange>,
    /// What merges leave of CIDs; `None`: the log has spoken since.
    pub histories: Vec<(Cid, Option<History>)>,
    /// Writes that are merged now.
    pub merged: Vec<(VersionId, MergedAt)>,
    /// Merged writes that need not be remembered any more.
    pub forget_merged: Vec<(VersionId, MergedAt)>,
    /// Conflicts for the event log, which keeps the newest [`MAX_CONFLICTS`].
    pub conflicts: Vec<ConflictEvent>,
    /// New sums and epochs of the shards that changed.
    pub shards: Vec<(u16, ShardState)>,
    /// The entries of a shard's tail up to this log index are dropped.
    pub drop_tail: Vec<(u16, u64)>,
    /// New entries of the tails; none that is dropped.
    pub tail: Vec<TailRow>,
    /// Outcomes to remember.
    pub outcomes: Vec<(RequestKey, Bytes)>,
    /// Outcomes of windows before this one are dropped.
    pub forget_before_window: Option<u64>,
    /// Tracker records to write; `None` removes.
    pub tracker: Vec<(Cid, Option<TrackerRecord>)>,
    /// The applied position and membership, opaque to the store.
    pub applied: Option<Bytes>,
}

/// A consistent view of the state, for [`UpdateFn`].
pub trait StateView: MergeView {
    /// One pin as the log has it.
    fn pin(&self, cid: &Cid) -> Result<Option<Pin>, StateError>;
    /// The sum and the epochs of one shard.
    fn shard(&self, shard: u16) -> Result<ShardState, StateError>;
    /// Some pins of a shard in order, as the log has them, beginning behind `after`: at most `limit`, and no more than come to
    /// [`PAGE_BYTES`]. Only an empty page is the end.
    fn shard_pins(&self, shard: u16, after: Option<&Cid>, limit: usize) -> Result<Vec<Pin>, StateError>;
    /// Some entries of a shard's tail in the order of the log, beginning behind `after`: at most `limit`, and no more
    /// than come to [`PAGE_BYTES`]. Only an empty page is the end.
    fn tail(&self, shard: u16, after: TailPlace, limit: usize) -> Result<Vec<(TailPlace, TailEntry)>, StateError>;
    /// The remembered outcome of a request.
    fn outcome(&self, key: &RequestKey) -> Result<Option<Bytes>, StateError>;
    /// What the tracker knows of a pin.
    fn tracked(&self, cid: &Cid) -> Result<Option<TrackerRecord>, StateError>;
}

/// Decides what to write from what is there. Runs on a storage thread: no waiting inside.
pub type UpdateFn = Box<dyn FnOnce(&dyn StateView) -> Result<Changes, StateError> + Send>;

/// Looks at a consistent view. Runs on a storage thread: no waiting inside.
pub type ReadFn = Box<dyn FnOnce(&dyn StateView) -> Result<(), StateError> + Send>;

/// What a changed pin means on this peer: the tracker record to write (`Some(None)` removes), or nothing to do.
/// Used where the store itself finds the differences, when a snapshot is installed.
pub type LocalEffect =
    Arc<dyn Fn(Option<&Pin>, Option<&Pin>, Option<&TrackerRecord>) -> Option<Option<TrackerRecord>> + Send + Sync>;

/// Bytes of a name, and of a key or text of metadata, that an index tells apart. Longer ones are found all the same: their
/// pins are looked at.
pub const INDEXED_BYTES: usize = 128;

/// The part of a text that an index tells apart: its first [`INDEXED_BYTES`] bytes, up to the first NUL.
pub fn indexed(text: &str) -> &[u8] {
    let bytes = text.as_bytes();
    let cut = &bytes[..bytes.len().min(INDEXED_BYTES)];
    cut.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A place among the names: where [`Scan::ByName`] resumes. The pin need not be there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePlace {
    /// The name.
    pub name: String,
    /// The pin.
    pub cid: Cid,
}

impl Scan {
    /// Whether a pin is one of those this scan is for, where the index alone does not say it.
    pub fn fits(&self, pin: &Pin) -> bool {
        match self {
            Self::ByName { prefix, .. } => {
                !pin.options.name.is_empty() && pin.options.name.starts_with(prefix.as_str())
            }
            Self::ByMeta { key, value, .. } => pin.options.metadata.get(key) == Some(value),
            Self::All { .. }
            | Self::ByPeer { .. }
            | Self::Expiring { .. }
            | Self::Requested { .. }
            | Self::ByStatus { .. } => true,
        }
    }

    /// Whether a request is one of those this scan is for.
    pub fn fits_request(&self, request: &PinningRequest) -> bool {
        let Self::Requested { user, name, before, after } = self else { return false };
        request.user == *user
            && name.as_ref().is_none_or(|name| request.name == *name)
            && before.is_none_or(|before| request.created < before)
            && after.is_none_or(|after| request.created > after)
    }
}

/// Which rows a scan shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scan {
    /// Every pin, and every tracker record whose pin is gone.
    All {
        /// Resume after this one.
        after: Option<Cid>,
    },
    /// The pins allocated to a peer by name (not those that are everywhere).
    ByPeer {
        /// The peer.
        peer: PeerId,
        /// Resume after this one.
        after: Option<Cid>,
    },
    /// The pins whose names begin with a text, by name (the first [`INDEXED_BYTES`] bytes of it) and then in the order of
    /// the listing. An empty text shows every pin that has a name.
    ByName {
        /// What the name begins with.
        prefix: String,
        /// Resume after this place.
        after: Option<NamePlace>,
    },
    /// The pins that have a text under a key of their metadata, in the order of the listing.
    ByMeta {
        /// The key.
        key: String,
        /// The whole text.
        value: String,
        /// Resume after this one.
        after: Option<Cid>,
    },
    /// The pins whose `expire_at` is set and not after `until`, soonest first.
    Expiring {
        /// The latest time to show.
        until: Timestamp,
    },
    /// The requests of the pinning service that a user made, newest first: a row for each, so a pin may come several times.
    Requested {
        /// The user.
        user: String,
        /// Only those with exactly this name.
        name: Option<String>,
        /// Only those made before.
        before: Option<Timestamp>,
        /// Only those made after.
        after: Option<Timestamp>,
    },
    /// Rows whose tracker record is in one of the statuses.
    ByStatus {
        /// The statuses.
        filter: StatusFilter,
        /// Resume after this one.
        after: Option<Cid>,
    },
}

/// One row of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The pin's CID.
    pub cid: Cid,
    /// The pin; `None` when only the tracker still knows it.
    pub pin: Option<Pin>,
    /// What the tracker knows of it.
    pub tracked: Option<TrackerRecord>,
    /// The request that the row is for, in [`Scan::Requested`].
    pub request: Option<RequestNumber>,
}

/// A frozen state: others are served from it.
#[async_trait]
pub trait SnapshotHandle: fmt::Debug + Send + Sync + 'static {
    /// The applied position it shows; empty when nothing was applied yet.
    fn applied(&self) -> Bytes;
    /// Looks at it.
    async fn read(&self, read: ReadFn) -> Result<(), StateError>;
    /// What is replicated beside pins and shards, in order, in groups of rows that come to about 256 KiB.
    fn annex(&self) -> BoxStream<'static, Result<Vec<AnnexRow>, StateError>>;
}

/// The kind of the rows that are remembered outcomes: their key is the window of a [`RequestKey`] in eight bytes, the
/// highest first, and its id.
pub const OUTCOME_ROWS: u8 = 1;

/// A replicated row that is not a pin. Travels as it is; only the store knows what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnexRow {
    /// What it is; a kind that a store does not know is refused.
    pub kind: u8,
    /// Its key.
    pub key: Bytes,
    /// Its content.
    pub value: Bytes,
}

/// Keeps the pinset.
#[async_trait]
pub trait StateStore: OutboxStore + Staging {
    /// Reads, decides and writes in one step.
    async fn update(&self, update: UpdateFn) -> Result<(), StateError>;
    /// Looks at a consistent view without keeping updates waiting.
    async fn read(&self, read: ReadFn) -> Result<(), StateError>;
    /// The applied position of the last update that wrote one.
    async fn applied(&self) -> Result<Option<Bytes>, StateError>;
    /// One pin as this peer shows it.
    async fn pin(&self, cid: Cid) -> Result<Option<Pin>, StateError>;
    /// Rows one after the other, as this peer shows them.
    fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Row, StateError>>;
    /// The sums and epochs of all 4,096 shards, by shard, with the applied position of the same instant.
    async fn shards(&self) -> Result<(Vec<ShardState>, Option<Bytes>), StateError>;
    /// Number of pins shown; costs nothing.
    fn pins(&self) -> u64;
    /// The annex of a frozen state of now, see [`SnapshotHandle::annex`].
    fn annex(&self) -> BoxStream<'static, Result<Vec<AnnexRow>, StateError>>;

    /// Freezes the present state, replacing the last frozen one; between two updates, never within one.
    async fn make_snapshot(&self) -> Result<Arc<dyn SnapshotHandle>, StateError>;
    /// The last frozen state, also of an earlier run.
    async fn current_snapshot(&self) -> Result<Option<Arc<dyn SnapshotHandle>>, StateError>;
    /// Replaces the state by what was staged, which must be complete: every shard that is not staged is as in the
    /// manifest. Its applied position becomes the state's. Remembered outcomes come from the annex, epochs from the
    /// manifest, tracker records from `effect`, pin by pin that differs. Shards whose epochs differ lose their tails and
    /// note the index. What was installed becomes the last frozen state, and nothing is staged any more.
    async fn install_staged(&self, effect: LocalEffect) -> Result<(), StateError>;
}
