//! The loop that works off what is due.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use cluster_types::{BoxError, Cid, ErrorChain, ErrorClass, Pin, StatusFilter, Timestamp, TrackerStatus};
use futures::FutureExt;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::breaker::Breaker;
use super::plan::{Action, JobKind, action, kind_of};
use super::{Job, Tracker, UNPINS, UnderWay, retry};
use crate::ports::{
    IpfsError, IpfsNode, PinProgress, PinRequest, ProgressSink, Settled, StateError, StateView, TrackedTask,
};
use crate::watch;

/// How long the loop rests at most: the wall clock may jump, and a due time with it.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// How long it rests when the store's next due time is hidden behind jobs under way.
const SHORT_REST: Duration = Duration::from_secs(1);
/// Due records that are read beyond the free places, because some may be of a kind that has none.
const LOOK_AHEAD: usize = 64;
/// Records that are read at a time in search of some that are due too far in the future.
const STRANDED_PAGE: usize = 256;
/// How long it rests after the store said no.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// How long changes and ends of jobs gather before the next step: a step costs the same for one of them and for many.
const GATHER: Duration = Duration::from_millis(20);
/// The same while work waits for a free place.
const CROWDED_GATHER: Duration = Duration::from_millis(2);

/// What a job on the node ended with.
enum End {
    Job { cid: Cid, outcome: Outcome },
    Probe(Result<(), IpfsError>),
}

enum Outcome {
    Done,
    Failed(String),
    NoNode(String),
    Cancelled,
}

/// The state of the loop.
pub(super) struct Runner {
    tracker: Arc<Tracker>,
    wake: watch::Receiver<u64>,
    chance: StdRng,
    jobs: JoinSet<End>,
    breaker: Breaker,
    probing: bool,
    /// Outcomes the store has not taken yet.
    unsettled: Vec<Settled>,
    /// Whether work waits for a free place.
    crowded: bool,
    /// When to look next for records that a clock set back has left in the future.
    look_ahead_at: Instant,
}

impl Runner {
    pub(super) fn new(tracker: Arc<Tracker>, wake: watch::Receiver<u64>, chance: StdRng) -> Self {
        let (breaker, jobs, unsettled) = (Breaker::default(), JoinSet::new(), Vec::new());
        let look_ahead_at = Instant::now();
        Self { tracker, wake, chance, jobs, breaker, probing: false, unsettled, crowded: false, look_ahead_at }
    }

