//! What a record becomes after an attempt, and when the next one is. Pure: time and chance come in.
//!
//! Trying never ends: what fails waits for a growing pause, up to the recover interval, and then stands in the queue by
//! that time; its error and its next time stay visible. It keeps its priority as long as the rule gives it one: for the
//! configured number of failed attempts, and while the pin is young.

use std::time::Duration;

use cluster_types::{Timestamp, TrackerStatus};

use super::plan::{JobKind, kind_of};
use crate::ports::TrackerRecord;

/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The most of an error text that is kept, in bytes: the node's words are not ours.
const MAX_ERROR: usize = 1024;

/// The pause after `attempts` failures, at most `longest`, varied by a fifth either way. `chance` is between 0 and 1.
pub(super) fn pause(first: Duration, attempts: u32, longest: Duration, chance: f64) -> Duration {
    let doubled = first.saturating_mul(1u32.checked_shl(attempts.saturating_sub(1).min(20)).unwrap_or(u32::MAX));
    doubled.min(longest).mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0))
}

/// The longest that [`pause`] can last: no record is due later than this from now, unless the clock was set back.
pub(super) fn longest_pause(longest: Duration) -> Duration {
    longest.max(FIRST_PAUSE).mul_f64(1.2)
}

/// The record of a finished job; nothing is left to know of what was unpinned.
pub(super) fn after_success(kind: JobKind, record: &TrackerRecord, now: Timestamp) -> Option<TrackerRecord> {
    match kind {
        JobKind::Unpin => None,
        JobKind::Pin => Some(TrackerRecord {
            generation: record.generation,
            status: TrackerStatus::Pinned,
            attempts: 0,
            error: String::new(),
            changed: now,
            due: None,
            priority: false,
        }),
    }
}

/// The record of a failed job. `priority` says whether it still goes before others, by the number of attempts.
pub(super) fn after_failure(
    kind: JobKind,
    record: &TrackerRecord,
    error: &str,
    now: Timestamp,
    longest: Duration,
    chance: f64,
    priority: impl FnOnce(u32) -> bool,
) -> TrackerRecord {
    let attempts = record.attempts.saturating_add(1);
    TrackerRecord {
        generation: record.generation,
        status: failed(kind),
        attempts,
        error: shortened(error),
        changed: now,
        due: Some(now.saturating_add(pause(FIRST_PAUSE, attempts, longest, chance))),
        priority: priority(attempts),
    }
}

/// The record of a job that found no node: the attempt does not count, and the next is as soon as the node is back.
pub(super) fn after_no_node(kind: JobKind, record: &TrackerRecord, error: &str, now: Timestamp) -> TrackerRecord {
    TrackerRecord { status: failed(kind), error: shortened(error), changed: now, due: Some(now), ..record.clone() }
}

/// The record to try again at once what failed or waits for its next time; `None` when there is nothing to repair.
pub(super) fn tried_again(record: &TrackerRecord, now: Timestamp) -> Option<TrackerRecord> {
    use TrackerStatus as S;
    if !matches!(record.status, S::PinError | S::UnexpectedlyUnpinned | S::UnpinError) {
        return None;
    }
    let status = match kind_of(record) {
        JobKind::Pin => S::PinQueued,
        JobKind::Unpin => S::UnpinQueued,
    };
    Some(TrackerRecord { status, changed: now, due: Some(now), ..record.clone() })
}

fn failed(kind: JobKind) -> TrackerStatus {
    match kind {
        JobKind::Pin => TrackerStatus::PinError,
        JobKind::Unpin => TrackerStatus::UnpinError,
    }
}

fn shortened(error: &str) -> String {
    let mut end = error.len().min(MAX_ERROR);
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    error[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::fakes::record;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let longest = Duration::from_secs(720);
        let pauses: Vec<u64> =
            (1..=9).map(|n| pause(FIRST_PAUSE, n, longest, 0.5).as_secs_f64().round() as u64).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 720]);
        assert!(pause(FIRST_PAUSE, u32::MAX, longest, 1.0) <= longest_pause(longest));
        assert!(pause(FIRST_PAUSE, 1, longest, 0.0) < pause(FIRST_PAUSE, 1, longest, 1.0));
    }

    #[test]
    fn a_failure_is_remembered_with_its_reason_and_its_next_time() {
        let before = record(7, TrackerStatus::PinQueued, None);
        let now = Timestamp::from_unix_seconds(100);
        let long = "ä".repeat(2000);
        let after = after_failure(JobKind::Pin, &before, &long, now, FIRST_PAUSE, 0.5, |attempts| attempts <= 1);
        assert_eq!((after.status, after.attempts, after.generation), (TrackerStatus::PinError, 1, 7));
        assert_eq!(after.due, Some(Timestamp::from_unix_seconds(105)));
        assert!(after.priority && after.error.len() <= MAX_ERROR && !after.error.is_empty());
        let again = after_failure(JobKind::Pin, &after, "x", now, FIRST_PAUSE, 0.5, |attempts| attempts <= 1);
        assert!(!again.priority && again.attempts == 2, "only the rule takes the priority away");
    }

    #[test]
    fn an_absent_node_costs_no_attempt() {
        let before = TrackerRecord { attempts: 3, ..record(7, TrackerStatus::UnpinError, None) };
        let after = after_no_node(JobKind::Unpin, &before, "no answer", Timestamp::ZERO);
        assert_eq!((after.attempts, after.status), (3, TrackerStatus::UnpinError));
    }

    #[test]
    fn only_what_failed_is_tried_again() {
        use TrackerStatus as S;
        let again = |status| tried_again(&record(1, status, None), Timestamp::ZERO).map(|record| record.status);
        assert_eq!(again(S::PinError), Some(S::PinQueued));
        assert_eq!(again(S::UnexpectedlyUnpinned), Some(S::PinQueued));
        assert_eq!(again(S::UnpinError), Some(S::UnpinQueued));
        assert_eq!(again(S::Pinned), None);
    }
}
