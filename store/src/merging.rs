//! The part of the state that is about eventual writes and merges, as readers see it: [`OutboxStore`], and how pins of
//! the log are told from shown ones.
//!
//! **Invariant:** the family of committed pins holds a row only where a pin is shown otherwise than by the log alone;
//! [`MergeCounts::committed`] says how many, so where nothing waits nothing is looked up.

use async_trait::async_trait;
use cluster_core::consensus::digest::order_key;
use cluster_core::crdt::merge::{History, VersionId};
use cluster_core::ports::{ConflictEvent, MergeView, MergedAt, OutboxCount, OutboxStore, StateError, Waiting};
use cluster_types::{Cid, Pin};

use crate::blocking::Kind;
use crate::codec::{self, MergeCounts};
use crate::engine::{Engine, KeyValue, Moment};
use crate::keys::{self, Family};
use crate::scan::Head;
use crate::state::{RocksState, View, page};

/// Reads what is counted.
pub(crate) fn read_counts(moment: &Moment<'_>) -> Result<MergeCounts, StateError> {
    let value = moment.get(Family::Meta, keys::MERGE_COUNTS)?;
    value.map_or(Ok(MergeCounts::default()), |bytes| codec::decode_merge_counts(&bytes))
}

/// What the outbox's part of the counts says.
pub(crate) fn outbox_count(counts: &MergeCounts) -> OutboxCount {
    OutboxCount { own: counts.own, all: counts.waiting, last_own: counts.last_own }
}

/// The pins of the log in order: the committed ones in the place of the shown ones.
pub(crate) struct LogPins<'a> {
    shown: Head<'a>,
    committed: Head<'a>,
}

impl<'a> LogPins<'a> {
    /// Those with keys from `from` to before `to`.
    pub(crate) fn new(moment: &'a Moment<'_>, from: &[u8], to: Option<&[u8]>) -> Result<Self, StateError> {
        let rows = |family| Head::new(moment.rows(family, from, to));
        Ok(Self { shown: rows(Family::Pins)?, committed: rows(Family::Committed)? })
    }

    /// The key and the record of the next pin.
    pub(crate) fn next(&mut self) -> Result<Option<KeyValue>, StateError> {
        loop {
            let order = match (self.shown.key(), self.committed.key()) {
                (None, None) => return Ok(None),
                (Some(key), None) | (None, Some(key)) => key.to_vec(),
                (Some(one), Some(other)) => one.min(other).to_vec(),
            };
            let shown = self.shown.take(&order)?;
            let pin = match self.committed.take(&order)? {
                Some(committed) => codec::decode_committed(&committed)?,
                None => shown,
            };
            if let Some(pin) = pin {
                return Ok(Some((order, pin)));
            }
        }
    }
}

impl View<'_> {
    /// A pin as the log has it, if that is kept beside the shown one.
    pub(crate) fn committed(&self, cid: &Cid) -> Result<Option<Option<Pin>>, StateError> {
        if self.counts.committed == 0 {
            return Ok(None);
        }
        let Some(value) = self.get(Family::Committed, &order_key(cid))? else { return Ok(None) };
        let pin = codec::decode_committed(&value)?;
        pin.map(|bytes| self.decode_pin(*cid, &bytes)).transpose().map(Some)
    }
}

