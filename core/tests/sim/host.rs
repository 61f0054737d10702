//! One peer: what runs, and what outlives it (disks, the IPFS node, the clock).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_core::consensus::Consensus;
use cluster_core::consensus::log::{LogConsensus, LogParts, LogSettings, StartError, WithoutQuorum, join_here};
use cluster_core::consensus::sequencer::{AllocationQuestion, AllocationSnapshot, Allocator};
use cluster_core::ports::{CallHandler, Clock, Purpose, Transport};
use cluster_core::rpc::{Call, CallServer, PeerService, Reply};
use cluster_core::task::{OnExit, TaskGroup};
use cluster_core::testing::mem_ipfs::MemIpfs;
use cluster_core::testing::mem_log::{LogEvent, LogObserver, MemLog};
use cluster_core::testing::mem_state::{StateEvent, StateObserver};
use cluster_core::testing::{Crash, MemNet, MemRecord, MemState};
use cluster_core::tracker::{AuditConfig, HoldRule, PriorityRule, Tracker, TrackerConfig, local_effect};
use cluster_types::{BoxError, ErrorClass, PeerId, ReplicationFactor, Timestamp, WireError};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::trace::{CAUGHT_UP, Trace};

/// How long a write is kept trying: short, so that a run has many outcomes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a flush takes at most.
pub(crate) const FLUSH_TIME: Duration = Duration::from_millis(20);
/// Entries between two snapshots: few, so that peers that were away need one.
const SNAPSHOT_EVERY: u64 = 4;

/// How often the node of a peer whose power was cut is compared with its pinset.
const AUDIT_EVERY: Duration = Duration::from_secs(10);

/// What differs from run to run.
#[derive(Clone, Debug)]
pub(crate) struct Mode {
    /// What becomes of a write without a quorum.
    pub(crate) without_quorum: WithoutQuorum,
    /// The longest time that a write to the store takes.
    pub(crate) update_time: Duration,
    /// Entries between two snapshots.
    pub(crate) snapshot_every: u64,
}

impl Mode {
    pub(crate) fn draw(chance: &mut StdRng) -> Self {
        let after = Duration::from_millis([300, 700, 1_500][chance.random_range(0..3)]);
        let raft = chance.random_bool(0.3);
        Self {
            without_quorum: if raft { WithoutQuorum::Refuse } else { WithoutQuorum::Accept { after } },
            update_time: Duration::from_millis([0, 4, 30][chance.random_range(0..3)]),
            snapshot_every: [8, SNAPSHOT_EVERY][chance.random_range(0..2)],
        }
    }

    /// Whether writes are accepted without a quorum.
    pub(crate) fn is_crdt(&self) -> bool {
        self.without_quorum != WithoutQuorum::Refuse
    }
}

/// Who is told what happens to the disks of a host.
pub(crate) type OnLog = Arc<dyn Fn(usize, LogEvent<'_>) + Send + Sync>;
/// The same for its state.
pub(crate) type OnState = Arc<dyn Fn(usize, StateEvent<'_>) + Send + Sync>;

/// Peers by their number.
pub(crate) type Numbers = BTreeMap<PeerId, usize>;

/// What a crash leaves.
#[derive(Clone)]
pub(crate) struct Disks {
    pub(crate) log: MemLog,
    pub(crate) state: MemState,
    record: Arc<MemRecord>,
}

/// A peer while it runs.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) consensus: Arc<LogConsensus>,
    pub(crate) tasks: TaskGroup,
    /// Cancelled at the crash.
    pub(crate) dead: CancellationToken,
}

/// Wall time that goes with virtual time, with an error of its own.
pub(crate) struct SimClock {
    began: Instant,
    error: Mutex<i64>,
}

impl SimClock {
    /// Sets how far the clock is off, in seconds.
    pub(crate) fn set_error(&self, seconds: i64) {
        *self.error.lock() = seconds;
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let seconds = 1_800_000_000 + *self.error.lock();
        Timestamp::from_unix_seconds(seconds).saturating_add(self.began.elapsed())
    }
}

/// One peer.
pub(crate) struct Host {
    pub(crate) number: usize,
    pub(crate) peer: PeerId,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) ipfs: Arc<MemIpfs>,
    net: MemNet,
    trace: Arc<Trace>,
    numbers: Arc<Numbers>,
    on_log: OnLog,
    on_state: OnState,
    mode: Mode,
    /// Whether its power was ever cut. Its node may then have dropped what a snapshot brings back: only the audit sees
    /// that, so it runs there, and nowhere else, lest it hide other faults.
    had_power_cut: AtomicBool,
    chance: Mutex<StdRng>,
    disks: Mutex<Disks>,
    running: Mutex<Option<Running>>,
}

/// What all hosts share.
pub(crate) struct Shared {
    pub(crate) net: MemNet,
    pub(crate) trace: Arc<Trace>,
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) on_log: OnLog,
    pub(crate) on_state: OnState,
    pub(crate) mode: Mode,
}

