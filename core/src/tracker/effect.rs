//! What a change of a pin means on this peer. Pure: used by apply, entry by entry, and when a snapshot is installed.
//!
//! **Invariant:** a record exists exactly for what this peer was given, and for what it still has to drop. So nothing
//! is ever unpinned on the node that the cluster had not given to it: what a user pinned there by hand stays.

use std::time::Duration;

use cluster_types::{Pin, Timestamp, TrackerStatus};

use super::HoldRule;
use super::plan::{JobKind, kind_of};
use crate::ports::TrackerRecord;

/// Which pins go before others: young ones that have not failed often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriorityRule {
    /// Pins older than this have no priority.
    pub max_age: Duration,
    /// Pins tried more often than this have no priority.
    pub max_retries: u32,
}

impl Default for PriorityRule {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(24 * 3600), max_retries: 5 }
    }
}

impl PriorityRule {
    /// Whether a pin submitted at `submitted` and tried `attempts` times goes before others.
    pub fn applies(&self, submitted: Timestamp, attempts: u32, now: Timestamp) -> bool {
        attempts <= self.max_retries && now.since(submitted) < self.max_age
    }
}

/// What a change of a pin does to this peer's record of it: the record to write (`Some(None)` removes), or `None` for
/// nothing. `generation` is the log index of the change and `now` this peer's own time, for `due` is judged by it.
pub fn local_effect(
    hold: &HoldRule,
    before: Option<&Pin>,
    after: Option<&Pin>,
    tracked: Option<&TrackerRecord>,
    generation: u64,
    now: Timestamp,
    rule: PriorityRule,
) -> Option<Option<TrackerRecord>> {
    use TrackerStatus as S;
    let queued = |status, attempts, priority| {
        Some(Some(TrackerRecord {
            // Writes without a quorum change pins between two entries.
            generation: tracked.map_or(generation, |record| generation.max(record.generation + 1)),
            status,
            attempts,
            error: String::new(),
            changed: now,
            due: Some(now),
            priority,
        }))
    };
    let Some(wanted) = after.filter(|pin| hold.holds(pin)) else {
        if matches!(tracked?.status, S::UnpinQueued | S::Unpinning) {
            return None;
        }
        return queued(S::UnpinQueued, 0, false);
    };
    let pin_again = |attempts| queued(S::PinQueued, attempts, rule.applies(wanted.timestamp, attempts, now));
    let Some(record) = tracked.filter(|_| before.is_some_and(|before| before.max_depth == wanted.max_depth)) else {
        return pin_again(0);
    };
    // Only what describes the pin has changed.
    if record.status == S::Pinned || (record.status == S::PinQueued && record.attempts == 0) {
        return None;
    }
    // Asked for again: try now, and remember how often it failed.
    let carried = if kind_of(record) == JobKind::Pin { record.attempts } else { 0 };
    pin_again(carried)
}

#[cfg(test)]
mod tests {
    use cluster_types::{PeerId, PinDepth};

    use super::*;
    use crate::tracker::fakes::{cid, pin_on, record};

    const NOW: Timestamp = Timestamp::ZERO;

    fn effect(
        me: &PeerId,
        before: Option<&Pin>,
        after: Option<&Pin>,
        tracked: Option<TrackerStatus>,
    ) -> Option<Option<TrackerStatus>> {
        let tracked = tracked.map(|status| record(1, status, None));
        let hold = HoldRule::allocated_to(*me);
        let effect = local_effect(&hold, before, after, tracked.as_ref(), 2, NOW, PriorityRule::default());
        effect.map(|record| {
            record.map(|record| {
                assert_eq!((record.generation, record.due), (2, Some(NOW)));
                record.status
            })
        })
    }

    #[test]
    fn what_a_pin_change_means_here() {
        use TrackerStatus as S;
        let (me, other) = (PeerId::random(), PeerId::random());
        let (here, there) = (pin_on(cid(1), &[me]), pin_on(cid(1), &[other]));
        let everywhere = pin_on(cid(1), &[]);
        let (pin, unpin) = (Some(Some(S::PinQueued)), Some(Some(S::UnpinQueued)));
        assert_eq!(effect(&me, None, Some(&here), None), pin, "a new pin is queued");
        assert_eq!(effect(&me, None, Some(&everywhere), None), pin, "a pin for everyone too");
        assert_eq!(effect(&me, None, Some(&there), None), None, "another's pin is not ours");
        assert_eq!(effect(&me, Some(&there), None, None), None, "nor is its end");
        assert_eq!(effect(&me, Some(&here), None, Some(S::Pinned)), unpin, "the end of ours is");
        assert_eq!(effect(&me, Some(&here), Some(&there), Some(S::Pinned)), unpin, "moved away");
        assert_eq!(effect(&me, Some(&there), Some(&here), Some(S::UnpinQueued)), pin, "and back before it was done");
        assert_eq!(effect(&me, Some(&there), None, Some(S::UnpinQueued)), None, "an unpin is queued once");
    }

    #[test]
    fn pinning_again_repairs_what_failed_and_leaves_what_is_done() {
        use TrackerStatus as S;
        let me = PeerId::random();
        let here = pin_on(cid(1), &[me]);
        let mut renamed = here.clone();
        renamed.options.name = "another".to_owned();
        assert_eq!(effect(&me, Some(&here), Some(&renamed), Some(S::Pinned)), None);
        assert_eq!(effect(&me, Some(&here), Some(&renamed), Some(S::PinQueued)), None);
        assert_eq!(effect(&me, Some(&here), Some(&renamed), Some(S::PinError)), Some(Some(S::PinQueued)));
        let mut direct = here.clone();
        direct.max_depth = PinDepth::DIRECT;
        assert_eq!(effect(&me, Some(&direct), Some(&here), Some(S::Pinned)), Some(Some(S::PinQueued)));
    }

    #[test]
    fn old_or_often_failed_pins_lose_priority() {
        let rule = PriorityRule { max_age: Duration::from_secs(10), max_retries: 2 };
        let now = Timestamp::from_unix_seconds(100);
        assert!(rule.applies(Timestamp::from_unix_seconds(95), 2, now));
        assert!(!rule.applies(Timestamp::from_unix_seconds(95), 3, now));
        assert!(!rule.applies(Timestamp::from_unix_seconds(90), 0, now));
    }
}
