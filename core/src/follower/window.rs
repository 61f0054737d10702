//! Batches that were heard, and which of them comes next. Pure.
//!
//! Gossip may bring batches in another order and more than once. What is behind a gap waits here for a while.
//!
//! **Invariant:** at most [`MAX_BYTES`] are kept; behind a gap the newest go first, for the gap is what is waited for.

use std::collections::BTreeMap;

use crate::broadcast::{Batch, BatchEntry};
use crate::consensus::log::LogId;

/// Encoded bytes of batches that wait: several seconds of a bulk load. In memory a batch takes a few times as much.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Carry these out: they come directly behind where this peer is.
    Apply(Vec<BatchEntry>),
    /// Entries are missing.
    Gap,
    /// This peer has something else at a place that both know.
    Diverged,
    /// Nothing is left to do.
    Nothing,
}

/// The batches that wait, by the index they end at.
#[derive(Debug, Default)]
pub(super) struct Window {
    batches: BTreeMap<u64, (Batch, usize)>,
    bytes: usize,
}

impl Window {
    /// Keeps a batch that came as `size` bytes.
    pub(super) fn add(&mut self, batch: Batch, size: usize) {
        let Some(last) = batch.last() else { return };
        // Of those that end at the same place the longest reaches back furthest.
        let longer = self.batches.get(&last.index()).is_none_or(|(known, _)| known.entries.len() < batch.entries.len());
        if !longer {
            return;
        }
        if let Some((_, before)) = self.batches.insert(last.index(), (batch, size)) {
            self.bytes -= before;
        }
        self.bytes += size;
        while self.bytes > MAX_BYTES {
            let Some((_, (_, dropped))) = self.batches.pop_last() else { break };
            self.bytes -= dropped;
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What comes behind `at`. What is older is forgotten.
    pub(super) fn next(&mut self, at: Option<LogId>) -> Next {
        while let Some((last, (batch, _))) = self.batches.first_key_value() {
            match judge(at, batch) {
                Judged::Old => {
                    let last = *last;
                    self.remove(last);
                }
                Judged::Next => {
                    let last = *last;
                    let entries = self.remove(last).map(|batch| batch.entries).unwrap_or_default();
                    let behind = |entry: &BatchEntry| at.is_none_or(|at| entry.id.index() > at.index());
                    return Next::Apply(entries.into_iter().filter(behind).collect());
                }
                Judged::Gap => return Next::Gap,
                Judged::Diverged => return Next::Diverged,
            }
        }
        Next::Nothing
    }

    fn remove(&mut self, last: u64) -> Option<Batch> {
        let (batch, size) = self.batches.remove(&last)?;
        self.bytes -= size;
        Some(batch)
    }
}

enum Judged {
    Old,
    Next,
    Gap,
    Diverged,
}

fn judge(at: Option<LogId>, batch: &Batch) -> Judged {
    let Some(last) = batch.last() else { return Judged::Old };
    let Some(at) = at else {
        return if batch.previous.is_none() { Judged::Next } else { Judged::Gap };
    };
    if batch.previous.is_some_and(|previous| previous.index() > at.index()) {
        return Judged::Gap;
    }
    // The place where this peer is, as the batch has it. Far older batches do not say: replays of them tell nothing.
    let here = batch.previous.into_iter().chain(batch.entries.iter().map(|entry| entry.id));
    match here.into_iter().find(|id| id.index() == at.index()) {
        Some(id) if id != at => Judged::Diverged,
        Some(_) | None if last.index() <= at.index() => Judged::Old,
        Some(_) => Judged::Next,
        None => Judged::Gap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::operation::Entry;

    fn at(term: u64, index: u64) -> LogId {
        LogId::new(term.into(), index)
    }

    fn batch(term: u64, previous: Option<u64>, last: u64) -> Batch {
        let first = previous.map_or(0, |index| index + 1);
        let entry = |index| BatchEntry { id: at(term, index), entry: Entry::default(), digest: [0; 32] };
        Batch { previous: previous.map(|index| at(term, index)), entries: (first..=last).map(entry).collect() }
    }

    fn indexes(next: Next) -> Vec<u64> {
        match next {
            Next::Apply(entries) => entries.iter().map(|entry| entry.id.index()).collect(),
            other @ (Next::Gap | Next::Diverged | Next::Nothing) => panic!("{other:?}"),
        }
    }

    #[test]
    fn batches_are_carried_out_in_order_whatever_order_they_come_in() {
        let mut window = Window::default();
        window.add(batch(1, Some(6), 9), 100);
        assert_eq!(window.next(Some(at(1, 3))), Next::Gap);
        window.add(batch(1, Some(3), 6), 100);
        window.add(batch(1, Some(3), 6), 100);
        assert_eq!(indexes(window.next(Some(at(1, 3)))), [4, 5, 6]);
        assert_eq!(indexes(window.next(Some(at(1, 6)))), [7, 8, 9]);
        assert_eq!(window.next(Some(at(1, 9))), Next::Nothing);
        assert_eq!((window.bytes, window.batches.len()), (0, 0));
    }

    #[test]
    fn what_was_carried_out_before_is_left_out() {
        let mut window = Window::default();
        window.add(batch(1, Some(3), 6), 100);
        assert_eq!(indexes(window.next(Some(at(1, 5)))), [6]);
        window.add(batch(1, Some(3), 6), 100);
        assert_eq!(window.next(Some(at(1, 6))), Next::Nothing);
        assert_eq!(window.next(Some(at(7, 100))), Next::Nothing);
        window.add(batch(1, Some(3), 6), 100);
        assert_eq!(window.next(Some(at(7, 100))), Next::Nothing, "too old to say anything");
    }

    #[test]
    fn another_history_is_noticed_at_a_place_that_both_know() {
        let mut window = Window::default();
        window.add(batch(2, Some(3), 6), 100);
        assert_eq!(window.next(Some(at(1, 3))), Next::Diverged);
        assert_eq!(window.next(Some(at(1, 6))), Next::Diverged);
        assert_eq!(indexes(window.next(Some(at(2, 4)))), [5, 6]);
        window.add(batch(2, Some(6), 6), 100);
        assert_eq!(window.next(Some(at(1, 6))), Next::Diverged, "the log of others ends here, and is another one");
    }

    #[test]
    fn a_peer_without_anything_begins_only_at_the_beginning() {
        let mut window = Window::default();
        window.add(batch(1, Some(0), 4), 100);
        assert_eq!(window.next(None), Next::Gap);
        window.add(batch(1, None, 2), 100);
        assert_eq!(indexes(window.next(None)), [0, 1, 2]);
        assert_eq!(indexes(window.next(Some(at(1, 2)))), [3, 4]);
    }

    #[test]
    fn what_waits_is_bounded_and_the_gap_is_filled_all_the_same() {
        let mut window = Window::default();
        let size = 500 * 1024;
        for number in 1..100 {
            window.add(batch(1, Some(number * 10), number * 10 + 10), size);
        }
        assert!(window.bytes <= MAX_BYTES && window.batches.len() > 10);
        window.add(batch(1, Some(5), 10), size);
        assert_eq!(indexes(window.next(Some(at(1, 5)))), [6, 7, 8, 9, 10]);
        assert_eq!(indexes(window.next(Some(at(1, 10)))).len(), 10);
    }
}
