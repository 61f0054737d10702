//! Gives pins new peers when too few of their copies are left.
//!
//! A reconciler on the leader, and without a quorum on every voter for its [share](super::duty): when members have been
//! silent for longer than a grace period, it goes through the pins given to them, page by page, and asks consensus to
//! re-allocate those that fell below their minimum: the fewest live copies first within a page, and not faster than a
//! limit, for moving data costs the whole cluster. It keeps nothing on disk: whoever leads next begins again, and finds
//! only what is still to be done.
//!
//! **Invariant:** pins with enough live copies, and pins that are everywhere, are not touched.
//! **Invariant:** nothing more is submitted once a peer it was about has returned, or the work is another's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::watch;
use cluster_types::{BoxError, Cid, ErrorChain, ErrorClass, PeerId, Pin, Role};
use futures::TryStreamExt;
use futures::future::join_all;
use tokio::time::Instant;

use super::duty::{Duty, Outlook};
use crate::consensus::{Consensus, Outcome, Position, Request};
use crate::ports::{Scan, StateError, StateStore};
use crate::task::{OnExit, TaskGroup};

/// Requests that wait for consensus at a time; they share log entries.
const AT_A_TIME: usize = 32;

/// The longest pause between two attempts, unless a longer one is configured: a round walks all pins of the dead.
const LONGEST_RETRY: Duration = Duration::from_secs(30 * 60);

/// How often a peer looks whether there is a quorum, while members are silent.
const LOOK: Duration = Duration::from_secs(5);

/// How much slower it goes without a quorum: most cuts heal, and what is moved then moves back.
const SLOWER_ALONE: u32 = 10;

/// When and how fast pins are given new peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepinConfig {
    /// Whether it is done at all.
    pub enabled: bool,
    /// How long a member must have been suspect.
    pub grace: Duration,
    /// Pins that are looked at together, to find those in most danger.
    pub page: usize,
    /// The most re-allocations per second.
    pub per_second: NonZeroU32,
    /// When to try again what could not be done; each time in vain doubles it, up to half an hour.
    pub retry: Duration,
}

impl Default for RepinConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            grace: Duration::from_secs(60),
            page: 1000,
            per_second: NonZeroU32::MIN.saturating_add(99),
            retry: Duration::from_secs(60),
        }
    }
}

/// Starts the reconciler.
pub fn start(
    config: RepinConfig,
    state: Arc<dyn StateStore>,
    consensus: Arc<dyn Consensus>,
    outlook: Outlook,
    tasks: &TaskGroup,
) {
    if !config.enabled {
        return;
    }
    let position = consensus.position();
    let (suspicion, attempts) = (Suspicion::default(), Attempts::new(config.retry));
    let repin = Repin { config, state, consensus, outlook, position, suspicion, attempts };
    let stop = tasks.stop_token();
    tasks.spawn("repin", OnExit::StopPeer, async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            end = repin.run() => end,
        }
    });
}

/// Since when which members are suspect.
#[derive(Debug, Default)]
struct Suspicion {
    since: BTreeMap<PeerId, Instant>,
}

impl Suspicion {
    fn update(&mut self, suspects: &BTreeSet<PeerId>, now: Instant) {
        self.since.retain(|peer, _| suspects.contains(peer));
        for peer in suspects {
            self.since.entry(*peer).or_insert(now);
        }
    }

    /// Who has been suspect for at least `grace`.
    fn dead(&self, now: Instant, grace: Duration) -> BTreeSet<PeerId> {
        let over = self.since.iter().filter(|(_, since)| now.duration_since(**since) >= grace);
        over.map(|(peer, _)| *peer).collect()
    }

    /// When the next one will have been.
    fn next(&self, now: Instant, grace: Duration) -> Option<Instant> {
        self.since.values().map(|since| *since + grace).filter(|end| *end > now).min()
    }
}

