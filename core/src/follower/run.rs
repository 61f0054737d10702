//! The loop of a follower: hear, carry out, catch up.
//!
//! **Invariant:** one thing at a time is done to the state: entries are carried out, or it is brought to that of others.
//! **Invariant:** catching up begins at most once in [`PAUSE`], and more and more rarely while it does not help: whoever
//! is trusted and talks nonsense costs a question now and then.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cluster_types::{BoxError, ErrorChain, ErrorClass, PeerId, Role};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::window::{Next, Window};
use super::{CatchUpError, Counters, FollowerParts, count};
use crate::broadcast::{self, Batch, BatchEntry, Kind};
use crate::consensus::Position;
use crate::consensus::apply::{Applied, apply};
use crate::consensus::log::AppliedPosition;
use crate::ports::{Changes, GossipMessage, StateError, StateView, Topic};
use crate::watch;

/// How long a missing batch is waited for: gossip takes several ways.
const PATIENCE: Duration = Duration::from_millis(500);
/// The least time between two attempts to catch up, and the most between attempts that fail or do not help.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whom the loop tells.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) applied: watch::Sender<u64>,
    pub(super) position: watch::Sender<Position>,
    pub(super) counts: Arc<Counters>,
}

/// Why the state is to be brought to that of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Nothing is known yet of what happened meanwhile.
    Start,
    /// Batches are missing. They may still come.
    Gap,
    /// This peer and a publisher do not have the same.
    Difference,
}

#[derive(Clone, Copy, Debug)]
struct Behind {
    why: Why,
    next_try: Instant,
}

/// The loop and what it knows.
pub(super) struct Runner {
    parts: FollowerParts,
    at: AppliedPosition,
    told: Told,
    messages: Receiver<GossipMessage>,
    window: Window,
    behind: Option<Behind>,
    catching_up: Option<BoxFuture<'static, Result<(), CatchUpError>>>,
    last_try: Option<Instant>,
    pause: Duration,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("at", &self.at).field("behind", &self.behind).finish_non_exhaustive()
    }
}

/// Where a follower is whose state stopped at `at`, given what it knew `before`.
pub(super) fn position_at(at: &AppliedPosition, before: &Position) -> Position {
    Position {
        applied: at.index(),
        committed: before.committed.max(at.index()),
        term: at.last.map_or(before.term, |id| **id.committed_leader_id()),
        role: Role::Follower,
        leader: before.leader,
        members: Vec::new(),
        removed: false,
    }
}

impl Runner {
    pub(super) fn new(parts: FollowerParts, at: AppliedPosition, told: Told) -> Self {
        let messages = parts.gossip.subscribe(Topic::Log);
        let behind = Some(Behind { why: Why::Start, next_try: Instant::now() });
        Self {
            parts,
            at,
            told,
            messages,
            window: Window::default(),
            behind,
            catching_up: None,
            last_try: None,
            pause: PAUSE,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), BoxError> {
        loop {
            let next_try = self.behind.filter(|_| self.catching_up.is_none()).map(|behind| behind.next_try);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                end = end_of(&mut self.catching_up) => self.settle(end).await?,
                () = at(next_try) => self.begin(),
                message = self.messages.recv() => match message {
                    Ok(message) => self.hear(&message),
                    Err(RecvError::Lagged(missed)) => {
                        count(&self.told.counts.missed, usize::try_from(missed).unwrap_or(usize::MAX));
                    }
                    Err(RecvError::Closed) => return Err(BoxError::from("gossip has ended")),
                },
            }
            if self.catching_up.is_none() {
                self.carry_out().await?;
            }
        }
    }

    /// Takes in a message, if its signer is trusted.
    fn hear(&mut self, message: &GossipMessage) {
        let Some((Kind::Batch, body)) = broadcast::open(&message.data) else { return };
        if !self.parts.trust.includes(&message.from) {
            count(&self.told.counts.untrusted, 1);
            return;
        }
        match Batch::decode(&body) {
            Ok(batch) => {
                self.note_leader(message.from, &batch);
                self.window.add(batch, body.len());
            }
            Err(error) => {
                count(&self.told.counts.malformed, 1);
                tracing::debug!(peer = %message.from, %error, "a batch of a trusted peer cannot be read");
            }
        }
        // Somebody is there: no need to wait for the end of a long pause.
        if let Some(behind) = &mut self.behind {
            let soon = self.last_try.map_or(Instant::now(), |at| at + PAUSE).max(Instant::now() + PATIENCE);
            if behind.why == Why::Start {
                behind.next_try = behind.next_try.min(soon);
            }
        }
    }

    fn note_leader(&self, peer: PeerId, batch: &Batch) {
        let Some(last) = batch.last() else { return };
        let term = **last.committed_leader_id();
        self.told.position.send_if_modified(|position| {
            let newer = last.index() > position.committed || (term >= position.term && position.leader != Some(peer));
            if newer {
                position.committed = position.committed.max(last.index());
                position.leader = Some(peer);
            }
            newer
        });
    }

