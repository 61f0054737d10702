//! The newest entries of the raft log, in memory: what is on its way to the disk, and what replication and applying
//! read next.

use std::collections::VecDeque;

/// Bytes of entries kept once they are written; more only while they are not.
const KEPT_BYTES: usize = 1 << 20;

/// The newest entries, without a gap.
#[derive(Debug)]
pub(crate) struct Recent<T> {
    entries: VecDeque<Kept<T>>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept<T> {
    index: u64,
    bytes: usize,
    written: bool,
    entry: T,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0 }
    }
}

impl<T: Clone> Recent<T> {
    /// Adds the next entry; `bytes` is its size when encoded. What does not follow the last one replaces everything.
    pub(crate) fn push(&mut self, index: u64, bytes: usize, entry: T) {
        if self.entries.back().is_some_and(|last| last.index + 1 != index) {
            *self = Self::default();
        }
        self.bytes += bytes;
        self.entries.push_back(Kept { index, bytes, written: false, entry });
    }

    /// Notes that entries up to `index` can be read from the disk, and forgets the oldest that are too many.
    pub(crate) fn written(&mut self, index: u64) {
        for kept in self.entries.iter_mut().rev().skip_while(|kept| kept.index > index) {
            if std::mem::replace(&mut kept.written, true) {
                break;
            }
        }
        while self.bytes > KEPT_BYTES
            && let Some(oldest) = self.entries.pop_front_if(|oldest| oldest.written)
        {
            self.bytes -= oldest.bytes;
        }
    }

    /// Forgets entries after `last`.
    pub(crate) fn truncate_after(&mut self, last: Option<u64>) {
        while let Some(newest) = self.entries.pop_back_if(|newest| last.is_none_or(|last| newest.index > last)) {
            self.bytes -= newest.bytes;
        }
    }

    /// Forgets entries up to `index`.
    pub(crate) fn purge(&mut self, index: u64) {
        while let Some(oldest) = self.entries.pop_front_if(|oldest| oldest.index <= index) {
            self.bytes -= oldest.bytes;
        }
    }

    /// The index of the oldest entry.
    pub(crate) fn first(&self) -> Option<u64> {
        self.entries.front().map(|kept| kept.index)
    }

    /// Entries from `from` to before `to`; stops after `budget` bytes, but not before the first. Empty when `from` is
    /// not here.
    pub(crate) fn read(&self, from: u64, to: Option<u64>, budget: Option<usize>) -> Vec<T> {
        let skip = self.first().and_then(|first| from.checked_sub(first)).and_then(|skip| usize::try_from(skip).ok());
        let Some(skip) = skip else { return Vec::new() };
        let (mut read, mut bytes) = (Vec::new(), 0);
        for kept in self.entries.iter().skip(skip).take_while(|kept| to.is_none_or(|to| kept.index < to)) {
            bytes += kept.bytes;
            if budget.is_some_and(|budget| bytes > budget && !read.is_empty()) {
                break;
            }
            read.push(kept.entry.clone());
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(indexes: std::ops::Range<u64>) -> Recent<u64> {
        let mut recent = Recent::default();
        for index in indexes {
            recent.push(index, KEPT_BYTES / 4, index);
        }
        recent
    }

    #[test]
    fn only_what_is_written_is_forgotten() {
        let mut recent = of(1..10);
        assert_eq!(recent.first(), Some(1));
        recent.written(2);
        assert_eq!(recent.first(), Some(3));
        recent.written(9);
        assert_eq!(recent.read(6, None, None), [6, 7, 8, 9]);
        assert_eq!(recent.read(5, None, None), [0; 0], "what is gone is not skipped");
    }

    #[test]
    fn reads_keep_to_their_ends_and_budget() {
        let recent = of(5..9);
        assert_eq!(recent.read(6, Some(8), None), [6, 7]);
        assert_eq!(recent.read(6, None, Some(1)), [6], "one entry always");
        assert_eq!(recent.read(5, None, Some(KEPT_BYTES / 2)), [5, 6]);
        assert!(recent.read(4, None, None).is_empty());
        assert!(recent.read(9, None, None).is_empty());
        assert!(Recent::<u64>::default().read(0, None, None).is_empty());
    }

    #[test]
    fn the_ends_are_cut_as_the_log_is() {
        let mut recent = of(1..9);
        recent.truncate_after(Some(6));
        recent.purge(3);
        assert_eq!(recent.read(4, None, None), [4, 5, 6]);
        recent.push(9, 1, 9);
        assert_eq!(recent.read(9, None, None), [9], "nothing stays before a gap");
        assert_eq!(recent.first(), Some(9));
        recent.truncate_after(None);
        assert_eq!(recent.first(), None);
    }
}
