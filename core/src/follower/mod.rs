//! A peer that reads what others decide.
//!
//! A follower knows the secret and is outside the ordering: it has no vote and no log, and nobody waits for it, so there
//! may be thousands. It carries out what the leader publishes ([`crate::broadcast`]), batch behind batch, in its own
//! state, through the same [`apply`](crate::consensus::apply::apply) as everybody. When a batch is missing, when its
//! shards do not become what the batch says, and at the start, it brings its state to what trusted peers have
//! ([`CatchUp`]).
//!
//! **Invariant:** a word of a peer that is not trusted changes nothing.
//! **Invariant:** an entry is carried out on the state that comes directly before it, or not at all, and only if the
//! shards then are what they are with the publisher.
//! **Invariant:** while the state is being brought to that of others, nothing is carried out.

mod pull;
mod run;
mod share;
mod window;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use cluster_types::{ErrorClass, Multiaddr, PeerId, Role, StateReport};

pub use pull::PullFromPeers;
pub use share::hold_again;

use crate::consensus::log::{AppliedPosition, EffectAt};
use crate::consensus::{Consensus, ConsensusError, Position, Receipt, Request, report};
use crate::ports::{Gossip, StateError, StateStore};
use crate::task::{OnExit, TaskGroup};
use crate::trust::Trust;
use crate::watch;

/// The text of every refused write; clients compare it.
pub const READ_ONLY: &str = "this peer is configured to be in follower mode. Write operations are disabled";

/// The state was not brought to that of others.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatchUpError {
    /// No trusted peer is connected or answers.
    #[error("no trusted peer gives its state: {reason}")]
    Nobody {
        /// What is missing.
        reason: String,
    },
    /// The store failed.
    #[error("the store cannot take in the state of others")]
    Store(#[from] StateError),
}

impl CatchUpError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Nobody { .. } => ErrorClass::Unavailable,
            Self::Store(error) => error.class(),
        }
    }
}

/// Brings the state of this peer to what trusted peers have.
#[async_trait]
pub trait CatchUp: Send + Sync + 'static {
    /// Returns when the state, its applied position included, is that of a trusted peer at log index `at_least` or a
    /// later one. A state that is as new already is compared and corrected. `doubt`: what is here of a shard that differs
    /// is not built upon. Dropping the future gives up; what has come may be kept for the next time.
    async fn catch_up(&self, at_least: u64, doubt: bool) -> Result<(), CatchUpError>;
}

/// What a follower is built from.
pub struct FollowerParts {
    /// Where the state is kept.
    pub state: Arc<dyn StateStore>,
    /// What a changed pin means on this peer.
    pub effect_at: EffectAt,
    /// Where batches come from.
    pub gossip: Arc<dyn Gossip>,
    /// What is done when batches are missing.
    pub catch_up: Arc<dyn CatchUp>,
    /// Whose word counts.
    pub trust: Trust,
}

impl fmt::Debug for FollowerParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowerParts").field("trust", &self.trust).finish_non_exhaustive()
    }
}

/// What a follower heard and did, for telemetry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FollowerCounts {
    /// Messages of peers that are not trusted.
    pub untrusted: u64,
    /// Messages of trusted peers that could not be read.
    pub malformed: u64,
    /// Messages lost because they came faster than they were taken.
    pub missed: u64,
    /// Batches that led to other shards here than with their publisher.
    pub mismatched: u64,
    /// Entries that were carried out.
    pub applied: u64,
    /// How often the state was brought to that of others.
    pub caught_up: u64,
}

#[derive(Debug, Default)]
struct Counters {
    untrusted: AtomicU64,
    malformed: AtomicU64,
    missed: AtomicU64,
    mismatched: AtomicU64,
    applied: AtomicU64,
    caught_up: AtomicU64,
}

fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

/// One follower.
pub struct Follower {
    state: Arc<dyn StateStore>,
    applied: watch::Receiver<u64>,
    position: watch::Receiver<Position>,
    counts: Arc<Counters>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("position", &*self.position.borrow()).finish_non_exhaustive()
    }
}

impl Follower {
    /// Starts to follow where the state stopped.
    pub async fn start(parts: FollowerParts, tasks: &TaskGroup) -> Result<Arc<Self>, StateError> {
        let at = AppliedPosition::decode(parts.state.applied().await?.as_ref())?;
        let (applied_sender, applied) = watch::channel(at.index());
        let (position_sender, position) = watch::channel(run::position_at(&at, &Position::default()));
        let counts = Arc::new(Counters::default());
        let follower =
            Arc::new(Self { state: Arc::clone(&parts.state), applied, position, counts: Arc::clone(&counts) });
        let told = run::Told { applied: applied_sender, position: position_sender, counts };
        let runner = run::Runner::new(parts, at, told);
        tasks.spawn("follower", OnExit::StopPeer, runner.run(tasks.stop_token()));
        Ok(follower)
    }

    /// Every index as soon as it is applied here.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// What was heard and done so far.
    pub fn counts(&self) -> FollowerCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FollowerCounts {
            untrusted: read(&self.counts.untrusted),
            malformed: read(&self.counts.malformed),
            missed: read(&self.counts.missed),
            mismatched: read(&self.counts.mismatched),
            applied: read(&self.counts.applied),
            caught_up: read(&self.counts.caught_up),
        }
    }
}

#[async_trait]
impl Consensus for Follower {
    async fn submit(&self, _request: Request) -> Result<Receipt, ConsensusError> {
        Err(ConsensusError::ReadOnly)
    }

    async fn read_barrier(&self) -> Result<(), ConsensusError> {
        let reason =
            "a follower does not take part in the ordering and cannot know what was acknowledged; ask a member";
        Err(ConsensusError::Membership { reason: reason.to_owned(), class: ErrorClass::Invalid })
    }

    fn position(&self) -> watch::Receiver<Position> {
        self.position.clone()
    }

    fn alone_for(&self) -> Option<std::time::Duration> {
        None
    }

    async fn report(&self) -> Result<StateReport, ConsensusError> {
        let position = self.position.borrow().clone();
        report::of(self.state.as_ref(), position).await
    }

    async fn add_peer(&self, _peer: PeerId, _addresses: Vec<Multiaddr>) -> Result<(), ConsensusError> {
        Err(ConsensusError::ReadOnly)
    }

    async fn remove_peer(&self, _peer: PeerId) -> Result<(), ConsensusError> {
        Err(ConsensusError::ReadOnly)
    }

    async fn hand_over(&self) {
        // Nothing to give up.
    }
}

impl Position {
    /// Whether this is the position of a follower.
    pub fn follows(&self) -> bool {
        self.role == Role::Follower
    }
}

#[cfg(test)]
mod pull_tests;
#[cfg(test)]
mod tests;
