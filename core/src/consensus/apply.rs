//! Carries out log entries: pure, and the judge of every operation.
//!
//! **Invariant:** what is written depends on the state and the entries alone, so every peer that applies the same log
//! holds the same. Only the tracker records (what this peer has to do about a pin) are local.
//! **Invariant:** an operation whose request was carried out before changes nothing and gets the same answer.
//! **Invariant:** pins are written as they are after the last entry, but tails and epochs are kept entry by entry, so it
//! does not matter how entries are grouped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;

use bytes::Bytes;
use cluster_types::{Cid, ErrorClass, Pin, PinMode, PinType, ReplicationFactor, Timestamp, WireError};

use super::Outcome;
use super::digest::{shard_of, touched};
use super::operation::{Entry, Merge, Operation, Proposed, decode_pin, encode_pin, normalised};
use super::overlay::{Settling, record_along};
use crate::cluster::NOT_PINNED;
use crate::crdt::TailEntry;
use crate::crdt::merge::{
    CarriedOut, Conflict, History, MergeState, MergedCid, Place, RequestId, VersionId, merge_all,
};
use crate::ports::{
    Changes, ConflictEvent, LocalEffect, MergedAt, OutboxChange, PinChange, RequestKey, ShardState, StateError,
    StateView, TailRow, TrackerRecord,
};

/// How many windows back the outcome of a request is remembered. A window of the log ends when the minute of its
/// entries changes, forwards or backwards, and there is at most one end an entry: about one a minute, and one more when
/// a leader with another clock takes over. A caller gives up after a minute at most, so four cover every repetition
/// through several changes of leaders.
pub const REMEMBERED_WINDOWS: u64 = 4;

/// For how many seconds of the log's time merged writes are remembered: as long as a peer that was away may bring one of
/// them again without it being judged as a stale one.
pub const REMEMBERED_MERGES: i64 = 60 * 24 * 3600;
/// How many old merges an entry that merges forgets beyond the number it brings.
const FORGET_MORE: usize = 16;

/// What the log itself says of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogClock {
    /// The time of the last entry that carried any.
    pub time: Timestamp,
    /// The window it fell into.
    pub window: u64,
    /// Merged writes are remembered if they were merged after this index.
    pub merges_since: u64,
}

impl LogClock {
    /// The clock after an entry of `time`; an entry without operations carries none.
    fn advanced(self, time: Timestamp) -> Self {
        let window = if minute(time) == minute(self.time) { self.window } else { self.window + 1 };
        Self { time, window, ..self }
    }
}

/// What applying entries gives.
#[derive(Debug)]
pub struct Applied {
    /// What to write; the applied position is left to the caller.
    pub changes: Changes,
    /// The outcomes, entry by entry, operation by operation.
    pub answers: Vec<Vec<Outcome>>,
    /// Digests of the shards each entry changed, as it left them; see [`touched`].
    pub digests: Vec<[u8; 32]>,
    /// The log's clock after the last entry.
    pub clock: LogClock,
}

/// Carries out `entries`, each with its log index, on `view`. `clock` is the log's clock before them.
pub fn apply<'a>(
    view: &dyn StateView,
    clock: LogClock,
    entries: impl IntoIterator<Item = (u64, &'a Entry)>,
    effect: &LocalEffect,
) -> Result<Applied, StateError> {
    let mut work = Work {
        view,
        clock,
        pins: BTreeMap::new(),
        in_entry: BTreeMap::new(),
        shards: BTreeMap::new(),
        tail: Vec::new(),
        drop_tail: BTreeMap::new(),
        outcomes: HashMap::new(),
        merging: Merging::default(),
        shown: BTreeMap::new(),
        index: 0,
    };
    let (mut answers, mut digests) = (Vec::new(), Vec::new());
    for (index, entry) in entries {
        work.index = index;
        if !entry.operations.is_empty() {
            work.clock = work.clock.advanced(entry.time);
        }
        let outcomes = entry.operations.iter().map(|proposed| work.once(proposed)).collect::<Result<_, _>>()?;
        answers.push(outcomes);
        digests.push(work.end_entry(index)?);
    }
    let now = work.clock;
    let changes = work.into_changes(now.window != clock.window, effect)?;
    Ok(Applied { changes, answers, digests, clock: now })
}

