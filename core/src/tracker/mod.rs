//! Makes the IPFS node match the pinset.
//!
//! What is to be done stands in the store ([`TrackerStore`]); apply writes it there, in the batch of the pin itself, as
//! [`local_effect`] decides. The [`run`] loop works it off, the [`audit`] looks slowly for what the node has lost, and
//! [`Tracker`] is the handle for questions and recovery. It takes no hint about what changed: the path after a restart
//! is the everyday path, and jobs under way are all that is only in memory.
//!
//! **Invariant:** at most `concurrent_pins` pins and [`UNPINS`] unpins are under way, and never two jobs for one CID.
//! **Invariant:** the loop never waits for the node; every call on it is a job.
//! **Invariant:** the outcome of a job counts only while the record has the generation the job began with.
//! **Invariant:** an unpin under way is never given up for a newer pin; the pin waits for its end.
//!
//! Deliberately not here: fairness between names. The queue is one, by priority and due time, so a burst of pins of
//! one name goes before what is queued after it.

mod audit;
mod breaker;
mod effect;
mod hold;
mod plan;
mod retry;
mod run;
mod status;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::watch;
use cluster_types::{BoxError, Cid, ErrorChain, Pin, PinInfoShort, StatusFilter, Timestamp, TrackerStatus};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::ports::{
    Clock, IpfsNode, PinProgress, Settled, StateError, StateStore, TrackedTask, TrackerRecord, TrackerStore,
};
use crate::task::{OnExit, TaskGroup};

pub use audit::AuditConfig;
pub use effect::{PriorityRule, local_effect};
pub use hold::{HoldFilter, HoldRule, Share, ShareError};
pub use plan::JobKind;
pub use status::{UnderWay, pin_info};

/// Unpins under way at a time: each is short, and a node serialises them anyway.
pub const UNPINS: usize = 2;

/// How long the node may take to say whether it has one pin; whoever asks waits for it.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);

/// How the tracker works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackerConfig {
    /// Pins under way at a time.
    pub concurrent_pins: NonZeroUsize,
    /// Which pins go before others.
    pub priority: PriorityRule,
    /// The longest pause between two attempts.
    pub pin_recover_interval: Duration,
    /// How the node is compared with the pinset; `None`: not at all.
    pub audit: Option<AuditConfig>,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            concurrent_pins: NonZeroUsize::MIN.saturating_add(9),
            priority: PriorityRule::default(),
            pin_recover_interval: Duration::from_secs(12 * 60),
            audit: Some(AuditConfig::default()),
        }
    }
}

/// A job under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningJob {
    /// The pin.
    pub cid: Cid,
    /// What is done, and since when.
    pub under_way: UnderWay,
    /// How far it is.
    pub progress: PinProgress,
}

/// How much there is to do, and was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Pins that wait for their first attempt, or for another one that was asked for.
    pub queued: u64,
    /// Pins under way.
    pub pinning: u64,
    /// Pins that failed and wait for their next attempt.
    pub failed: u64,
    /// Pins that the node keeps.
    pub pinned: u64,
}

/// What was put back in the queue by [`Tracker::recover_page`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The pins that are tried again, in the order of the pinset's listing.
    pub cids: Vec<Cid>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cid>,
}

/// The tracker's handle.
pub struct Tracker {
    config: TrackerConfig,
    hold: HoldRule,
    state: Arc<dyn StateStore>,
    store: Arc<dyn TrackerStore>,
    node: Arc<dyn IpfsNode>,
    clock: Arc<dyn Clock>,
    running: Mutex<BTreeMap<Cid, Job>>,
    /// Why nothing is started at present.
    waiting_for: Mutex<Option<String>>,
    /// Something became due that no change of the pinset announces.
    poke: Notify,
}

