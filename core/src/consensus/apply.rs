//! Carries out log entries: pure, and the judge of every operation.
//!
//! **Invariant:** what is written depends on the state and the entries alone, so every peer that applies the same log
//! holds the same. Only the tracker records (what this peer has to do about a pin) are local.
//! **Invariant:** an operation whose request was carried out before changes nothing and gets the same answer.
//! **Invariant:** pins are written as they are after the last entry, but tails and epochs are kept entry by entry, so it
//! does not matter how entries are grouped.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use bytes::Bytes;
use cluster_types::{Cid, ErrorClass, Pin, PinMode, PinType, Timestamp, WireError};

use super::Outcome;
use super::digest::{shard_of, touched};
use super::operation::{Entry, Operation, Proposed, decode_pin, encode_pin, normalised};
use crate::cluster::NOT_PINNED;
use crate::crdt::TailEntry;
use crate::ports::{
    Changes, LocalEffect, PinChange, RequestKey, ShardState, StateError, StateView, TailRow, TrackerRecord,
};

/// How many windows back the outcome of a request is remembered. A window of the log ends when the minute of its
/// entries changes, forwards or backwards, and there is at most one end an entry: about one a minute, and one more when
/// a leader with another clock takes over. A caller gives up after a minute at most, so four cover every repetition
/// through several changes of leaders.
pub const REMEMBERED_WINDOWS: u64 = 4;

/// What the log itself says of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogClock {
    /// The time of the last entry that carried any.
    pub time: Timestamp,
    /// The window it fell into.
    pub window: u64,
}

impl LogClock {
    /// The clock after an entry of `time`; an entry without operations carries none.
    fn advanced(self, time: Timestamp) -> Self {
        let window = if minute(time) == minute(self.time) { self.window } else { self.window + 1 };
        Self { time, window }
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
    };
    let (mut answers, mut digests) = (Vec::new(), Vec::new());
    for (index, entry) in entries {
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
    fn record(&self, mut tracked: Option<TrackerRecord>, effect: &LocalEffect) -> Option<Option<TrackerRecord>> {
        let mut written = None;
        let mut last = self.before.as_ref();
        for next in self.passed.iter().chain([&self.now]).map(Option::as_ref) {
            if last != next
                && let Some(record) = effect(last, next, tracked.as_ref())
            {
                tracked.clone_from(&record);
                written = Some(record);
            }
            last = next;
        }
        written
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
            Operation::Remove { cid } => {
                let touched = self.touch(cid)?;
                if let Err(refusal) = check_removal(touched.now.as_ref()) {
                    return Ok(Outcome::Refused(refusal));
                }
                Ok(touched.become_now(None).map_or(Outcome::Unchanged, |pin| Outcome::Unpinned(Box::new(pin))))
            }
            Operation::Expire { cid } => {
                let touched = self.touch(cid)?;
                let over = touched.now.as_ref().is_some_and(|pin| {
                    let end = pin.options.expire_at;
                    !end.is_zero() && end <= now
                });
                if !over {
                    return Ok(Outcome::Unchanged);
                }
                Ok(touched.become_now(None).map_or(Outcome::Unchanged, |pin| Outcome::Unpinned(Box::new(pin))))
            }
            Operation::Reserve => Ok(Outcome::Unchanged),
        }
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
                    Operation::Remove { .. } | Operation::Expire { .. } | Operation::Reserve => {
                        return Ok(Outcome::Unchanged);
                    }
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
        for touched in self.pins.into_values() {
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

const PINNED: u8 = 1;
const UNPINNED: u8 = 2;
const UNCHANGED: u8 = 3;
const REFUSED: u8 = 4;

/// An outcome as it is remembered: a pinned one is read from the state again, so only what is gone is kept.
fn pack(outcome: &Outcome) -> Bytes {
    let (kind, rest) = match outcome {
        Outcome::Pinned(_) => (PINNED, Vec::new()),
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

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
