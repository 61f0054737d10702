//! The world of the model: a log, peers, cuts and gossip, all from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use cluster_types::{Cid, PeerId, Pin, PinMode, PinOptions, Timestamp};

use super::super::set::{MergeFn, MergedSet, merge_all_with};
use super::super::{Conflict, Eventual, History, MergeState, Place, Sight, VersionId, Wish, Write};

/// A small seeded generator, so that a seed means the same for ever.
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for place in (1..list.len()).rev() {
            list.swap(place, self.below(place + 1));
        }
    }
}

/// What a peer holds at some index of the log.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) records: BTreeMap<Cid, Pin>,
    pub(super) histories: BTreeMap<Cid, History>,
    pub(super) known: BTreeSet<VersionId>,
}

impl MergeState for State {
    type Error = Infallible;

    fn record(&self, cid: &Cid) -> Result<Option<Pin>, Infallible> {
        Ok(self.records.get(cid).cloned())
    }

    fn history(&self, cid: &Cid) -> Result<Option<History>, Infallible> {
        Ok(self.histories.get(cid).cloned())
    }

    fn is_known(&self, id: &VersionId) -> Result<bool, Infallible> {
        Ok(self.known.contains(id))
    }
}

/// What an entry of the log does.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Put(Box<Pin>),
    Remove(Cid),
    Reallocate(Cid, Vec<PeerId>),
    Merge(Vec<Eventual>),
}

/// Applies an entry.
pub(super) fn apply(state: &mut State, merge: MergeFn, index: u64, time: Timestamp, entry: &Entry) -> MergedSet {
    match entry {
        Entry::Put(pin) => drop(state.records.insert(pin.cid, pin.as_ref().clone())),
        Entry::Remove(cid) => drop(state.records.remove(cid)),
        Entry::Reallocate(cid, allocations) => {
            if let Some(pin) = state.records.get_mut(cid) {
                pin.allocations.clone_from(allocations);
            }
        }
        Entry::Merge(writes) => {
            let Ok(set) = merge_all_with(merge, state, writes.iter().cloned(), Place::entry(index, time, 0));
            for merged in &set.cids {
                match &merged.record {
                    Some(record) => drop(state.records.insert(merged.cid, record.clone())),
                    None => drop(state.records.remove(&merged.cid)),
                }
                state.histories.insert(merged.cid, merged.history.clone());
            }
            state.known.extend(&set.remember);
            return set;
        }
    }
    MergedSet::default()
}

/// A wish, and the wishes its author had seen.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) cid: Cid,
    pub(super) author: Option<PeerId>,
    pub(super) wish: Wish,
    pub(super) record: Option<Pin>,
    pub(super) seen: BTreeSet<usize>,
}

/// A peer: how far it is in the log, and the eventual writes it holds.
#[derive(Debug, Default)]
struct Replica {
    applied: usize,
    held: BTreeMap<VersionId, Eventual>,
    side: usize,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) chance: Chance,
    pub(super) merge: MergeFn,
    seconds: i64,
    serial: i64,
    peers: Vec<PeerId>,
    pub(super) cids: Vec<Cid>,
    replicas: Vec<Replica>,
    /// The entries and their times; the first has index 1.
    pub(super) log: Vec<(Timestamp, Entry)>,
    /// The state after each index.
    pub(super) states: Vec<State>,
    pub(super) events: Vec<Event>,
    /// The wishes that are in the log after each index, directly or seen by one that is.
    pub(super) in_log: Vec<BTreeSet<usize>>,
    pub(super) by_write: BTreeMap<VersionId, usize>,
    /// Indexes that some write has as its base: merges are not moved over them.
    pub(super) bases: BTreeSet<usize>,
    pub(super) conflicts: Vec<Conflict>,
    /// Whether the last merge of a CID asked for new allocations.
    pub(super) asked: BTreeMap<Cid, bool>,
    /// The allocations that repairs chose.
    pub(super) repaired: BTreeSet<(Cid, Vec<PeerId>)>,
}

impl World {
    pub(super) fn new(seed: u64, merge: MergeFn) -> Self {
        let mut chance = Chance::new(seed);
        let count = 2 + chance.below(4);
        Self {
            merge,
            seconds: 1_800_000_000,
            serial: 0,
            peers: (0..count).map(peer).collect(),
            cids: (0..2).map(crate::tracker::fakes::cid).collect(),
            replicas: (0..count).map(|_| Replica::default()).collect(),
            log: Vec::new(),
            states: vec![State::default()],
            events: Vec::new(),
            in_log: vec![BTreeSet::new()],
            by_write: BTreeMap::new(),
            bases: BTreeSet::new(),
            conflicts: Vec::new(),
            asked: BTreeMap::new(),
            repaired: BTreeSet::new(),
            chance,
        }
    }

