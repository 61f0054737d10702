//! What the tests of this part stand on: a store, a node and a clock in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{
    Cid, GcKey, IpfsId, Multiaddr, PeerId, Pin, PinDepth, PinOptions, RepoStat, StatusFilter, Timestamp, TrackerStatus,
};
use futures::stream::{self, BoxStream, StreamExt};
use multihash_codetable::{Code, MultihashDigest};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::consensus::digest::order_key;
use crate::ports::{
    Block, Clock, IpfsError, IpfsNode, LocalEffect, PinRequest, ProgressSink, ReadFn, Row, Scan, Settled, ShardSum,
    SnapshotHandle, SnapshotReceiver, StateError, StateStore, TrackedTask, TrackerCounts, TrackerRecord, TrackerStore,
    UpdateFn,
};

/// CID number `n`.
pub(crate) fn cid(n: u32) -> Cid {
    Cid::new_v1(0x55, Code::Sha2_256.digest(&n.to_be_bytes()))
}

/// A pin on some peers, or on every peer when there are none.
pub(crate) fn pin_on(cid: Cid, peers: &[PeerId]) -> Pin {
    let copies = if peers.is_empty() { -1 } else { 1 };
    let options =
        PinOptions { replication_factor_min: copies, replication_factor_max: copies, ..PinOptions::default() };
    Pin { allocations: peers.to_vec(), ..Pin::new(cid, options) }
}

pub(crate) fn record(generation: u64, status: TrackerStatus, due: Option<Timestamp>) -> TrackerRecord {
    let (attempts, error, changed) = (0, String::new(), Timestamp::ZERO);
    TrackerRecord { generation, status, attempts, error, changed, due, priority: false }
}

/// Waits until something holds, in virtual time.
pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    for n in 0..20_000 {
        if holds() {
            return;
        }
        // Finely at first, then in larger steps, up to some five hours.
        tokio::time::sleep(Duration::from_millis(if n < 2000 { 50 } else { 1000 })).await;
    }
    panic!("it never came to hold");
}

/// Wall time that goes with the (paused) time of the runtime, and can be set back.
pub(crate) struct TestClock {
    began: Instant,
    set_back: Mutex<Duration>,
}

impl TestClock {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), set_back: Mutex::new(Duration::ZERO) }
    }

    pub(crate) fn set_back(&self, by: Duration) {
        *self.set_back.lock() += by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let nanos = i128::from(Timestamp::from_unix_seconds(1_800_000_000).unix_nanos());
        let (elapsed, back) = (self.began.elapsed().as_nanos(), self.set_back.lock().as_nanos());
        Timestamp::from_unix_nanos(nanos + i128::try_from(elapsed).unwrap() - i128::try_from(back).unwrap())
    }
}

/// Pins and records by the order of listings.
#[derive(Default)]
pub(crate) struct FakeStore {
    rows: Mutex<BTreeMap<Vec<u8>, Row>>,
}

impl FakeStore {
    pub(crate) fn put(&self, pin: Pin) {
        let cid = pin.cid;
        self.change(cid, |row| row.pin = Some(pin));
    }

    pub(crate) fn remove(&self, cid: &Cid) -> Option<Pin> {
        let mut removed = None;
        self.change(*cid, |row| removed = row.pin.take());
        removed
    }

    pub(crate) fn pin_now(&self, cid: &Cid) -> Option<Pin> {
        self.rows.lock().get(&order_key(cid)).and_then(|row| row.pin.clone())
    }

    pub(crate) fn track(&self, cid: Cid, record: Option<TrackerRecord>) {
        self.change(cid, |row| row.tracked = record);
    }

    pub(crate) fn tracked_now(&self, cid: &Cid) -> Option<TrackerRecord> {
        self.rows.lock().get(&order_key(cid)).and_then(|row| row.tracked.clone())
    }

    fn change(&self, cid: Cid, change: impl FnOnce(&mut Row)) {
        let mut rows = self.rows.lock();
        let row = rows.entry(order_key(&cid)).or_insert(Row { cid, pin: None, tracked: None });
        change(row);
        if row.pin.is_none() && row.tracked.is_none() {
            rows.remove(&order_key(&cid));
        }
    }

    fn tasks(&self) -> Vec<TrackedTask> {
        let rows = self.rows.lock();
        rows.values().filter_map(|row| Some(TrackedTask { cid: row.cid, record: row.tracked.clone()? })).collect()
    }
}

