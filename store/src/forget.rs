//! Leaving a cluster: everything that belongs to it is dropped in one batch.

use bytes::Bytes;
use cluster_core::ports::StateError;
use rocksdb::WriteBatch;

use crate::codec::{self, MergeCounts};
use crate::db::Store;
use crate::error::{Failed, StoreError};
use crate::keys::{self, Family};
use crate::state::Database;

/// What the log made, and the log.
const OF_THE_CLUSTER: [Family; 10] = [
    Family::RaftLog,
    Family::RaftMeta,
    Family::Shards,
    Family::ShardTail,
    Family::Outcomes,
    Family::Committed,
    Family::History,
    Family::HistoryByIndex,
    Family::Merged,
    Family::MergedByIndex,
];
/// Behind every key: longer than any, and of the highest bytes.
const END: [u8; 64] = [u8::MAX; 64];

impl Store {
    /// Drops what belongs to a cluster: log, vote, raft id, sums, tails, outcomes, the memory of merges, snapshots. What
    /// is shown, what waits, the event log and what the tracker knows stay; `applied` becomes the position. The store
    /// is closed when it returns, since what is in memory belongs to the old cluster; nothing may use it meanwhile.
    pub async fn forget_cluster(self, applied: Bytes) -> Result<(), StoreError> {
        let snapshots = self.snapshot_folder();
        let state = self.state();
        let done = state.look(move |database| {
            // They can be made again; left behind, they would be taken for snapshots of the next log.
            if snapshots.exists() {
                std::fs::remove_dir_all(&snapshots).failed_to("clear away snapshots")?;
            }
            forget(database, &applied)
        });
        done.await.map_err(|error| StoreError::io("leave the cluster in", self.folder(), error))?;
        self.close().await
    }
}

fn forget(database: &Database, applied: &[u8]) -> Result<(), StateError> {
    let Database { engine, present, .. } = database;
    let mut batch = WriteBatch::default();
    for family in OF_THE_CLUSTER {
        engine.delete_range(&mut batch, family, &[], &END);
    }
    let merging = present.figures.read().merging;
    let merging = MergeCounts { committed: 0, histories: 0, merged: 0, ..merging };
    engine.put(&mut batch, Family::Meta, keys::MERGE_COUNTS, codec::encode_merge_counts(&merging));
    engine.put(&mut batch, Family::Meta, keys::APPLIED, codec::encode_opaque(applied));
    engine.write_durably(batch)
}

#[cfg(test)]
mod tests {
    use cluster_core::crdt::merge::VersionId;
    use cluster_core::ports::{Changes, MergedAt, StateStore};
    use cluster_types::Timestamp;
    use tempfile::TempDir;

    use super::*;
    use crate::engine::StoreOptions;

    #[tokio::test]
    async fn what_is_forgotten_is_not_counted() {
        let folder = TempDir::new().unwrap();
        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        let at = MergedAt { index: 1, time: Timestamp::from_unix_seconds(1) };
        let merged = vec![(VersionId::from_bytes([1; 32]), at)];
        let changes = Changes { merged, ..Changes::default() };
        store.state().update(Box::new(move |_view| Ok(changes))).await.unwrap();
        assert_eq!(store.state().merges(), (0, 1));
        store.forget_cluster(Bytes::from_static(b"gone")).await.unwrap();
        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        assert_eq!(store.state().merges(), (0, 0));
    }
}
