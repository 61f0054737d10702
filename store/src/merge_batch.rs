//! What an update writes of eventual writes and of merges, and how that is counted.
//!
//! The caller holds the writer lock; so what is read here is what the batch changes.

use std::collections::BTreeMap;

use cluster_core::consensus::digest::order_key;
use cluster_core::crdt::merge::{Eventual, VersionId};
use cluster_core::ports::{Changes, ConflictEvent, MAX_CONFLICTS, MergedAt, OutboxChange, StateError};
use rocksdb::WriteBatch;

use crate::codec::{self, MergeCounts};
use crate::engine::Engine;
use crate::keys::{self, Family};
use crate::peers::Assigner;

/// Rows of the event log that a batch drops at most beyond the number it brings.
const DROP_MORE: u64 = 256;

/// The part of a batch that is about eventual writes and merges.
pub(crate) struct MergeBatch<'a, 'd> {
    pub(crate) engine: &'a Engine,
    pub(crate) batch: &'a mut WriteBatch,
    pub(crate) peers: &'a mut Assigner<'d>,
    pub(crate) counts: &'a mut MergeCounts,
}

impl MergeBatch<'_, '_> {
    /// Adds what `changes` say.
    pub(crate) fn add(&mut self, changes: &Changes) -> Result<(), StateError> {
        self.committed(changes)?;
        self.outbox(&changes.outbox)?;
        self.histories(changes)?;
        self.merged(changes)?;
        self.conflicts(&changes.conflicts)
    }

    fn committed(&mut self, changes: &Changes) -> Result<(), StateError> {
        let was_any = self.counts.committed > 0;
        // Each CID once; the last word counts.
        let rows: BTreeMap<_, _> = changes.committed.iter().map(|(cid, pin)| (order_key(cid), pin)).collect();
        for (order, pin) in rows {
            let value = pin.as_ref().map(|pin| {
                let record = pin.as_ref().map(|pin| codec::encode_pin(pin, |peer| self.peers.number(peer)));
                codec::encode_committed(record)
            });
            let was = was_any && self.engine.get(Family::Committed, &order)?.is_some();
            self.set(Family::Committed, &order, value.as_deref(), was);
            self.counts.committed = count(self.counts.committed, was, value.is_some());
        }
        Ok(())
    }

    fn histories(&mut self, changes: &Changes) -> Result<(), StateError> {
        let was_any = self.counts.histories > 0;
        let rows: BTreeMap<_, _> = changes.histories.iter().map(|(cid, history)| (order_key(cid), history)).collect();
        for (order, history) in rows {
            let value = history.as_ref().map(|history| history.encode());
            let was = if was_any { self.engine.get(Family::History, &order)? } else { None };
            let was = was.map(|bytes| codec::decode_history(&bytes)).transpose()?;
            if let Some(was) = &was {
                let key = keys::history_by_index(was.last_merged(), &order);
                self.engine.delete(self.batch, Family::HistoryByIndex, key);
            }
            if let Some(history) = history {
                let key = keys::history_by_index(history.last_merged(), &order);
                self.engine.put(self.batch, Family::HistoryByIndex, key, []);
            }
            self.set(Family::History, &order, value.as_deref(), was.is_some());
            self.counts.histories = count(self.counts.histories, was.is_some(), value.is_some());
        }
        Ok(())
    }

    /// Writes or removes a row; nothing where there is nothing to remove.
    fn set(&mut self, family: Family, key: &[u8], value: Option<&[u8]>, was: bool) {
        match value {
            Some(value) => self.engine.put(self.batch, family, key, value),
            None if was => self.engine.delete(self.batch, family, key),
            None => {}
        }
    }

    fn outbox(&mut self, changes: &[OutboxChange]) -> Result<(), StateError> {
        // What this batch itself did: a write's number and whether it is an own one, or that it left.
        let mut rows = BTreeMap::new();
        for change in changes {
            let key = match change {
                OutboxChange::Put { write, .. } => keys::waiting(&write.cid, &write.id()),
                OutboxChange::Remove { cid, id } => keys::waiting(cid, id),
            };
            let here = match rows.get(&key) {
                Some(here) => *here,
                None => self.waits(&key)?,
            };
            let after = match (change, here) {
                (OutboxChange::Put { .. }, Some(_)) => {
                    debug_assert!(false, "a write comes into the outbox once");
                    here
                }
                (OutboxChange::Put { write, own }, None) => Some(self.put(&key, write, *own)),
                (OutboxChange::Remove { .. }, Some((number, own))) => {
                    self.remove(&key, number, own);
                    None
                }
                (OutboxChange::Remove { .. }, None) => None,
            };
            rows.insert(key, after);
        }
        Ok(())
    }

