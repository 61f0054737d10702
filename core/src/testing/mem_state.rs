//! The pinset in memory, as a disk would keep it: what was written is one thing, what survives a power cut another.
//!
//! Every update and every settling is kept whole until [`MemState::sync`]. [`MemState::power_cut`] loses the newest of
//! them, as many as the test says, and none in part. A clone shares the same "disk".

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::mem;
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{Cid, Pin, StatusFilter, Timestamp};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::mem_staging::MemStaging;
use super::{Crash, mem_scan};
use crate::consensus::digest::{SHARDS, order_key, shard_of};
use crate::consensus::operation::encode_pin;
use crate::crdt::TailEntry;
use crate::crdt::merge::{History, VersionId};
use crate::ports::{
    AnnexRow, Changes, ConflictEvent, LocalEffect, MAX_CONFLICTS, MergeView, MergedAt, OutboxChange, OutboxCount,
    OutboxStore, PAGE_BYTES, ReadFn, RequestKey, Row, Scan, Settled, ShardState, ShardSum, SnapshotHandle,
    StagedOverview, StagedShard, Staging, StateError, StateStore, StateView, TailPlace, TailRow, TrackedTask,
    TrackerCounts, TrackerRecord, TrackerStore, UpdateFn, Waiting,
};

/// Rows in a group of the annex: few, so that tests see many groups.
const GROUP: usize = 16;

/// What was done to a state, told right after it, before anything else is.
#[derive(Clone, Copy)]
pub struct StateEvent<'a> {
    /// What was written; none: a snapshot was installed.
    pub changes: Option<&'a Changes>,
    /// The state now.
    pub now: &'a dyn StateView,
    /// Its applied position.
    pub applied: Option<&'a Bytes>,
    /// Whether something waits that is not shown, as while a snapshot is installed.
    pub lowered: bool,
}

impl fmt::Debug for StateEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateEvent").field("changes", &self.changes).finish_non_exhaustive()
    }
}

/// Who is told. Must not use the state itself.
pub type StateObserver = Arc<dyn Fn(StateEvent<'_>) + Send + Sync>;

/// The double of the state's and the tracker's store.
#[derive(Clone, Debug, Default)]
pub struct MemState {
    inner: Arc<Mutex<Inner>>,
    /// One update at a time, in the order of the calls.
    updating: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Inner {
    written: State,
    durable: State,
    /// What was written since, oldest first.
    unsynced: VecDeque<Changes>,
    frozen: Option<Arc<MemSnapshot>>,
    staging: MemStaging,
    durable_staging: MemStaging,
    update_time: Option<(Range<Duration>, StdRng)>,
    observer: Option<StateObserver>,
    flush_fails: bool,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("written", &self.written).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) pins: BTreeMap<Vec<u8>, Pin>,
    pub(super) tracker: BTreeMap<Vec<u8>, TrackedTask>,
    pub(super) shards: BTreeMap<u16, ShardState>,
    pub(super) tails: BTreeMap<(u16, TailPlace), TailEntry>,
    pub(super) outcomes: BTreeMap<RequestKey, Bytes>,
    pub(super) applied: Option<Bytes>,
    /// Pins as the log has them, where writes wait.
    committed: BTreeMap<Vec<u8>, Option<Pin>>,
    pub(super) histories: BTreeMap<Vec<u8>, (Cid, History)>,
    pub(super) merged: BTreeMap<VersionId, MergedAt>,
    outbox: BTreeMap<u64, Waiting>,
    next_number: u64,
    last_own: u64,
    conflicts: BTreeMap<(u64, u32), ConflictEvent>,
}

impl State {
    fn annex(&self) -> BoxStream<'static, Result<Vec<AnnexRow>, StateError>> {
        let outcomes = self.outcomes.iter().map(MemStaging::outcome_row);
        let histories = self.histories.values().map(MemStaging::history_row);
        let merged = self.merged.iter().map(MemStaging::merged_row);
        let rows: Vec<AnnexRow> = outcomes.chain(histories).chain(merged).collect();
        let groups: Vec<_> = rows.chunks(GROUP).map(|group| Ok(group.to_vec())).collect();
        stream::iter(groups).boxed()
    }
}

impl MemState {
    /// An empty state.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes everything written so far survive a power cut: a flush of the log does that.
    pub fn sync(&self) {
        let mut inner = self.inner.lock();
        let Inner { durable, unsynced, staging, durable_staging, .. } = &mut *inner;
        for changes in unsynced.drain(..) {
            durable.write(&changes);
        }
        durable_staging.clone_from(staging);
    }

