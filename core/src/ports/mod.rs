//! What the world must provide: every port of the core, and its contract in the header of its file.
//!
//! A port is object-safe and small. Its conformance suite is in [`crate::testing::suite`]; the in-memory double and
//! the real adapter both run it. openraft's storage traits are ports already and are implemented directly.

mod blockstore;
mod clock;
mod gossip;
mod ipfs;
mod node_record;
mod outbox;
mod staging;
mod state;
mod tracker_store;
mod transport;

pub use blockstore::{Block, BlockError, Blockstore, Root};
pub use clock::{Clock, SystemClock};
pub use gossip::{Gossip, GossipError, GossipMessage, Topic};
pub use ipfs::{IpfsError, IpfsNode, PinProgress, PinRequest, ProgressSink};
pub use node_record::NodeIdRecord;
pub use outbox::{ConflictEvent, MergeView, MergedAt, OutboxChange, OutboxCount, OutboxStore, Waiting};
pub use staging::{StagedHead, StagedOverview, StagedShard, Staging};
pub use state::{
    AnnexRow, Changes, INDEXED_BYTES, LocalEffect, MAX_CONFLICTS, NamePlace, OUTCOME_ROWS, PAGE_BYTES, PinChange,
    ReadFn, RequestKey, Row, Scan, ShardState, ShardSum, SnapshotHandle, StateError, StateStore, StateView, TailPlace,
    TailRow, UpdateFn, indexed,
};
pub use tracker_store::{Settled, TrackedTask, TrackerCounts, TrackerRecord, TrackerStore};
pub use transport::{CallHandler, MAX_MESSAGE, Purpose, Transport, TransportError};
