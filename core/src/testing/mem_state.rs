//! The pinset in memory, as a disk would keep it: what was written is one thing, what survives a power cut another.
//!
//! Every update and every settling is kept whole until [`MemState::sync`]. [`MemState::power_cut`] loses the newest of
//! them, as many as the test says, and none in part. A clone shares the same "disk".

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{Cid, Pin, StatusFilter, Timestamp};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;

use super::Crash;
use super::mem_staging::MemStaging;
use crate::consensus::digest::{SHARDS, order_key, shard_of};
use crate::consensus::operation::encode_pin;
use crate::crdt::TailEntry;
use crate::ports::{
    AnnexRow, Changes, LocalEffect, PAGE_BYTES, ReadFn, RequestKey, Row, Scan, Settled, ShardState, ShardSum,
    SnapshotHandle, StagedOverview, StagedShard, Staging, StateError, StateStore, StateView, TailPlace, TailRow,
    TrackedTask, TrackerCounts, TrackerRecord, TrackerStore, UpdateFn,
};

/// Rows in a group of the annex: few, so that tests see many groups.
const GROUP: usize = 16;

/// The double of the state's and the tracker's store.
#[derive(Clone, Debug, Default)]
pub struct MemState {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Shared with who reads it, so that a look costs no copy.
    written: Arc<State>,
    durable: State,
    /// What was written since, oldest first.
    unsynced: VecDeque<Changes>,
    frozen: Option<Arc<MemSnapshot>>,
    staging: MemStaging,
    durable_staging: MemStaging,
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) pins: BTreeMap<Vec<u8>, Pin>,
    pub(super) tracker: BTreeMap<Vec<u8>, TrackedTask>,
    pub(super) shards: BTreeMap<u16, ShardState>,
    pub(super) tails: BTreeMap<(u16, TailPlace), TailEntry>,
    pub(super) outcomes: BTreeMap<RequestKey, Bytes>,
    pub(super) applied: Option<Bytes>,
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
        *written = Arc::new(durable.clone());
        inner.staging = inner.durable_staging.clone();
    }
}

