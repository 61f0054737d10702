//! What a peer keeps on disk, in RocksDB.
//!
//! | database | families | guarantee |
//! | --- | --- | --- |
//! | `state` | `raft_log`, `raft_meta` | flushed before it is acknowledged; one flush for everybody who waits |
//! | `state` | `pins`, `by_peer`, `by_expiry`, `by_name`, `by_meta`, `shards`, `shard_tail`, `outcomes`, `meta`, `peers` | one batch per entry, flushed with the log |
//! | `state` | `history`, `merged`, `merged_by_index`, `conflicts` | with the batch of the entry that merges |
//! | `state` | `committed`, `outbox`, `outbox_order` | with the pin's batch; flushed before a write is acknowledged |
//! | `state` | `staging` | with the next flush of the log |
//! | `state` | `tracker`, `tracker_due`, `tracker_status` | with the pin's batch, or not flushed at all |
//! | `blocks` | `blocks`, `block_sizes` | survive a power cut after a flush |
//! | `blocks` | `roots` | flushed before they return |
//!
//! **Architecture invariant:** no call of RocksDB on a worker of the runtime; the one door is [`blocking`].
//! **Architecture invariant:** nothing is proportional to the pinset but scans and replacing the state, and those use
//! constant memory.

mod blocking;
mod blockstore;
mod codec;
mod db;
mod due_floor;
mod engine;
mod error;
mod flush_mark;
mod forget;
mod index;
mod install;
mod keys;
mod log_writer;
mod merge_batch;
mod merging;
mod peers;
mod raft_log;
mod recent;
mod scan;
mod search_build;
mod shared_flush;
mod snapshot;
mod staging;
mod state;
mod stream;
mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tracker;
mod write;

pub use blockstore::BlockStore;
pub use db::Store;
pub use engine::StoreOptions;
pub use error::StoreError;
pub use raft_log::{LogSurvey, RaftLog};
pub use state::RocksState;
pub use telemetry::StoreTelemetry;
