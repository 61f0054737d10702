//! Writes changes of pins and tracker records: one batch with everything that follows from them.
//!
//! The caller holds the writer lock; so what is read here is what the batch changes.

use std::collections::BTreeMap;

use cluster_core::consensus::digest::order_key;
use cluster_core::ports::{
    Changes, MergeView, PinChange, Settled, StateError, StateView, TailPlace, TrackerCounts, TrackerRecord,
};
use cluster_types::Cid;
use rocksdb::WriteBatch;

use crate::codec::{self, MergeCounts};
use crate::index;
use crate::keys::{self, Family};
use crate::merge_batch::MergeBatch;
use crate::peers::Assigner;
use crate::state::{Database, View};

/// The value of an index key.
const NOTHING: &[u8] = &[];

/// Writes what an update decided.
pub(crate) fn changes(database: &Database, changes: Changes) -> Result<(), StateError> {
    Batch::new(database).changes(changes)?.write()
}

/// Writes what became of jobs, where it still counts.
pub(crate) fn settled(database: &Database, settled: Vec<Settled>) -> Result<Vec<bool>, StateError> {
    let mut batch = Batch::new(database);
    let mut counted = Vec::with_capacity(settled.len());
    for job in settled {
        let counts = batch.tracked(&job.cid)?.as_ref().is_some_and(|record| record.generation == job.generation);
        if counts {
            batch.tracker(job.cid, job.record)?;
        }
        counted.push(counts);
    }
    batch.write()?;
    Ok(counted)
}

/// A batch being put together.
pub(crate) struct Batch<'a> {
    database: &'a Database,
    batch: WriteBatch,
    peers: Assigner<'a>,
    /// Tracker records touched: as they are on disk, and as they shall be.
    tracker: BTreeMap<Vec<u8>, (Option<TrackerRecord>, Option<TrackerRecord>)>,
    /// Rows that come into the queue of due records.
    due: Vec<Vec<u8>>,
    figures: crate::state::Figures,
}

impl<'a> Batch<'a> {
    /// Nothing to write yet.
    pub(crate) fn new(database: &'a Database) -> Self {
        let figures = database.present.figures.read().clone();
        let peers = Assigner::new(&database.present.dictionary);
        Self { database, batch: WriteBatch::default(), peers, tracker: BTreeMap::new(), due: Vec::new(), figures }
    }

    /// The batch itself, for what has no rules.
    pub(crate) fn raw(&mut self) -> &mut WriteBatch {
        &mut self.batch
    }

    /// Counts what an install has put in the place of the former histories and merged writes.
    pub(crate) fn replaced_merges(&mut self, histories: u64, merged: u64) {
        self.figures.merging = MergeCounts { histories, merged, ..self.figures.merging };
    }

    /// Adds everything of an update.
    pub(crate) fn changes(mut self, changes: Changes) -> Result<Self, StateError> {
        let engine = &self.database.engine;
        for change in &changes.pins {
            self.pin(change)?;
        }
        if let Some((before, after)) = changes.pins_counted {
            let counted = self.database.present.figures.read().pins;
            self.figures.pins = counted.saturating_sub(before).saturating_add(after);
        }
        let (batch, peers, counts) = (&mut self.batch, &mut self.peers, &mut self.figures.merging);
        MergeBatch { engine, batch, peers, counts }.add(&changes)?;
        for (shard, state) in &changes.shards {
            engine.put(&mut self.batch, Family::Shards, keys::shard(*shard), codec::encode_shard(state));
        }
        for (shard, up_to) in &changes.drop_tail {
            let [from, to] =
                [TailPlace { index: 0, place: 0 }, TailPlace::after(*up_to)].map(|at| keys::tail(*shard, at));
            engine.delete_range(&mut self.batch, Family::ShardTail, &from, &to);
        }
        for row in &changes.tail {
            let place = TailPlace { index: row.entry.index, place: row.place };
            engine.put(&mut self.batch, Family::ShardTail, keys::tail(row.shard, place), row.entry.encode());
        }
        if let Some(window) = changes.forget_before_window {
            engine.delete_range(&mut self.batch, Family::Outcomes, &[], &window.to_be_bytes());
        }
        for (key, outcome) in &changes.outcomes {
            engine.put(&mut self.batch, Family::Outcomes, keys::outcome(key), codec::encode_opaque(outcome));
        }
        for (cid, record) in changes.tracker {
            self.tracker(cid, record)?;
        }
        if let Some(applied) = changes.applied {
            engine.put(&mut self.batch, Family::Meta, keys::APPLIED, codec::encode_opaque(&applied));
            self.figures.applied = Some(applied);
        }
        Ok(self)
    }

