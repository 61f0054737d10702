//! Names for requests.

use std::sync::atomic::{AtomicU64, Ordering};

/// Gives every request of this peer a name of its own: a random number that is drawn at the start, and one that counts
/// up. Outcomes are remembered by these names and travel with snapshots; names that follow each other take next to
/// nothing there.
#[derive(Debug)]
pub struct RequestIds {
    start: [u8; 8],
    next: AtomicU64,
}

impl RequestIds {
    /// Names that begin with `start`, which is random: no other start of any peer may have the same.
    pub fn new(start: u64) -> Self {
        Self { start: start.to_be_bytes(), next: AtomicU64::new(0) }
    }

    /// The next name.
    pub fn next(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.start);
        id[8..].copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_never_the_same_and_count_up() {
        let (one, other) = (RequestIds::new(1), RequestIds::new(2));
        let names = [one.next(), one.next(), one.next(), other.next()];
        assert!(names.is_sorted_by(|one, next| one < next));
    }
}