    /// Number of writes that a power cut may lose.
    pub fn unsynced(&self) -> usize {
        self.inner.lock().unsynced.len()
    }

    /// Loses what was not synced, but for the oldest `survivors` writes.
    pub fn power_cut(&self, survivors: usize) {
        let mut inner = self.inner.lock();
        inner.unsynced.truncate(survivors);
        let Inner { durable, unsynced, written, .. } = &mut *inner;
        for changes in unsynced.drain(..) {
            durable.write(&changes);
        }
        *written = durable.clone();
        inner.staging = inner.durable_staging.clone();
    }
}

impl MemState {
    /// The disk as the next start finds it; what still runs on this one reaches it no more.
    pub fn reopened(&self, crash: Crash) -> Self {
        let inner = self.inner.lock();
        let (written, unsynced, staging) = match crash {
            Crash::Killed => (inner.written.clone(), inner.unsynced.clone(), inner.staging.clone()),
            Crash::PowerCut => (inner.durable.clone(), VecDeque::new(), inner.durable_staging.clone()),
        };
        let inner = Inner {
            written,
            unsynced,
            staging,
            durable: inner.durable.clone(),
            frozen: inner.frozen.clone(),
            durable_staging: inner.durable_staging.clone(),
            ..Inner::default()
        };
        Self { inner: Arc::new(Mutex::new(inner)), updating: Arc::default() }
    }

    /// From now on every update, flush and installation takes a time from this range: half of it before it is done, half
    /// of it before the caller hears of it.
    pub fn set_update_time(&self, range: Range<Duration>, seed: u64) {
        self.inner.lock().update_time = Some((range, StdRng::seed_from_u64(seed)));
    }

    /// From now on `observer` is told what is done.
    pub fn observe(&self, observer: StateObserver) {
        self.inner.lock().observer = Some(observer);
    }

    /// Does something in its turn, and takes the time for it.
    async fn in_turn<R>(&self, work: impl FnOnce(&mut Inner) -> Result<R, StateError> + Send) -> Result<R, StateError> {
        // At once if nobody else is: waiting for a lock also gives way to other tasks now and then.
        let turn = match self.updating.try_lock() {
            Ok(turn) => turn,
            Err(_taken) => self.updating.lock().await,
        };
        let pause = self.inner.lock().pause();
        if let Some(pause) = pause {
            sleep(pause / 2).await;
        }
        let done = work(&mut self.inner.lock());
        drop(turn);
        if let Some(pause) = pause {
            sleep(pause / 2).await;
        }
        done
    }

    /// From now on every flush fails.
    pub fn break_flush(&self) {
        self.inner.lock().flush_fails = true;
    }

    /// Drops everything that belongs to a cluster, in one step; what is shown, what waits and what the tracker knows
    /// stays. `applied` becomes the position.
    pub fn forget_cluster(&self, applied: Bytes) {
        let mut inner = self.inner.lock();
        let written = mem::take(&mut inner.written);
        let State { pins, tracker, outbox, next_number, last_own, conflicts, .. } = written;
        let applied = Some(applied);
        let kept = State { pins, tracker, outbox, next_number, last_own, conflicts, applied, ..State::default() };
        (inner.written, inner.durable) = (kept.clone(), kept);
        inner.unsynced.clear();
        inner.frozen = None;
    }

    /// Changes a record, and nothing that belongs to it: what a disk or a tool does behind a peer's back.
    pub fn tamper(&self, cid: &Cid, pin: Option<Pin>) {
        let mut inner = self.inner.lock();
        let Inner { written, durable, .. } = &mut *inner;
        for state in [written, durable] {
            match &pin {
                Some(pin) => drop(state.pins.insert(order_key(cid), pin.clone())),
                None => drop(state.pins.remove(&order_key(cid))),
            }
        }
    }

    /// All there is at one instant, for checks: `durable` says whether only what would survive a power cut.
    pub fn contents(&self, durable: bool) -> Contents {
        let inner = self.inner.lock();
        let state = if durable { &inner.durable } else { &inner.written };
        Contents {
            pins: state.pins.values().cloned().collect(),
            tracked: state.tracker.values().cloned().collect(),
            shards: state.shards.iter().map(|(shard, state)| (*shard, state.sum)).collect(),
            applied: state.applied.clone(),
            committed: state.committed.clone(),
            outbox: state.outbox.values().cloned().collect(),
            histories: state.histories.values().cloned().collect(),
            merged: state.merged.clone(),
            conflicts: state.conflicts.values().cloned().collect(),
        }
    }
}