struct Work<'a> {
    view: &'a dyn StateView,
    clock: LogClock,
    /// Pins touched so far: as stored, and as they are now.
    pins: BTreeMap<Vec<u8>, Touched>,
    /// Pins touched by the present entry, as they were before it.
    in_entry: BTreeMap<Vec<u8>, Option<Pin>>,
    /// Shards that changed.
    shards: BTreeMap<u16, ShardState>,
    tail: Vec<TailRow>,
    /// Up to which log index shards drop their tails.
    drop_tail: BTreeMap<u16, u64>,
    outcomes: HashMap<[u8; 16], (u64, Bytes)>,
    merging: Merging,
    /// What is shown after each entry of the pins that it touched and on which something waits.
    shown: BTreeMap<Vec<u8>, Vec<Option<Pin>>>,
    /// Index of the present entry.
    index: u64,
}

/// A record before and after an entry, in canonical form.
struct Rewritten {
    shard: u16,
    cid: Cid,
    before: Option<Bytes>,
    now: Option<Bytes>,
}

struct Touched {
    cid: Cid,
    before: Option<Pin>,
    now: Option<Pin>,
    /// What it was in between, oldest first.
    passed: Vec<Option<Pin>>,
    changed: bool,
}

impl Touched {
    /// From now on the pin is this; returns what it was.
    fn become_now(&mut self, next: Option<Pin>) -> Option<Pin> {
        let was = mem::replace(&mut self.now, next);
        if self.changed {
            self.passed.push(was.clone());
        }
        self.changed = true;
        was
    }

    /// What its changes, one after the other, make of this peer's record: how entries are grouped must not matter. A
    /// pin that was gone in between may have been dropped by the node before a power cut took the record of it.
    fn record(&self, tracked: Option<TrackerRecord>, effect: &LocalEffect) -> Option<Option<TrackerRecord>> {
        record_along([&self.before].into_iter().chain(&self.passed).chain([&self.now]), tracked, effect)
    }
}