    /// Works until the peer stops, or the store is broken.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), BoxError> {
        let mut changed = false;
        loop {
            let rest = match self.step(changed).await {
                Ok(rest) => rest,
                Err(_) if stop.is_cancelled() => return Ok(()),
                Err(error) if error.class() == ErrorClass::Fatal => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(error = %ErrorChain(&error), "the tracker cannot use the store");
                    STORE_PAUSE
                }
            };
            changed = false;
            let gather = if self.crowded { CROWDED_GATHER } else { GATHER };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(gather) => {}
            }
            tokio::select! {
                biased;
                // Dropping the jobs ends the calls on the node.
                () = stop.cancelled() => return Ok(()),
                told = self.wake.changed() => match told {
                    Ok(()) => changed = true,
                    Err(_gone) => {
                        stop.cancelled().await;
                        return Ok(());
                    }
                },
                () = self.tracker.poke.notified() => {}
                Some(end) = self.jobs.join_next(), if !self.jobs.is_empty() => self.finish(end),
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Brings the jobs in line with the store; returns how long nothing can become due.
    async fn step(&mut self, changed: bool) -> Result<Duration, StateError> {
        while let Some(end) = self.jobs.try_join_next() {
            self.finish(end);
        }
        self.settle().await?;
        if changed {
            self.cancel_outdated().await?;
        }
        if let Some(probe_at) = self.breaker.probe_at() {
            return Ok(self.probe(probe_at));
        }
        if self.is_full() {
            return Ok(LONGEST_REST);
        }
        self.crowded = false;
        self.start_due().await?;
        if self.is_full() {
            return Ok(LONGEST_REST);
        }
        if Instant::now() >= self.look_ahead_at {
            let stranded = self.start_stranded().await?;
            let pause = if stranded { SHORT_REST } else { LONGEST_REST };
            self.look_ahead_at = Instant::now() + pause;
            if stranded {
                return Ok(SHORT_REST);
            }
        }
        let Some(next) = self.tracker.store.next_due().await? else { return Ok(LONGEST_REST) };
        let until = next.since(self.tracker.clock.now());
        Ok(if until.is_zero() { SHORT_REST } else { until.min(LONGEST_REST) })
    }

    /// Starts as many due jobs as there are places.
    async fn start_due(&mut self) -> Result<(), StateError> {
        let now = self.tracker.clock.now();
        let under_way = self.tracker.running.lock().len();
        let free = self.free(JobKind::Pin) + self.free(JobKind::Unpin);
        let limit = under_way + free + LOOK_AHEAD;
        let mut tasks = self.tracker.store.due(now, limit).await?;
        if tasks.len() >= limit {
            // A long queue of one kind must not hide the other behind it.
            for (kind, status) in
                [(JobKind::Pin, TrackerStatus::PinQueued), (JobKind::Unpin, TrackerStatus::UnpinQueued)]
            {
                if self.free(kind) > 0 && !self.is_any_startable(kind, &tasks) {
                    let queued = StatusFilter::of(&[status]);
                    let hidden = self.tracker.store.by_status(queued, None, under_way + free).await?;
                    tasks.extend(hidden.into_iter().filter(|task| task.record.due.is_some_and(|due| due <= now)));
                }
            }
        }
        {
            let running = self.tracker.running.lock();
            tasks.retain(|task| !running.contains_key(&task.cid));
        }
        self.start_all(tasks, now).await?;
        self.settle().await
    }

    /// Starts what is due later than any pause can last: the wall clock was set back since. Returns whether there is
    /// such a record. It finds them among the first [`STRANDED_PAGE`] of the queue, so a longer row of failed pins that
    /// wait for their next attempt hides them until those are fewer.
    async fn start_stranded(&mut self) -> Result<bool, StateError> {
        let now = self.tracker.clock.now();
        let horizon = now.saturating_add(retry::longest_pause(self.tracker.config.pin_recover_interval));
        let end_of_time = Timestamp::from_unix_nanos(i128::from(i64::MAX));
        let mut tasks = self.tracker.store.due(end_of_time, STRANDED_PAGE).await?;
        {
            let running = self.tracker.running.lock();
            tasks.retain(|task| task.record.due.is_some_and(|due| due > horizon) && !running.contains_key(&task.cid));
        }
        let found = !tasks.is_empty();
        let started = self.start_all(tasks, now).await?;
        if started > 0 {
            tracing::warn!(pins = started, "the wall clock was set back; what was to wait for it is done now");
        }
        self.settle().await?;
        Ok(found)
    }

    /// Starts tasks as long as there are places for their kinds; returns how many.
    async fn start_all(&mut self, mut tasks: Vec<TrackedTask>, now: Timestamp) -> Result<usize, StateError> {
        let wanted = tasks.len();
        for kind in [JobKind::Pin, JobKind::Unpin] {
            let mut free = self.free(kind);
            tasks.retain(|task| {
                let starts = kind_of(&task.record) != kind || free > 0;
                free -= usize::from(starts && kind_of(&task.record) == kind);
                starts
            });
        }
        let started = tasks.len();
        self.crowded |= started < wanted;
        for (task, pin) in self.with_pins(tasks).await? {
            self.start(task, pin, now);
        }
        Ok(started)
    }

    /// Tasks with the pins they are about, each CID once, as they stand at one instant: what was listed in several steps
    /// may have changed in between.
    async fn with_pins(&self, tasks: Vec<TrackedTask>) -> Result<Vec<(TrackedTask, Option<Pin>)>, StateError> {
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let (sender, result) = oneshot::channel();
        let read = move |view: &dyn StateView| {
            let mut found: Vec<(TrackedTask, Option<Pin>)> = Vec::with_capacity(tasks.len());
            let mut seen = HashSet::new();
            for task in tasks {
                let now = view.tracked(&task.cid)?;
                let holds = now.is_some_and(|record| record.generation == task.record.generation);
                if holds && seen.insert(task.cid) {
                    let pin = view.shown(&task.cid)?;
                    found.push((task, pin));
                }
            }
            drop(sender.send(found));
            Ok(())
        };
        self.tracker.state.read(Box::new(read)).await?;
        result.await.map_err(|_gone| StateError::Closed)
    }

    fn start(&mut self, task: TrackedTask, pin: Option<Pin>, now: Timestamp) {
        let TrackedTask { cid, record } = task;
        let request = match action(&self.tracker.hold, cid, pin.as_ref(), &record) {
            Action::Pin(request) => Some(*request),
            Action::Unpin => None,
            Action::Nothing => {
                let generation = record.generation;
                let record = retry::after_success(JobKind::Pin, &record, now);
                self.unsettled.push(Settled { cid, generation, record });
                return;
            }
        };
        let kind = if request.is_some() { JobKind::Pin } else { JobKind::Unpin };
        let (sink, progress) = watch::channel(PinProgress::default());
        let cancel = CancellationToken::new();
        let submitted = pin.map_or(Timestamp::ZERO, |pin| pin.timestamp);
        let under_way = UnderWay { kind, since: now };
        let job = Job { record, submitted, under_way, progress, cancel: cancel.clone() };
        self.tracker.running.lock().insert(cid, job);
        self.jobs.spawn(work(Arc::clone(&self.tracker.node), cid, request, sink, cancel));
    }

    /// Takes in the end of a job.
    fn finish(&mut self, end: Result<End, tokio::task::JoinError>) {
        match end {
            Ok(End::Job { cid, outcome }) => self.finish_job(cid, outcome),
            Ok(End::Probe(result)) => self.finish_probe(result),
            // Jobs catch their panics and are never aborted, so there is no such end.
            Err(error) => tracing::error!(error = %error, "a job of the tracker was lost"),
        }
    }

    fn finish_job(&mut self, cid: Cid, outcome: Outcome) {
        let Some(job) = self.tracker.running.lock().remove(&cid) else { return };
        let (kind, now) = (job.under_way.kind, self.tracker.clock.now());
        let record = match outcome {
            Outcome::Cancelled => return,
            Outcome::Done => {
                self.breaker.succeed();
                retry::after_success(kind, &job.record, now)
            }
            Outcome::Failed(error) => {
                tracing::debug!(cid = %cid, error, "the node could not do it");
                let rule = self.tracker.config.priority;
                let priority = |attempts| kind == JobKind::Pin && rule.applies(job.submitted, attempts, now);
                let (longest, chance) = (self.tracker.config.pin_recover_interval, self.chance.random());
                Some(retry::after_failure(kind, &job.record, &error, now, longest, chance, priority))
            }
            Outcome::NoNode(error) => {
                self.pause(&error);
                Some(retry::after_no_node(kind, &job.record, &error, now))
            }
        };
        self.unsettled.push(Settled { cid, generation: job.record.generation, record });
    }

    fn pause(&mut self, error: &str) {
        if self.breaker.is_closed() {
            tracing::warn!(error, "the IPFS node does not answer; pinning pauses");
        }
        self.breaker.trip(Instant::now(), self.chance.random());
        *self.tracker.waiting_for.lock() = Some(error.to_owned());
    }

    fn finish_probe(&mut self, result: Result<(), IpfsError>) {
        self.probing = false;
        match result {
            // Any answer, even a refusal, says that the node is there.
            Err(error @ IpfsError::Unreachable { .. }) => {
                self.breaker.probe_failed(Instant::now(), self.chance.random());
                *self.tracker.waiting_for.lock() = Some(ErrorChain(&error).to_string());
            }
            _ => {
                tracing::info!("the IPFS node answers again; pinning goes on");
                self.breaker.close();
                *self.tracker.waiting_for.lock() = None;
            }
        }
    }

    /// Starts a probe when it is time; returns how long to rest.
    fn probe(&mut self, probe_at: Instant) -> Duration {
        let now = Instant::now();
        if self.probing {
            return LONGEST_REST;
        }
        if now < probe_at {
            return probe_at - now;
        }
        self.probing = true;
        let node = Arc::clone(&self.tracker.node);
        self.jobs.spawn(async move {
            let probed = AssertUnwindSafe(node.id()).catch_unwind().await;
            End::Probe(probed.unwrap_or_else(|_| Err(IpfsError::Refused { reason: PANICKED.to_owned() })).map(drop))
        });
        LONGEST_REST
    }

    async fn settle(&mut self) -> Result<(), StateError> {
        if self.unsettled.is_empty() {
            return Ok(());
        }
        // Kept until the store has them: settling twice is harmless, the generation sees to that.
        self.tracker.store.settle(self.unsettled.clone()).await?;
        self.unsettled.clear();
        Ok(())
    }

    /// Ends the fetches whose pin was changed meanwhile; the new record is found due at the next step.
    ///
    /// An unpin is never ended: the node may carry it out although nobody listens any more, and if the content were
    /// pinned again before that, it would be lost. The new record waits until the unpin has ended.
    async fn cancel_outdated(&self) -> Result<(), StateError> {
        let jobs: Vec<(Cid, u64)> = {
            let running = self.tracker.running.lock();
            let fetches = running.iter().filter(|(_, job)| job.under_way.kind == JobKind::Pin);
            fetches.map(|(cid, job)| (*cid, job.record.generation)).collect()
        };
        if jobs.is_empty() {
            return Ok(());
        }
        let tracker = Arc::clone(&self.tracker);
        let read = move |view: &dyn StateView| {
            for (cid, generation) in jobs {
                let now = view.tracked(&cid)?;
                if now.is_none_or(|record| record.generation != generation)
                    && let Some(job) = tracker.running.lock().get(&cid)
                {
                    job.cancel.cancel();
                }
            }
            Ok(())
        };
        self.tracker.state.read(Box::new(read)).await
    }

    fn is_any_startable(&self, kind: JobKind, tasks: &[TrackedTask]) -> bool {
        let running = self.tracker.running.lock();
        tasks.iter().any(|task| kind_of(&task.record) == kind && !running.contains_key(&task.cid))
    }

    /// Whether every place is taken: the end of a job comes before anything else then.
    fn is_full(&self) -> bool {
        self.free(JobKind::Pin) + self.free(JobKind::Unpin) == 0
    }

    /// Free places for jobs of a kind.
    fn free(&self, kind: JobKind) -> usize {
        let running = self.tracker.running.lock();
        let busy = running.values().filter(|job| job.under_way.kind == kind).count();
        let places = match kind {
            JobKind::Pin => self.tracker.config.concurrent_pins.get(),
            JobKind::Unpin => UNPINS,
        };
        places.saturating_sub(busy)
    }
}

/// What is told of a call that panicked.
const PANICKED: &str = "internal error: the call on the IPFS node panicked";

/// One job: a pin with a request, an unpin without.
async fn work(
    node: Arc<dyn IpfsNode>,
    cid: Cid,
    request: Option<PinRequest>,
    progress: ProgressSink,
    cancel: CancellationToken,
) -> End {
    let call = async {
        match request {
            Some(request) => node.pin(request, progress).await,
            None => node.unpin(cid).await,
        }
    };
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => return End::Job { cid, outcome: Outcome::Cancelled },
        result = AssertUnwindSafe(call).catch_unwind() => result,
    };
    let outcome = match result {
        Ok(Ok(())) => Outcome::Done,
        Ok(Err(error @ IpfsError::Unreachable { .. })) => Outcome::NoNode(ErrorChain(&error).to_string()),
        Ok(Err(error)) => Outcome::Failed(ErrorChain(&error).to_string()),
        Err(_panic) => Outcome::Failed(PANICKED.to_owned()),
    };
    End::Job { cid, outcome }
}
