//! What a garbage collection answers: a list of what is gone, and it must not be as large as that.

use cluster_types::{Cid, GcKey};

/// The most removed blocks that are named; the rest is only counted, because a repository can hold any number.
const MAX_GC_KEYS: usize = 200_000;

/// A list of removed blocks that does not grow beyond a bound.
#[derive(Debug)]
pub(crate) struct GcList {
    keys: Vec<GcKey>,
    unnamed: u64,
    limit: usize,
}

impl GcList {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self::with_limit(MAX_GC_KEYS)
    }

    fn with_limit(limit: usize) -> Self {
        Self { keys: Vec::new(), unnamed: 0, limit }
    }

    /// Adds a block that is gone, or that could not be removed because of `error`.
    pub(crate) fn push(&mut self, key: Option<Cid>, error: String) {
        if self.keys.len() < self.limit {
            self.keys.push(GcKey { key, error });
        } else {
            self.unnamed += 1;
        }
    }

    /// The list; at its end, an entry without a name that tells how many more there are.
    pub(crate) fn finish(mut self) -> Vec<GcKey> {
        if self.unnamed > 0 {
            let error = format!("{} more blocks are not listed", self.unnamed);
            self.keys.push(GcKey { key: None, error });
        }
        self.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut list = GcList::with_limit(2);
        for _ in 0..2 {
            list.push(None, String::new());
        }
        assert_eq!(list.keys.len(), 2);
        for _ in 0..3 {
            list.push(None, String::new());
        }
        let keys = list.finish();
        assert_eq!((keys.len(), keys[2].error.as_str()), (3, "3 more blocks are not listed"));
    }
}