    /// Carries out what comes next, as far as it is there.
    async fn carry_out(&mut self) -> Result<(), BoxError> {
        loop {
            match self.window.next(self.at.last) {
                Next::Apply(entries) => {
                    if !self.apply(entries).await? {
                        tracing::warn!(
                            index = self.at.index(),
                            "an entry led to another state here than with the leader; comparing with trusted peers"
                        );
                        count(&self.told.counts.mismatched, 1);
                        return self.differ();
                    }
                }
                Next::Diverged => {
                    tracing::warn!(
                        index = self.at.index(),
                        "the log of the leader is not the one that was followed so far; comparing with trusted peers"
                    );
                    return self.differ();
                }
                Next::Gap => {
                    self.fall_behind(Why::Gap, PATIENCE);
                    return Ok(());
                }
                Next::Nothing => {
                    // A gap that was filled needs no help.
                    self.behind = self.behind.filter(|behind| behind.why != Why::Gap);
                    return Ok(());
                }
            }
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "the end of a step that can fail")]
    fn differ(&mut self) -> Result<(), BoxError> {
        self.window.clear();
        self.fall_behind(Why::Difference, Duration::ZERO);
        Ok(())
    }

    fn fall_behind(&mut self, why: Why, patience: Duration) {
        if self.behind.is_none_or(|behind| behind.why == Why::Gap && why == Why::Difference) {
            let allowed = self.last_try.map_or(Instant::now(), |at| at + self.pause);
            self.behind = Some(Behind { why, next_try: allowed.max(Instant::now() + patience) });
        }
    }

    /// Carries out entries that come directly behind this peer's; false when the shards then are not what they should be
    /// and nothing was written.
    async fn apply(&mut self, entries: Vec<BatchEntry>) -> Result<bool, StateError> {
        let applied = entries.len();
        let Some(last) = entries.last() else { return Ok(true) };
        let mut next = AppliedPosition { last: Some(last.id), ..self.at.clone() };
        let effect = (self.parts.effect_at)(next.index());
        let done = Arc::new(Mutex::new(None));
        let result = Arc::clone(&done);
        let update = move |view: &dyn StateView| -> Result<Changes, StateError> {
            let pairs = entries.iter().map(|entry| (entry.id.index(), &entry.entry));
            let Applied { mut changes, digests, clock, .. } = apply(view, next.log_clock(), pairs, &effect)?;
            if !digests.iter().eq(entries.iter().map(|entry| &entry.digest)) {
                return Ok(Changes::default());
            }
            next.advance(clock);
            changes.applied = Some(next.encode().map_err(|error| StateError::Damaged { what: error.to_string() })?);
            *result.lock() = Some(next);
            Ok(changes)
        };
        self.parts.state.update(Box::new(update)).await?;
        let Some(next) = done.lock().take() else { return Ok(false) };
        count(&self.told.counts.applied, applied);
        self.move_to(next);
        Ok(true)
    }

    fn move_to(&mut self, next: AppliedPosition) {
        self.at = next;
        self.told.position.send_modify(|position| *position = position_at(&self.at, position));
        self.told.applied.send_replace(self.at.index());
    }

    /// Begins to bring the state to that of others.
    fn begin(&mut self) {
        let (catch_up, at_least) = (Arc::clone(&self.parts.catch_up), self.at.index());
        self.last_try = Some(Instant::now());
        let doubt = self.behind.is_some_and(|behind| behind.why == Why::Difference);
        // What was heard of the log's length does not count: to ask for more than there is would only fail.
        self.catching_up = Some(Box::pin(async move { catch_up.catch_up(at_least, doubt).await }));
    }

    /// Takes in how catching up ended.
    async fn settle(&mut self, end: Result<(), CatchUpError>) -> Result<(), BoxError> {
        let helped = match end {
            Ok(()) => {
                count(&self.told.counts.caught_up, 1);
                let now = AppliedPosition::decode(self.parts.state.applied().await?.as_ref())?;
                let helped = now.last != self.at.last;
                if helped {
                    tracing::info!(from = self.at.index(), to = now.index(), "caught up with trusted peers");
                }
                // Records may have changed without the position.
                self.move_to(now);
                self.behind = None;
                helped
            }
            Err(error) if error.class() == ErrorClass::Fatal => return Err(error.into()),
            Err(error) => {
                tracing::debug!(error = %ErrorChain(&error), "cannot catch up yet");
                false
            }
        };
        self.pause = if helped { PAUSE } else { (self.pause * 2).min(LONGEST_PAUSE) };
        if let Some(behind) = &mut self.behind {
            behind.next_try = Instant::now() + self.pause;
        }
        Ok(())
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits for the end of what is under way, and takes it away.
async fn end_of(under_way: &mut Option<BoxFuture<'static, Result<(), CatchUpError>>>) -> Result<(), CatchUpError> {
    let Some(future) = under_way else { return std::future::pending().await };
    let end = future.await;
    *under_way = None;
    end
}
