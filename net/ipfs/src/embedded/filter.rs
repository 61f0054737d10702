//! A set of blocks in fixed memory that never forgets one but may claim a few too many (a Bloom filter).
//!
//! Garbage collection asks it what to keep, so a false claim keeps a piece of garbage until the next run, whose
//! random keys claim other pieces.

use std::hash::{BuildHasher, RandomState};

/// Bits per expected block: one false claim in about 400 with [`PROBES`].
const BITS_PER_BLOCK: u64 = 16;
/// Bits looked at per block.
const PROBES: u64 = 4;
/// At least 8 KiB.
const MIN_BITS: u64 = 64 * 1024;
/// At most 64 MiB: 32 million blocks at full precision; more blocks keep more garbage, never less content.
const MAX_BITS: u64 = 512 * 1024 * 1024;

/// The set.
#[derive(Debug)]
pub(super) struct Filter {
    words: Vec<u64>,
    keys: (RandomState, RandomState),
    added: u64,
    capacity: u64,
}

impl Filter {
    /// An empty set, precise for up to `blocks` blocks.
    pub(super) fn for_blocks(blocks: u64) -> Self {
        let bits = blocks.saturating_mul(BITS_PER_BLOCK).clamp(MIN_BITS, MAX_BITS);
        let words = usize::try_from(bits.div_ceil(64)).expect("64 MiB of words fit any address space");
        Self {
            words: vec![0; words],
            keys: (RandomState::new(), RandomState::new()),
            added: 0,
            capacity: bits / BITS_PER_BLOCK,
        }
    }

    /// Adds a block.
    pub(super) fn insert(&mut self, multihash: &[u8]) {
        let mut new = false;
        for bit in self.probes(multihash) {
            let word = &mut self.words[bit / 64];
            let mask = 1 << (bit % 64);
            new |= *word & mask == 0;
            *word |= mask;
        }
        self.added += u64::from(new);
    }

    /// Whether a block was added; says yes to a few that were not.
    pub(super) fn contains(&self, multihash: &[u8]) -> bool {
        self.probes(multihash).into_iter().all(|bit| self.words[bit / 64] & (1 << (bit % 64)) != 0)
    }

    /// Whether more blocks were added than it is precise for.
    pub(super) fn is_full(&self) -> bool {
        self.added >= self.capacity
    }

    fn probes(&self, multihash: &[u8]) -> [usize; PROBES as usize] {
        let (first, second) = (self.keys.0.hash_one(multihash), self.keys.1.hash_one(multihash) | 1);
        let bits = self.words.len() as u64 * 64;
        std::array::from_fn(|place| (first.wrapping_add(second.wrapping_mul(place as u64)) % bits) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_none_and_claims_few() {
        let mut filter = Filter::for_blocks(10_000);
        for number in 0..10_000_u32 {
            filter.insert(&number.to_be_bytes());
        }
        assert!((0..10_000_u32).all(|number| filter.contains(&number.to_be_bytes())));
        let claimed = (10_000..20_000_u32).filter(|number| filter.contains(&number.to_be_bytes())).count();
        assert!(claimed < 200, "{claimed} of 10,000 are claimed wrongly");
        assert!(!Filter::for_blocks(0).contains(b"anything"));
    }
}
