//! Directories that are too large for a block: a tree with a fixed number of places per node, where the next bits of a
//! name's hash choose the place.
//!
//! The tree of a set of names is the same in whatever order they came, so it is built from the sorted set at once:
//! names are grouped by their next bits, and a group of one is an entry, a larger one a node of its own.

use std::collections::BTreeMap;

use super::dagpb::{NewLink, encode};
use super::directory::{DirectoryError, finish};
use super::file::Built;
use super::hash::CidBuilder;
use super::unixfs;
use crate::ports::Block;

/// The most levels a tree can have, with the smallest nodes.
pub(super) const MAX_LEVELS: usize = 21;

/// How many children a node has room for: a power of two from 8 to 1024, by default 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fanout {
    /// Bits of a hash that choose the place in a node.
    bits: u32,
}

impl Default for Fanout {
    fn default() -> Self {
        Self { bits: 8 }
    }
}

impl Fanout {
    /// `None` unless there are nodes like that.
    pub fn new(places: u64) -> Option<Self> {
        ((8..=1024).contains(&places) && places.is_power_of_two()).then(|| Self { bits: places.ilog2() })
    }

    /// Places of a node.
    pub(super) fn places(self) -> usize {
        1 << self.bits
    }

    /// Levels a tree can have: as often as the hash has bits for one.
    pub(super) fn levels(self) -> usize {
        (u64::BITS / self.bits) as usize
    }

    /// The place that a hash takes on a level; the bits are taken from the front.
    pub(super) fn place(self, hash: u64, level: usize) -> usize {
        let end = self.bits * (level as u32 + 1);
        (hash >> (u64::BITS - end)) as usize & (self.places() - 1)
    }

    /// Digits in front of the names of links.
    pub(super) fn digits(self) -> usize {
        self.bits.div_ceil(4) as usize
    }

    /// A place as it stands in front of the names of links.
    pub(super) fn prefix(self, place: usize) -> String {
        format!("{place:0digits$X}", digits = self.digits())
    }
}

/// What places a name: murmur3-x64-128, of which the first 64 bits count.
pub(super) fn hash(name: &[u8]) -> u64 {
    murmur3::murmur3_x64_128(&mut &name[..], 0).expect("reading from memory does not fail") as u64
}

struct Entry<'a> {
    hash: u64,
    name: &'a str,
    built: Built,
}

/// Builds a sharded directory and hands over its blocks, the root last.
pub(super) fn build(
    cids: CidBuilder,
    fanout: Fanout,
    entries: &BTreeMap<String, Built>,
    put: &mut dyn FnMut(Block),
) -> Result<Built, DirectoryError> {
    let mut sorted: Vec<Entry<'_>> =
        entries.iter().map(|(name, built)| Entry { hash: hash(name.as_bytes()), name, built: *built }).collect();
    sorted.sort_unstable_by_key(|entry| entry.hash);
    // Bits behind the last level choose nothing.
    let unused = u64::BITS - fanout.bits * fanout.levels() as u32;
    let same = |[first, second]: &&[Entry<'_>; 2]| first.hash >> unused == second.hash >> unused;
    if let Some([first, second]) = sorted.array_windows().find(same) {
        return Err(DirectoryError::Collision { first: first.name.to_owned(), second: second.name.to_owned() });
    }
    Ok(node(cids, fanout, &sorted, 0, put))
}

/// Builds the node of entries that agree in the places above `level`; they are sorted and differ somewhere.
fn node(cids: CidBuilder, fanout: Fanout, entries: &[Entry<'_>], level: usize, put: &mut dyn FnMut(Block)) -> Built {
    let mut bitfield = vec![0_u8; fanout.places() / 8];
    let mut links = Vec::with_capacity(entries.len().min(fanout.places()));
    let mut below = 0_u64;
    let place_of = |entry: &Entry<'_>| fanout.place(entry.hash, level);
    for group in entries.chunk_by(|a, b| place_of(a) == place_of(b)) {
        let first = &group[0];
        let place = place_of(first);
        let last = bitfield.len() - 1;
        bitfield[last - place / 8] |= 1 << (place % 8);
        let prefix = fanout.prefix(place);
        let (name, built) = if group.len() == 1 {
            (prefix + first.name, first.built)
        } else {
            (prefix, node(cids, fanout, group, level + 1, put))
        };
        below = below.saturating_add(built.dag_size);
        links.push(NewLink { cid: built.cid, name: name.into(), size: built.dag_size });
    }
    finish(cids, encode(links, &unixfs::shard(&bitfield)), below, put)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_the_bits_of_the_hash_from_the_front() {
        let hash = hash(b"abc");
        assert_eq!(hash, 0xb496_3f3f_3fad_7867, "Sum64 of murmur3-x64");
        let places = |fanout| {
            let fanout = Fanout::new(fanout).unwrap();
            (0..fanout.levels()).map(|level| fanout.place(hash, level)).collect::<Vec<_>>()
        };
        assert_eq!(places(256), [0xb4, 0x96, 0x3f, 0x3f, 0x3f, 0xad, 0x78, 0x67]);
        assert_eq!((places(16)[..4].to_vec(), places(16).len()), (vec![0xb, 0x4, 0x9, 0x6], 16));
        assert_eq!((places(8)[..3].to_vec(), places(8).len()), (vec![0b101, 0b101, 0b001], 21));
        assert_eq!((places(1024)[0], places(1024).len()), (0b10_1101_0010, 6));
        assert!([0, 1, 4, 24, 100, 2048].iter().all(|places| Fanout::new(*places).is_none()));
        assert_eq!(Fanout::new(8).unwrap().prefix(7), "7");
        assert_eq!(Fanout::new(512).unwrap().prefix(10), "00A");
    }
}
