//! What one peer wants of us, and what it is owed. Pure.
//!
//! **Invariant:** at most [`MAX_WANTS`] wants per peer, each at most once in the queue of answers; what comes beyond is
//! ignored, and the peer asks again or elsewhere.
//! **Invariant:** a want whose block is absent stays, so that the peer gets an answer when the block arrives.

use std::collections::BTreeMap;

use cluster_types::{Cid, Codec};

use super::wire::{Entry, WANT_HAVE, Wantlist};

/// Wants kept per peer: what other implementations allow.
pub(super) const MAX_WANTS: usize = 1024;

/// Multihash, version and codec: wants of the same bytes are neighbours.
type Key = (Vec<u8>, u64, u64);

#[derive(Clone, Copy, Debug)]
struct Want {
    cid: Cid,
    block: bool,
    dont_have: bool,
    place: Option<u64>,
}

/// An answer that is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owed {
    /// The block.
    pub(super) cid: Cid,
    /// Whether the block itself is wanted, or only whether it is there.
    pub(super) block: bool,
    /// Whether the peer wants to know that it is not there.
    pub(super) dont_have: bool,
}

/// One peer's wants.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    wants: BTreeMap<Key, Want>,
    queue: BTreeMap<u64, Key>,
    next_place: u64,
}

fn key(cid: &Cid) -> Key {
    (cid.hash_bytes(), cid.version(), cid.codec())
}

impl Ledger {
    /// Takes changes from the peer.
    pub(super) fn apply(&mut self, wantlist: &Wantlist) {
        if wantlist.full {
            self.wants.clear();
            self.queue.clear();
        }
        for entry in &wantlist.entries {
            if let Ok(cid) = Cid::from_bytes(&entry.cid) {
                self.apply_entry(&cid, entry);
            }
        }
    }

    fn apply_entry(&mut self, cid: &Cid, entry: &Entry) {
        let key = key(cid);
        if entry.cancel {
            if let Some(place) = self.wants.remove(&key).and_then(|want| want.place) {
                self.queue.remove(&place);
            }
            return;
        }
        // A block that its CID holds itself is never asked for by an honest peer.
        if cid.hash().code() == Codec::IDENTITY || (self.wants.len() >= MAX_WANTS && !self.wants.contains_key(&key)) {
            return;
        }
        let want = self.wants.entry(key.clone()).or_insert(Want {
            cid: *cid,
            block: false,
            dont_have: false,
            place: None,
        });
        want.block |= entry.want_type != WANT_HAVE;
        want.dont_have = entry.send_dont_have;
        Self::enqueue(&mut self.queue, &mut self.next_place, key, want);
    }

    fn enqueue(queue: &mut BTreeMap<u64, Key>, next_place: &mut u64, key: Key, want: &mut Want) {
        if want.place.is_none() {
            want.place = Some(*next_place);
            queue.insert(*next_place, key);
            *next_place += 1;
        }
    }

    /// A block is in the store now; says whether the peer wants it.
    pub(super) fn arrived(&mut self, multihash: &[u8]) -> bool {
        let range = (multihash.to_vec(), 0, 0)..=(multihash.to_vec(), u64::MAX, u64::MAX);
        let mut wanted = false;
        for (key, want) in self.wants.range_mut(range) {
            want.dont_have = false;
            Self::enqueue(&mut self.queue, &mut self.next_place, key.clone(), want);
            wanted = true;
        }
        wanted
    }

    /// Whether answers are owed.
    pub(super) fn owes(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The answer that is owed longest.
    pub(super) fn next(&mut self) -> Option<Owed> {
        let (_, key) = self.queue.pop_first()?;
        let want = self.wants.get_mut(&key)?;
        want.place = None;
        Some(Owed { cid: want.cid, block: want.block, dont_have: want.dont_have })
    }

    /// The peer was told that the block is here, or got it: the want is met, unless it became one for the block.
    pub(super) fn met(&mut self, cid: &Cid, with_block: bool) {
        let key = key(cid);
        if self.wants.get(&key).is_some_and(|want| with_block || !want.block)
            && let Some(place) = self.wants.remove(&key).and_then(|want| want.place)
        {
            self.queue.remove(&place);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use cluster_core::unixfs::CidBuilder;

    use super::super::wire::WANT_BLOCK;
    use super::*;

    fn cid(number: usize) -> Cid {
        CidBuilder::new(1, "sha2-256").unwrap().cid(Codec::RAW, &number.to_be_bytes())
    }

    fn entry(number: usize, want_type: i32) -> Entry {
        Entry { cid: cid(number).to_bytes().into(), priority: 1, cancel: false, want_type, send_dont_have: true }
    }

    fn list(entries: Vec<Entry>, full: bool) -> Wantlist {
        Wantlist { entries, full }
    }

    fn drain(ledger: &mut Ledger) -> Vec<(Cid, bool)> {
        std::iter::from_fn(|| ledger.next()).map(|owed| (owed.cid, owed.block)).collect()
    }

    #[test]
    fn answers_come_in_order_and_once() {
        let mut ledger = Ledger::default();
        ledger.apply(&list(vec![entry(1, WANT_HAVE), entry(2, WANT_BLOCK), entry(1, WANT_HAVE)], false));
        assert_eq!(drain(&mut ledger), [(cid(1), false), (cid(2), true)]);
        ledger.met(&cid(2), true);
        assert!(!ledger.arrived(&cid(2).hash_bytes()));
        assert!(ledger.arrived(&cid(1).hash_bytes()), "an absent block stays wanted");
        assert_eq!(drain(&mut ledger), [(cid(1), false)]);
    }

    #[test]
    fn a_question_that_becomes_a_wish_for_the_block_is_not_met_by_a_have() {
        let mut ledger = Ledger::default();
        ledger.apply(&list(vec![entry(1, WANT_HAVE)], false));
        drain(&mut ledger);
        ledger.apply(&list(vec![entry(1, WANT_BLOCK)], false));
        ledger.met(&cid(1), false);
        assert_eq!(drain(&mut ledger), [(cid(1), true)]);
    }

    #[test]
    fn a_full_list_replaces_and_a_cancel_removes() {
        let mut ledger = Ledger::default();
        ledger.apply(&list((0..5).map(|number| entry(number, WANT_BLOCK)).collect(), false));
        ledger.apply(&list(vec![entry(7, WANT_BLOCK), entry(8, WANT_BLOCK)], true));
        ledger.apply(&list(vec![Entry { cancel: true, ..entry(7, WANT_BLOCK) }], false));
        assert_eq!(drain(&mut ledger), [(cid(8), true)]);
    }

    #[test]
    fn a_greedy_peer_is_bounded() {
        let mut ledger = Ledger::default();
        for round in 0..3 {
            ledger.apply(&list((0..MAX_WANTS).map(|number| entry(round * 5000 + number, WANT_BLOCK)).collect(), false));
        }
        // Wanting and cancelling in turn leaves nothing behind.
        for _ in 0..10 {
            ledger.apply(&list(vec![Entry { cancel: true, ..entry(0, WANT_BLOCK) }, entry(0, WANT_BLOCK)], false));
        }
        assert_eq!((ledger.wants.len(), ledger.queue.len()), (MAX_WANTS, MAX_WANTS));
        ledger.apply(&list(vec![Entry { cid: vec![1, 2, 3].into(), ..entry(0, WANT_BLOCK) }], true));
        assert!(!ledger.owes());
    }
}
