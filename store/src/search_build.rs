//! Builds the search indexes of a database that was made before there were any.
//!
//! Once in the life of a database, before anything else is done with it: bounded batches, each with how far it came, so
//! that a start that was cut off goes on where it was. From then on whoever writes a pin writes its keys.

use cluster_core::ports::StateError;
use rocksdb::WriteBatch;

use crate::index;
use crate::keys::{self, Family};
use crate::scan::read_pin;
use crate::state::Database;

/// Pins in one batch.
const BATCH: usize = 1_024;
/// Pins after which it is said how far it came.
const TOLD_EVERY: u64 = 100_000;

/// Builds what is missing of the search indexes; returns at once if nothing is. Blocks.
pub(crate) fn finish(database: &Database) -> Result<(), StateError> {
    let engine = &database.engine;
    let mut done = engine.get(Family::Meta, keys::SEARCHABLE)?;
    if done.as_ref().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    let all = database.present.figures.read().pins;
    let (mut pins, mut told) = (0_u64, 0_u64);
    if all > 0 {
        tracing::info!(pins = all, "building the search indexes");
    }
    loop {
        let from = done.take().map(keys::successor).unwrap_or_default();
        let (batch, last, count) = next_batch(database, &from)?;
        engine.write(batch)?;
        pins += count;
        if pins >= told + TOLD_EVERY {
            told = pins;
            tracing::info!(pins, all, "building the search indexes");
        }
        if last.is_none() {
            return engine.flush();
        }
        done = last;
    }
}

/// The keys of some pins from `from` on, the last of these pins if more may follow, and how many they are.
fn next_batch(database: &Database, from: &[u8]) -> Result<(WriteBatch, Option<Vec<u8>>, u64), StateError> {
    let engine = &database.engine;
    let moment = engine.moment();
    let mut rows = moment.rows(Family::Pins, from, None);
    let (mut batch, mut last, mut count) = (WriteBatch::default(), None, 0);
    for _ in 0..BATCH {
        let Some((order, bytes)) = rows.next()? else {
            last = None;
            break;
        };
        let pin = read_pin(database, keys::cid_of(&order)?, &bytes)?;
        for (family, key) in index::of_search(&pin, &order) {
            engine.put(&mut batch, family, key, []);
        }
        count += 1;
        last = Some(order);
    }
    engine.put(&mut batch, Family::Meta, keys::SEARCHABLE, last.as_deref().unwrap_or_default());
    Ok((batch, last, count))
}

#[cfg(test)]
mod tests {
    use cluster_core::ports::Scan;
    use cluster_core::testing::suite::pinset;
    use tempfile::TempDir;

    use super::*;
    use crate::Store;
    use crate::blocking::Kind;
    use crate::engine::StoreOptions;

    #[tokio::test]
    async fn an_older_database_is_made_searchable_and_a_cut_off_build_goes_on() {
        let folder = TempDir::new().unwrap();
        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        let state = store.state();
        let count = 2 * BATCH as u64 + 77;
        let named = |number| {
            let mut pin = pinset::pin(number);
            pin.options.name = format!("name-{number}");
            pin.options.metadata.insert("odd".to_owned(), (number % 2).to_string());
            pin
        };
        pinset::put(state.as_ref(), (0..count).map(named).collect(), "one").await;
        let odd = || Scan::ByMeta { key: "odd".to_owned(), value: "1".to_owned(), after: None };
        let all = || Scan::ByName { prefix: "name-".to_owned(), after: None };
        let expected = (pinset::cids(state.as_ref(), odd()).await, pinset::cids(state.as_ref(), all()).await);
        assert_eq!(expected.1.len() as u64, count);
        // As an older program left it, and as one whose start was cut off after the first batch.
        for cut_off in [false, true] {
            let state = store.state();
            let emptied = state.door.run(Kind::Urgent, move |database| {
                let engine = &database.engine;
                let mut batch = WriteBatch::default();
                for family in [Family::ByName, Family::ByMeta] {
                    engine.delete_range(&mut batch, family, &[], &[u8::MAX; 64]);
                }
                engine.delete(&mut batch, Family::Meta, keys::SEARCHABLE);
                engine.write(batch)?;
                if cut_off {
                    let (batch, last, _) = next_batch(database, &[])?;
                    assert!(last.is_some());
                    engine.write(batch)?;
                }
                Ok(())
            });
            emptied.await.unwrap();
            assert!(pinset::cids(state.as_ref(), all()).await.len() <= BATCH);
            state.door.run(Kind::Urgent, finish).await.unwrap();
            assert_eq!(pinset::cids(state.as_ref(), odd()).await, expected.0, "cut off: {cut_off}");
            assert_eq!(pinset::cids(state.as_ref(), all()).await, expected.1, "cut off: {cut_off}");
        }
    }
}