    /// Plays a few rounds of cuts and heals; in the end every write is in the log.
    pub(super) fn run(&mut self) {
        // Most begin with something that all of them know and can disagree about.
        if !self.chance.one_in(4) {
            self.commit();
            self.commit();
            let applied = self.log.len();
            self.replicas.iter_mut().for_each(|replica| replica.applied = applied);
        }
        for _ in 0..1 + self.chance.below(3) {
            self.cut();
            for _ in 0..3 + self.chance.below(7) {
                self.step();
            }
        }
        self.replicas.iter_mut().for_each(|replica| replica.side = 0);
        while self.propose() {
            if self.chance.one_in(4) {
                self.commit();
            }
        }
    }

    pub(super) fn end(&self) -> &State {
        self.states.last().unwrap()
    }

    fn cut(&mut self) {
        let sides = 1 + self.chance.below(3);
        for number in 0..self.replicas.len() {
            self.replicas[number].side = self.chance.below(sides);
        }
    }

    /// The side that can write to the log, if one has most of the peers.
    fn majority(&self) -> Option<usize> {
        let count = |side| self.replicas.iter().filter(|replica| replica.side == side).count();
        (0..3).find(|side| count(*side) * 2 > self.replicas.len())
    }

    fn step(&mut self) {
        self.seconds += i64::try_from(self.chance.below(3)).unwrap();
        let number = self.chance.below(self.replicas.len());
        let leads = self.majority() == Some(self.replicas[number].side);
        match (leads, self.chance.below(8)) {
            (true, 0..=2) => self.commit(),
            (true, 3) => drop(self.propose()),
            (true, 4) => self.catch_up(number),
            (false, 0..=4) => self.write(number),
            (_, _) => self.gossip(number),
        }
    }

    fn now(&mut self) -> Timestamp {
        self.serial += 1;
        Timestamp::from_unix_nanos(i128::from(self.seconds * 1_000_000_000 + self.serial))
    }

    /// Applies a few more entries at one peer.
    fn catch_up(&mut self, number: usize) {
        let applied = self.replicas[number].applied;
        let applied = applied + self.chance.below(self.log.len() - applied + 1);
        self.replicas[number].applied = applied;
        let known = &self.states[applied].known;
        self.replicas[number].held.retain(|id, _| !known.contains(id));
    }

    /// One peer tells some of what it holds to another on its side.
    fn gossip(&mut self, from: usize) {
        let to = self.chance.below(self.replicas.len());
        if to == from || self.replicas[to].side != self.replicas[from].side {
            return;
        }
        let all = self.chance.one_in(2);
        for (id, write) in self.replicas[from].held.clone() {
            let known = self.states[self.replicas[to].applied].known.contains(&id);
            if !known && (all || self.chance.one_in(2)) {
                self.replicas[to].held.insert(id, write);
            }
        }
    }

    fn append(&mut self, entry: Entry) {
        let (index, time) = (self.log.len() + 1, Timestamp::from_unix_seconds(self.seconds + 1));
        let mut state = self.end().clone();
        let set = apply(&mut state, self.merge, u64::try_from(index).unwrap(), time, &entry);
        let mut in_log = self.in_log[index - 1].clone();
        if let Entry::Merge(writes) = &entry {
            for event in writes.iter().filter_map(|write| self.by_write.get(&write.id())) {
                in_log.extend(&self.events[*event].seen);
                in_log.insert(*event);
            }
        }
        self.asked.extend(set.cids.iter().map(|merged| (merged.cid, merged.reallocate)));
        self.conflicts.extend(set.conflicts);
        self.states.push(state);
        self.in_log.push(in_log);
        self.log.push((time, entry));
    }

    /// Merges some of what the peers of the majority hold; says whether there was anything.
    fn propose(&mut self) -> bool {
        let side = self.majority();
        let held: BTreeMap<_, _> = self
            .replicas
            .iter()
            .filter(|replica| Some(replica.side) == side)
            .flat_map(|replica| replica.held.iter().map(|(id, write)| (*id, write.clone())))
            .collect();
        let mut held: Vec<Eventual> = held.into_values().collect();
        self.chance.shuffle(&mut held);
        held.truncate(1 + self.chance.below(4));
        for replica in self.replicas.iter_mut().filter(|replica| Some(replica.side) == side) {
            // Some forget to take it out of their outbox and propose it again.
            if !self.chance.one_in(8) {
                held.iter().for_each(|write| drop(replica.held.remove(&write.id())));
            }
        }
        let any = !held.is_empty();
        if any {
            self.append(Entry::Merge(held));
        }
        any
    }

    fn wanted(&mut self, cid: Cid, shown: Option<&Pin>, other: Option<&Pin>) -> Pin {
        let names = ["a", "b", "c"];
        let mut options = PinOptions {
            replication_factor_min: 1,
            replication_factor_max: 2,
            name: names[self.chance.below(names.len())].to_owned(),
            ..PinOptions::default()
        };
        if self.chance.one_in(3) {
            let ahead = i64::try_from(self.chance.below(6)).unwrap();
            options.expire_at = Timestamp::from_unix_seconds(self.seconds + ahead);
        }
        if shown.is_none() && self.chance.one_in(4) {
            options.mode = PinMode::Direct;
        }
        // Updated from the other pin: its options, and where it came from.
        if let Some(other) = other.filter(|_| self.chance.one_in(4)) {
            options = PinOptions { pin_update: Some(other.cid), mode: PinMode::Recursive, ..other.options.clone() };
        }
        let mut pin = Pin::new(cid, options);
        pin.allocations = self.holders();
        pin
    }