/// What a [`MemState`] holds at one instant.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// The pins as they are shown, in the order of listings.
    pub pins: Vec<Pin>,
    /// The tracker's records, in the order of listings.
    pub tracked: Vec<TrackedTask>,
    /// The sums of the shards that were ever touched.
    pub shards: Vec<(u16, ShardSum)>,
    /// The applied position.
    pub applied: Option<Bytes>,
    /// Pins as the log has them, where that is kept beside the shown ones, by
    /// [`order_key`].
    pub committed: BTreeMap<Vec<u8>, Option<Pin>>,
    /// The writes that wait, by number.
    pub outbox: Vec<Waiting>,
    /// What merges left of CIDs, in the order of listings.
    pub histories: Vec<(Cid, History)>,
    /// The writes that were merged.
    pub merged: BTreeMap<VersionId, MergedAt>,
    /// The event log, oldest first.
    pub conflicts: Vec<ConflictEvent>,
}

impl Contents {
    /// The pins as the log has them, in the order of listings.
    pub fn log_pins(&self) -> Vec<Pin> {
        let mut pins: BTreeMap<Vec<u8>, &Pin> = self.pins.iter().map(|pin| (order_key(&pin.cid), pin)).collect();
        for (order, committed) in &self.committed {
            match committed {
                Some(pin) => drop(pins.insert(order.clone(), pin)),
                None => drop(pins.remove(order)),
            }
        }
        pins.into_values().cloned().collect()
    }
}

impl Inner {
    fn pause(&mut self) -> Option<Duration> {
        let (range, chance) = self.update_time.as_mut()?;
        Some(chance.random_range(range.clone()))
    }

    fn tell(&self, changes: Option<&Changes>) {
        if let Some(observer) = &self.observer {
            let State { outbox, committed, applied, .. } = &self.written;
            let lowered = outbox.values().any(|waiting| !committed.contains_key(&order_key(&waiting.write.cid)));
            observer(StateEvent { changes, now: &self.written, applied: applied.as_ref(), lowered });
        }
    }

    fn write(&mut self, changes: Changes) {
        self.written.write(&changes);
        self.tell(Some(&changes));
        self.unsynced.push_back(changes);
    }

    /// Replaces the state by what was staged.
    fn install(&mut self, state: State) {
        self.staging = MemStaging::default();
        self.durable_staging = MemStaging::default();
        self.frozen = Some(Arc::new(MemSnapshot { state: State { tracker: BTreeMap::new(), ..state.clone() } }));
        self.unsynced.clear();
        self.durable = state.clone();
        self.written = state;
        self.tell(None);
    }
}

impl State {
    fn write(&mut self, changes: &Changes) {
        for change in &changes.pins {
            let order = order_key(&change.cid);
            match &change.after {
                Some(pin) => drop(self.pins.insert(order, pin.clone())),
                None => drop(self.pins.remove(&order)),
            }
        }
        self.write_merging(changes);
        for (cid, record) in &changes.tracker {
            let order = order_key(cid);
            match record {
                Some(record) => drop(self.tracker.insert(order, TrackedTask { cid: *cid, record: record.clone() })),
                None => drop(self.tracker.remove(&order)),
            }
        }
        if let Some(window) = changes.forget_before_window {
            self.outcomes.retain(|key, _outcome| key.window >= window);
        }
        self.outcomes.extend(changes.outcomes.iter().cloned());
        self.shards.extend(changes.shards.iter().copied());
        for (shard, up_to) in &changes.drop_tail {
            self.tails.retain(|(of, place), _entry| of != shard || place.index > *up_to);
        }
        let row = |row: &TailRow| {
            let place = TailPlace { index: row.entry.index, place: row.place };
            ((row.shard, place), row.entry.clone())
        };
        self.tails.extend(changes.tail.iter().map(row));
        if let Some(applied) = &changes.applied {
            self.applied = Some(applied.clone());
        }
    }