#[async_trait]
impl StateStore for FakeStore {
    async fn update(&self, _update: UpdateFn) -> Result<(), StateError> {
        Err(StateError::Closed)
    }
    async fn read(&self, _read: ReadFn) -> Result<(), StateError> {
        Err(StateError::Closed)
    }
    async fn applied(&self) -> Result<Option<Bytes>, StateError> {
        Ok(None)
    }
    async fn pin(&self, cid: Cid) -> Result<Option<Pin>, StateError> {
        Ok(self.pin_now(&cid))
    }
    fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Row, StateError>> {
        let is_after =
            |row: &Row, after: &Option<Cid>| after.is_none_or(|after| order_key(&row.cid) > order_key(&after));
        let wanted = |row: &Row| match &scan {
            Scan::All { after } | Scan::ByStatus { after, .. } => is_after(row, after),
            Scan::ByPeer { peer, after } => {
                row.pin.as_ref().is_some_and(|pin| pin.allocations.contains(peer)) && is_after(row, after)
            }
            Scan::Expiring { until } => {
                row.pin.as_ref().is_some_and(|pin| !pin.options.expire_at.is_zero() && pin.options.expire_at <= *until)
            }
        };
        let rows: Vec<_> = self.rows.lock().values().filter(|row| wanted(row)).cloned().map(Ok).collect();
        stream::iter(rows).boxed()
    }
    async fn shards(&self) -> Result<(Vec<ShardSum>, Option<Bytes>), StateError> {
        Err(StateError::Closed)
    }
    fn pins(&self) -> u64 {
        self.rows.lock().values().filter(|row| row.pin.is_some()).count() as u64
    }
    async fn make_snapshot(&self) -> Result<Arc<dyn SnapshotHandle>, StateError> {
        Err(StateError::Closed)
    }
    async fn current_snapshot(&self) -> Result<Option<Arc<dyn SnapshotHandle>>, StateError> {
        Ok(None)
    }
    async fn receive_snapshot(&self) -> Result<Box<dyn SnapshotReceiver>, StateError> {
        Err(StateError::Closed)
    }
    async fn install_snapshot(&self, _from: Arc<dyn SnapshotHandle>, _effect: LocalEffect) -> Result<(), StateError> {
        Err(StateError::Closed)
    }
}

#[async_trait]
impl TrackerStore for FakeStore {
    async fn tracked(&self, cid: Cid) -> Result<Option<TrackerRecord>, StateError> {
        Ok(self.tracked_now(&cid))
    }
    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<TrackedTask>, StateError> {
        let mut due = self.tasks();
        due.retain(|task| task.record.due.is_some_and(|due| due <= now));
        due.sort_by_key(|task| (!task.record.priority, task.record.due));
        due.truncate(limit);
        Ok(due)
    }
    async fn next_due(&self) -> Result<Option<Timestamp>, StateError> {
        Ok(self.tasks().into_iter().filter_map(|task| task.record.due).min())
    }
    async fn settle(&self, settled: Vec<Settled>) -> Result<Vec<bool>, StateError> {
        let settle = |settled: Settled| {
            let counts = self.tracked_now(&settled.cid).is_some_and(|record| record.generation == settled.generation);
            if counts {
                self.track(settled.cid, settled.record);
            }
            counts
        };
        Ok(settled.into_iter().map(settle).collect())
    }
    async fn by_status(
        &self,
        filter: StatusFilter,
        after: Option<Cid>,
        limit: usize,
    ) -> Result<Vec<TrackedTask>, StateError> {
        let mut tasks = self.tasks();
        tasks.retain(|task| {
            filter.matches(task.record.status) && after.is_none_or(|after| order_key(&task.cid) > order_key(&after))
        });
        tasks.truncate(limit);
        Ok(tasks)
    }
    fn counts(&self) -> TrackerCounts {
        TrackerCounts::default()
    }
}

/// How the node answers a call about one CID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    Refuse(String),
    Hang,
    /// Takes as long as a hanging call and succeeds; an unpin is carried out then even if nobody listens any more.
    Slow,
    Panic,
}

/// How long a hanging call takes to end.
pub(crate) const STALL_TIME: Duration = Duration::from_secs(120);

/// A node that can refuse, hang, panic and be down.
#[derive(Default)]
pub(crate) struct FakeNode {
    pub(crate) held: Mutex<BTreeMap<Cid, PinDepth>>,
    pub(crate) scripts: Mutex<BTreeMap<Cid, Script>>,
    pub(crate) down: AtomicBool,
    /// Calls of pin and unpin so far.
    pub(crate) calls: AtomicU64,
    pub(crate) in_flight: Mutex<Vec<Cid>>,
    /// The most calls at a time, and whether two were ever about one CID.
    pub(crate) most: AtomicU64,
    pub(crate) doubled: AtomicBool,
    pub(crate) dialled: Mutex<BTreeSet<Vec<Multiaddr>>>,
    pub(crate) identity: Mutex<IpfsId>,
    /// Unpins that will be carried out, and when.
    unpins: Mutex<Vec<(Instant, Cid)>>,
}