    fn holders(&mut self) -> Vec<PeerId> {
        let first = self.chance.below(self.peers.len());
        vec![self.peers[first], peer(10 + self.chance.below(3))]
    }

    /// An operation with a quorum.
    fn commit(&mut self) {
        let which = self.chance.below(self.cids.len());
        let cid = self.cids[which];
        let now = self.end().records.get(&cid).cloned();
        let due = now.as_ref().is_some_and(|pin| self.is_due(pin));
        let choice = if now.is_none() { 0 } else { self.chance.below(4) };
        let (wish, entry, record) = match choice {
            1 => (Wish::Unpin, Entry::Remove(cid), None),
            2 => {
                let holders = self.holders();
                self.repaired.insert((cid, holders.clone()));
                return self.append(Entry::Reallocate(cid, holders));
            }
            3 if due => (Wish::Expire, Entry::Remove(cid), None),
            _ => {
                let mut pin = self.wanted(cid, now.as_ref(), None);
                pin.timestamp = self.now().whole_seconds();
                pin.options.name = format!("log {}", self.serial);
                (Wish::Pin, Entry::Put(Box::new(pin.clone())), Some(pin))
            }
        };
        let seen = self.in_log[self.log.len()].clone();
        let event = self.note(Event { cid, author: None, wish, record, seen });
        self.append(entry);
        self.in_log.last_mut().unwrap().insert(event);
    }

    fn is_due(&self, pin: &Pin) -> bool {
        !pin.options.expire_at.is_zero() && pin.options.expire_at.unix_seconds() <= self.seconds
    }

    /// Notes a wish; of what its author had seen only that on the same CID matters.
    fn note(&mut self, mut event: Event) -> usize {
        event.seen.retain(|seen| self.events[*seen].cid == event.cid);
        self.events.push(event);
        self.events.len() - 1
    }

    /// What a peer shows for a CID.
    fn shown(&self, number: usize, cid: Cid) -> Option<Pin> {
        let replica = &self.replicas[number];
        let state = &self.states[replica.applied];
        let held = replica.held.values().filter(|write| write.cid == cid).cloned();
        let place =
            Place::overlay(u64::try_from(replica.applied).unwrap(), Timestamp::from_unix_seconds(self.seconds + 1));
        let Ok(set) = merge_all_with(self.merge, state, held, place);
        match set.cids.into_iter().next() {
            Some(merged) => merged.record,
            None => state.records.get(&cid).cloned(),
        }
    }

    /// An operation without a quorum.
    fn write(&mut self, number: usize) {
        let which = self.chance.below(self.cids.len());
        let (cid, other) = (self.cids[which], self.cids[1 - which]);
        let (shown, other) = (self.shown(number, cid), self.shown(number, other));
        let applied = self.replicas[number].applied;
        let record = self.states[applied].records.get(&cid);
        let mut sight = Sight::of_state(u64::try_from(applied).unwrap(), record);
        let mut seen = self.in_log[applied].clone();
        let held = self.replicas[number].held.values().filter(|write| write.cid == cid);
        for write in held.filter(|write| !self.states[applied].known.contains(&write.id())) {
            sight.add(write);
            if let Some(event) = self.by_write.get(&write.id()) {
                seen.extend(&self.events[*event].seen);
                seen.insert(*event);
            }
        }
        let time = self.now();
        let write = Write::by(self.peers[number], time, cid, shown.clone(), sight);
        let choice = if shown.is_none() { 0 } else { self.chance.below(6) };
        let due = shown.as_ref().is_some_and(|pin| self.is_due(pin));
        let write = match choice {
            1 | 2 => write.unpin(),
            3 | 5 => write.reallocate(self.holders()),
            4 if due => write.expire(),
            _ => write.pin(self.wanted(cid, shown.as_ref(), other.as_ref())),
        };
        // A recursive pin is not made a direct one, here as with a quorum.
        let Ok(write) = Eventual::new(write) else { return };
        if write.wish == Wish::Reallocate {
            self.repaired.insert((cid, write.result.clone().unwrap().allocations));
        } else {
            let (author, record) = (Some(write.author), write.result.clone());
            let event = self.note(Event { cid, author, wish: write.wish, record, seen });
            self.by_write.insert(write.id(), event);
        }
        self.bases.insert(applied);
        self.replicas[number].held.insert(write.id(), write);
    }
}

pub(in super::super) fn peer(number: usize) -> PeerId {
    let mut bytes = vec![0x12, 0x20];
    bytes.extend_from_slice(&[u8::try_from(number).unwrap(); 32]);
    PeerId::from_bytes(&bytes).unwrap()
}