impl MergeView for View<'_> {
    fn shown(&self, cid: &Cid) -> Result<Option<Pin>, StateError> {
        let value = self.get(Family::Pins, &order_key(cid))?;
        value.map(|bytes| self.decode_pin(*cid, &bytes)).transpose()
    }

    fn outbox_count(&self) -> OutboxCount {
        outbox_count(&self.counts)
    }

    fn waiting(&self, cid: &Cid) -> Result<Vec<Waiting>, StateError> {
        if self.counts.waiting == 0 {
            return Ok(Vec::new());
        }
        let order = order_key(cid);
        let mut waiting = self.with_moment(|moment| {
            let mut rows = moment.rows(Family::Outbox, &order, keys::prefix_end(&order).as_deref());
            let mut waiting = Vec::new();
            while let Some((_key, value)) = rows.next()? {
                waiting.push(codec::decode_waiting(&value)?);
            }
            Ok::<_, StateError>(waiting)
        })?;
        waiting.sort_unstable_by_key(|waiting| waiting.number);
        Ok(waiting)
    }

    fn histories(&self) -> u64 {
        self.counts.histories
    }

    fn history(&self, cid: &Cid) -> Result<Option<History>, StateError> {
        if self.counts.histories == 0 {
            return Ok(None);
        }
        let value = self.get(Family::History, &order_key(cid))?;
        value.map(|bytes| codec::decode_history(&bytes)).transpose()
    }

    fn is_merged(&self, id: &VersionId) -> Result<bool, StateError> {
        Ok(self.counts.merged > 0 && self.get(Family::Merged, id.as_bytes())?.is_some())
    }

    fn oldest_histories(&self, limit: usize) -> Result<Vec<(Cid, u64)>, StateError> {
        if self.counts.histories == 0 {
            return Ok(Vec::new());
        }
        self.with_moment(|moment| {
            let mut rows = moment.rows(Family::HistoryByIndex, &[], None);
            let mut oldest = Vec::new();
            while oldest.len() < limit {
                let Some((key, _empty)) = rows.next()? else { break };
                let (index, cid) = keys::read_history_by_index(&key)?;
                oldest.push((cid, index));
            }
            Ok(oldest)
        })
    }

    fn oldest_merged(&self, limit: usize) -> Result<Vec<(VersionId, MergedAt)>, StateError> {
        self.with_moment(|moment| {
            let mut rows = moment.rows(Family::MergedByIndex, &[], None);
            let mut merged = Vec::new();
            while merged.len() < limit {
                let Some((key, _empty)) = rows.next()? else { break };
                let (_index, id) = keys::read_merged_by_index(&key)?;
                let value = moment.get(Family::Merged, id.as_bytes())?;
                let value = value.ok_or_else(|| codec::damaged("merged writes", "the index names one that is gone"))?;
                merged.push((id, codec::decode_merged_at(&value)?));
            }
            Ok(merged)
        })
    }
}

#[async_trait]
impl OutboxStore for RocksState {
    async fn outbox(&self, after: u64, limit: usize) -> Result<Vec<Waiting>, StateError> {
        self.look(move |database| outbox(&database.engine, after, limit)).await
    }

    fn waiting_count(&self) -> OutboxCount {
        outbox_count(&self.present.figures.read().merging)
    }

    fn settled_count(&self) -> u64 {
        self.present.figures.read().merging.committed
    }

    async fn flush(&self) -> Result<(), StateError> {
        self.flushes.share(|| self.door.run(Kind::Urgent, |database| database.engine.flush())).await
    }

    async fn conflicts(&self, before: Option<(u64, u32)>, limit: usize) -> Result<Vec<ConflictEvent>, StateError> {
        let to = before.map(|(index, place)| keys::conflict(index, place));
        self.look(move |database| {
            let moment = database.engine.moment();
            let mut rows = moment.rows_back(Family::Conflicts, to.as_deref());
            let events = page(limit, || rows.next())?;
            let event = |(key, value): KeyValue| codec::decode_conflict(keys::read_conflict(&key)?, &value);
            events.into_iter().map(event).collect()
        })
        .await
    }
}

impl RocksState {
    /// How many CIDs have a history, and how many merged writes are remembered; costs nothing.
    pub fn merges(&self) -> (u64, u64) {
        let MergeCounts { histories, merged, .. } = self.present.figures.read().merging;
        (histories, merged)
    }
}

fn outbox(engine: &Engine, after: u64, limit: usize) -> Result<Vec<Waiting>, StateError> {
    let moment = engine.moment();
    let Some(from) = after.checked_add(1) else { return Ok(Vec::new()) };
    let mut turns = moment.rows(Family::OutboxOrder, &keys::waiting_number(from), None);
    let writes = page(limit, || {
        let Some((number, turn)) = turns.next()? else { return Ok(None) };
        let (key, _own) = codec::decode_turn(&turn)?;
        let value = moment.get(Family::Outbox, &key)?;
        let value = value.ok_or_else(|| codec::damaged("outbox", "a number names a write that is gone"))?;
        Ok(Some((number, value)))
    })?;
    let waiting = |(number, value): KeyValue| {
        let waiting = codec::decode_waiting(&value)?;
        if waiting.number != keys::read_waiting_number(&number)? {
            return Err(codec::damaged("outbox", "a number names a write of another number"));
        }
        Ok(waiting)
    };
    writes.into_iter().map(waiting).collect()
}