impl Work<'_> {
    /// Carries out an operation unless its request was carried out before.
    fn once(&mut self, proposed: &Proposed) -> Result<Outcome, StateError> {
        if matches!(proposed.operation, Operation::Reserve) {
            return Ok(Outcome::Unchanged);
        }
        if let Some(known) = self.remembered(&proposed.id)? {
            return self.recall(proposed, &known);
        }
        let outcome = self.carry_out(&proposed.operation)?;
        let packed = pack(&outcome);
        self.outcomes.insert(proposed.id, (self.clock.window, packed));
        Ok(outcome)
    }

    fn carry_out(&mut self, operation: &Operation) -> Result<Outcome, StateError> {
        let now = self.clock.time;
        match operation {
            Operation::Put(pin) => {
                let pin = normalised(pin.as_ref().clone());
                let touched = self.touch(&pin.cid)?;
                if let Err(refusal) = check_replacement(touched.now.as_ref(), &pin) {
                    return Ok(Outcome::Refused(refusal));
                }
                touched.become_now(Some(pin.clone()));
                self.the_log_spoke(&pin.cid)?;
                Ok(Outcome::Pinned(Box::new(pin)))
            }
            Operation::Reallocate { pin, was } => {
                let touched = self.touch(&pin.cid)?;
                let Some(now) = touched.now.as_ref().filter(|now| now.allocations == *was) else {
                    return Ok(Outcome::Unchanged);
                };
                // The time stays: it says when somebody wished for the pin, and merges compare it.
                let moved = Pin { allocations: pin.allocations.clone(), ..now.clone() };
                touched.become_now(Some(moved.clone()));
                Ok(Outcome::Pinned(Box::new(moved)))
            }
            Operation::Remove { cid } => self.remove(cid, check_removal),
            Operation::RemovePart { cid } => self.remove(cid, check_part_removal),
            Operation::Expire { cid } => {
                let touched = self.touch(cid)?;
                let over = touched.now.as_ref().is_some_and(|pin| {
                    let end = pin.options.expire_at;
                    !end.is_zero() && end <= now
                });
                if !over {
                    return Ok(Outcome::Unchanged);
                }
                let was = touched.become_now(None);
                self.the_log_spoke(cid)?;
                Ok(was.map_or(Outcome::Unchanged, |pin| Outcome::Unpinned(Box::new(pin))))
            }
            Operation::Merge(merge) => self.merge(merge),
            Operation::Reserve => Ok(Outcome::Unchanged),
        }
    }

    /// Removes a pin unless `check` refuses it.
    fn remove(
        &mut self,
        cid: &Cid,
        check: impl Fn(Option<&Pin>) -> Result<(), WireError>,
    ) -> Result<Outcome, StateError> {
        let touched = self.touch(cid)?;
        if let Err(refusal) = check(touched.now.as_ref()) {
            return Ok(Outcome::Refused(refusal));
        }
        let was = touched.become_now(None);
        self.the_log_spoke(cid)?;
        Ok(was.map_or(Outcome::Unchanged, |pin| Outcome::Unpinned(Box::new(pin))))
    }

    /// Merges writes that were accepted without a quorum.
    fn merge(&mut self, merge: &Merge) -> Result<Outcome, StateError> {
        let place = Place::entry(self.index, self.clock.time, self.clock.merges_since);
        let set = merge_all(&*self, merge.writes.iter().cloned(), place)?;
        for MergedCid { cid, mut record, history, reallocate, .. } in set.cids {
            // The leader may have foreseen another pin as the one that stands: then its holders are not for this one.
            if let Some(pin) = record.as_mut().filter(|_pin| reallocate)
                && let Some((_, holders)) = merge.holders.iter().find(|(of, _)| *of == cid)
                && suits(pin, holders.len())
            {
                pin.allocations.clone_from(holders);
            }
            let touched = self.touch(&cid)?;
            if touched.now != record {
                touched.become_now(record);
            }
            self.merging.histories.insert(super::digest::order_key(&cid), (cid, Some(history)));
        }
        let at = MergedAt { index: self.index, time: self.clock.time };
        self.merging.remember(set.remember.iter().copied(), at);
        self.merging.delivered.extend(merge.writes.iter().map(|write| write.cid));
        self.merging.report(at, set.conflicts);
        // The attempts that went before them, or before what they replace, may still be on their way to a leader.
        for attempt in merge.writes.iter().flat_map(|write| write.attempt.iter().chain(&write.seen.attempts)) {
            if self.remembered(attempt)?.is_none() {
                self.outcomes.insert(*attempt, (self.clock.window, pack(&Outcome::Unchanged)));
            }
        }
        self.forget_merges(set.remember.len())?;
        self.forget_histories(merge.writes.len())?;
        Ok(Outcome::Unchanged)
    }

    /// Forgets merges that are older than any write that may come still, a few with every merge.
    fn forget_merges(&mut self, brought: usize) -> Result<(), StateError> {
        let skip = self.merging.forgotten.len();
        let limit = skip + brought + FORGET_MORE;
        let mut oldest = self.view.oldest_merged(limit)?;
        // How entries are grouped must not matter: those of this group come last, as they would if it were written.
        let mut newest: Vec<_> = self.merging.merged.iter().map(|(id, at)| (*id, *at)).collect();
        newest.sort_unstable_by_key(|(id, at)| (at.index, *id));
        oldest.extend(newest);
        let now = self.clock.time.unix_seconds();
        for (id, at) in oldest.into_iter().take(limit).skip(skip) {
            if now.saturating_sub(at.time.unix_seconds()) <= REMEMBERED_MERGES {
                break;
            }
            self.clock.merges_since = self.clock.merges_since.max(at.index);
            self.merging.forgotten.insert(id, at);
        }
        Ok(())
    }

    /// Forgets what merges left of pins, where nobody can bring a write of before that is not stale, a few with every merge.
    fn forget_histories(&mut self, brought: usize) -> Result<(), StateError> {
        let limit = brought + FORGET_MORE;
        let histories = &mut self.merging.histories;
        let mut oldest = match self.clock.merges_since {
            0 => return Ok(()),
            _ => self.view.oldest_histories(limit + histories.len())?,
        };
        // How entries are grouped must not matter: what this group wrote counts as if it were written.
        oldest.retain(|(cid, _)| !histories.contains_key(&super::digest::order_key(cid)));
        oldest.extend(histories.values().filter_map(|(cid, history)| Some((*cid, history.as_ref()?.last_merged()))));
        oldest.sort_by_cached_key(|(cid, last)| (*last, super::digest::order_key(cid)));
        for (cid, last) in oldest.into_iter().take(limit) {
            if last > self.clock.merges_since {
                break;
            }
            histories.insert(super::digest::order_key(&cid), (cid, None));
        }
        Ok(())
    }

    /// Whoever wrote through the log has seen all merges before: what they left need not be remembered.
    fn the_log_spoke(&mut self, cid: &Cid) -> Result<(), StateError> {
        let order = super::digest::order_key(cid);
        let merged_now = self.merging.histories.contains_key(&order);
        if merged_now || (self.view.histories() > 0 && self.view.history(cid)?.is_some()) {
            self.merging.histories.insert(order, (*cid, None));
        }
        Ok(())
    }

    fn touch(&mut self, cid: &Cid) -> Result<&mut Touched, StateError> {
        use std::collections::btree_map::Entry as Slot;
        let order = super::digest::order_key(cid);
        let touched = match self.pins.entry(order.clone()) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => {
                let before = self.view.pin(cid)?;
                slot.insert(Touched { cid: *cid, now: before.clone(), before, passed: Vec::new(), changed: false })
            }
        };
        self.in_entry.entry(order).or_insert_with(|| touched.now.clone());
        Ok(touched)
    }

    /// Keeps what it takes to undo the entry `index`, and moves the sums and epochs of its shards. Returns their digest.
    fn end_entry(&mut self, index: u64) -> Result<[u8; 32], StateError> {
        self.note_shown()?;
        let changed = self.changed_in_entry();
        let mut sums = Vec::new();
        // They are in the order of the listing, so those of a shard are side by side.
        for rewritten in changed.chunk_by(|one, other| one.shard == other.shard) {
            let [Rewritten { shard, .. }, ..] = rewritten else { continue };
            let mut state = self.shard(*shard)?;
            let ShardState { sum, meta, .. } = state;
            for record in rewritten {
                if let Some(before) = &record.before {
                    state.sum.remove_record(before);
                }
                if let Some(now) = &record.now {
                    state.sum.add_record(now);
                }
            }
            state.meta = meta.after(index, rewritten.len() as u64, sum.pins);
            if state.meta.previous > meta.previous {
                self.drop_tail.insert(*shard, state.meta.previous);
            }
            self.shards.insert(*shard, state);
            sums.push((*shard, state.sum));
            self.tail.extend((0..).zip(rewritten).map(|(place, record)| TailRow {
                shard: *shard,
                place,
                entry: TailEntry { index, cid: record.cid, before: record.before.clone() },
            }));
        }
        Ok(touched(sums.iter().map(|(shard, sum)| (*shard, sum))))
    }

    /// Notes what the present entry makes of the pins on which something waits: how entries are grouped must not matter
    /// to this peer's records.
    fn note_shown(&mut self) -> Result<(), StateError> {
        if self.view.outbox_count().all == 0 {
            return Ok(());
        }
        for order in self.in_entry.keys() {
            let Some(touched) = self.pins.get(order) else { continue };
            if let Some((settling, _)) = self.merging.settling(self.view, &touched.cid, Some(touched))? {
                self.shown.entry(order.clone()).or_default().push(settling.shown(self.index));
            }
        }
        Ok(())
    }

    /// The records that the present entry changed.
    fn changed_in_entry(&mut self) -> Vec<Rewritten> {
        let changed = mem::take(&mut self.in_entry).into_iter().filter_map(|(order, before)| {
            let touched = self.pins.get(&order).filter(|touched| touched.now != before)?;
            let [before, now] = [&before, &touched.now].map(|pin| pin.as_ref().map(|pin| Bytes::from(encode_pin(pin))));
            (before != now).then(|| Rewritten { shard: shard_of(&touched.cid), cid: touched.cid, before, now })
        });
        changed.collect()
    }

    /// A shard as the entries so far leave it.
    fn shard(&mut self, shard: u16) -> Result<ShardState, StateError> {
        use std::collections::btree_map::Entry as Slot;
        Ok(match self.shards.entry(shard) {
            Slot::Occupied(slot) => *slot.get(),
            Slot::Vacant(slot) => *slot.insert(self.view.shard(shard)?),
        })
    }

    fn remembered(&self, id: &[u8; 16]) -> Result<Option<Bytes>, StateError> {
        let oldest = self.clock.window.saturating_sub(REMEMBERED_WINDOWS);
        // The same limit as for what is stored: how entries are grouped must not matter.
        if let Some((_, known)) = self.outcomes.get(id).filter(|(window, _)| *window >= oldest) {
            return Ok(Some(known.clone()));
        }
        for window in (oldest..=self.clock.window).rev() {
            if let Some(known) = self.view.outcome(&RequestKey { window, id: *id })? {
                return Ok(Some(known));
            }
        }
        Ok(None)
    }

    fn recall(&mut self, proposed: &Proposed, packed: &Bytes) -> Result<Outcome, StateError> {
        let damaged = |what: String| StateError::Damaged { what: format!("remembered outcome: {what}") };
        match packed.split_first() {
            Some((&PINNED, _)) => {
                let asked = match &proposed.operation {
                    Operation::Put(pin) | Operation::Reallocate { pin, .. } => pin.as_ref().clone(),
                    Operation::Remove { .. }
                    | Operation::RemovePart { .. }
                    | Operation::Expire { .. }
                    | Operation::Reserve
                    | Operation::Merge(_) => return Ok(Outcome::Unchanged),
                };
                let now = self.touch(&asked.cid)?.now.clone();
                Ok(Outcome::Pinned(Box::new(now.unwrap_or_else(|| normalised(asked)))))
            }
            Some((&UNPINNED, pin)) => {
                let pin = decode_pin(pin).map_err(|error| damaged(error.to_string()))?;
                Ok(Outcome::Unpinned(Box::new(pin)))
            }
            Some((&UNCHANGED, _)) => Ok(Outcome::Unchanged),
            Some((&REFUSED, rest)) => {
                let refusal = rmp_serde::from_slice(rest).map_err(|error| damaged(error.to_string()))?;
                Ok(Outcome::Refused(refusal))
            }
            Some(_) | None => Err(damaged("unknown kind".to_owned())),
        }
    }

    fn into_changes(self, window_moved: bool, effect: &LocalEffect) -> Result<Changes, StateError> {
        let mut changes = Changes::default();
        let mut touched_now: BTreeMap<Vec<u8>, Touched> = self.pins;
        // Whatever waits is shown over what the log has, so that has to be looked at again.
        if self.view.outbox_count().all > 0 {
            let mut cids: BTreeMap<Vec<u8>, Cid> = touched_now
                .iter()
                .filter(|(_, touched)| touched.changed)
                .map(|(order, touched)| (order.clone(), touched.cid))
                .collect();
            cids.extend(self.merging.delivered.iter().map(|cid| (super::digest::order_key(cid), *cid)));
            for (order, cid) in cids {
                let Some((settling, merged)) = self.merging.settling(self.view, &cid, touched_now.get(&order))? else {
                    continue;
                };
                changes.outbox.extend(merged.into_iter().map(|id| OutboxChange::Remove { cid, id }));
                let passed = self.shown.get(&order).map(Vec::as_slice).unwrap_or_default();
                settling.settle_after(self.view, passed, self.index, effect, &mut changes)?;
                touched_now.remove(&order);
            }
        }
        for touched in touched_now.into_values() {
            if !touched.changed {
                continue;
            }
            if let Some(record) = touched.record(self.view.tracked(&touched.cid)?, effect) {
                changes.tracker.push((touched.cid, record));
            }
            if touched.before == touched.now {
                continue;
            }
            changes.pins.push(PinChange { cid: touched.cid, before: touched.before, after: touched.now });
        }
        self.merging.into_changes(&mut changes);
        changes.tail = self.tail;
        // The group may have begun two epochs since.
        changes.tail.retain(|row| self.drop_tail.get(&row.shard).is_none_or(|up_to| row.entry.index > *up_to));
        changes.drop_tail = self.drop_tail.into_iter().collect();
        changes.shards = self.shards.into_iter().collect();
        changes.outcomes =
            self.outcomes.into_iter().map(|(id, (window, packed))| (RequestKey { window, id }, packed)).collect();
        changes.outcomes.sort_unstable_by_key(|(key, _)| *key);
        changes.forget_before_window = window_moved.then(|| self.clock.window.saturating_sub(REMEMBERED_WINDOWS));
        Ok(changes)
    }
}

