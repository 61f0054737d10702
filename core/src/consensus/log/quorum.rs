//! Whether a quorum is there, as far as this peer can tell without asking anybody.

use std::sync::Arc;
use std::time::Duration;

use cluster_types::{PeerId, Role};
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::AppendEntriesResponse;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::deadline::{Deadline, Tick};
use super::engine::LogConsensus;
use super::receiver::Raft;
use super::settings::WithoutQuorum;
use super::types::TypeConfig;
use crate::consensus::Position;

/// How many times longer than the longest wait for an election nobody may be heard before that means something: by then
/// an election has had its time too.
const SILENCE: u32 = 2;
/// How many times longer than a quorum has to answer it is not asked again when it did not.
const ASK_AGAIN: u32 = 3;

/// When this peer last heard from a leader that it follows, and what that leader's clock was.
#[derive(Clone, Debug)]
pub(super) struct Heard(Arc<Mutex<(Instant, Option<Tick>)>>);

impl Heard {
    /// The start counts as hearing: somebody who has just come has to be given time.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new((Instant::now(), None))))
    }

    /// Notes an answer to a leader, which came with a message that told its clock.
    pub(super) fn answered(&self, answer: &AppendEntriesResponse<TypeConfig>, tick: Tick) {
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            *self.0.lock() = (Instant::now(), Some(tick));
        }
    }

    pub(super) fn ago(&self) -> Duration {
        self.0.lock().0.elapsed()
    }

    /// What the clock of the leader that was heard last shows at `moment`, at least.
    pub(super) fn deadline(&self, moment: Instant) -> Option<Deadline> {
        self.0.lock().1.map(|tick| tick.at(moment))
    }
}

/// How long ago a quorum acknowledged this leader; zero where it is its own quorum, or has only begun to lead.
pub(super) fn acknowledged_ago(raft: &Raft) -> Duration {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let alone = metrics.membership_config.membership().voter_ids().count() <= 1;
    let acknowledged = metrics.last_quorum_acked.filter(|_at| !alone);
    acknowledged.map_or(Duration::ZERO, |at| at.elapsed())
}

/// When no quorum answered a write, and what was known then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unanswered {
    at: Instant,
    leader: Option<PeerId>,
    term: u64,
}

impl Unanswered {
    fn under(position: &Position) -> Self {
        Self { at: Instant::now(), leader: position.leader, term: position.term }
    }
}

impl LogConsensus {
    /// Whether no quorum answered a moment ago, under the leader and in the term that are known now.
    pub(super) fn is_unanswered(&self, after: Duration) -> bool {
        self.unanswered_since(after).is_some()
    }

    pub(super) fn nobody_answers(&self) {
        *self.unanswered.lock() = Some(Unanswered::under(&self.position.borrow()));
    }

    fn unanswered_since(&self, after: Duration) -> Option<Instant> {
        let now = Unanswered::under(&self.position.borrow());
        let then = (*self.unanswered.lock()).filter(|then| then.leader == now.leader && then.term == now.term)?;
        (then.at.elapsed() < after * ASK_AGAIN).then_some(then.at)
    }

    /// For how long there has been no sign of a quorum; `None`: there is one as far as this peer can tell. Costs nothing.
    ///
    /// A leader goes by who acknowledges it, others by whether they hear from a leader; whoever had to accept a write
    /// alone goes by that until the quorum is asked again.
    pub fn without_quorum_for(&self) -> Option<Duration> {
        if !self.is_seated() {
            return None;
        }
        self.silent_for().or_else(|| {
            let WithoutQuorum::Accept { after } = self.settings.without_quorum else { return None };
            self.unanswered_since(after).map(|at| at.elapsed())
        })
    }

    /// For how long a quorum, or the leader, has not been heard; `None`: lately, or this peer is no member. Costs nothing.
    pub(super) fn silent_for(&self) -> Option<Duration> {
        let leads = self.position.borrow().role == Role::Leader;
        let silent = if leads { acknowledged_ago(&self.raft) } else { self.heard.ago() };
        (self.is_seated() && silent > self.settings.election.1 * SILENCE).then_some(silent)
    }

    fn is_seated(&self) -> bool {
        let position = self.position.borrow();
        !position.removed && !position.members.is_empty()
    }
}
