//! Who brings the eventual writes of a member into the log: its author while it lives, everybody else when it is silent.
//!
//! Every member takes over what another one accepted. If all of them merged it as soon as they have a leader, each write
//! would cross the log once for every member, just when everybody is busiest: after a cut.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_types::PeerId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// A member whose writes wait, and that was not heard for so long, does not bring them by itself: three times as long as
/// it takes to repeat that they wait.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(9);
/// How long writes of a member that is heard may stay where they are: it may be heard, and not reach the leader.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// The authors of writes that wait here.
#[derive(Debug, Default)]
pub(super) struct Authors(Mutex<BTreeMap<PeerId, Author>>);

#[derive(Debug)]
struct Author {
    heard: Instant,
    /// The number of its first write that waits here, and since when that has been the first.
    first: u64,
    since: Instant,
    /// The walk through the outbox that saw it last.
    walk: Option<Instant>,
}

impl Authors {
    /// A member says that writes of its own wait.
    pub(super) fn heard(&self, author: PeerId, now: Instant) {
        self.entry(author, now, |known| known.heard = now);
    }

    /// Whether a write of somebody else is to be brought into the log from here. `number`: its number here; `walk`: when
    /// the walk through the outbox began that came to it, in the order of the numbers.
    pub(super) fn leaves_to_others(&self, author: PeerId, number: u64, walk: Instant) -> bool {
        self.entry(author, walk, |known| {
            if known.walk.replace(walk) != Some(walk) && known.first != number {
                (known.first, known.since) = (number, walk);
            }
            let is_over = |since: Instant, limit| walk.saturating_duration_since(since) >= limit;
            is_over(known.heard, SILENT_AFTER) || is_over(known.since, STUCK_AFTER)
        })
    }

    /// There is at most one for each peer that has ever been a member.
    fn entry<T>(&self, author: PeerId, now: Instant, change: impl FnOnce(&mut Author) -> T) -> T {
        let mut authors = self.0.lock();
        // Whose writes are found on the disk is given the time to speak.
        let unknown = || Author { heard: now, first: 0, since: now, walk: None };
        change(authors.entry(author).or_insert_with(unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_left_to_an_author_that_is_heard_and_gets_on() {
        let (authors, author, start) = (Authors::default(), PeerId::random(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..300 {
            authors.heard(author, at(second));
            assert!(!authors.leaves_to_others(author, second / 10, at(second)), "it merges ten in {second} s");
        }
        // All writes of a walk have the same author, and only the first says whether it gets on.
        for number in 30..40 {
            assert!(!authors.leaves_to_others(author, number, at(300)));
        }
    }

    #[test]
    fn writes_of_a_silent_author_are_brought_all_of_them() {
        let (authors, author, start) = (Authors::default(), PeerId::random(), Instant::now());
        assert!(!authors.leaves_to_others(author, 7, start), "it may have been started a moment ago, as this peer was");
        authors.heard(author, start + Duration::from_secs(1));
        assert!(!authors.leaves_to_others(author, 7, start + SILENT_AFTER));
        for later in 1..5 {
            let walk = start + SILENT_AFTER + Duration::from_secs(later);
            assert!((0..9).all(|number| authors.leaves_to_others(author, 7 * later + number, walk)));
        }
        authors.heard(author, start + SILENT_AFTER * 2);
        assert!(!authors.leaves_to_others(author, 99, start + SILENT_AFTER * 2), "it is back");
    }

    #[test]
    fn writes_of_an_author_that_is_heard_and_does_not_get_on_are_brought() {
        let (authors, author, start) = (Authors::default(), PeerId::random(), Instant::now());
        assert!(!authors.leaves_to_others(author, 3, start));
        let stuck = start + STUCK_AFTER + Duration::from_secs(1);
        authors.heard(author, stuck);
        assert!(authors.leaves_to_others(author, 3, stuck));
    }
}
