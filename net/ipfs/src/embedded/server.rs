//! What one peer wants of us, and what it is owed. Pure.
//!
//! A want whose block is absent stays after its answer, so that the peer hears of it when the block arrives.
//!
//! **Invariant:** at most [`MAX_WANTS`] wants per peer, each in exactly one place: the queue of answers, the waiting
//! room of those that were answered, or with the caller of [`Ledger::next`].
//! **Invariant:** when there are too many, a new want displaces the one that waits longest, never one that is owed an
//! answer; when all are owed one, the new want is ignored, and the peer asks again or elsewhere.

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
    place: Place,
}

/// Where a want is; the number is its key there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Owed an answer.
    Queued(u64),
    /// Answered, or being answered, and kept.
    Waiting(u64),
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
    waiting: BTreeMap<u64, Key>,
    last_place: u64,
}

fn key(cid: &Cid) -> Key {
    (cid.hash_bytes(), cid.version(), cid.codec())
}

impl Ledger {
    /// Takes changes from the peer.
    pub(super) fn apply(&mut self, wantlist: &Wantlist) {
        if wantlist.full {
            self.clear();
        }
        for entry in &wantlist.entries {
            match Cid::from_bytes(&entry.cid) {
                Ok(cid) if entry.cancel => self.remove(&key(&cid)),
                // A block that its CID holds itself is never asked for by an honest peer.
                Ok(cid) if cid.hash().code() != Codec::IDENTITY => self.add(cid, entry),
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn add(&mut self, cid: Cid, entry: &Entry) {
        let key = key(&cid);
        if !self.wants.contains_key(&key) {
            if self.wants.len() >= MAX_WANTS {
                let Some((_, displaced)) = self.waiting.pop_first() else { return };
                self.wants.remove(&displaced);
            }
            let want = Want { cid, block: false, dont_have: false, place: Place::Waiting(0) };
            self.wants.insert(key.clone(), want);
        }
        if let Some(want) = self.wants.get_mut(&key) {
            want.block |= entry.want_type != WANT_HAVE;
            want.dont_have = entry.send_dont_have;
        }
        self.enqueue(key);
    }

    /// Owes an answer to a want, once.
    fn enqueue(&mut self, key: Key) {
        let Some(want) = self.wants.get_mut(&key) else { return };
        if let Place::Waiting(place) = want.place {
            self.last_place += 1;
            want.place = Place::Queued(self.last_place);
            self.waiting.remove(&place);
            self.queue.insert(self.last_place, key);
        }
    }

    fn remove(&mut self, key: &Key) {
        match self.wants.remove(key).map(|want| want.place) {
            Some(Place::Queued(place)) => drop(self.queue.remove(&place)),
            Some(Place::Waiting(place)) => drop(self.waiting.remove(&place)),
            None => {}
        }
    }

    /// A block is in the store now; says whether the peer wants it.
    pub(super) fn arrived(&mut self, multihash: &[u8]) -> bool {
        let range = (multihash.to_vec(), 0, 0)..=(multihash.to_vec(), u64::MAX, u64::MAX);
        let keys: Vec<_> = self.wants.range(range).map(|(key, _)| key.clone()).collect();
        let wanted = !keys.is_empty();
        for key in keys {
            self.enqueue(key);
        }
        wanted
    }

    /// Whether answers are owed.
    pub(super) fn owes(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The answer that is owed longest.
    pub(super) fn next(&mut self) -> Option<Owed> {
        let (place, key) = self.queue.pop_first()?;
        let want = self.wants.get_mut(&key)?;
        want.place = Place::Waiting(place);
        let owed = Owed { cid: want.cid, block: want.block, dont_have: want.dont_have };
        self.waiting.insert(place, key);
        Some(owed)
    }

    /// The peer was told that the block is here, or got it: the want is met, unless it became one for the block.
    pub(super) fn met(&mut self, cid: &Cid, with_block: bool) {
        let key = key(cid);
        if self.wants.get(&key).is_some_and(|want| with_block || !want.block) {
            self.remove(&key);
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
        assert_eq!((ledger.wants.len(), ledger.queue.len(), ledger.waiting.len()), (MAX_WANTS, MAX_WANTS, 0));
        // Absent blocks that were answered make room for new questions.
        assert_eq!(drain(&mut ledger).len(), MAX_WANTS);
        ledger.apply(&list(vec![entry(999_999, WANT_HAVE)], false));
        assert_eq!(drain(&mut ledger), [(cid(999_999), false)]);
        assert_eq!((ledger.wants.len(), ledger.queue.len(), ledger.waiting.len()), (MAX_WANTS, 0, MAX_WANTS));
        ledger.apply(&list(vec![Entry { cid: vec![1, 2, 3].into(), ..entry(0, WANT_BLOCK) }], true));
        assert!(!ledger.owes());
    }
}