/// What is known in memory of a job.
#[derive(Debug)]
struct Job {
    record: TrackerRecord,
    /// When the pin was submitted, for its priority.
    submitted: Timestamp,
    under_way: UnderWay,
    progress: watch::Receiver<PinProgress>,
    cancel: CancellationToken,
}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracker").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Tracker {
    /// Starts to work. `wake` changes whenever records may have; `seed` is for the jitter of pauses.
    #[expect(clippy::too_many_arguments, reason = "the ports come one by one from the composition root")]
    pub fn start(
        config: TrackerConfig,
        hold: HoldRule,
        state: Arc<dyn StateStore>,
        store: Arc<dyn TrackerStore>,
        node: Arc<dyn IpfsNode>,
        clock: Arc<dyn Clock>,
        wake: watch::Receiver<u64>,
        seed: u64,
        tasks: &TaskGroup,
    ) -> Arc<Self> {
        let tracker = Arc::new(Self {
            config,
            hold,
            state,
            store,
            node,
            clock,
            running: Mutex::new(BTreeMap::new()),
            waiting_for: Mutex::new(None),
            poke: Notify::new(),
        });
        let run = run::Runner::new(Arc::clone(&tracker), wake, StdRng::seed_from_u64(seed));
        tasks.spawn("tracker", OnExit::StopPeer, run.run(tasks.stop_token()));
        if let Some(audit) = tracker.config.audit.clone() {
            let (tracker, stop) = (Arc::clone(&tracker), tasks.stop_token());
            tasks.spawn("tracker audit", OnExit::StopPeer, async move {
                audit::run(&tracker, &audit, stop).await;
                Ok::<(), BoxError>(())
            });
        }
        tracker
    }

    /// How a pin is doing here; of one that should be on the node, the node is asked. The peer's name and its IPFS node are
    /// left empty.
    pub async fn status(&self, cid: Cid) -> Result<PinInfoShort, StateError> {
        let pin = self.state.pin(cid).await?;
        let tracked = self.store.tracked(cid).await?;
        let info = self.describe(cid, pin.as_ref(), tracked.as_ref());
        match pin {
            Some(pin) if info.status == TrackerStatus::Pinned => Ok(self.confirmed(&pin, info).await),
            _ => Ok(info),
        }
    }

    /// What the node says of a pin that it should keep.
    async fn confirmed(&self, pin: &Pin, info: PinInfoShort) -> PinInfoShort {
        let doubtful = |error| PinInfoShort { status: TrackerStatus::ClusterError, error, ..info.clone() };
        match tokio::time::timeout(NODE_TIMEOUT, self.node.pinned(pin.cid)).await {
            Ok(Ok(depth)) if audit::holds(depth, pin.max_depth) => info,
            Ok(Ok(_)) => status::lost(info),
            Ok(Err(error)) => doubtful(ErrorChain(&error).to_string()),
            Err(_) => doubtful(format!("the IPFS node does not answer within {} s", NODE_TIMEOUT.as_secs())),
        }
    }

    /// How a pin is doing here, given what the store holds of it: for the rows of a scan.
    pub fn describe(&self, cid: Cid, pin: Option<&Pin>, tracked: Option<&TrackerRecord>) -> PinInfoShort {
        let job = self.running.lock().get(&cid).map(|job| job.under_way);
        let waiting_for = self.waiting_for.lock().clone();
        pin_info(&self.hold, pin, tracked, job, waiting_for.as_deref())
    }

    /// Tries a pin again at once if it failed, or if the node has lost it; tells how it is doing then.
    pub async fn recover(&self, cid: Cid) -> Result<PinInfoShort, StateError> {
        if let Some(record) = self.store.tracked(cid).await? {
            let task = TrackedTask { cid, record };
            if task.record.status == TrackerStatus::Pinned {
                // A node that is silent is no reason to pin again.
                if let Ok(checked) = tokio::time::timeout(NODE_TIMEOUT, audit::check(self, task)).await {
                    checked?;
                }
            } else {
                self.try_again(vec![task]).await?;
            }
        }
        self.status(cid).await
    }

    /// Tries again at once what failed, among at most `limit` pins after `after`.
    pub async fn recover_page(&self, after: Option<Cid>, limit: usize) -> Result<Recovered, StateError> {
        let failed = StatusFilter::of(&[
            TrackerStatus::PinError,
            TrackerStatus::UnpinError,
            TrackerStatus::UnexpectedlyUnpinned,
        ]);
        let page = self.store.by_status(failed, after, limit).await?;
        let next = page.last().filter(|_| page.len() >= limit).map(|task| task.cid);
        let cids = self.try_again(page).await?;
        Ok(Recovered { cids, next })
    }

    /// The jobs under way, by CID.
    pub fn running(&self) -> Vec<RunningJob> {
        let running = self.running.lock();
        running
            .iter()
            .map(|(cid, job)| RunningJob { cid: *cid, under_way: job.under_way, progress: *job.progress.borrow() })
            .collect()
    }

    /// How much there is to do. Costs nothing: what is under way is bounded, and the rest is counted.
    pub fn workload(&self) -> Workload {
        let counts = self.store.counts();
        let running = self.running.lock();
        let pins = || running.values().filter(|job| job.under_way.kind == JobKind::Pin);
        // The record of a job is what it was before it began, until it has ended.
        let failed = pins().filter(|job| job.record.status == TrackerStatus::PinError).count() as u64;
        let queued = pins().filter(|job| job.record.status == TrackerStatus::PinQueued).count() as u64;
        Workload {
            queued: counts.queued.saturating_sub(counts.unpins_queued).saturating_sub(queued),
            pinning: pins().count() as u64,
            failed: counts.failed.saturating_sub(counts.unpins_failed).saturating_sub(failed),
            pinned: counts.pinned,
        }
    }

    /// Why nothing is started at present, if so.
    pub fn waiting_for(&self) -> Option<String> {
        self.waiting_for.lock().clone()
    }

    async fn try_again(&self, tasks: Vec<TrackedTask>) -> Result<Vec<Cid>, StateError> {
        let now = self.clock.now();
        let again = |task: TrackedTask| {
            let record = retry::tried_again(&task.record, now)?;
            Some(Settled { cid: task.cid, generation: record.generation, record: Some(record) })
        };
        let settled: Vec<Settled> = tasks.into_iter().filter_map(again).collect();
        if settled.is_empty() {
            return Ok(Vec::new());
        }
        let cids: Vec<Cid> = settled.iter().map(|settled| settled.cid).collect();
        let counted = self.store.settle(settled).await?;
        self.poke.notify_one();
        Ok(cids.into_iter().zip(counted).filter(|(_, counted)| *counted).map(|(cid, _)| cid).collect())
    }
}

#[cfg(test)]
pub(crate) mod fakes;
#[cfg(test)]
mod tests;
