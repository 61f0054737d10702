//! Replaces the state by a received snapshot.
//!
//! Three steps. (1) Compare: snapshot and pins are both sorted, so one walk finds what differs; each difference, with
//! what it means for the tracker, goes into a journal beside the snapshot. Nothing has changed yet. (2) Mark: the
//! journal is on the disk, and a marker in the database says that it is being carried out. (3) Carry out: bounded
//! batches, the same code as any update; the last batch writes position, sums and epochs and takes the marker away.
//!
//! A start that finds the marker carries the journal out again, from its beginning: a change that is there already
//! changes nothing. So an install needs no decision at the start, only its journal.
//!
//! The caller lowers before what waits, so that pins are shown as the log has them: then what is compared here are the
//! pins of two logs. The outbox and the event log are not touched.
//!
//! **Invariant:** from the first batch to the last nobody reads or writes the state; when a batch fails the door is
//! shut, and the next start goes on.

use std::fs::{self, File};
use std::io::{BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cluster_core::consensus::digest::{SHARDS, order_key};
use cluster_core::consensus::operation::{decode_pin, encode_pin};
use cluster_core::ports::{Changes, LocalEffect, MergeView, PinChange, ShardState, SnapshotHandle, StateError};
use cluster_types::Pin;
use futures::StreamExt;
use rocksdb::WriteBatch;

use crate::blocking::Kind;
use crate::engine::Moment;
use crate::error::Failed;
use crate::frames::{self, Decoder, Encoder};
use crate::keys::{self, Family};
use crate::merge_frames::Installed;
use crate::scan::{Head, read_pin};
use crate::snapshot::{self, Frozen, STREAM_FILE, Stage, folder_of};
use crate::state::{Database, RocksState, View};
use crate::write::Batch;
use crate::{codec, verify};

/// The file of the changes to carry out.
const JOURNAL_FILE: &str = "journal";
/// Bytes of the journal written at a time.
const JOURNAL_CHUNK: usize = 256 << 10;
/// Changes in one batch at most.
const BATCH_CHANGES: usize = 256;

/// Replaces the state by `snapshot`.
pub(crate) async fn install(
    state: &RocksState,
    snapshot: Arc<dyn SnapshotHandle>,
    effect: LocalEffect,
) -> Result<(), StateError> {
    let writer = Arc::clone(&state.writer).lock_owned().await;
    let known = state.snapshots.registry.lock().await.is_received(&snapshot);
    let snapshot = if known { snapshot } else { take_in(state, &snapshot).await? };
    let mut registry = Arc::clone(&state.snapshots.registry).lock_owned().await;
    let received = registry.received.clone().filter(|_| registry.is_received(&snapshot));
    let received = received.ok_or_else(|| frames::invalid("another one came in its place"))?;
    let place = received.kept.place.lock().clone();
    state.door.run(Kind::Urgent, move |database| compare(database, &place, &effect)).await?;
    let whole = Arc::clone(&state.whole).write_owned().await;
    let folder = state.snapshots.folder().to_owned();
    let carried_out = state.door.run(Kind::Urgent, move |database| {
        let mut batch = WriteBatch::default();
        let number = codec::encode_number(received.number);
        database.engine.put(&mut batch, Family::Meta, keys::INSTALLING, number);
        database.engine.write_durably(batch)?;
        carry_out(database, &folder, &received)?;
        registry.received = None;
        registry.replace_current(received);
        drop((writer, whole));
        Ok(())
    });
    let end = carried_out.await;
    if end.is_err() {
        state.door.shut();
    }
    end
}

/// Finishes an install that was cut off, if one was.
pub(crate) fn finish(database: &Database, folder: &Path) -> Result<(), StateError> {
    let Some(number) = database.engine.get(Family::Meta, keys::INSTALLING)? else { return Ok(()) };
    let number = codec::decode_number("number of the snapshot that is being installed", &number)?;
    let stages = [Stage::Received, Stage::Frozen].map(|stage| folder_of(folder, number, stage));
    let Some(place) = stages.into_iter().find(|place| place.exists()) else {
        return Err(codec::damaged("snapshot that is being installed", "its folder is gone"));
    };
    tracing::info!(folder = %place.display(), "finishing the install of a snapshot");
    carry_out(database, folder, &Frozen::open(number, place)?)
}

/// Receives a snapshot that is not one of this store's received ones.
async fn take_in(
    state: &RocksState,
    snapshot: &Arc<dyn SnapshotHandle>,
) -> Result<Arc<dyn SnapshotHandle>, StateError> {
    let mut receiver = state.snapshots.receive().await?;
    let mut chunks = snapshot.chunks();
    while let Some(chunk) = chunks.next().await {
        receiver.chunk(chunk?).await?;
    }
    receiver.finish(snapshot.applied()).await
}

/// Writes the journal: every pin that differs, and what that means for the tracker.
fn compare(database: &Database, place: &Path, effect: &LocalEffect) -> Result<(), StateError> {
    let moment = database.engine.moment();
    let mut journal = Journal::create(place)?;
    let mut present = Head::new(moment.rows(Family::Pins, &[], None))?;
    let mut stream = open_stream(place)?;
    while let Some((kind, bytes)) = stream.next()? {
        if kind != frames::PIN {
            continue;
        }
        let pin = read_canonical(&bytes)?;
        let order = order_key(&pin.cid);
        while let Some(gone) = present.key().filter(|key| *key < order.as_slice()).map(<[u8]>::to_vec) {
            let before = take_pin(database, &mut present, &gone)?;
            journal.difference(&moment, &gone, before.as_ref(), None, effect)?;
        }
        let before = take_pin(database, &mut present, &order)?;
        if before.as_ref().is_none_or(|before| encode_pin(before) != bytes) {
            journal.difference(&moment, &order, before.as_ref(), Some((&pin, &bytes)), effect)?;
        }
    }
    while let Some(gone) = present.key().map(<[u8]>::to_vec) {
        let before = take_pin(database, &mut present, &gone)?;
        journal.difference(&moment, &gone, before.as_ref(), None, effect)?;
    }
    journal.finish()?;
    snapshot::sync_folder(place)
}

fn take_pin(database: &Database, present: &mut Head<'_>, order: &[u8]) -> Result<Option<Pin>, StateError> {
    let value = present.take(order)?;
    value.map(|bytes| read_pin(database, keys::cid_of(order)?, &bytes)).transpose()
}

struct Journal {
    file: File,
    encoder: Encoder,
}

impl Journal {
    fn create(place: &Path) -> Result<Self, StateError> {
        let file = File::create(place.join(JOURNAL_FILE)).failed_to("begin the journal of an install")?;
        Ok(Self { file, encoder: Encoder::new() })
    }

    fn difference(
        &mut self,
        moment: &Moment<'_>,
        order: &[u8],
        before: Option<&Pin>,
        after: Option<(&Pin, &[u8])>,
        effect: &LocalEffect,
    ) -> Result<(), StateError> {
        let tracked = moment.get(Family::Tracker, order)?.map(|bytes| codec::decode_tracker(&bytes)).transpose()?;
        let tracker = effect(before, after.map(|(pin, _bytes)| pin), tracked.as_ref());
        let change = codec::encode_change(&keys::cid_of(order)?, after.map(|(_pin, bytes)| bytes.to_vec()), tracker);
        self.encoder.record(frames::CHANGE, &[&change])?;
        while let Some(chunk) = self.encoder.take(JOURNAL_CHUNK) {
            self.file.write_all(&chunk).failed_to("write the journal of an install")?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), StateError> {
        self.file.write_all(&self.encoder.finish()).failed_to("write the journal of an install")?;
        self.file.sync_all().failed_to("write the journal of an install")
    }
}

/// Carries the journal out, the marker being set; may be repeated.
fn carry_out(database: &Database, folder: &Path, received: &Frozen) -> Result<(), StateError> {
    let place = received.kept.place.lock().clone();
    let journal = File::open(place.join(JOURNAL_FILE)).failed_to("read the journal of an install")?;
    let mut journal = Decoder::new(BufReader::new(journal))?;
    let mut changes = Changes::default();
    while let Some((_kind, bytes)) = journal.next().map_err(own_damage)? {
        let change = codec::decode_change(&bytes)?;
        let after = change.pin.as_deref().map(read_canonical).transpose()?;
        let before = View::latest(database).shown(&change.cid)?;
        changes.tracker.extend(change.tracker.map(|record| (change.cid, record)));
        changes.pins.push(PinChange { cid: change.cid, before, after });
        if changes.pins.len() >= BATCH_CHANGES {
            Batch::new(database).changes(std::mem::take(&mut changes))?.write()?;
        }
    }
    Batch::new(database).changes(changes)?.write()?;
    let (shards, merges) = replace_rest(database, &place)?;
    let frozen = folder_of(folder, received.number, Stage::Frozen);
    if place != frozen {
        let mut place = received.kept.place.lock();
        snapshot::rename_durably(&place, &frozen)?;
        place.clone_from(&frozen);
    }
    end(database, received.applied(), shards, merges)?;
    // The journal has done its work; when it stays behind it is only in the way of the disk.
    let _stays = fs::remove_file(frozen.join(JOURNAL_FILE));
    Ok(())
}

/// Puts the snapshot's outcomes, tails and merges in the place of the present ones; returns its shards and how many
/// merges there are.
fn replace_rest(database: &Database, place: &Path) -> Result<(Vec<ShardState>, Installed), StateError> {
    let engine = &database.engine;
    let mut shards = vec![ShardState::default(); usize::from(SHARDS)];
    let mut stream = open_stream(place)?;
    let mut batch = WriteBatch::default();
    engine.delete_range(&mut batch, Family::Outcomes, &[], &[u8::MAX; 25]);
    engine.delete_range(&mut batch, Family::ShardTail, &[], &[u8::MAX; keys::TAIL_BYTES + 1]);
    let mut merges = Installed::begin(engine, &mut batch);
    while let Some((kind, bytes)) = stream.next().map_err(own_damage)? {
        match kind {
            frames::SHARD => {
                let (shard, state) = verify::read_shard(&bytes).map_err(own_damage)?;
                if let Some(place) = shards.get_mut(usize::from(shard)) {
                    *place = state;
                }
            }
            frames::OUTCOME => {
                let (key, outcome) = verify::split_outcome(&bytes).map_err(own_damage)?;
                engine.put(&mut batch, Family::Outcomes, key, codec::encode_opaque(outcome));
            }
            frames::TAIL => {
                let (key, entry) = verify::split_tail(&bytes).map_err(own_damage)?;
                engine.put(&mut batch, Family::ShardTail, key, entry);
            }
            _ => merges.add(engine, &mut batch, kind, &bytes).map_err(own_damage)?,
        }
        if batch.len() >= BATCH_CHANGES {
            engine.write(std::mem::take(&mut batch))?;
        }
    }
    engine.write(batch)?;
    Ok((shards, merges))
}

/// The last batch: from here on the state is the snapshot's.
fn end(database: &Database, applied: Bytes, shards: Vec<ShardState>, merges: Installed) -> Result<(), StateError> {
    let shards = (0_u16..).zip(shards).collect();
    let mut batch = Batch::new(database).changes(Changes { shards, applied: Some(applied), ..Changes::default() })?;
    batch.replaced_merges(merges);
    database.engine.delete(batch.raw(), Family::Meta, keys::INSTALLING);
    batch.write()?;
    database.engine.flush()
}

fn open_stream(place: &Path) -> Result<Decoder<BufReader<File>>, StateError> {
    let file = File::open(place.join(STREAM_FILE)).failed_to("read a snapshot")?;
    Decoder::new(BufReader::new(file))
}

fn read_canonical(bytes: &[u8]) -> Result<Pin, StateError> {
    decode_pin(bytes).map_err(|error| codec::damaged("snapshot", error))
}

/// What was checked when it came in can only be wrong by damage.
fn own_damage(error: StateError) -> StateError {
    let StateError::InvalidSnapshot { what } = error else { return error };
    StateError::Damaged { what: format!("snapshot: {what}") }
}
