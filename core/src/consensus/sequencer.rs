//! The leader's front: turns wishes into decisions and puts everything that waits into the next entry.
//!
//! There is no timer for batching. An entry leaves as soon as one of [`IN_FLIGHT`] places is free, with all that has come
//! in meanwhile: a lone writer never waits for company, and a crowd shares one flush. What cannot leave because the
//! entries before it find no quorum is refused, so that nobody is left in doubt about a write that was never begun.
//!
//! **Invariant:** a decision is made against one view of the state, one set of metrics, and what is in flight before
//! it, so two wishes for one CID never undo each other's allocation.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster_types::{BoxError, Cid, ErrorClass, PeerId, Pin, ReplicationFactor, Timestamp, WireError};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::deciding::{Context, Decision};
use super::operation::{Entry, Operation, Proposed, encode_pin};
use super::{Outcome, Request, merging};
use crate::crdt::merge::Eventual;
use crate::ports::{Clock, StateStore, StateView};
use crate::task::{OnExit, TaskGroup};

/// Entries under way at a time: one is being written while the next is being filled.
const IN_FLIGHT: usize = 2;
/// How long all places may be taken before what waits is refused, and at once, until one is free. An entry takes
/// milliseconds, so most likely the quorum is gone; whoever was refused wrongly asks again.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// Most operations in one entry.
const MAX_OPERATIONS: usize = 1024;
/// Most bytes of pins in one entry; one pin more may go over it.
const MAX_ENTRY_BYTES: usize = 256 * 1024;
/// Bytes of a peer id in an entry, about.
const PEER_BYTES: usize = 42;
/// Requests that may wait: 16 full entries. More are refused.
const QUEUE: usize = 16 * MAX_OPERATIONS;

/// What is to be allocated.
#[derive(Clone, Copy, Debug)]
pub struct AllocationQuestion<'a> {
    /// How many copies are wanted.
    pub replication: ReplicationFactor,
    /// Who holds it now.
    pub current: &'a [PeerId],
    /// Peers the user would like to have it.
    pub preferred: &'a [PeerId],
    /// Peers that must not hold it.
    pub excluded: &'a [PeerId],
    /// Whether holders that are members stay whatever is known of them: for repair, which excludes those that are gone.
    pub keep_silent: bool,
}

/// Chooses who holds pins, by what is known of the peers now.
pub trait Allocator: Send + Sync + 'static {
    /// What is known now, for all decisions of one entry.
    fn snapshot(&self, members: &[PeerId]) -> Box<dyn AllocationSnapshot>;
}

/// What was known of the peers at one instant.
pub trait AllocationSnapshot: Send + 'static {
    /// Who holds a pin; empty means every peer.
    fn allocate(&self, question: &AllocationQuestion<'_>) -> Result<Vec<PeerId>, WireError>;
}

/// A request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This peer does not lead, or is not sure any more. Nothing was written.
    #[error("this peer does not lead")]
    NotLeader,
    /// Whoever asked does not wait for it any more. Nothing was written.
    #[error("the write came too late")]
    Late,
    /// Too many requests wait. Nothing was written.
    #[error("too many writes are waiting")]
    Overloaded,
    /// Leadership was lost on the way; the entry may or may not survive.
    #[error("leadership was lost before the write was on a quorum")]
    Unknown,
    /// Ordering has stopped on this peer.
    #[error("ordering has stopped: {0}")]
    Stopped(String),
}

/// Where entries go: the raft log.
#[async_trait]
pub trait EntryLog: Send + Sync + 'static {
    /// The members, sorted.
    fn members(&self) -> Vec<PeerId>;
    /// The term this peer leads in, as far as it knows.
    fn term(&self) -> Option<u64>;
    /// Returns when a quorum has confirmed that this peer leads, and everything acknowledged before is applied here.
    async fn confirm(&self) -> Result<(), ProposeError>;
    /// Appends an entry and returns when it is on a quorum and applied here: its term, index and outcomes.
    async fn append(&self, entry: Entry) -> Result<(u64, u64, Vec<Outcome>), ProposeError>;
}

/// What became of a request, and in which entry; index 0 where no entry was needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Term of the entry.
    pub term: u64,
    /// Index of the entry.
    pub index: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// Handle of the sequencer.
#[derive(Clone, Debug)]
pub struct Sequencer {
    queue: mpsc::Sender<Ticket>,
}

