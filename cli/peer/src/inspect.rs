//! Looks at the state of a stopped peer.
//!
//! The caller holds the folder's execution lock; the store has a lock of its own besides.

use std::path::Path;

use cluster_core::consensus::digest;
use cluster_core::consensus::log::AppliedPosition;
use cluster_core::ports::{Scan, ShardState, StateStore};
use cluster_store::{Store, StoreOptions};
use cluster_types::{BoxError, Pin};
use futures::StreamExt;

/// The shards of a peer's pinset and how far back each can be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrdtInfo {
    /// The last log entry that was applied; 0 before the first.
    pub applied_index: u64,
    /// Number of pins.
    pub pins: u64,
    /// The digest of the whole pinset, in hexadecimal: peers that applied the same entries have the same.
    pub digest: String,
    /// Number of shards.
    pub shards: usize,
    /// Number of shards that hold pins.
    pub shards_in_use: usize,
    /// Log indexes of the oldest and of the newest epoch of the shards in use; `None` when none is.
    pub epochs: Option<(u64, u64)>,
    /// Number of tail entries of all shards.
    pub tail_entries: u64,
    /// Number of entries of the longest tail.
    pub longest_tail: u64,
}

/// Looks at the state in `folder`. Finishes the install of a snapshot that was cut off, as any start does.
pub async fn crdt_info(folder: &Path) -> Result<CrdtInfo, BoxError> {
    if !Store::exists(folder) {
        return Err(format!("there is no state in {}: this peer has never been started", folder.display()).into());
    }
    let place = folder.to_owned();
    let store = tokio::task::spawn_blocking(move || Store::open(&place, StoreOptions::default())).await??;
    let read = store.state().shards().await;
    store.close().await?;
    let (shards, applied) = read?;
    let applied = AppliedPosition::decode(applied.as_ref())?;
    Ok(summary(&shards, applied.index()))
}

/// Hands every pin of the state in `folder` to `take`, one after the other.
pub async fn each_pin(folder: &Path, mut take: impl FnMut(&Pin) -> std::io::Result<()>) -> Result<(), BoxError> {
    if !Store::exists(folder) {
        return Ok(());
    }
    let place = folder.to_owned();
    let store = tokio::task::spawn_blocking(move || Store::open(&place, StoreOptions::default())).await??;
    let mut rows = store.state().scan(Scan::All { after: None });
    let mut outcome = Ok(());
    while let Some(row) = rows.next().await {
        outcome =
            row.map_err(BoxError::from).and_then(|row| row.pin.as_ref().map_or(Ok(()), &mut take).map_err(Into::into));
        if outcome.is_err() {
            break;
        }
    }
    drop(rows);
    store.close().await?;
    outcome
}

fn summary(shards: &[ShardState], applied_index: u64) -> CrdtInfo {
    let in_use = || shards.iter().filter(|state| state.sum.pins > 0);
    let epochs = || in_use().map(|state| state.meta.epoch);
    let tails = || shards.iter().map(|state| state.meta.since_previous);
    CrdtInfo {
        applied_index,
        pins: shards.iter().map(|state| state.sum.pins).sum(),
        digest: hex::encode(digest::root(shards.iter().map(|state| &state.sum))),
        shards: shards.len(),
        shards_in_use: in_use().count(),
        epochs: epochs().min().zip(epochs().max()),
        tail_entries: tails().sum(),
        longest_tail: tails().max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use cluster_core::crdt::ShardMeta;
    use cluster_core::ports::{Changes, ShardSum};
    use tempfile::TempDir;

    use super::*;

    fn shard(pins: u64, epoch: u64, tail: u64) -> ShardState {
        let meta = ShardMeta { epoch, previous: 0, since_epoch: 0, since_previous: tail };
        ShardState { sum: ShardSum { pins, hash: [1; 32] }, meta, tail_from: 0 }
    }

    #[tokio::test]
    async fn a_stopped_peer_tells_its_shards_and_how_long_their_tails_are() {
        let folder = TempDir::new().unwrap();
        let none = crdt_info(folder.path()).await.unwrap_err();
        assert!(none.to_string().contains("never been started"), "{none}");
        assert!(!Store::exists(folder.path()), "looking makes nothing");

        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        let shards = vec![(3, shard(2, 40, 7)), (4, shard(0, 90, 5)), (4095, shard(1, 10, 0))];
        let changes = Changes { shards, ..Changes::default() };
        store.state().update(Box::new(move |_view| Ok(changes))).await.unwrap();
        let running = crdt_info(folder.path()).await.unwrap_err();
        assert!(running.to_string().contains("use"), "{running}");
        store.close().await.unwrap();

        let info = crdt_info(folder.path()).await.unwrap();
        assert_eq!((info.pins, info.shards, info.shards_in_use), (3, 4096, 2));
        assert_eq!((info.epochs, info.tail_entries, info.longest_tail), (Some((10, 40)), 12, 7));
        assert_eq!((info.applied_index, info.digest.len()), (0, 64));
    }
}