    fn write_merging(&mut self, changes: &Changes) {
        for (cid, pin) in &changes.committed {
            match pin {
                Some(pin) => drop(self.committed.insert(order_key(cid), pin.clone())),
                None => drop(self.committed.remove(&order_key(cid))),
            }
        }
        for change in &changes.outbox {
            match change {
                OutboxChange::Put { write, own } => {
                    self.next_number += 1;
                    let number = self.next_number;
                    if *own {
                        self.last_own = number;
                    }
                    self.outbox.insert(number, Waiting { number, own: *own, write: write.as_ref().clone() });
                }
                OutboxChange::Remove { id, .. } => self.outbox.retain(|_number, waiting| waiting.write.id() != *id),
            }
        }
        for (cid, history) in &changes.histories {
            match history {
                Some(history) => drop(self.histories.insert(order_key(cid), (*cid, history.clone()))),
                None => drop(self.histories.remove(&order_key(cid))),
            }
        }
        for (id, _at) in &changes.forget_merged {
            self.merged.remove(id);
        }
        self.merged.extend(changes.merged.iter().copied());
        let event = |event: &ConflictEvent| ((event.index, event.place), event.clone());
        self.conflicts.extend(changes.conflicts.iter().map(event));
        while u64::try_from(self.conflicts.len()).is_ok_and(|number| number > MAX_CONFLICTS) {
            self.conflicts.pop_first();
        }
    }

    fn row(&self, order: &[u8]) -> Option<Row> {
        let (pin, tracked) = (self.pins.get(order), self.tracker.get(order));
        let cid = pin.map(|pin| pin.cid).or(tracked.map(|task| task.cid))?;
        Some(Row { cid, pin: pin.cloned(), tracked: tracked.map(|task| task.record.clone()), request: None })
    }

    fn rows(&self, scan: &Scan) -> Vec<Row> {
        let mut orders: Vec<&Vec<u8>> = self.pins.keys().chain(self.tracker.keys()).collect();
        orders.sort();
        orders.dedup();
        let mut rows: Vec<Row> = orders.into_iter().filter_map(|order| self.row(order)).collect();
        if matches!(scan, Scan::Requested { .. }) {
            rows = rows.iter().flat_map(mem_scan::by_request).collect();
            rows.sort_by_key(|row| {
                row.pin.as_ref().zip(row.request).and_then(|(pin, id)| Some(pin.request(&id)?.place()))
            });
        }
        rows.retain(|row| mem_scan::wanted(scan, row));
        if matches!(scan, Scan::ByName { .. }) {
            // Those that come in one place of the index stay in the order of the listing.
            rows.sort_by_key(mem_scan::name_of);
        }
        if matches!(scan, Scan::Expiring { .. }) {
            rows.sort_by_key(|row| row.pin.as_ref().map(|pin| pin.options.expire_at));
        }
        rows
    }

    fn tasks_by_urgency(&self) -> Vec<(Timestamp, &TrackedTask)> {
        let due = |task: &&TrackedTask| task.record.due;
        let mut tasks: Vec<_> = self.tracker.values().filter_map(|task| due(&task).map(|due| (due, task))).collect();
        tasks.sort_by_key(|(due, task)| (!task.record.priority, *due));
        tasks
    }
}

/// The first rows, as a page holds them.
fn page<T>(rows: impl Iterator<Item = T>, limit: usize, size: impl Fn(&T) -> usize) -> Vec<T> {
    let mut bytes = 0;
    let mut page = Vec::new();
    for row in rows.take(limit) {
        bytes += size(&row);
        if bytes > PAGE_BYTES && !page.is_empty() {
            break;
        }
        page.push(row);
    }
    page
}

impl MergeView for State {
    fn shown(&self, cid: &Cid) -> Result<Option<Pin>, StateError> {
        Ok(self.pins.get(&order_key(cid)).cloned())
    }

    fn outbox_count(&self) -> OutboxCount {
        let count = |own: bool| self.outbox.values().filter(|waiting| waiting.own || !own).count();
        let [own, all] = [true, false].map(|own| u64::try_from(count(own)).unwrap_or(u64::MAX));
        OutboxCount { own, all, last_own: self.last_own }
    }

    fn waiting(&self, cid: &Cid) -> Result<Vec<Waiting>, StateError> {
        Ok(self.outbox.values().filter(|waiting| waiting.write.cid == *cid).cloned().collect())
    }

    fn histories(&self) -> u64 {
        u64::try_from(self.histories.len()).unwrap_or(u64::MAX)
    }