    fn pin(&mut self, change: &PinChange) -> Result<(), StateError> {
        let engine = &self.database.engine;
        debug_assert_eq!(
            View::latest(self.database).shown(&change.cid)?.as_ref().map(|pin| &pin.allocations),
            change.before.as_ref().map(|pin| &pin.allocations),
            "an update must name what it replaces"
        );
        let order = order_key(&change.cid);
        let peers = &mut self.peers;
        let mut entries = |pin: &Option<_>| {
            pin.as_ref().map(|pin| index::of_pin(pin, &order, |peer| peers.number(peer))).unwrap_or_default()
        };
        let (old, new) = (entries(&change.before), entries(&change.after));
        for (family, key) in old.difference(&new) {
            engine.delete(&mut self.batch, *family, key);
        }
        for (family, key) in new.difference(&old) {
            engine.put(&mut self.batch, *family, key, NOTHING);
        }
        match &change.after {
            Some(pin) => {
                let value = codec::encode_pin(pin, |peer| self.peers.number(peer));
                engine.put(&mut self.batch, Family::Pins, &order, value);
            }
            None => engine.delete(&mut self.batch, Family::Pins, &order),
        }
        let pins = self.figures.pins + u64::from(change.after.is_some());
        self.figures.pins = pins.saturating_sub(u64::from(change.before.is_some()));
        Ok(())
    }

    /// A tracker record as this batch leaves it.
    fn tracked(&mut self, cid: &Cid) -> Result<&mut Option<TrackerRecord>, StateError> {
        let slot = match self.tracker.entry(order_key(cid)) {
            std::collections::btree_map::Entry::Occupied(slot) => slot.into_mut(),
            std::collections::btree_map::Entry::Vacant(slot) => {
                let record = View::latest(self.database).tracked(cid)?;
                slot.insert((record.clone(), record))
            }
        };
        Ok(&mut slot.1)
    }

    /// Sets a tracker record; the last word counts.
    fn tracker(&mut self, cid: Cid, record: Option<TrackerRecord>) -> Result<(), StateError> {
        *self.tracked(&cid)? = record;
        Ok(())
    }

    fn write_tracker(&mut self) {
        let engine = &self.database.engine;
        for (order, (before, after)) in &self.tracker {
            if before == after {
                continue;
            }
            let entries =
                |record: &Option<_>| record.as_ref().map(|record| index::of_tracker(record, order)).unwrap_or_default();
            let (old, new) = (entries(before), entries(after));
            for (family, key) in old.difference(&new) {
                engine.delete(&mut self.batch, *family, key);
            }
            for (family, key) in new.difference(&old) {
                engine.put(&mut self.batch, *family, key, NOTHING);
                if *family == Family::TrackerDue {
                    self.due.push(key.clone());
                }
            }
            match after {
                Some(record) => engine.put(&mut self.batch, Family::Tracker, order, codec::encode_tracker(record)),
                None => engine.delete(&mut self.batch, Family::Tracker, order),
            }
            count(&mut self.figures.counts, before.as_ref(), after.as_ref());
        }
    }

    /// Writes the batch, and then shows its figures.
    pub(crate) fn write(mut self) -> Result<(), StateError> {
        self.write_tracker();
        if self.batch.is_empty() {
            return Ok(());
        }
        let Database { engine, present, .. } = self.database;
        self.peers.write(engine, &mut self.batch);
        engine.put(&mut self.batch, Family::Meta, keys::PIN_COUNT, codec::encode_number(self.figures.pins));
        let counts = codec::encode_counts(&self.figures.counts);
        engine.put(&mut self.batch, Family::Meta, keys::TRACKER_COUNTS, counts);
        if self.figures.merging != present.figures.read().merging {
            let counts = codec::encode_merge_counts(&self.figures.merging);
            engine.put(&mut self.batch, Family::Meta, keys::MERGE_COUNTS, counts);
        }
        engine.write(self.batch)?;
        present.due_floor.lower(self.due);
        self.peers.publish();
        *present.figures.write() = self.figures;
        Ok(())
    }
}

fn count(counts: &mut TrackerCounts, before: Option<&TrackerRecord>, after: Option<&TrackerRecord>) {
    if let Some(record) = before {
        counts.remove(record.status);
    }
    if let Some(record) = after {
        counts.add(record.status);
    }
}