impl Host {
    /// A peer that was never started.
    pub(crate) fn new(shared: &Shared, number: usize, peer: PeerId, ipfs: Arc<MemIpfs>, mut chance: StdRng) -> Self {
        let state = MemState::new();
        let disks = Disks { log: MemLog::beside(state.clone()), state, record: Arc::default() };
        let clock = SimClock { began: Instant::now(), error: Mutex::new(chance.random_range(-30..=30)) };
        Self {
            number,
            peer,
            clock: Arc::new(clock),
            ipfs,
            net: shared.net.clone(),
            trace: Arc::clone(&shared.trace),
            numbers: Arc::clone(&shared.numbers),
            on_log: Arc::clone(&shared.on_log),
            on_state: Arc::clone(&shared.on_state),
            mode: shared.mode.clone(),
            had_power_cut: AtomicBool::new(false),
            chance: Mutex::new(chance),
            disks: Mutex::new(disks),
            running: Mutex::new(None),
        }
    }

    /// What runs, if anything does.
    pub(crate) fn running(&self) -> Option<Running> {
        self.running.lock().clone()
    }

    /// The disks as they are.
    pub(crate) fn disks(&self) -> Disks {
        self.disks.lock().clone()
    }

    /// Starts the peer on its disks.
    pub(crate) async fn start(&self, bootstrap: &[PeerId]) -> Result<(), StartError> {
        let disks = self.disks();
        let dead = CancellationToken::new();
        let mut chance = StdRng::from_rng(&mut *self.chance.lock());
        disks.log.set_flush_time(Duration::from_millis(1)..FLUSH_TIME, chance.random());
        disks.log.observe(self.observer(dead.clone()));
        if !self.mode.update_time.is_zero() {
            disks.state.set_update_time(Duration::ZERO..self.mode.update_time, chance.random());
        }
        disks.state.observe(self.state_observer(dead.clone()));
        let network = self.net.peer(self.peer);
        let server = Arc::new(CallServer::default());
        network.serve(Arc::new(Tap {
            server: Arc::clone(&server),
            host: self.number,
            numbers: Arc::clone(&self.numbers),
            trace: Arc::clone(&self.trace),
        }));
        // The peerstore outlives a restart.
        for peer in self.numbers.keys().filter(|peer| **peer != self.peer) {
            network.remember(*peer, vec![self.net.address_of(*peer)]);
        }
        let tasks = TaskGroup::new();
        let (hold, clock) = (HoldRule::allocated_to(self.peer), Arc::clone(&self.clock));
        let parts = LogParts {
            log: disks.log.clone(),
            state: Arc::new(disks.state.clone()),
            effect_at: Arc::new(move |generation| {
                let (hold, clock) = (hold.clone(), Arc::clone(&clock));
                Arc::new(move |before, after, tracked| {
                    local_effect(&hold, before, after, tracked, generation, clock.now(), PriorityRule::default())
                })
            }),
            record: Arc::clone(&disks.record) as _,
            transport: Arc::clone(&network) as _,
            gossip: Arc::clone(&network) as _,
            server: Arc::clone(&server),
            allocator: Arc::new(TurnAllocator { turn: AtomicUsize::new(chance.random_range(0..64)) }),
            clock: Arc::clone(&self.clock) as _,
            chance: StdRng::from_rng(&mut chance),
            bootstrap: bootstrap.to_vec(),
            settings: LogSettings {
                write_timeout: WRITE_TIMEOUT,
                snapshot_every: self.mode.snapshot_every,
                without_quorum: self.mode.without_quorum,
                ..LogSettings::default()
            },
        };
        let consensus = LogConsensus::start(parts, &tasks).await?;
        server.serve_calls(Arc::new(Answers(Arc::clone(&consensus))));
        let audit = AuditConfig { interval: AUDIT_EVERY, ..AuditConfig::default() };
        let audit = self.had_power_cut.load(Ordering::Relaxed).then_some(audit);
        let config = TrackerConfig { pin_recover_interval: Duration::from_secs(2), audit, ..TrackerConfig::default() };
        let state = Arc::new(disks.state.clone());
        drop(Tracker::start(
            config,
            HoldRule::allocated_to(self.peer),
            Arc::clone(&state) as _,
            state,
            Arc::clone(&self.ipfs) as _,
            Arc::clone(&self.clock) as _,
            consensus.applied(),
            chance.random(),
            &tasks,
        ));
        self.note_catch_ups(&consensus, &tasks, dead.clone());
        *self.running.lock() = Some(Running { consensus, tasks, dead });
        Ok(())
    }

    /// Ends the peer without warning; returns what is left to be buried.
    pub(crate) fn crash(&self, crash: Crash) -> Option<Running> {
        let running = self.running.lock().take()?;
        self.net.crash(self.peer);
        self.had_power_cut.fetch_or(crash == Crash::PowerCut, Ordering::Relaxed);
        running.dead.cancel();
        let mut disks = self.disks.lock();
        let state = disks.state.reopened(crash);
        *disks = Disks { log: disks.log.reopened(crash, state.clone()), state, record: Arc::clone(&disks.record) };
        Some(running)
    }