/// What became of one pass over the pins of the dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Every pin has enough copies again.
    Done,
    /// Some could not be helped now.
    Incomplete,
    /// The question has changed under way.
    Interrupted,
}

/// Whose pins are looked after, and which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Task {
    duty: Duty,
    dead: BTreeSet<PeerId>,
}

/// When to try again, and how long to wait after the next failure.
#[derive(Debug)]
struct Attempts {
    first: Duration,
    pause: Duration,
    next: Instant,
}

impl Attempts {
    fn new(first: Duration) -> Self {
        Self { first, pause: first, next: Instant::now() }
    }

    /// The circumstances are others: worth trying at once.
    fn start_over(&mut self) {
        *self = Self::new(self.first);
    }

    /// It was in vain.
    fn fail(&mut self) {
        self.next = Instant::now() + self.pause;
        self.pause = self.pause.saturating_mul(2).min(LONGEST_RETRY.max(self.first));
    }
}

struct Repin {
    config: RepinConfig,
    state: Arc<dyn StateStore>,
    consensus: Arc<dyn Consensus>,
    outlook: Outlook,
    position: watch::Receiver<Position>,
    suspicion: Suspicion,
    attempts: Attempts,
}

impl fmt::Debug for Repin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repin").field("suspicion", &self.suspicion).finish_non_exhaustive()
    }
}

