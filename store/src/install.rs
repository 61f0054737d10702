//! Replaces the state by what is staged.
//!
//! Three steps. (1) Prepare: each staged change gets what it means for the tracker, beside it. The state has not changed
//! yet. (2) Mark: all of that is on the disk, and a marker says that it is being carried out. (3) Carry out: bounded
//! batches, the same code as any update; the last batch writes position, sums and epochs, and takes the marker and what
//! was staged away.
//!
//! A start that finds the marker carries everything out again, from the beginning: a change that is there already
//! changes nothing. So an install needs no decision at the start.
//!
//! The last frozen state is of before until a new one is made. A second marker says so, from the last batch on: a log
//! whose purged part is longer than what a frozen state shows cannot be started with, so a start drops that one.
//!
//! **Invariant:** from the first batch to the last nobody reads or writes the state; pins are read from a copy of it as
//! it was before ([`Snapshots::copy`](crate::snapshot::Snapshots)). When a batch fails the door is shut, and the next
//! start goes on.

use std::sync::Arc;

use cluster_core::catchup::decode_manifest;
use cluster_core::consensus::operation::decode_pin;
use cluster_core::crdt::manifest::Manifest;
use cluster_core::ports::{
    Changes, LocalEffect, MergeView, PinChange, ShardState, StagedHead, StagedOverview, StateError, StateView,
    TailPlace,
};
use cluster_types::Pin;
use rocksdb::WriteBatch;

use crate::blocking::{Door, Kind};
use crate::keys::{self, Family};
use crate::snapshot::{ANNEX, family_of};
use crate::state::{Database, RocksState, View, read_applied, read_shards};
use crate::write::Batch;
use crate::{codec, staging};

/// Changes in one batch at most.
const BATCH_CHANGES: usize = 256;

/// Replaces the state by what is staged.
pub(crate) async fn install(state: &RocksState, effect: LocalEffect) -> Result<(), StateError> {
    let writer = Arc::clone(&state.writer).lock_owned().await;
    state.door.run(Kind::Urgent, move |database| prepare(database, &effect)).await?;
    let before = state.snapshots.copy(&state.door).await?;
    *state.before.write() = Some(Arc::new(Door::new(before)));
    let whole = Arc::clone(&state.whole).write_owned().await;
    let carried_out = state.door.run(Kind::Urgent, move |database| {
        let mut batch = WriteBatch::default();
        database.engine.put(&mut batch, Family::Meta, keys::SWITCHING, []);
        database.engine.write_durably(batch)?;
        carry_out(database)?;
        drop(whole);
        Ok(writer)
    });
    let end = carried_out.await;
    if end.is_err() {
        state.door.shut();
    }
    // Whoever begins from here on sees the new state.
    *state.before.write() = None;
    let _writer = end?;
    state.snapshots.make(&state.door).await?;
    state.door.run(Kind::Urgent, no_longer_outdated).await
}

/// Finishes an install that was cut off, if one was; tells whether the frozen states are of before it.
pub(crate) fn finish(database: &Database) -> Result<bool, StateError> {
    if database.engine.get(Family::Meta, keys::SWITCHING)?.is_some() {
        tracing::info!("finishing the install of what was gathered");
        carry_out(database)?;
    }
    Ok(database.engine.get(Family::Meta, keys::OUTDATED)?.is_some())
}

/// There is no frozen state of before the last install any more.
pub(crate) fn no_longer_outdated(database: &Database) -> Result<(), StateError> {
    let mut batch = WriteBatch::default();
    database.engine.delete(&mut batch, Family::Meta, keys::OUTDATED);
    database.engine.write(batch)
}

/// Whether what is staged is whole, and still the difference to the state; then adds what its changes mean for the
/// tracker.
fn prepare(database: &Database, effect: &LocalEffect) -> Result<(), StateError> {
    let moment = database.engine.moment();
    let overview = staging::overview(&moment)?;
    let (manifest, heads) = whole(&overview)?;
    let mut sums = Vec::new();
    for (shard, state) in (0_u16..).zip(read_shards(&moment)?) {
        let head = head_of(&heads, shard);
        if head.is_some_and(|head| head.base != state.sum) {
            return Err(invalid("a staged shard is the difference to another state"));
        }
        sums.push(head.map_or(state.sum, |head| head.sum));
    }
    manifest.verify(&sums).map_err(|error| invalid(error.to_string()))?;
    let view = View::latest(database);
    for (shard, _head) in &heads {
        let mut encoded = Vec::new();
        for change in staging::read_changes(&database.engine, *shard)? {
            let before = view.shown(&change.cid)?;
            let after = change.pin.as_deref().map(read_canonical).transpose()?;
            let tracker = effect(before.as_ref(), after.as_ref(), view.tracked(&change.cid)?.as_ref());
            encoded.push(codec::encode_change(&change.cid, change.pin, tracker));
        }
        let mut batch = WriteBatch::default();
        let key = keys::staged(keys::STAGED_CHANGES, *shard);
        database.engine.put(&mut batch, Family::Staging, key, codec::encode_changes(encoded));
        database.engine.write(batch)?;
    }
    Ok(())
}

fn whole(overview: &StagedOverview) -> Result<(Manifest, Vec<(u16, StagedHead)>), StateError> {
    let manifest = overview.manifest.as_ref().ok_or_else(|| invalid("nothing is staged"))?;
    let manifest = decode_manifest(manifest).map_err(|error| invalid(error.to_string()))?;
    if !overview.annex.1 {
        return Err(invalid("its annex is not whole"));
    }
    Ok((manifest, overview.shards.clone()))
}