    fn history(&self, cid: &Cid) -> Result<Option<History>, StateError> {
        Ok(self.histories.get(&order_key(cid)).map(|(_cid, history)| history.clone()))
    }

    fn is_merged(&self, id: &VersionId) -> Result<bool, StateError> {
        Ok(self.merged.contains_key(id))
    }

    fn oldest_histories(&self, limit: usize) -> Result<Vec<(Cid, u64)>, StateError> {
        let mut oldest: Vec<_> =
            self.histories.iter().map(|(order, (cid, history))| (history.last_merged(), order, *cid)).collect();
        oldest.sort_unstable();
        Ok(oldest.into_iter().take(limit).map(|(last, _order, cid)| (cid, last)).collect())
    }

    fn oldest_merged(&self, limit: usize) -> Result<Vec<(VersionId, MergedAt)>, StateError> {
        let mut merged: Vec<_> = self.merged.iter().map(|(id, at)| (*id, *at)).collect();
        merged.sort_unstable_by_key(|(id, at)| (at.index, *id));
        merged.truncate(limit);
        Ok(merged)
    }
}

#[async_trait]
impl OutboxStore for MemState {
    async fn outbox(&self, after: u64, limit: usize) -> Result<Vec<Waiting>, StateError> {
        let inner = self.inner.lock();
        let rest = inner.written.outbox.range((Bound::Excluded(after), Bound::Unbounded));
        Ok(page(rest.map(|(_number, waiting)| waiting.clone()), limit, |waiting| waiting.write.encode().len()))
    }

    fn waiting_count(&self) -> OutboxCount {
        self.inner.lock().written.outbox_count()
    }

    fn settled_count(&self) -> u64 {
        self.inner.lock().written.committed.len() as u64
    }

    async fn flush(&self) -> Result<(), StateError> {
        // In its turn as well: what was updated before is flushed.
        self.in_turn(|inner| match inner.flush_fails {
            true => Err(StateError::Io { operation: "flush", cause: "the disk is broken".into() }),
            false => Ok(()),
        })
        .await?;
        self.sync();
        Ok(())
    }

    async fn conflicts(&self, before: Option<(u64, u32)>, limit: usize) -> Result<Vec<ConflictEvent>, StateError> {
        let inner = self.inner.lock();
        let older = inner.written.conflicts.iter().rev().filter(|(place, _)| before.is_none_or(|end| **place < end));
        Ok(page(older.map(|(_place, event)| event.clone()), limit, |event| event.conflict.encode().len()))
    }
}

impl StateView for State {
    fn pin(&self, cid: &Cid) -> Result<Option<Pin>, StateError> {
        let order = order_key(cid);
        Ok(self.committed.get(&order).map_or_else(|| self.pins.get(&order).cloned(), Clone::clone))
    }

    fn shard(&self, shard: u16) -> Result<ShardState, StateError> {
        Ok(self.shards.get(&shard).copied().unwrap_or_default())
    }

    fn shard_pins(&self, shard: u16, after: Option<&Cid>, limit: usize) -> Result<Vec<Pin>, StateError> {
        let from = after.map_or_else(|| shard.to_be_bytes().to_vec(), order_key);
        let mut pins: BTreeMap<_, _> = self.pins.range((Bound::Excluded(from.clone()), Bound::Unbounded)).collect();
        for (order, committed) in self.committed.range((Bound::Excluded(from), Bound::Unbounded)) {
            match committed {
                Some(pin) => drop(pins.insert(order, pin)),
                None => drop(pins.remove(order)),
            }
        }
        let rest = pins.into_values().cloned().take_while(|pin| shard_of(&pin.cid) == shard);
        Ok(page(rest, limit, |pin| encode_pin(pin).len()))
    }

    fn tail(&self, shard: u16, after: TailPlace, limit: usize) -> Result<Vec<(TailPlace, TailEntry)>, StateError> {
        let rest = self.tails.range((Bound::Excluded((shard, after)), Bound::Unbounded));
        let rest = rest.take_while(|((of, _place), _entry)| *of == shard);
        Ok(page(rest.map(|((_shard, place), entry)| (*place, entry.clone())), limit, |(_, entry)| entry.encode().len()))
    }

    fn outcome(&self, key: &RequestKey) -> Result<Option<Bytes>, StateError> {
        Ok(self.outcomes.get(key).cloned())
    }