impl Repin {
    async fn run(mut self) -> Result<(), BoxError> {
        let mut done_for: Option<Task> = None;
        let mut tried_for = None;
        loop {
            let members = self.members();
            let leads = self.position.borrow().role == Role::Leader;
            let dead = self.dead();
            let task = self.duty().map(|duty| Task { duty, dead });
            if task.is_none() {
                done_for = None;
            }
            if task != tried_for {
                self.attempts.start_over();
                tried_for.clone_from(&task);
            }
            let open = task.filter(|task| !task.dead.is_empty() && done_for.as_ref() != Some(task));
            if let Some(task) = open.as_ref().filter(|_task| Instant::now() >= self.attempts.next) {
                tracing::info!(peers = task.dead.len(), "looking for pins that lost too many copies");
                match self.round(task).await {
                    Ok(Round::Done) => {
                        self.attempts.start_over();
                        done_for = Some(task.clone());
                    }
                    Ok(Round::Interrupted) => continue,
                    Ok(Round::Incomplete) => self.attempts.fail(),
                    Err(error) if error.class() == ErrorClass::Fatal => return Err(error.into()),
                    Err(error) => {
                        tracing::warn!(error = %ErrorChain(&error), "cannot look for pins that lost copies");
                        self.attempts.fail();
                    }
                }
            }
            let open = open.is_some() && done_for != open;
            if self.rest(leads, &members, open).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Waits until there may be something to do: another leader, other members, another suspect, the end of a grace
    /// period, or, if something is still `open`, the time to try again. A change of suspects or members makes trying
    /// again worthwhile at once.
    async fn rest(&mut self, leads: bool, members: &BTreeSet<PeerId>, open: bool) -> Result<(), watch::Gone> {
        let now = Instant::now();
        let retry = open.then_some(self.attempts.next);
        // Nothing tells that a quorum is lost; it can be seen, and matters only while somebody is silent.
        let look = (!self.suspicion.since.is_empty()).then_some(now + LOOK);
        let wake_at = self.suspicion.next(now, self.config.grace).into_iter().chain(retry).chain(look).min();
        let timer = async {
            match wake_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            told = self.position.wait_for(|position| {
                (position.role == Role::Leader) != leads || differ(position, members)
            }) => {
                self.attempts.start_over();
                told.map(drop)
            }
            told = self.outlook.suspects.changed() => {
                self.attempts.start_over();
                told
            }
            () = timer => Ok(()),
        }
    }

    fn duty(&self) -> Option<Duty> {
        self.outlook.duty(self.consensus.as_ref(), &self.position)
    }

    fn members(&self) -> BTreeSet<PeerId> {
        self.position.borrow().members.iter().map(|member| member.peer).collect()
    }

    fn dead(&mut self) -> BTreeSet<PeerId> {
        let now = Instant::now();
        self.suspicion.update(&self.outlook.suspects.borrow(), now);
        self.suspicion.dead(now, self.config.grace)
    }

    /// Whether the task is this peer's still, and none of the dead has returned.
    fn still_holds(&mut self, task: &Task) -> bool {
        self.duty().as_ref() == Some(&task.duty) && self.dead().is_superset(&task.dead)
    }

    /// Goes once through the pins of the dead.
    async fn round(&mut self, task: &Task) -> Result<Round, StateError> {
        let Task { duty, dead } = task;
        let mut helped = true;
        for peer in dead {
            let mut after = None;
            loop {
                let pins = self.page(*peer, after).await?;
                let mut endangered = endangered(&pins, dead);
                endangered.retain(|cid| duty.covers(cid));
                for cids in endangered.chunks(AT_A_TIME) {
                    if !self.still_holds(task) {
                        return Ok(Round::Interrupted);
                    }
                    helped &= self.reallocate(cids, task).await;
                }
                if pins.len() < self.config.page {
                    break;
                }
                after = pins.last().map(|pin| pin.cid);
            }
        }
        Ok(if helped { Round::Done } else { Round::Incomplete })
    }

    async fn page(&self, peer: PeerId, after: Option<Cid>) -> Result<Vec<Pin>, StateError> {
        let mut rows = self.state.scan(Scan::ByPeer { peer, after });
        let mut pins = Vec::new();
        while pins.len() < self.config.page {
            match rows.try_next().await? {
                Some(row) => pins.extend(row.pin),
                None => break,
            }
        }
        Ok(pins)
    }

    /// Asks for new peers; true when every pin has them. Takes at least as long as the rate allows.
    async fn reallocate(&self, cids: &[Cid], Task { duty, dead }: &Task) -> bool {
        let began = Instant::now();
        let asked = cids.iter().map(|cid| {
            self.consensus.submit(Request::Reallocate { cid: *cid, exclude: dead.iter().copied().collect() })
        });
        let mut helped = true;
        for (cid, answer) in cids.iter().zip(join_all(asked).await) {
            match answer.map(|receipt| receipt.outcome) {
                Ok(Outcome::Refused(error)) if error.class != ErrorClass::NotFound => {
                    tracing::debug!(cid = %cid, error = %error, "no new peers for a pin");
                    helped = false;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(cid = %cid, error = %ErrorChain(&error), "no new peers for a pin");
                    helped = false;
                }
            }
        }
        let count = u32::try_from(cids.len()).unwrap_or(u32::MAX);
        let slower = if *duty == Duty::All { 1 } else { SLOWER_ALONE };
        let pause = Duration::from_secs(1) * count / self.config.per_second.get() * slower;
        tokio::time::sleep_until(began + pause).await;
        helped
    }
}

/// Whether the members are others than `known`.
fn differ(position: &Position, known: &BTreeSet<PeerId>) -> bool {
    position.members.len() != known.len() || position.members.iter().any(|member| !known.contains(&member.peer))
}

/// The pins with fewer live copies than their minimum, those with the fewest first.
fn endangered(pins: &[Pin], dead: &BTreeSet<PeerId>) -> Vec<Cid> {
    let mut found: Vec<(usize, Cid)> = pins
        .iter()
        .filter(|pin| !pin.is_everywhere())
        .filter_map(|pin| {
            let live = pin.allocations.iter().filter(|peer| !dead.contains(*peer)).count();
            let least = usize::try_from(pin.options.replication_factor_min).unwrap_or(0);
            (live < least).then_some((live, pin.cid))
        })
        .collect();
    found.sort_by_key(|(live, _)| *live);
    found.into_iter().map(|(_, cid)| cid).collect()
}

#[cfg(test)]
#[path = "repin_tests.rs"]
pub(crate) mod tests;