impl MergeState for Work<'_> {
    type Error = StateError;

    fn record(&self, cid: &Cid) -> Result<Option<Pin>, StateError> {
        match self.pins.get(&super::digest::order_key(cid)) {
            Some(touched) => Ok(touched.now.clone()),
            None => self.view.pin(cid),
        }
    }

    fn history(&self, cid: &Cid) -> Result<Option<History>, StateError> {
        match self.merging.histories.get(&super::digest::order_key(cid)) {
            Some((_cid, history)) => Ok(history.clone()),
            None => self.view.history(cid),
        }
    }

    fn is_known(&self, id: &VersionId) -> Result<bool, StateError> {
        if self.merging.forgotten.contains_key(id) {
            return Ok(false);
        }
        Ok(self.merging.merged.contains_key(id) || self.view.is_merged(id)?)
    }

    fn is_written_in_entry(&self, cid: &Cid) -> bool {
        let order = super::digest::order_key(cid);
        let before = self.in_entry.get(&order);
        before.is_some_and(|before| self.pins.get(&order).is_some_and(|touched| touched.now != *before))
    }

    fn carried_out(&self, request: &RequestId) -> Result<Option<CarriedOut>, StateError> {
        let known = self.remembered(request)?;
        Ok(known.and_then(|packed| match packed.split_first() {
            Some((&PINNED, first)) => first.try_into().ok().map(CarriedOut::Wish),
            Some((&UNPINNED, _)) => Some(CarriedOut::Removal),
            Some(_) | None => None,
        }))
    }
}

