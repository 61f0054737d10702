//! For tests: changes a record, and nothing that belongs to it, as a disk or somebody's tool might.

use std::path::Path;

use cluster_core::consensus::digest::order_key;
use cluster_types::{Cid, Pin};
use rocksdb::WriteBatch;

use crate::engine::StoreOptions;
use crate::error::StoreError;
use crate::keys::Family;
use crate::peers::Assigner;
use crate::state::Database;
use crate::{Store, codec};

/// Writes records into the pinset in `folder`, which nobody has open, or takes them out; indexes, sums, tails and counters
/// stay as they are. A record may have to be changed: `change` gets what is there.
pub async fn tamper(
    folder: &Path,
    cids: Vec<Cid>,
    mut change: impl FnMut(Cid, Option<Pin>) -> Option<Pin> + Send + 'static,
) -> Result<(), StoreError> {
    let store = Store::open(folder, StoreOptions::default())?;
    let state = store.state();
    let done = state.door.run(crate::blocking::Kind::Urgent, move |Database { engine, present, .. }| {
        let (mut batch, mut peers) = (WriteBatch::default(), Assigner::new(&present.dictionary));
        for cid in cids {
            let order = order_key(&cid);
            let before = engine.get(Family::Pins, &order)?;
            let number = |number| present.dictionary.peer(number, engine);
            let before = before.map(|bytes| codec::decode_pin(cid, &bytes, number)).transpose()?;
            match change(cid, before) {
                Some(pin) => {
                    let value = codec::encode_pin(&pin, |peer| peers.number(peer));
                    engine.put(&mut batch, Family::Pins, &order, value);
                }
                None => engine.delete(&mut batch, Family::Pins, &order),
            }
        }
        peers.write(engine, &mut batch);
        engine.write_durably(batch)
    });
    done.await.map_err(|error| StoreError::from_state(folder, error))?;
    store.close().await
}

#[cfg(test)]
mod tests {
    use cluster_core::ports::{Changes, PinChange, Scan, StateStore};
    use cluster_core::testing::suite::pinset;
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_repair_of_what_was_changed_behind_the_back_leaves_counts_and_indexes_right() {
        let folder = TempDir::new().unwrap();
        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        let (lost, moved) = (pinset::pin_on(1, &[3]), pinset::pin_on(2, &[3]));
        pinset::put(store.state().as_ref(), vec![lost.clone(), moved.clone()], "1").await;
        store.close().await.unwrap();
        drop(store);
        let elsewhere = pinset::pin_on(2, &[4]);
        let changed = elsewhere.clone();
        tamper(folder.path(), vec![lost.cid, moved.cid], move |cid, before| {
            assert!(before.is_some());
            (cid == changed.cid).then(|| changed.clone())
        })
        .await
        .unwrap();

        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        let state = store.state();
        assert_eq!(state.pin(lost.cid).await.unwrap(), None);
        assert_eq!(state.pin(moved.cid).await.unwrap(), Some(elsewhere.clone()));
        assert_eq!(state.pins(), 2, "nobody counted");
        for (before, after) in [(None, lost.clone()), (Some(elsewhere), moved.clone())] {
            let pins = vec![PinChange { cid: after.cid, before, after: Some(after) }];
            let changes = Changes { pins, pins_counted: Some((1, 1)), ..Changes::default() };
            state.update(Box::new(move |_view| Ok(changes))).await.unwrap();
        }
        assert_eq!(state.pins(), 2);
        pinset::assert_sound(state.as_ref(), &[3, 4]).await;
        let mut of_three = pinset::cids(state.as_ref(), Scan::ByPeer { peer: pinset::peer(3), after: None }).await;
        of_three.sort();
        let mut both = [lost.cid, moved.cid];
        both.sort();
        assert_eq!(of_three, both);
        assert!(pinset::cids(state.as_ref(), Scan::ByPeer { peer: pinset::peer(4), after: None }).await.is_empty());
        store.close().await.unwrap();
    }
}
