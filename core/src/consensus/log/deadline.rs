//! Until when a leader may begin a write, by its own clock.
//!
//! Whoever waits in vain for a leader gives up at some moment, and may accept the write by itself then. The request may
//! still be on its way: a cut can hold it back for minutes. Carried out so late it would replace what others were
//! promised meanwhile, as if its author had seen that. So it says until when it makes sense.
//!
//! The clocks of two peers are never compared. Whatever a leader sends tells its clock, and that much time at least has
//! passed on it when somebody hears it; what is told a leader is counted from there.

use std::time::Duration;

use openraft::raft::AppendEntriesRequest;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::types::TypeConfig;

/// How long a raft node runs, in milliseconds. A leader that was started anew leads in another term.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeClock(Instant);

impl NodeClock {
    /// Starts with the node.
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> u64 {
        millis(self.0.elapsed())
    }

    /// When a deadline of this node's own term is over here; `None`: as good as never.
    pub(super) fn moment(self, deadline: Deadline) -> Option<Instant> {
        self.0.checked_add(Duration::from_millis(deadline.clock))
    }
}

/// A moment by the clock of the leader of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The term that it leads in.
    pub term: u64,
    /// Milliseconds since it was started.
    pub clock: u64,
}

/// What the clock of a leader was, no later than when it was heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tick {
    term: u64,
    clock: u64,
    heard: Instant,
}

impl Tick {
    /// A leader's message that has just come.
    pub(super) fn of(request: &AppendEntriesRequest<TypeConfig>, clock: u64) -> Self {
        Self { term: request.vote.leader_id.term, clock, heard: Instant::now() }
    }

    /// What the leader's clock shows at `moment`, at least.
    pub(super) fn at(self, moment: Instant) -> Deadline {
        let clock = self.clock.saturating_add(millis(moment.saturating_duration_since(self.heard)));
        Deadline { term: self.term, clock }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_held_back_makes_a_deadline_earlier_and_never_later() {
        let (sent, patience) = (Instant::now(), Duration::from_secs(2));
        // The leader's clock shows 10,000 now, but the last that was heard of it was 700 ms under way.
        let tick = Tick { term: 3, clock: 9_300, heard: sent };
        let deadline = tick.at(sent + patience);
        assert_eq!(deadline, Deadline { term: 3, clock: 11_300 }, "before the author gives up at 12,000");
    }
}