    fn tracked(&self, cid: &Cid) -> Result<Option<TrackerRecord>, StateError> {
        Ok(self.tracker.get(&order_key(cid)).map(|task| task.record.clone()))
    }
}

#[async_trait]
impl StateStore for MemState {
    async fn update(&self, update: UpdateFn) -> Result<(), StateError> {
        self.in_turn(|inner| {
            let changes = update(&inner.written)?;
            for change in &changes.pins {
                assert_eq!(inner.written.shown(&change.cid)?, change.before, "an update must name what it replaces");
            }
            inner.write(changes);
            Ok(())
        })
        .await
    }

    async fn read(&self, read: ReadFn) -> Result<(), StateError> {
        let frozen = self.inner.lock().written.clone();
        read(&frozen)
    }

    async fn applied(&self) -> Result<Option<Bytes>, StateError> {
        Ok(self.inner.lock().written.applied.clone())
    }

    async fn pin(&self, cid: Cid) -> Result<Option<Pin>, StateError> {
        self.inner.lock().written.shown(&cid)
    }

    fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Row, StateError>> {
        let state = self.clone();
        let rows = async move { stream::iter(state.inner.lock().written.rows(&scan).into_iter().map(Ok)) };
        stream::once(rows).flatten().boxed()
    }

    async fn shards(&self) -> Result<(Vec<ShardState>, Option<Bytes>), StateError> {
        let inner = self.inner.lock();
        let sums = (0..SHARDS).map(|shard| inner.written.shard(shard)).collect::<Result<_, _>>()?;
        Ok((sums, inner.written.applied.clone()))
    }

    fn pins(&self) -> u64 {
        self.inner.lock().written.pins.len().try_into().unwrap_or(u64::MAX)
    }

    fn annex(&self) -> BoxStream<'static, Result<Vec<AnnexRow>, StateError>> {
        self.inner.lock().written.annex()
    }

    async fn make_snapshot(&self) -> Result<Arc<dyn SnapshotHandle>, StateError> {
        let mut inner = self.inner.lock();
        let frozen = Arc::new(MemSnapshot { state: State { tracker: BTreeMap::new(), ..inner.written.clone() } });
        inner.frozen = Some(Arc::clone(&frozen));
        Ok(frozen)
    }

    async fn current_snapshot(&self) -> Result<Option<Arc<dyn SnapshotHandle>>, StateError> {
        Ok(self.inner.lock().frozen.clone().map(|frozen| frozen as Arc<dyn SnapshotHandle>))
    }

    async fn install_staged(&self, effect: LocalEffect) -> Result<(), StateError> {
        self.in_turn(|inner| {
            let state = inner.staging.installed(&inner.written, &effect)?;
            inner.install(state);
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Staging for MemState {
    async fn stage(&self, index: u64, manifest: Bytes) -> Result<(), StateError> {
        self.inner.lock().staging.begin(index, manifest);
        Ok(())
    }

    async fn stage_annex(&self, rows: Vec<AnnexRow>, last: bool) -> Result<(), StateError> {
        self.inner.lock().staging.add_annex(rows, last);
        Ok(())
    }

    async fn stage_shards(&self, shards: Vec<(u16, Option<StagedShard>)>) -> Result<(), StateError> {
        self.inner.lock().staging.put(shards);
        Ok(())
    }

    async fn staged_shard(&self, shard: u16) -> Result<Option<StagedShard>, StateError> {
        Ok(self.inner.lock().staging.shard(shard))
    }

    async fn staged(&self) -> Result<StagedOverview, StateError> {
        Ok(self.inner.lock().staging.overview())
    }

    async fn unstage(&self) -> Result<(), StateError> {
        self.inner.lock().staging = MemStaging::default();
        Ok(())
    }
}

#[path = "mem_state_tracker.rs"]
mod tracker;

#[derive(Debug)]
struct MemSnapshot {
    state: State,
}

#[async_trait]
impl SnapshotHandle for MemSnapshot {
    fn applied(&self) -> Bytes {
        self.state.applied.clone().unwrap_or_default()
    }

    async fn read(&self, read: ReadFn) -> Result<(), StateError> {
        read(&self.state)
    }

    fn annex(&self) -> BoxStream<'static, Result<Vec<AnnexRow>, StateError>> {
        self.state.annex()
    }
}

#[cfg(test)]
#[path = "mem_state_tests.rs"]
mod tests;