struct Ticket {
    id: [u8; 16],
    request: Request,
    /// When it is too late to begin.
    until: Option<Instant>,
    answer: oneshot::Sender<Result<Placed, ProposeError>>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Sequencer {
    /// Starts a sequencer in front of `log`.
    pub fn start(
        log: Arc<dyn EntryLog>,
        state: Arc<dyn StateStore>,
        allocator: Arc<dyn Allocator>,
        clock: Arc<dyn Clock>,
        tasks: &TaskGroup,
    ) -> Self {
        let (queue, requests) = mpsc::channel(QUEUE);
        let work = Work { log, state, allocator, clock, in_flight: Arc::default() };
        let stop = tasks.stop_token();
        tasks.spawn("sequencer", OnExit::StopPeer, async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                result = work.run(requests) => result,
            }
        });
        Self { queue }
    }

    /// Has a request decided, ordered and applied; nothing is begun after `until`. A repetition carries the same `id`.
    pub async fn propose(
        &self,
        id: [u8; 16],
        request: Request,
        until: Option<Instant>,
    ) -> Result<Placed, ProposeError> {
        if let Request::Merge(writes) = &request
            && merge_bytes(writes) > MAX_ENTRY_BYTES
        {
            // One entry that is too large for a message would keep back everything behind it.
            let refusal = format!("a merge may have {MAX_ENTRY_BYTES} bytes of writes");
            let outcome = Outcome::Refused(WireError::new(ErrorClass::Invalid, refusal));
            return Ok(Placed { term: 0, index: 0, outcome });
        }
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Ticket { id, request, until, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Stopped("the peer is stopping".to_owned()),
        })?;
        answered.await.unwrap_or(Err(ProposeError::Unknown))
    }
}

/// Pins of entries that are not applied yet, by CID, with the batch that put them there.
type InFlight = Arc<Mutex<HashMap<Cid, (u64, Option<Pin>)>>>;

struct Work {
    log: Arc<dyn EntryLog>,
    state: Arc<dyn StateStore>,
    allocator: Arc<dyn Allocator>,
    clock: Arc<dyn Clock>,
    in_flight: InFlight,
}

impl Work {
    async fn run(self, mut requests: mpsc::Receiver<Ticket>) -> Result<(), BoxError> {
        let places = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut jobs: JoinSet<u64> = JoinSet::new();
        let mut batch = 0;
        let mut ready_in = None;
        loop {
            let Some(place) = free_place(&places, &mut requests).await else { return Ok(()) };
            let mut tickets = Vec::new();
            if requests.recv_many(&mut tickets, MAX_OPERATIONS).await == 0 {
                return Ok(());
            }
            if let Err(error) = self.get_ready(&mut ready_in).await {
                for ticket in tickets {
                    drop(ticket.answer.send(Err(error.clone())));
                }
                continue;
            }
            // Only this loop forgets what is in flight, so that no decision falls between log and state.
            while let Some(done) = jobs.try_join_next() {
                let done = done?;
                self.in_flight.lock().retain(|_, (owner, _)| *owner != done);
            }
            batch += 1;
            let decided = self.decide_all(batch, tickets).await?;
            let log = Arc::clone(&self.log);
            jobs.spawn(async move {
                let appends = decided.entries.into_iter().map(|filled| filled.append(log.as_ref()));
                futures::future::join(futures::future::join_all(appends), decided.at_once.send(log.as_ref())).await;
                drop(place);
                batch
            });
        }
    }

    /// A new leader decides nothing before it has applied what its predecessors acknowledged.
    async fn get_ready(&self, ready_in: &mut Option<u64>) -> Result<(), ProposeError> {
        let term = self.log.term().ok_or(ProposeError::NotLeader)?;
        if *ready_in != Some(term) {
            self.log.confirm().await?;
            *ready_in = Some(term);
        }
        Ok(())
    }

    /// Decides every ticket and fills entries with what must be written.
    async fn decide_all(&self, batch: u64, tickets: Vec<Ticket>) -> Result<Decided, BoxError> {
        let now = self.clock.now();
        let members = self.log.members();
        let allocation = self.allocator.snapshot(&members);
        let in_flight = Arc::clone(&self.in_flight);
        let (decided, result) = oneshot::channel();
        let read = move |view: &dyn StateView| {
            let mut in_flight = in_flight.lock();
            let empty = Decided { entries: Vec::new(), at_once: AtOnce(Vec::new()) };
            let mut filling = Filling { now, batch, decided: empty };
            for ticket in tickets {
                // Whoever gave up asks again under the same id; what nobody waits for any more must not come late.
                if ticket.answer.is_closed() {
                    continue;
                }
                if ticket.until.is_some_and(|until| until < Instant::now()) {
                    drop(ticket.answer.send(Err(ProposeError::Late)));
                    continue;
                }
                let decision = {
                    let flying = |cid: &Cid| match in_flight.get(cid) {
                        Some((_, pin)) => Ok(pin.clone()),
                        None => view.pin(cid),
                    };
                    let context = Context { pin: &flying, allocation: allocation.as_ref(), members: &members, now };
                    context.decide_in(view, &ticket.request)
                };
                filling.take(ticket, decision, &mut in_flight);
            }
            drop(decided.send(filling.decided));
            Ok(())
        };
        self.state.read(Box::new(read)).await?;
        Ok(result.await?)
    }
}

