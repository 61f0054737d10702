//! Checks a state in full, when somebody has doubts: the mark `dirty`, looked at by the next start.
//!
//! The original repairs its datastore then. Ours has nothing to repair from by itself: records and digests are written in
//! one batch, so when they do not fit the disk is at fault, and the peer joins the others anew.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use cluster_core::crdt::shard::sum;
use cluster_core::ports::{StateError, StateStore, StateView};
use cluster_store::Store;

use super::place::database;

/// The mark, inside the folder of the database, so that it goes where that goes. The engine leaves names it does not
/// know alone.
const MARK: &str = "dirty";

/// A state does not stand the check, or it cannot be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// There is no state to mark.
    #[error("there is no state in {folder}: this peer has never been started", folder = folder.display())]
    NoState {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The mark cannot be written or removed.
    #[error("cannot mark the state")]
    Mark(#[source] io::Error),
    /// The state cannot be read.
    #[error("cannot read the state")]
    Unreadable(#[source] StateError),
    /// The records of a shard do not add up to its digest.
    #[error(
        "the records of shard {shard} do not add up to its digest: move the folders `state` and `snapshots` away and \
         start with --bootstrap, so that this peer gets the pinset from the others. {waiting} writes that were accepted \
         without a quorum wait in it: if there are any, save them first with `state export`, and pin them again later"
    )]
    Wrong {
        /// The shard.
        shard: u16,
        /// Writes that are lost with the folder.
        waiting: u64,
    },
}

/// Marks the state in `folder` as dirty, so that the next start checks all of it, or takes the mark away.
pub fn mark_dirty(folder: &Path, dirty: bool) -> Result<(), CheckError> {
    if !Store::exists(folder) {
        return Err(CheckError::NoState { folder: folder.to_owned() });
    }
    let place = database(folder);
    let marked = if dirty {
        File::create(place.join(MARK)).and_then(|mark| mark.sync_all())
    } else {
        match fs::remove_file(place.join(MARK)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            end => end,
        }
    };
    marked.and_then(|()| File::open(place)?.sync_all()).map_err(CheckError::Mark)
}

/// Whether the state in `folder` is marked as dirty.
pub(crate) fn is_dirty(folder: &Path) -> bool {
    database(folder).join(MARK).exists()
}

/// Checks the state in `folder`, which is open as `state`, if it is marked as dirty; takes the mark away when all is
/// well. Reads every record then.
pub(crate) async fn check_if_dirty(folder: &Path, state: &dyn StateStore) -> Result<(), CheckError> {
    if !is_dirty(folder) {
        return Ok(());
    }
    tracing::info!(pins = state.pins(), "the state is marked as dirty: checking every record");
    check(state).await?;
    tracing::info!("every record is as it should be");
    mark_dirty(folder, false)
}

/// Whether the records of every shard, as the log has them, add up to its digest. Nobody writes to the state.
async fn check(state: &dyn StateStore) -> Result<(), CheckError> {
    let (shards, _applied) = state.shards().await.map_err(CheckError::Unreadable)?;
    for (shard, kept) in (0..).zip(shards) {
        let (found, answer) = std::sync::mpsc::sync_channel(1);
        let add_up = move |view: &dyn StateView| found.send(sum(view, shard)?).map_err(|_gone| StateError::Closed);
        state.read(Box::new(add_up)).await.map_err(CheckError::Unreadable)?;
        if answer.try_recv() != Ok(kept.sum) {
            return Err(CheckError::Wrong { shard, waiting: state.waiting_count().all });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cluster_core::consensus::digest::shard_of;
    use cluster_core::ports::{Changes, PinChange, ShardState};
    use cluster_store::StoreOptions;
    use cluster_types::{Cid, Pin, PinOptions};
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_dirty_state_is_checked_once_and_a_wrong_one_stays_dirty() {
        let place = TempDir::new().unwrap();
        let folder = place.path();
        assert!(matches!(mark_dirty(folder, true), Err(CheckError::NoState { .. })));
        let cid: Cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap();
        let pin = Pin::new(cid, PinOptions::default());
        let shard = shard_of(&cid);
        let mut right = ShardState::default();
        right.sum.add(&pin);
        let store = Store::open(folder, StoreOptions::default()).unwrap();
        let state = store.state();
        let pins = vec![PinChange { cid, before: None, after: Some(pin) }];
        let with = |shards, pins| Changes { shards, pins, ..Changes::default() };
        let changes = with(vec![(shard, right)], pins);
        state.update(Box::new(move |_view| Ok(changes))).await.unwrap();
        mark_dirty(folder, false).unwrap();
        mark_dirty(folder, true).unwrap();
        assert!(is_dirty(folder));
        check_if_dirty(folder, &*state).await.unwrap();
        assert!(!is_dirty(folder));

        // What waits is shown, and in no sum.
        let other: Cid = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn".parse().unwrap();
        let pins = vec![PinChange { cid: other, before: None, after: Some(Pin::new(other, PinOptions::default())) }];
        let changes = Changes { pins, committed: vec![(other, Some(None))], ..Changes::default() };
        state.update(Box::new(move |_view| Ok(changes))).await.unwrap();
        mark_dirty(folder, true).unwrap();
        check_if_dirty(folder, &*state).await.unwrap();

        let changes = with(vec![(shard, ShardState::default())], Vec::new());
        state.update(Box::new(move |_view| Ok(changes))).await.unwrap();
        check_if_dirty(folder, &*state).await.unwrap();
        mark_dirty(folder, true).unwrap();
        let wrong = check_if_dirty(folder, &*state).await;
        assert!(matches!(wrong, Err(CheckError::Wrong { shard: found, .. }) if found == shard), "{wrong:?}");
        assert!(is_dirty(folder));
        store.close().await.unwrap();
    }
}
