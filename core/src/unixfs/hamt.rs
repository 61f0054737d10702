//! Directories that are too large for a block: a tree with 256 places per node, where the next byte of a name's hash
//! chooses the place.
//!
//! The tree of a set of names is the same in whatever order they came, so it is built from the sorted set at once:
//! names are grouped by their next byte, and a group of one is an entry, a larger one a node of its own.

use std::collections::BTreeMap;

use super::dagpb::{NewLink, encode};
use super::directory::{DirectoryError, finish};
use super::file::Built;
use super::hash::CidBuilder;
use super::unixfs;
use crate::ports::Block;

/// Levels a tree can have: the bytes of a hash.
pub(super) const MAX_LEVELS: usize = 8;

/// The places a name takes on each level: murmur3-x64-128, of which the first 64 bits count, highest byte first.
pub(super) fn places(name: &[u8]) -> [u8; MAX_LEVELS] {
    let hash = murmur3::murmur3_x64_128(&mut &name[..], 0).expect("reading from memory does not fail");
    (hash as u64).to_be_bytes()
}

struct Entry<'a> {
    places: [u8; MAX_LEVELS],
    name: &'a str,
    built: Built,
}

/// Builds a sharded directory and hands over its blocks, the root last.
pub(super) fn build(
    cids: CidBuilder,
    entries: &BTreeMap<String, Built>,
    put: &mut dyn FnMut(Block),
) -> Result<Built, DirectoryError> {
    let mut sorted: Vec<Entry<'_>> =
        entries.iter().map(|(name, built)| Entry { places: places(name.as_bytes()), name, built: *built }).collect();
    sorted.sort_unstable_by_key(|entry| entry.places);
    if let Some([first, second]) = sorted.array_windows().find(|[first, second]| first.places == second.places) {
        return Err(DirectoryError::Collision { first: first.name.to_owned(), second: second.name.to_owned() });
    }
    Ok(node(cids, &sorted, 0, put))
}

/// Builds the node of entries that agree in the places above `level`; they are sorted and differ somewhere.
fn node(cids: CidBuilder, entries: &[Entry<'_>], level: usize, put: &mut dyn FnMut(Block)) -> Built {
    let mut bitfield = [0_u8; 32];
    let mut links = Vec::with_capacity(entries.len().min(256));
    let mut below = 0_u64;
    for group in entries.chunk_by(|a, b| a.places[level] == b.places[level]) {
        let first = &group[0];
        let place = first.places[level];
        bitfield[31 - usize::from(place / 8)] |= 1 << (place % 8);
        let (name, built) = if group.len() == 1 {
            (format!("{place:02X}{}", first.name), first.built)
        } else {
            (format!("{place:02X}"), node(cids, group, level + 1, put))
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
    fn places_are_the_bytes_of_the_hash_from_the_front() {
        // Sum64("abc") of murmur3-x64 is 0xb4963f3f3fad7867.
        assert_eq!(places(b"abc"), [0xb4, 0x96, 0x3f, 0x3f, 0x3f, 0xad, 0x78, 0x67]);
    }
}