impl MemState {
    /// The disk as the next start finds it; what still runs on this one reaches it no more.
    pub fn reopened(&self, crash: Crash) -> Self {
        let inner = self.inner.lock();
        let (written, unsynced, staging) = match crash {
            Crash::Killed => (inner.written.clone(), inner.unsynced.clone(), inner.staging.clone()),
            Crash::PowerCut => (Arc::new(inner.durable.clone()), VecDeque::new(), inner.durable_staging.clone()),
        };
        let inner = Inner {
            written,
            unsynced,
            staging,
            durable: inner.durable.clone(),
            frozen: inner.frozen.clone(),
            durable_staging: inner.durable_staging.clone(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// All there is at one instant, for checks: `durable` says whether only what would survive a power cut.
    pub fn contents(&self, durable: bool) -> Contents {
        let inner = self.inner.lock();
        let state: &State = if durable { &inner.durable } else { &inner.written };
        Contents {
            pins: state.pins.values().cloned().collect(),
            tracked: state.tracker.values().cloned().collect(),
            shards: state.shards.iter().map(|(shard, state)| (*shard, state.sum)).collect(),
            applied: state.applied.clone(),
        }
    }
}

/// What a [`MemState`] holds at one instant.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// The pins, in the order of listings.
    pub pins: Vec<Pin>,
    /// The tracker's records, in the order of listings.
    pub tracked: Vec<TrackedTask>,
    /// The sums of the shards that were ever touched.
    pub shards: Vec<(u16, ShardSum)>,
    /// The applied position.
    pub applied: Option<Bytes>,
}

impl Inner {
    fn write(&mut self, changes: Changes) {
        Arc::make_mut(&mut self.written).write(&changes);
        self.unsynced.push_back(changes);
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

    fn row(&self, order: &[u8]) -> Option<Row> {
        let (pin, tracked) = (self.pins.get(order), self.tracker.get(order));
        let cid = pin.map(|pin| pin.cid).or(tracked.map(|task| task.cid))?;
        Some(Row { cid, pin: pin.cloned(), tracked: tracked.map(|task| task.record.clone()) })
    }

    fn rows(&self, scan: &Scan) -> Vec<Row> {
        let mut orders: Vec<&Vec<u8>> = self.pins.keys().chain(self.tracker.keys()).collect();
        orders.sort();
        orders.dedup();
        let mut rows: Vec<Row> = orders.into_iter().filter_map(|order| self.row(order)).collect();
        rows.retain(|row| wanted(scan, row));
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

fn wanted(scan: &Scan, row: &Row) -> bool {
    let resumed = |after: &Option<Cid>| after.is_none_or(|after| order_key(&row.cid) > order_key(&after));
    match scan {
        Scan::All { after } => resumed(after),
        Scan::ByPeer { peer, after } => {
            resumed(after) && row.pin.as_ref().is_some_and(|pin| !pin.is_everywhere() && pin.is_allocated_to(peer))
        }
        Scan::Expiring { until } => row.pin.as_ref().is_some_and(|pin| {
            let expire_at = pin.options.expire_at;
            !expire_at.is_zero() && expire_at <= *until
        }),
        Scan::ByStatus { filter, after } => {
            resumed(after) && row.tracked.as_ref().is_some_and(|record| filter.matches(record.status))
        }
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

impl StateView for State {
    fn pin(&self, cid: &Cid) -> Result<Option<Pin>, StateError> {
        Ok(self.pins.get(&order_key(cid)).cloned())
    }

    fn shard(&self, shard: u16) -> Result<ShardState, StateError> {
        Ok(self.shards.get(&shard).copied().unwrap_or_default())
    }

    fn shard_pins(&self, shard: u16, after: Option<&Cid>, limit: usize) -> Result<Vec<Pin>, StateError> {
        let from = after.map_or_else(|| shard.to_be_bytes().to_vec(), order_key);
        let rest = self.pins.range((Bound::Excluded(from), Bound::Unbounded));
        let rest = rest.map(|(_order, pin)| pin.clone()).take_while(|pin| shard_of(&pin.cid) == shard);
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
        let mut inner = self.inner.lock();
        let changes = update(inner.written.as_ref())?;
        for change in &changes.pins {
            assert_eq!(inner.written.pin(&change.cid)?, change.before, "an update must name what it replaces");
        }
        inner.write(changes);
        Ok(())
    }

    async fn read(&self, read: ReadFn) -> Result<(), StateError> {
        let frozen = Arc::clone(&self.inner.lock().written);
        read(frozen.as_ref())
    }

    async fn applied(&self) -> Result<Option<Bytes>, StateError> {
        Ok(self.inner.lock().written.applied.clone())
    }

    async fn pin(&self, cid: Cid) -> Result<Option<Pin>, StateError> {
        self.inner.lock().written.pin(&cid)
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

    async fn make_snapshot(&self) -> Result<Arc<dyn SnapshotHandle>, StateError> {
        let mut inner = self.inner.lock();
        let frozen =
            Arc::new(MemSnapshot { state: State { tracker: BTreeMap::new(), ..inner.written.as_ref().clone() } });
        inner.frozen = Some(Arc::clone(&frozen));
        Ok(frozen)
    }

    async fn current_snapshot(&self) -> Result<Option<Arc<dyn SnapshotHandle>>, StateError> {
        Ok(self.inner.lock().frozen.clone().map(|frozen| frozen as Arc<dyn SnapshotHandle>))
    }

    async fn install_staged(&self, effect: LocalEffect) -> Result<(), StateError> {
        let mut inner = self.inner.lock();
        let state = inner.staging.installed(&inner.written, &effect)?;
        inner.staging = MemStaging::default();
        inner.durable_staging = MemStaging::default();
        inner.frozen = Some(Arc::new(MemSnapshot { state: State { tracker: BTreeMap::new(), ..state.clone() } }));
        inner.unsynced.clear();
        inner.durable = state.clone();
        inner.written = Arc::new(state);
        Ok(())
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

#[async_trait]
impl TrackerStore for MemState {
    async fn tracked(&self, cid: Cid) -> Result<Option<TrackerRecord>, StateError> {
        self.inner.lock().written.tracked(&cid)
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<TrackedTask>, StateError> {
        let inner = self.inner.lock();
        let tasks = inner.written.tasks_by_urgency();
        Ok(tasks.into_iter().filter(|(due, _task)| *due <= now).take(limit).map(|(_due, task)| task.clone()).collect())
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StateError> {
        Ok(self.inner.lock().written.tasks_by_urgency().into_iter().map(|(due, _task)| due).min())
    }

    async fn settle(&self, settled: Vec<Settled>) -> Result<Vec<bool>, StateError> {
        let mut inner = self.inner.lock();
        let mut counted = Vec::with_capacity(settled.len());
        let mut changes = Changes::default();
        let mut state = State { tracker: inner.written.tracker.clone(), ..State::default() };
        for job in settled {
            let counts = state.tracked(&job.cid)?.is_some_and(|record| record.generation == job.generation);
            if counts {
                let change = (job.cid, job.record);
                state.write(&Changes { tracker: vec![change.clone()], ..Changes::default() });
                changes.tracker.push(change);
            }
            counted.push(counts);
        }
        if !changes.tracker.is_empty() {
            inner.write(changes);
        }
        Ok(counted)
    }

    async fn by_status(
        &self,
        filter: StatusFilter,
        after: Option<Cid>,
        limit: usize,
    ) -> Result<Vec<TrackedTask>, StateError> {
        let rows = self.inner.lock().written.rows(&Scan::ByStatus { filter, after });
        let task = |row: Row| row.tracked.map(|record| TrackedTask { cid: row.cid, record });
        Ok(rows.into_iter().filter_map(task).take(limit).collect())
    }

    fn counts(&self) -> TrackerCounts {
        let mut counts = TrackerCounts::default();
        for task in self.inner.lock().written.tracker.values() {
            counts.add(task.record.status);
        }
        counts
    }
}

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
        let rows: Vec<AnnexRow> = self.state.outcomes.iter().map(MemStaging::outcome_row).collect();
        let groups: Vec<_> = rows.chunks(GROUP).map(|group| Ok(group.to_vec())).collect();
        stream::iter(groups).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::suite;

    async fn make() -> (Arc<MemState>, ()) {
        (Arc::new(MemState::new()), ())
    }

    #[tokio::test]
    async fn the_double_keeps_the_contract_of_the_state() {
        suite::state::run(make).await;
    }

    #[tokio::test]
    async fn replicas_in_memory_agree() {
        for seed in 0..4 {
            let reopen = |state: Arc<MemState>, kept| async move {
                state.power_cut(usize::MAX);
                (state, kept)
            };
            suite::tails::replicas_agree(seed, make, reopen).await;
        }
    }

    fn cut_power(state: Arc<MemState>, kept: ()) -> std::future::Ready<(Arc<MemState>, ())> {
        state.sync();
        state.power_cut(0);
        std::future::ready((state, kept))
    }

    #[tokio::test(start_paused = true)]
    async fn every_way_leads_to_the_same_in_memory() {
        for seed in 0..2 {
            suite::catchup::every_way_leads_to_the_same(seed, 5_000, make, cut_power).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_in_memory_that_is_cut_off_goes_on() {
        suite::catchup::a_receiver_that_is_cut_off_goes_on(make, cut_power).await;
    }

    #[tokio::test(start_paused = true)]
    async fn bad_donors_do_no_harm_in_memory() {
        suite::catchup::bad_donors_do_no_harm(make).await;
    }

    #[tokio::test]
    async fn the_double_keeps_the_contract_of_the_tracker() {
        suite::tracker_store::run(make).await;
    }

    #[tokio::test]
    async fn a_power_cut_loses_whole_updates_from_the_end() {
        let state = MemState::new();
        let write = |byte: u8| -> UpdateFn {
            let applied = Some(Bytes::from(vec![byte]));
            Box::new(move |_view| Ok(Changes { applied, ..Changes::default() }))
        };
        for byte in 1..=4 {
            state.update(write(byte)).await.unwrap();
            if byte == 1 {
                state.sync();
            }
        }
        assert_eq!(state.unsynced(), 3);
        state.power_cut(1);
        assert_eq!(state.applied().await.unwrap(), Some(Bytes::from_static(&[2])));
        state.power_cut(0);
        assert_eq!(state.applied().await.unwrap(), Some(Bytes::from_static(&[2])));
    }
}