/// Whether a pin wants so many holders. One that leaves it open takes what it is given.
fn suits(pin: &Pin, holders: usize) -> bool {
    let factor = ReplicationFactor::checked(pin.options.replication_factor_min, pin.options.replication_factor_max);
    match factor {
        Ok(ReplicationFactor::Between { min, max }) if pin.kind != PinType::Meta => {
            (min as usize..=max as usize).contains(&holders)
        }
        Ok(ReplicationFactor::Between { .. } | ReplicationFactor::Everywhere) => holders == 0,
        Err(_) => true,
    }
}

/// What merges add to the changes of a group of entries.
#[derive(Debug, Default)]
struct Merging {
    histories: BTreeMap<Vec<u8>, (Cid, Option<History>)>,
    merged: BTreeMap<VersionId, MergedAt>,
    forgotten: BTreeMap<VersionId, MergedAt>,
    conflicts: Vec<ConflictEvent>,
    /// Pins about which writes were merged, known before or not.
    delivered: BTreeSet<Cid>,
}

impl Merging {
    fn remember(&mut self, ids: impl Iterator<Item = VersionId>, at: MergedAt) {
        for id in ids {
            self.forgotten.remove(&id);
            self.merged.insert(id, at);
        }
    }

    fn report(&mut self, at: MergedAt, conflicts: Vec<Conflict>) {
        let before = self.conflicts.iter().filter(|event| event.index == at.index).count();
        let places = u32::try_from(before).unwrap_or(u32::MAX)..;
        self.conflicts.extend(places.zip(conflicts).map(|(place, conflict)| ConflictEvent {
            index: at.index,
            place,
            time: at.time,
            conflict,
        }));
    }