fn head_of(heads: &[(u16, StagedHead)], shard: u16) -> Option<&StagedHead> {
    let place = heads.binary_search_by_key(&shard, |(shard, _)| *shard).ok()?;
    heads.get(place).map(|(_, head)| head)
}

/// Carries out what is staged, the marker being set; may be repeated.
fn carry_out(database: &Database) -> Result<(), StateError> {
    let engine = &database.engine;
    let overview = staging::overview(&engine.moment())?;
    let (manifest, heads) = whole(&overview).map_err(own_damage)?;
    for (shard, _head) in &heads {
        let mut changes = Changes::default();
        for change in staging::read_changes(engine, *shard)? {
            let after = change.pin.as_deref().map(read_canonical).transpose()?;
            let before = View::latest(database).shown(&change.cid)?;
            changes.tracker.extend(change.tracker.map(|record| (change.cid, record)));
            changes.pins.push(PinChange { cid: change.cid, before, after });
            if changes.pins.len() >= BATCH_CHANGES {
                Batch::new(database).changes(std::mem::take(&mut changes))?.write()?;
            }
        }
        Batch::new(database).changes(changes)?.write()?;
    }
    let merges = replace_annex(database, overview.annex.0)?;
    end(database, &manifest, &heads, merges)
}

/// What an install has put in the place of what was remembered of merges.
#[derive(Clone, Copy, Debug, Default)]
struct Merges {
    histories: u64,
    merged: u64,
}

/// Puts the staged annex in the place of the present one.
fn replace_annex(database: &Database, groups: u32) -> Result<Merges, StateError> {
    let engine = &database.engine;
    let mut batch = WriteBatch::default();
    for (_kind, family) in ANNEX {
        // Longer than any key.
        engine.delete_range(&mut batch, *family, &[], &[u8::MAX; 64]);
    }
    for family in [Family::HistoryByIndex, Family::MergedByIndex] {
        engine.delete_range(&mut batch, family, &[], &[u8::MAX; 64]);
    }
    let mut merges = Merges::default();
    for group in 0..groups {
        let rows = engine.get(Family::Staging, &keys::staged_group(group))?;
        let rows = rows.ok_or_else(|| codec::damaged("staged annex", "a group is gone"))?;
        for row in codec::decode_annex(&rows)? {
            let family = family_of(&row).map_err(own_damage)?;
            if family == Family::Outcomes {
                engine.put(&mut batch, family, &row.key, codec::encode_opaque(&row.value));
                continue;
            }
            engine.put(&mut batch, family, &row.key, &row.value);
            if family == Family::History {
                merges.histories += 1;
                let last = codec::decode_history(&row.value)?.last_merged();
                engine.put(&mut batch, Family::HistoryByIndex, keys::history_by_index(last, &row.key), []);
            } else {
                merges.merged += 1;
                let index = codec::decode_merged_at(&row.value)?.index.to_be_bytes();
                engine.put(&mut batch, Family::MergedByIndex, [&index[..], &row.key].concat(), []);
            }
        }
        engine.write(std::mem::take(&mut batch))?;
    }
    engine.write(batch)?;
    Ok(merges)
}

/// The last batch: from here on the state is what was staged.
fn end(
    database: &Database,
    manifest: &Manifest,
    heads: &[(u16, StagedHead)],
    merges: Merges,
) -> Result<(), StateError> {
    let engine = &database.engine;
    let moment = engine.moment();
    let index = moment.get(Family::Staging, keys::STAGED_INDEX)?;
    let index = codec::decode_number("index of what is staged", &index.unwrap_or_default())?;
    let mut shards = Vec::new();
    for (shard, state) in (0_u16..).zip(read_shards(&moment)?) {
        let (head, meta) = (head_of(heads, shard), manifest.meta(shard));
        if head.is_some() || meta != state.meta {
            let sum = head.map_or(state.sum, |head| head.sum);
            shards.push((shard, ShardState { sum, meta, tail_from: index }));
        }
    }
    let mut tails = WriteBatch::default();
    for run in shards.chunk_by(|(one, _), (next, _)| one + 1 == *next) {
        let ([(first, _), ..], [.., (last, _)]) = (run, run) else { continue };
        let to = keys::successor(keys::tail(*last, TailPlace::after(u64::MAX)).to_vec());
        engine.delete_range(&mut tails, Family::ShardTail, &keys::shard(*first), &to);
    }
    let applied = Some(manifest.applied().clone());
    let mut batch = Batch::new(database).changes(Changes { shards, applied, ..Changes::default() })?;
    batch.replaced_merges(merges.histories, merges.merged);
    engine.delete(batch.raw(), Family::Meta, keys::SWITCHING);
    engine.put(batch.raw(), Family::Meta, keys::OUTDATED, []);
    staging::drop_all(database, batch.raw());
    // Before the rest: as long as the marker is there, nobody misses them.
    engine.write(tails)?;
    batch.write()?;
    debug_assert_eq!(read_applied(&engine.moment())?.as_ref(), Some(manifest.applied()));
    engine.flush()
}

fn read_canonical(bytes: &[u8]) -> Result<Pin, StateError> {
    decode_pin(bytes).map_err(|error| codec::damaged("staged record", error))
}

fn invalid(what: impl Into<String>) -> StateError {
    StateError::InvalidSnapshot { what: what.into() }
}

/// What was checked before can only be wrong by damage.
fn own_damage(error: StateError) -> StateError {
    let StateError::InvalidSnapshot { what } = error else { return error };
    StateError::Damaged { what: format!("what is staged: {what}") }
}

#[cfg(test)]
#[path = "install_tests.rs"]
mod tests;
