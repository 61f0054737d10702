//! Where the queue of due tracker records begins, in memory.
//!
//! A row leaves the queue where scans begin, and until a compaction every scan would walk over what is left of all that
//! went through it. The floor lets a scan begin at the first row that may be live.
//!
//! **Invariant:** no row is below the floor of its urgency, but for the instant between a write and
//! [`DueFloor::lower`]; whoever wrote wakes the tracker after that.

use parking_lot::Mutex;

/// The floors of the two urgencies.
#[derive(Debug, Default)]
pub(crate) struct DueFloor {
    inner: Mutex<[Floor; 2]>,
}

#[derive(Debug, Default)]
struct Floor {
    /// No live row is below; empty is below everything.
    key: Vec<u8>,
    /// The lowest row written since the last scan began.
    written: Option<Vec<u8>>,
    /// The number of the last scan.
    scan: u64,
}

/// A scan of one urgency under way.
#[derive(Debug)]
pub(crate) struct FloorScan {
    place: usize,
    number: u64,
    /// Where to begin; empty where nothing is known.
    pub(crate) from: Vec<u8>,
}

impl DueFloor {
    /// Notes rows that were written.
    pub(crate) fn lower(&self, keys: impl IntoIterator<Item = Vec<u8>>) {
        let mut floors = self.inner.lock();
        for key in keys {
            let Some(floor) = key.first().and_then(|urgency| floors.get_mut(usize::from(*urgency))) else { continue };
            if key < floor.key {
                floor.key.clone_from(&key);
            }
            if floor.written.as_ref().is_none_or(|written| key < *written) {
                floor.written = Some(key);
            }
        }
    }

    /// Begins a scan. To be called before the view is taken that is scanned.
    pub(crate) fn begin(&self, priority: bool) -> FloorScan {
        let place = usize::from(!priority);
        let mut floors = self.inner.lock();
        let floor = &mut floors[place];
        floor.scan += 1;
        floor.written = None;
        FloorScan { place, number: floor.scan, from: floor.key.clone() }
    }

    /// Ends a scan that found `first`, or nothing below `end`, to be the first row.
    pub(crate) fn end(&self, scan: &FloorScan, first: &[u8]) {
        let mut floors = self.inner.lock();
        let floor = &mut floors[scan.place];
        // What was written during the scan may not be in it; what was written before a later one, only that knows.
        if floor.scan == scan.number && first > floor.key.as_slice() {
            let written = floor.written.as_deref().unwrap_or(first);
            floor.key = written.min(first).to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u8) -> Vec<u8> {
        vec![1, number]
    }

    #[test]
    fn a_scan_raises_the_floor_to_what_it_found() {
        let floor = DueFloor::default();
        let scan = floor.begin(false);
        assert!(scan.from.is_empty());
        floor.end(&scan, &row(7));
        assert_eq!(floor.begin(false).from, row(7));
        assert!(floor.begin(true).from.is_empty(), "the other urgency has its own");
        floor.lower([row(9), row(3)]);
        assert_eq!(floor.begin(false).from, row(3));
    }

    #[test]
    fn what_is_written_during_a_scan_is_not_passed_over() {
        let floor = DueFloor::default();
        let scan = floor.begin(false);
        floor.lower([row(5)]);
        floor.end(&scan, &row(8));
        assert_eq!(floor.begin(false).from, row(5));
    }

    #[test]
    fn of_two_scans_only_the_later_raises() {
        let floor = DueFloor::default();
        let first = floor.begin(false);
        floor.lower([row(5)]);
        let second = floor.begin(false);
        floor.end(&first, &row(8));
        assert!(floor.begin(false).from.is_empty(), "row 5 is unknown to the first scan");
        floor.end(&second, &row(5));
        assert!(floor.begin(false).from.is_empty(), "a third scan has begun");
    }
}