    /// Whether its power was ever cut.
    pub(crate) fn had_power_cut(&self) -> bool {
        self.had_power_cut.load(Ordering::Relaxed)
    }

    /// Notes whenever the peer has caught up by shards, until the crash.
    fn note_catch_ups(&self, consensus: &LogConsensus, tasks: &TaskGroup, dead: CancellationToken) {
        let (trace, number, stop) = (Arc::clone(&self.trace), self.number as u64, tasks.stop_token());
        let (mut progress, mut applied) = (consensus.progress(), consensus.applied());
        tasks.spawn("note catch-ups", OnExit::Continue, async move {
            let mut target = None;
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok::<(), BoxError>(()),
                    () = dead.cancelled() => return Ok(()),
                    changed = progress.changed() => changed?,
                    changed = applied.changed() => changed?,
                }
                target = progress.borrow_and_update().map(|now| now.index).or(target);
                let at = *applied.borrow_and_update();
                if let Some(index) = target.take_if(|index| at >= *index) {
                    trace.note(CAUGHT_UP, &[number, index], "", &[]);
                }
            }
        });
    }

    /// Tells the trace and the rules what is written here, until the crash.
    fn observer(&self, dead: CancellationToken) -> LogObserver {
        let (number, on_log) = (self.number, Arc::clone(&self.on_log));
        Arc::new(move |event| {
            if !dead.is_cancelled() {
                on_log(number, event);
            }
        })
    }

    fn state_observer(&self, dead: CancellationToken) -> StateObserver {
        let (number, on_state) = (self.number, Arc::clone(&self.on_state));
        Arc::new(move |event| {
            if !dead.is_cancelled() {
                on_state(number, event);
            }
        })
    }
}

/// Waits until what is dead has ended: every task must.
pub(crate) async fn bury(running: Running, trace: &Trace) {
    running.tasks.stop_token().cancel();
    running.consensus.stop().await;
    let late = running.tasks.shut_down(Duration::from_secs(30)).await;
    if !late.is_empty() {
        trace.fail(format!("tasks that do not stop: {late:?}"));
    }
}

/// Notes every call and every answer on its way to the peer.
struct Tap {
    server: Arc<CallServer>,
    host: usize,
    numbers: Arc<Numbers>,
    trace: Arc<Trace>,
}

#[async_trait]
impl CallHandler for Tap {
    async fn handle(&self, from: PeerId, purpose: Purpose, body: Bytes) -> Bytes {
        let from_number = self.numbers.get(&from).copied().unwrap_or(usize::MAX);
        let numbers = [from_number as u64, self.host as u64, body.len() as u64];
        self.trace.note("call", &numbers, purpose.as_str(), &body);
        let answer = self.server.handle(from, purpose, body).await;
        self.trace.note("answer", &[numbers[0], numbers[1], answer.len() as u64], purpose.as_str(), &answer);
        answer
    }
}

/// Answers the calls that consensus needs.
struct Answers(Arc<LogConsensus>);

#[async_trait]
impl PeerService for Answers {
    async fn answer(&self, from: PeerId, call: Call) -> Result<Reply, WireError> {
        if let Call::Join { node_id, addresses } = call {
            return join_here(&self.0, from, node_id, addresses).await.map(|()| Reply::Done);
        }
        if let Call::Removed { node_id } = call {
            self.0.told_removed(from, node_id);
            return Ok(Reply::Done);
        }
        self.0.lead(&call).await
    }

    fn is_member(&self, peer: &PeerId) -> bool {
        self.0.position().borrow().members.iter().any(|member| member.peer == *peer)
    }

    fn trusts(&self, peer: &PeerId) -> bool {
        self.0.trusts(peer)
    }
}

/// Keeps who holds a pin, and fills up with the members in turn.
struct TurnAllocator {
    turn: AtomicUsize,
}

impl Allocator for TurnAllocator {
    fn snapshot(&self, members: &[PeerId]) -> Box<dyn AllocationSnapshot> {
        let mut members = members.to_vec();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        if !members.is_empty() {
            let by = turn % members.len();
            members.rotate_left(by);
        }
        Box::new(Turn(members))
    }
}

struct Turn(Vec<PeerId>);

impl AllocationSnapshot for Turn {
    fn allocate(&self, question: &AllocationQuestion<'_>) -> Result<Vec<PeerId>, WireError> {
        let ReplicationFactor::Between { min, max } = question.replication else { return Ok(Vec::new()) };
        let allowed = |peer: &&PeerId| self.0.contains(peer) && !question.excluded.contains(peer);
        let mut chosen: Vec<PeerId> = question.current.iter().filter(allowed).copied().collect();
        let more = self.0.iter().filter(allowed).filter(|peer| !question.current.contains(peer));
        chosen.extend(more.copied());
        chosen.truncate(max as usize);
        if chosen.len() < min as usize {
            return Err(WireError::new(ErrorClass::Conflict, "not enough peers"));
        }
        Ok(chosen)
    }
}