    /// A pin as it is now, with what still waits over what the log has, and which writes wait no more; `None`: nothing
    /// waits, or waited, on it.
    fn settling(
        &self,
        view: &dyn StateView,
        cid: &Cid,
        touched: Option<&Touched>,
    ) -> Result<Option<(Settling, Vec<VersionId>)>, StateError> {
        if view.waiting(cid)?.is_empty() {
            return Ok(None);
        }
        let mut settling = Settling::of(view, cid)?;
        let (mut waiting, mut merged) = (Vec::with_capacity(settling.waiting.len()), Vec::new());
        for write in mem::take(&mut settling.waiting) {
            let id = write.id();
            if self.merged.contains_key(&id) || view.is_merged(&id)? {
                merged.push(id);
            } else {
                waiting.push(write);
            }
        }
        settling.waiting = waiting;
        if let Some(touched) = touched {
            settling.committed.clone_from(&touched.now);
        }
        if let Some((_cid, history)) = self.histories.get(&super::digest::order_key(cid)) {
            settling.history.clone_from(history);
        }
        Ok(Some((settling, merged)))
    }

    fn into_changes(self, changes: &mut Changes) {
        changes.histories.extend(self.histories.into_values());
        changes.merged.extend(self.merged.into_iter().filter(|(id, _)| !self.forgotten.contains_key(id)));
        changes.forget_merged.extend(self.forgotten);
        changes.conflicts.extend(self.conflicts);
    }
}