/// A place for one more entry; `None` when nobody can ask any more. Refuses what waits if none becomes free for long.
async fn free_place(places: &Arc<Semaphore>, requests: &mut mpsc::Receiver<Ticket>) -> Option<OwnedSemaphorePermit> {
    let mut place = pin!(Arc::clone(places).acquire_owned());
    if let Ok(place) = tokio::time::timeout(STUCK_AFTER, place.as_mut()).await {
        return place.ok();
    }
    loop {
        tokio::select! {
            biased;
            place = place.as_mut() => return place.ok(),
            ticket = requests.recv() => drop(ticket?.answer.send(Err(ProposeError::NotLeader))),
        }
    }
}

/// An entry and who waits for it.
struct Filled {
    entry: Entry,
    bytes: usize,
    answers: Vec<oneshot::Sender<Result<Placed, ProposeError>>>,
}

impl Filled {
    async fn append(self, log: &dyn EntryLog) {
        match log.append(self.entry).await {
            Ok((term, index, outcomes)) => {
                for (answer, outcome) in self.answers.into_iter().zip(outcomes) {
                    drop(answer.send(Ok(Placed { term, index, outcome })));
                }
            }
            Err(error) => {
                for answer in self.answers {
                    drop(answer.send(Err(error.clone())));
                }
            }
        }
    }
}

/// What is to be written, and what needs no writing.
struct Decided {
    entries: Vec<Filled>,
    at_once: AtOnce,
}

/// Answers that need no place in the log. They go out once a quorum has confirmed that this peer leads: a leader that
/// was deposed unnoticed must not refuse on grounds that are no longer true.
struct AtOnce(Vec<(oneshot::Sender<Result<Placed, ProposeError>>, Outcome)>);

impl AtOnce {
    async fn send(self, log: &dyn EntryLog) {
        if self.0.is_empty() {
            return;
        }
        let confirmed = log.confirm().await;
        for (answer, outcome) in self.0 {
            let receipt = confirmed.clone().map(|()| Placed { term: 0, index: 0, outcome });
            drop(answer.send(receipt));
        }
    }
}

struct Filling {
    now: Timestamp,
    batch: u64,
    decided: Decided,
}

impl Filling {
    fn take(
        &mut self,
        ticket: Ticket,
        decision: Result<Verdict, WireError>,
        in_flight: &mut HashMap<Cid, (u64, Option<Pin>)>,
    ) {
        let operation = match decision {
            Ok(Verdict::Alone(Decision::Write(operation))) => operation,
            Ok(Verdict::Merge(merging::Decided { merge, expected })) => {
                in_flight.extend(expected.into_iter().map(|(cid, pin)| (cid, (self.batch, pin))));
                Operation::Merge(Box::new(merge))
            }
            Ok(Verdict::Alone(Decision::Nothing)) => {
                return self.decided.at_once.0.push((ticket.answer, Outcome::Unchanged));
            }
            Err(refusal) => return self.decided.at_once.0.push((ticket.answer, Outcome::Refused(refusal))),
        };
        let bytes = match &operation {
            Operation::Merge(merge) => {
                let holders: usize = merge.holders.iter().map(|(_cid, holders)| holders.len()).sum();
                merge_bytes(&merge.writes) + holders * PEER_BYTES
            }
            Operation::Put(pin) | Operation::Reallocate { pin, .. } => {
                in_flight.insert(pin.cid, (self.batch, Some(pin.as_ref().clone())));
                encode_pin(pin).len()
            }
            Operation::Remove { cid } | Operation::RemovePart { cid } => {
                in_flight.insert(*cid, (self.batch, None));
                0
            }
            // Whether its time is over is judged by the log.
            Operation::Expire { .. } | Operation::Reserve => 0,
        };
        let open = self.decided.entries.last().is_some_and(|filled| filled.bytes < MAX_ENTRY_BYTES);
        if !open {
            let entry = Entry { time: self.now, operations: Vec::new() };
            self.decided.entries.push(Filled { entry, bytes: 0, answers: Vec::new() });
        }
        if let Some(filled) = self.decided.entries.last_mut() {
            filled.entry.operations.push(Proposed { id: ticket.id, operation });
            filled.answers.push(ticket.answer);
            filled.bytes += bytes;
        }
    }
}

fn merge_bytes(writes: &[Eventual]) -> usize {
    writes.iter().map(|write| write.encode().len()).sum()
}

/// What is to be done about a request.
enum Verdict {
    Alone(Decision),
    Merge(merging::Decided),
}

impl Context<'_> {
    fn decide_in(&self, view: &dyn StateView, request: &Request) -> Result<Verdict, WireError> {
        match request {
            Request::Merge(writes) => merging::decide(self, view, writes).map(Verdict::Merge),
            Request::Pin(_)
            | Request::Unpin { .. }
            | Request::UnpinPart { .. }
            | Request::Expire { .. }
            | Request::Withdraw { .. }
            | Request::Reallocate { .. } => self.decide(request).map(Verdict::Alone),
        }
    }
}
