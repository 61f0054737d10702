//! What the tests of this part stand on: a node and a clock in memory, and short ways to the store in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{
    Cid, GcKey, IpfsId, Multiaddr, PeerId, Pin, PinDepth, PinOptions, RepoStat, Timestamp, TrackerStatus,
};
use futures::FutureExt;
use futures::stream::{self, BoxStream, StreamExt};
use multihash_codetable::{Code, MultihashDigest};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::ports::{
    Block, Changes, Clock, IpfsError, IpfsNode, PinChange, PinRequest, ProgressSink, StateError, StateStore,
    TrackerRecord, TrackerStore,
};
use crate::testing::mem_state::MemState;

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

/// What tests do to the store without a log.
impl MemState {
    pub(crate) fn put(&self, pin: Pin) {
        self.change(pin.cid, Some(pin));
    }

    pub(crate) fn remove(&self, cid: &Cid) -> Option<Pin> {
        let before = self.pin_now(cid);
        self.change(*cid, None);
        before
    }

    pub(crate) fn pin_now(&self, cid: &Cid) -> Option<Pin> {
        at_once(StateStore::pin(self, *cid))
    }

    pub(crate) fn track(&self, cid: Cid, record: Option<TrackerRecord>) {
        self.write(Changes { tracker: vec![(cid, record)], ..Changes::default() });
    }

    pub(crate) fn tracked_now(&self, cid: &Cid) -> Option<TrackerRecord> {
        at_once(TrackerStore::tracked(self, *cid))
    }

    fn change(&self, cid: Cid, after: Option<Pin>) {
        let change = PinChange { cid, before: self.pin_now(&cid), after };
        self.write(Changes { pins: vec![change], ..Changes::default() });
    }

    fn write(&self, changes: Changes) {
        at_once(self.update(Box::new(|_view| Ok(changes))));
        self.sync();
    }
}

/// The double never waits.
fn at_once<T>(call: impl Future<Output = Result<T, StateError>>) -> T {
    call.now_or_never().expect("the double waits").unwrap()
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
        if self.scripts.lock().get(&cid) == Some(&Script::Hang) {
            tokio::time::sleep(STALL_TIME).await;
        }
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