const PINNED: u8 = 1;
const UNPINNED: u8 = 2;
const UNCHANGED: u8 = 3;
const REFUSED: u8 = 4;

/// An outcome as it is remembered: what is pinned is read from the state again, so a name of the wish will do for it.
fn pack(outcome: &Outcome) -> Bytes {
    let (kind, rest) = match outcome {
        Outcome::Pinned(pin) => (PINNED, CarriedOut::first_of(pin).to_vec()),
        Outcome::Unpinned(pin) => (UNPINNED, encode_pin(pin)),
        Outcome::Unchanged => (UNCHANGED, Vec::new()),
        Outcome::Refused(refusal) => {
            (REFUSED, rmp_serde::to_vec_named(refusal).expect("a class and a text always encode"))
        }
    };
    let mut packed = vec![kind];
    packed.extend_from_slice(&rest);
    packed.into()
}

fn minute(time: Timestamp) -> i64 {
    time.unix_seconds().div_euclid(60)
}

/// Whether `new` may take the place of `old`.
pub(crate) fn check_replacement(old: Option<&Pin>, new: &Pin) -> Result<(), WireError> {
    let Some(old) = old else { return Ok(()) };
    if old.kind != new.kind {
        return Err(WireError::new(
            ErrorClass::Conflict,
            format!(
                "cannot repin CID with different tracking method, clear state with pin rm to proceed. New: {}. Was: {}",
                new.kind, old.kind
            ),
        ));
    }
    if old.max_depth.mode() == PinMode::Recursive && new.max_depth.mode() == PinMode::Direct {
        return Err(WireError::new(
            ErrorClass::Conflict,
            "cannot repin a CID which is already pinned in recursive mode (new pin is pinned as direct). Unpin it first.",
        ));
    }
    Ok(())
}

/// Whether a pin may be removed by itself.
pub(crate) fn check_removal(pin: Option<&Pin>) -> Result<(), WireError> {
    let refuse = |text| Err(WireError::new(ErrorClass::Conflict, text));
    match pin.map(|pin| pin.kind) {
        None => Err(WireError::new(ErrorClass::NotFound, NOT_PINNED)),
        Some(PinType::Shard) => refuse("cannot unpin a shard directly. Unpin content root CID instead"),
        Some(PinType::ClusterDag) => refuse("cannot unpin a Cluster DAG directly. Unpin content root CID instead"),
        Some(PinType::Data | PinType::Meta) => Ok(()),
    }
}

/// Whether a pin is a part of a sharded one, and may be removed with it.
pub(crate) fn check_part_removal(pin: Option<&Pin>) -> Result<(), WireError> {
    match pin.map(|pin| pin.kind) {
        None => Err(WireError::new(ErrorClass::NotFound, NOT_PINNED)),
        Some(PinType::Shard | PinType::ClusterDag) => Ok(()),
        Some(PinType::Data | PinType::Meta) => {
            Err(WireError::new(ErrorClass::Conflict, "this pin is no part of a sharded one"))
        }
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
