//! Looks at the state of a stopped peer.
//!
//! The caller holds the folder's execution lock; the store has a lock of its own besides.

use std::path::Path;

use cluster_core::consensus::digest;
use cluster_core::consensus::log::AppliedPosition;
use cluster_core::ports::{OutboxStore, ShardState, StateStore};
use cluster_store::RocksState;
use cluster_types::{BoxError, Pin, Timestamp};
use futures::StreamExt;

use crate::state::{StoppedState, is_dirty};

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
    /// The writes that wait for a quorum.
    pub outbox: OutboxInfo,
    /// How many merged writes are remembered.
    pub merged: u64,
    /// How many pins have a history of merges.
    pub histories: u64,
    /// Whether the next start checks every record.
    pub dirty: bool,
}

/// The writes that wait for a quorum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxInfo {
    /// Number of those that this peer accepted.
    pub own: u64,
    /// Number of those that other peers accepted.
    pub of_others: u64,
    /// When the one that waits longest here was accepted, by its author's clock; `None` when none waits.
    pub oldest: Option<Timestamp>,
}

/// Looks at the state in `folder`. Finishes an import or the install of a snapshot that was cut off, as any start
/// does.
pub async fn crdt_info(folder: &Path) -> Result<CrdtInfo, BoxError> {
    let Some(stopped) = StoppedState::open(folder).await? else {
        return Err(format!("there is no state in {}: this peer has never been started", folder.display()).into());
    };
    let read = read(&stopped.state()).await;
    stopped.close().await?;
    Ok(CrdtInfo { dirty: is_dirty(folder), ..read? })
}

/// Hands every pin of the state in `folder` to `take`, one after the other.
pub async fn each_pin(folder: &Path, mut take: impl FnMut(&Pin) -> std::io::Result<()>) -> Result<(), BoxError> {
    let Some(stopped) = StoppedState::open(folder).await? else { return Ok(()) };
    let mut pins = stopped.pins();
    let mut outcome = Ok(());
    while let Some(pin) = pins.next().await {
        outcome = pin.map_err(BoxError::from).and_then(|pin| take(&pin).map_err(Into::into));
        if outcome.is_err() {
            break;
        }
    }
    drop(pins);
    stopped.close().await?;
    outcome
}

async fn read(state: &RocksState) -> Result<CrdtInfo, BoxError> {
    let (shards, applied) = state.shards().await?;
    let applied = AppliedPosition::decode(applied.as_ref())?;
    let count = state.waiting_count();
    let oldest = state.outbox(0, 1).await?.first().map(|waiting| waiting.write.time);
    let outbox = OutboxInfo { own: count.own, of_others: count.all.saturating_sub(count.own), oldest };
    let (histories, merged) = state.merges();
    Ok(CrdtInfo { outbox, merged, histories, ..summary(&shards, applied.index()) })
}

/// What the shards say.
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
        outbox: OutboxInfo::default(),
        merged: 0,
        histories: 0,
        dirty: false,
    }
}

#[cfg(test)]
mod tests {
    use cluster_core::crdt::ShardMeta;
    use cluster_core::crdt::merge::{Eventual, Sight, Write};
    use cluster_core::ports::{Changes, MergedAt, OutboxChange, ShardSum};
    use cluster_store::{Store, StoreOptions};
    use cluster_types::{Pin, PinOptions};
    use tempfile::TempDir;

    use super::*;

    fn shard(pins: u64, epoch: u64, tail: u64) -> ShardState {
        let meta = ShardMeta { epoch, previous: 0, since_epoch: 0, since_previous: tail };
        ShardState { sum: ShardSum { pins, hash: [1; 32] }, meta, tail_from: 0 }
    }

    fn write(seconds: i64) -> Eventual {
        let cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap();
        let author = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap();
        let everywhere = PinOptions { replication_factor_min: -1, replication_factor_max: -1, ..PinOptions::default() };
        let write = Write::by(author, Timestamp::from_unix_seconds(seconds), cid, None, Sight::of_state(1, None));
        Eventual::new(write.pin(Pin::new(cid, everywhere))).unwrap()
    }

    #[tokio::test]
    async fn a_stopped_peer_tells_its_shards_and_how_long_their_tails_are() {
        let folder = TempDir::new().unwrap();
        let none = crdt_info(folder.path()).await.unwrap_err();
        assert!(none.to_string().contains("never been started"), "{none}");
        assert!(!Store::exists(folder.path()), "looking makes nothing");

        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        let shards = vec![(3, shard(2, 40, 7)), (4, shard(0, 90, 5)), (4095, shard(1, 10, 0))];
        let writes = [50, 40, 60].map(write);
        let merged = writes.iter().map(|write| (write.id(), MergedAt { index: 3, time: write.time })).collect();
        let outbox = [true, false, false].into_iter().zip(writes);
        let outbox = outbox.map(|(own, write)| OutboxChange::Put { write: Box::new(write), own }).collect();
        let changes = Changes { shards, merged, outbox, ..Changes::default() };
        store.state().update(Box::new(move |_view| Ok(changes))).await.unwrap();
        let running = crdt_info(folder.path()).await.unwrap_err();
        assert!(running.to_string().contains("use"), "{running}");
        store.close().await.unwrap();

        let info = crdt_info(folder.path()).await.unwrap();
        assert_eq!((info.pins, info.shards, info.shards_in_use), (3, 4096, 2));
        assert_eq!((info.epochs, info.tail_entries, info.longest_tail), (Some((10, 40)), 12, 7));
        assert_eq!((info.applied_index, info.digest.len()), (0, 64));
        let oldest = Some(Timestamp::from_unix_seconds(50));
        assert_eq!(info.outbox, OutboxInfo { own: 1, of_others: 2, oldest }, "the first that came in");
        assert_eq!((info.merged, info.histories), (3, 0));
    }
}