    fn waits(&self, key: &[u8]) -> Result<Option<(u64, bool)>, StateError> {
        let value = self.engine.get(Family::Outbox, key)?;
        value.map(|bytes| codec::decode_waiting_number(&bytes)).transpose()
    }

    fn put(&mut self, key: &[u8], write: &Eventual, own: bool) -> (u64, bool) {
        let number = self.counts.last_number.saturating_add(1);
        self.counts.last_number = number;
        if own {
            self.counts.last_own = number;
        }
        self.counts.own = count(self.counts.own, false, own);
        self.counts.waiting = count(self.counts.waiting, false, true);
        self.engine.put(self.batch, Family::Outbox, key, codec::encode_waiting(number, own, write));
        self.engine.put(self.batch, Family::OutboxOrder, keys::waiting_number(number), codec::encode_turn(key, own));
        (number, own)
    }

    fn remove(&mut self, key: &[u8], number: u64, own: bool) {
        self.counts.own = count(self.counts.own, own, false);
        self.counts.waiting = count(self.counts.waiting, true, false);
        self.engine.delete(self.batch, Family::Outbox, key);
        self.engine.delete(self.batch, Family::OutboxOrder, keys::waiting_number(number));
    }

    fn merged(&mut self, changes: &Changes) -> Result<(), StateError> {
        let mut rows: BTreeMap<VersionId, Option<MergedAt>> = BTreeMap::new();
        rows.extend(changes.forget_merged.iter().map(|(id, _at)| (*id, None)));
        rows.extend(changes.merged.iter().map(|(id, at)| (*id, Some(*at))));
        for (id, at) in rows {
            let was = self.engine.get(Family::Merged, id.as_bytes())?;
            let was = was.map(|bytes| codec::decode_merged_at(&bytes)).transpose()?;
            if let Some(was) = was {
                self.engine.delete(self.batch, Family::MergedByIndex, keys::merged_by_index(was.index, &id));
            }
            if let Some(at) = at {
                self.engine.put(self.batch, Family::MergedByIndex, keys::merged_by_index(at.index, &id), []);
            }
            let value = at.as_ref().map(codec::encode_merged_at);
            self.set(Family::Merged, id.as_bytes(), value.as_deref(), was.is_some());
            self.counts.merged = count(self.counts.merged, was.is_some(), at.is_some());
        }
        Ok(())
    }

    /// Adds to the event log, and drops its oldest rows beyond what it keeps.
    fn conflicts(&mut self, events: &[ConflictEvent]) -> Result<(), StateError> {
        let mut fresh: BTreeMap<_, _> =
            events.iter().map(|event| (keys::conflict(event.index, event.place), event)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let mut replaced = 0;
        for key in fresh.keys() {
            replaced += u64::from(self.engine.get(Family::Conflicts, key)?.is_some());
        }
        let brought = u64::try_from(fresh.len()).unwrap_or(u64::MAX).saturating_sub(replaced);
        let total = self.counts.conflicts.saturating_add(brought);
        let mut excess = total.saturating_sub(MAX_CONFLICTS).min(brought.saturating_add(DROP_MORE));
        self.counts.conflicts = total - excess;
        let moment = self.engine.moment();
        let mut rows = moment.rows(Family::Conflicts, &[], None);
        while excess > 0 {
            let Some((oldest, _event)) = rows.next()? else { break };
            if fresh.first_key_value().is_some_and(|(first, _event)| *first <= oldest) {
                break;
            }
            self.engine.delete(self.batch, Family::Conflicts, oldest);
            excess -= 1;
        }
        // More at once than the event log keeps.
        for _ in 0..excess {
            fresh.pop_first();
        }
        for (key, event) in fresh {
            self.engine.put(self.batch, Family::Conflicts, key, codec::encode_conflict(event));
        }
        Ok(())
    }
}

/// The number after a row came or went.
fn count(number: u64, was: bool, is: bool) -> u64 {
    number.saturating_add(u64::from(is)).saturating_sub(u64::from(was))
}