/// Leaves the list of calls in flight when its call ends, however it ends.
struct InFlight<'a>(&'a FakeNode, Cid);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut in_flight = self.0.in_flight.lock();
        let place = in_flight.iter().position(|cid| *cid == self.1).unwrap();
        in_flight.remove(place);
    }
}

impl FakeNode {
    pub(crate) fn script(&self, cid: Cid, script: Option<Script>) {
        let mut scripts = self.scripts.lock();
        match script {
            Some(script) => scripts.insert(cid, script),
            None => scripts.remove(&cid),
        };
    }

    pub(crate) fn holds(&self, cid: &Cid) -> bool {
        self.carry_out_unpins();
        self.held.lock().contains_key(cid)
    }

    fn carry_out_unpins(&self) {
        let now = Instant::now();
        self.unpins.lock().retain(|(at, cid)| {
            if *at <= now {
                self.held.lock().remove(cid);
            }
            *at > now
        });
    }

    fn reachable(&self) -> Result<(), IpfsError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(IpfsError::Unreachable { endpoint: "nowhere".to_owned(), cause: "down".into() });
        }
        Ok(())
    }

    async fn play(&self, cid: Cid, unpins: bool) -> Result<(), IpfsError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let _in_flight = {
            let mut in_flight = self.in_flight.lock();
            if in_flight.contains(&cid) {
                self.doubled.store(true, Ordering::SeqCst);
            }
            in_flight.push(cid);
            self.most.fetch_max(in_flight.len() as u64, Ordering::SeqCst);
            InFlight(self, cid)
        };
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.reachable()?;
        let script = self.scripts.lock().get(&cid).cloned();
        match script {
            None => Ok(()),
            Some(Script::Refuse(reason)) => Err(IpfsError::Refused { reason }),
            Some(Script::Hang) => {
                tokio::time::sleep(STALL_TIME).await;
                Err(IpfsError::Stalled { seconds: STALL_TIME.as_secs(), blocks: 0 })
            }
            Some(Script::Slow) => {
                let end = Instant::now() + STALL_TIME;
                if unpins {
                    self.unpins.lock().push((end, cid));
                }
                tokio::time::sleep_until(end).await;
                self.carry_out_unpins();
                Ok(())
            }
            Some(Script::Panic) => panic!("scripted"),
        }
    }
}

#[async_trait]
impl IpfsNode for FakeNode {
    async fn id(&self) -> Result<IpfsId, IpfsError> {
        self.reachable()?;
        Ok(self.identity.lock().clone())
    }
    async fn pin(&self, request: PinRequest, _progress: ProgressSink) -> Result<(), IpfsError> {
        self.play(request.cid, false).await?;
        self.held.lock().insert(request.cid, request.depth);
        Ok(())
    }
    async fn unpin(&self, cid: Cid) -> Result<(), IpfsError> {
        self.play(cid, true).await?;
        self.held.lock().remove(&cid);
        Ok(())
    }
    async fn pinned(&self, cid: Cid) -> Result<Option<PinDepth>, IpfsError> {
        self.reachable()?;
        self.carry_out_unpins();
        Ok(self.held.lock().get(&cid).copied())
    }
    fn pins(&self) -> BoxStream<'static, Result<(Cid, PinDepth), IpfsError>> {
        stream::empty().boxed()
    }
    async fn put_blocks(&self, _blocks: Vec<Block>) -> Result<(), IpfsError> {
        Ok(())
    }
    async fn block(&self, _cid: Cid) -> Result<Bytes, IpfsError> {
        Ok(Bytes::new())
    }
    async fn import_car(&self, _car: BoxStream<'static, Result<Bytes, std::io::Error>>) -> Result<Vec<Cid>, IpfsError> {
        Ok(Vec::new())
    }
    async fn resolve(&self, _path: &str) -> Result<Cid, IpfsError> {
        Ok(cid(0))
    }
    async fn repo_stat(&self) -> Result<RepoStat, IpfsError> {
        Ok(RepoStat { repo_size: 1, storage_max: 3 })
    }
    async fn collect_garbage(&self) -> Result<Vec<GcKey>, IpfsError> {
        Ok(Vec::new())
    }
    async fn connect(&self, addresses: Vec<Multiaddr>) -> Result<(), IpfsError> {
        self.dialled.lock().insert(addresses);
        Ok(())
    }
    async fn connected(&self) -> Result<Vec<String>, IpfsError> {
        Ok(Vec::new())
    }
}
