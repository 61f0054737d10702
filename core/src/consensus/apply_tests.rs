//! Apply, judged on a state in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_types::{PeerId, PinOptions};

use super::*;
use crate::crdt::{Records, ShardMeta, epoch};
use crate::ports::{MergeView, OutboxCount, ShardSum, TailPlace, TrackerRecord, Waiting};

#[derive(Clone, Default)]
struct State {
    clock: LogClock,
    pins: BTreeMap<Cid, Pin>,
    shards: BTreeMap<u16, ShardSum>,
    metas: BTreeMap<u16, ShardMeta>,
    tails: BTreeMap<(u16, TailPlace), TailEntry>,
    index: u64,
    outcomes: BTreeMap<RequestKey, Bytes>,
    histories: BTreeMap<Cid, History>,
    merged: BTreeMap<VersionId, MergedAt>,
    conflicts: Vec<ConflictEvent>,
}

impl MergeView for State {
    fn shown(&self, cid: &Cid) -> Result<Option<Pin>, StateError> {
        Ok(self.pins.get(cid).cloned())
    }
    fn outbox_count(&self) -> OutboxCount {
        OutboxCount::default()
    }
    fn waiting(&self, _: &Cid) -> Result<Vec<Waiting>, StateError> {
        Ok(Vec::new())
    }
    fn histories(&self) -> u64 {
        self.histories.len() as u64
    }
    fn history(&self, cid: &Cid) -> Result<Option<History>, StateError> {
        Ok(self.histories.get(cid).cloned())
    }
    fn is_merged(&self, id: &VersionId) -> Result<bool, StateError> {
        Ok(self.merged.contains_key(id))
    }
    fn oldest_histories(&self, limit: usize) -> Result<Vec<(Cid, u64)>, StateError> {
        let mut all: Vec<_> = self.histories.iter().map(|(cid, history)| (*cid, history.last_merged())).collect();
        all.sort_by_cached_key(|(cid, last)| (*last, crate::consensus::digest::order_key(cid)));
        all.truncate(limit);
        Ok(all)
    }
    fn oldest_merged(&self, limit: usize) -> Result<Vec<(VersionId, MergedAt)>, StateError> {
        let mut all: Vec<_> = self.merged.iter().map(|(id, at)| (*id, *at)).collect();
        all.sort_unstable_by_key(|(id, at)| (at.index, *id));
        all.truncate(limit);
        Ok(all)
    }
}

impl StateView for State {
    fn pin(&self, cid: &Cid) -> Result<Option<Pin>, StateError> {
        Ok(self.pins.get(cid).cloned())
    }
    fn shard(&self, shard: u16) -> Result<ShardState, StateError> {
        let sum = self.shards.get(&shard).copied().unwrap_or_default();
        Ok(ShardState { sum, meta: self.metas.get(&shard).copied().unwrap_or_default(), tail_from: 0 })
    }
    fn shard_pins(&self, _: u16, _: Option<&Cid>, _: usize) -> Result<Vec<Pin>, StateError> {
        unreachable!("apply reads no pages")
    }
    fn tail(&self, _: u16, _: TailPlace, _: usize) -> Result<Vec<(TailPlace, TailEntry)>, StateError> {
        unreachable!("apply reads no pages")
    }
    fn outcome(&self, key: &RequestKey) -> Result<Option<Bytes>, StateError> {
        Ok(self.outcomes.get(key).cloned())
    }
    fn tracked(&self, _cid: &Cid) -> Result<Option<TrackerRecord>, StateError> {
        Ok(None)
    }
}

impl State {
    fn apply(&mut self, entries: &[Entry]) -> Vec<Vec<Outcome>> {
        let effect: LocalEffect = Arc::new(|_, _, _| None);
        let numbered = (self.index + 1..).zip(entries);
        let applied = apply(self, self.clock, numbered, &effect).unwrap();
        self.index += entries.len() as u64;
        self.clock = applied.clock;
        self.keep_tails(&applied.changes);
        self.keep_merges(&applied.changes);
        for change in applied.changes.pins {
            match change.after {
                Some(pin) => drop(self.pins.insert(change.cid, pin)),
                None => drop(self.pins.remove(&change.cid)),
            }
        }
        for (shard, state) in applied.changes.shards {
            self.shards.insert(shard, state.sum);
            self.metas.insert(shard, state.meta);
        }
        self.shards.retain(|_, sum| *sum != ShardSum::default());
        if let Some(window) = applied.changes.forget_before_window {
            self.outcomes.retain(|key, _| key.window >= window);
        }
        self.outcomes.extend(applied.changes.outcomes);
        applied.answers
    }

    fn keep_merges(&mut self, changes: &Changes) {
        for (cid, history) in &changes.histories {
            match history {
                Some(history) => drop(self.histories.insert(*cid, history.clone())),
                None => drop(self.histories.remove(cid)),
            }
        }
        for (id, _at) in &changes.forget_merged {
            assert!(self.merged.remove(id).is_some() || changes.merged.iter().all(|(new, _)| new != id));
        }
        self.merged.extend(changes.merged.iter().copied());
        self.conflicts.extend(changes.conflicts.iter().cloned());
    }

    fn keep_tails(&mut self, changes: &Changes) {
        for (shard, up_to) in &changes.drop_tail {
            self.tails.retain(|(of, place), _| of != shard || place.index > *up_to);
        }
        for row in &changes.tail {
            let place = TailPlace { index: row.entry.index, place: row.place };
            assert_eq!(self.tails.insert((row.shard, place), row.entry.clone()), None, "each place is taken once");
        }
    }

    /// The records of a shard in canonical form.
    fn records(&self, shard: u16) -> Records {
        let pins = self.pins.values().filter(|pin| shard_of(&pin.cid) == shard);
        pins.map(|pin| (pin.cid, Bytes::from(encode_pin(pin)))).collect()
    }

    fn recomputed(&self) -> BTreeMap<u16, ShardSum> {
        let mut shards: BTreeMap<u16, ShardSum> = BTreeMap::new();
        for pin in self.pins.values() {
            shards.entry(shard_of(&pin.cid)).or_default().add(pin);
        }
        shards
    }
}

fn cid(number: u8) -> Cid {
    let hash = cluster_types_hash(number);
    Cid::new_v1(0x55, hash)
}

fn cluster_types_hash(number: u8) -> multihash_codetable::Multihash {
    use multihash_codetable::MultihashDigest;
    multihash_codetable::Code::Sha2_256.digest(&[number])
}

fn pin(number: u8, name: &str) -> Pin {
    let options = PinOptions { name: name.to_owned(), ..PinOptions::default() };
    let mut pin = Pin::new(cid(number), options);
    pin.timestamp = Timestamp::from_unix_seconds(1_000);
    pin
}

fn entry(seconds: i64, operations: Vec<(u8, Operation)>) -> Entry {
    Entry {
        time: Timestamp::from_unix_seconds(seconds),
        operations: operations.into_iter().map(|(id, operation)| Proposed { id: [id; 16], operation }).collect(),
    }
}

fn put(number: u8, name: &str) -> Operation {
    Operation::Put(Box::new(pin(number, name)))
}

#[test]
fn every_operation_gets_its_own_answer() {
    let mut state = State::default();
    let answers = state.apply(&[
        entry(60, vec![(1, put(1, "a")), (2, Operation::Remove { cid: cid(2) })]),
        entry(61, vec![(3, Operation::Remove { cid: cid(1) }), (4, put(1, "b"))]),
    ]);
    assert!(matches!(&answers[0][0], Outcome::Pinned(pin) if pin.options.name == "a"));
    assert!(matches!(&answers[0][1], Outcome::Refused(error) if error.message == NOT_PINNED));
    assert!(matches!(&answers[1][0], Outcome::Unpinned(pin) if pin.options.name == "a"));
    assert_eq!(state.pins[&cid(1)].options.name, "b");
    assert_eq!(state.shards, state.recomputed());
}

#[test]
fn a_repeated_request_takes_effect_once_and_gets_the_same_answer() {
    let mut state = State::default();
    let remove = || entry(200, vec![(9, Operation::Remove { cid: cid(1) })]);
    state.apply(&[entry(180, vec![(1, put(1, "a"))])]);
    let first = state.apply(&[remove()]);
    state.apply(&[entry(210, vec![(2, put(1, "again"))])]);
    let second = state.apply(&[remove()]);
    assert_eq!(first, second);
    assert_eq!(state.pins[&cid(1)].options.name, "again", "the second removal must not count");
    // Within one batch too.
    let twice = state.apply(&[entry(220, vec![(7, put(3, "x"))]), entry(221, vec![(7, put(3, "x"))])]);
    assert_eq!(twice[0], twice[1]);
    assert_eq!(state.shards, state.recomputed());
}

#[test]
fn outcomes_are_forgotten_by_windows_of_the_log_whatever_clocks_say() {
    let mut state = State::default();
    state.apply(&[entry(600, vec![(1, put(1, "a"))])]);
    let first = state.clock.window;
    assert_eq!(state.outcomes.len(), 1);
    // A leader from the far future, then one from the past: a window each, not a century.
    state.apply(&[entry(4_000_000_000, vec![(2, put(2, "b"))])]);
    state.apply(&[entry(1, vec![(3, put(3, "c"))])]);
    assert_eq!(state.clock.window, first + 2);
    assert_eq!(state.outcomes.len(), 3);
    for minute in 1..=4 {
        state.apply(&[entry(60 * minute, vec![(minute.to_le_bytes()[0] + 10, put(4, "d"))])]);
    }
    assert!(state.outcomes.keys().all(|key| key.window + REMEMBERED_WINDOWS >= state.clock.window));
    assert!(!state.outcomes.keys().any(|key| key.id == [1; 16]), "the oldest is forgotten");
}

#[test]
fn how_entries_are_grouped_does_not_matter() {
    // The same request comes back after its time: whoever applies it in one go must not remember more.
    let log: Vec<Entry> = (0..12)
        .flat_map(|minute| {
            let id = u8::try_from(minute % 7).unwrap();
            let remove = (id + 100, Operation::Remove { cid: cid(1) });
            [entry(minute * 60, vec![(id, put(1, &minute.to_string()))]), entry(minute * 60 + 1, vec![remove])]
        })
        .collect();
    let mut together = State::default();
    let answers = together.apply(&log);
    let mut one_by_one = State::default();
    let single: Vec<_> = log.iter().flat_map(|entry| one_by_one.apply(std::slice::from_ref(entry))).collect();
    assert_eq!(answers, single);
    assert_eq!((together.metas, together.tails), (one_by_one.metas, one_by_one.tails));
    assert_eq!(
        (together.pins, together.shards, together.clock),
        (one_by_one.pins, one_by_one.shards, one_by_one.clock)
    );
}

#[test]
fn a_tail_undoes_every_entry_it_covers_whatever_the_groups() {
    // Long enough that the shard begins several epochs, also two within a group.
    let entry_at = |number: u8| {
        let operation = if number % 3 == 2 { Operation::Remove { cid: cid(1) } } else { put(1, &number.to_string()) };
        // Now and then an entry leaves everything as it was before.
        let end = if number % 7 == 6 { number - 1 } else { number };
        let operations = [operation, put(1, "short-lived"), put(1, &format!("end {end}"))];
        let mut proposed = Vec::new();
        for (of, operation) in (0..).zip(operations) {
            let mut id = [number; 16];
            id[0] = of;
            proposed.push(Proposed { id, operation });
        }
        Entry { time: Timestamp::from_unix_seconds(60), operations: proposed }
    };
    let shard = shard_of(&cid(1));
    let log: Vec<Entry> = (u8::MIN..=u8::MAX).map(entry_at).collect();
    let mut single = State::default();
    let mut past = vec![single.records(shard)];
    for entry in &log {
        single.apply(std::slice::from_ref(entry));
        past.push(single.records(shard));
    }
    assert!(single.metas[&shard].previous > 0, "{:?}", single.metas);
    for size in [2, 7, 100, 256] {
        let mut state = State::default();
        log.chunks(size).for_each(|group| drop(state.apply(group)));
        assert_eq!((&state.metas, &state.tails), (&single.metas, &single.tails), "groups of {size}");
        assert_eq!(state.shards, state.recomputed());
    }
    let meta = single.metas[&shard];
    assert_eq!(single.tails.len() as u64, meta.since_previous);
    for index in meta.previous..=256 {
        let mut records = single.records(shard);
        epoch::undo(&mut records, single.tails.values(), index);
        assert_eq!(records, past[usize::try_from(index).unwrap()], "as of {index}");
    }
}

#[test]
fn a_refused_change_leaves_everything_as_it_was() {
    let mut state = State::default();
    state.apply(&[entry(60, vec![(1, put(1, "a"))])]);
    let (pins, shards) = (state.pins.clone(), state.shards.clone());
    let mut direct = pin(1, "direct");
    direct.max_depth = cluster_types::PinDepth::DIRECT;
    let mut shard = pin(1, "shard");
    shard.kind = PinType::Shard;
    let answers =
        state.apply(&[entry(61, vec![(2, Operation::Put(Box::new(direct))), (3, Operation::Put(Box::new(shard)))])]);
    assert!(answers[0].iter().all(|outcome| matches!(outcome, Outcome::Refused(_))));
    assert_eq!((state.pins.clone(), state.shards.clone()), (pins, shards));
}

#[test]
fn parts_of_a_sharded_pin_go_only_with_it() {
    let kinds = [PinType::Shard, PinType::ClusterDag, PinType::Data, PinType::Meta];
    let refused = |remove: fn(Cid) -> Operation| -> [bool; 4] {
        let mut state = State::default();
        let pins = (1..).zip(kinds).map(|(number, kind)| Pin { kind, ..pin(number, "n") });
        state.apply(&[entry(60, (1..).zip(pins.map(|pin| Operation::Put(Box::new(pin)))).collect())]);
        let removes = (1..5).map(|number| (10 + number, remove(cid(number)))).collect();
        let answers = state.apply(&[entry(61, removes)]);
        std::array::from_fn(|place| matches!(answers[0][place], Outcome::Refused(_)))
    };
    assert_eq!(refused(|cid| Operation::Remove { cid }), [true, true, false, false]);
    assert_eq!(refused(|cid| Operation::RemovePart { cid }), [false, false, true, true]);
}

#[test]
fn a_reallocation_counts_only_while_its_ground_holds() {
    let mut state = State::default();
    let (a, b) = (PeerId::random(), PeerId::random());
    let mut first = pin(1, "a");
    first.allocations = vec![a];
    state.apply(&[entry(60, vec![(1, Operation::Put(Box::new(first.clone())))])]);
    let mut moved = first.clone();
    moved.allocations = vec![b];
    moved.options.name = "stale copy".to_owned();
    moved.timestamp = Timestamp::from_unix_seconds(2_000);
    let reallocate = |was: Vec<PeerId>| Operation::Reallocate { pin: Box::new(moved.clone()), was };
    state.apply(&[entry(61, vec![(2, reallocate(vec![b]))])]);
    assert_eq!(state.pins[&cid(1)].allocations, vec![a]);
    state.apply(&[entry(62, vec![(3, reallocate(vec![a]))])]);
    assert_eq!(state.pins[&cid(1)].allocations, vec![b]);
    assert_eq!(state.pins[&cid(1)].options.name, "a", "only allocations move");
    assert_eq!(state.pins[&cid(1)].timestamp, first.timestamp, "a reallocation is nobody's wish");
}

#[test]
fn a_pin_expires_by_the_clock_of_the_log() {
    let mut state = State::default();
    let mut short = pin(1, "short");
    short.options.expire_at = Timestamp::from_unix_seconds(100);
    state.apply(&[entry(60, vec![(1, Operation::Put(Box::new(short)))])]);
    state.apply(&[entry(99, vec![(2, Operation::Expire { cid: cid(1) })])]);
    assert!(state.pins.contains_key(&cid(1)));
    state.apply(&[entry(100, vec![(3, Operation::Expire { cid: cid(1) })])]);
    assert!(state.pins.is_empty());
}

#[test]
fn this_peers_record_follows_every_change_however_entries_are_grouped() {
    use parking_lot::Mutex;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let effect: LocalEffect = {
        let seen = Arc::clone(&seen);
        Arc::new(move |before, after, _tracked| {
            let name = |pin: Option<&Pin>| pin.map(|pin| pin.options.name.clone());
            seen.lock().push((name(before), name(after)));
            Some(None)
        })
    };
    let mut state = State::default();
    state.apply(&[entry(60, vec![(1, put(1, "a"))])]);
    let back_again = [entry(61, vec![(2, Operation::Remove { cid: cid(1) })]), entry(62, vec![(3, put(1, "a"))])];
    let applied = apply(&state, state.clock, (2..).zip(&back_again), &effect).unwrap();
    let a = Some("a".to_owned());
    assert_eq!(*seen.lock(), [(a.clone(), None), (None, a)], "the node may have dropped it in between");
    assert!(applied.changes.pins.is_empty());
    assert_eq!(applied.changes.tracker, [(cid(1), None)]);
}

/// A write without a quorum by somebody who saw `base`, after a leader was asked in vain as request `attempt`.
fn tried(attempt: u8, index: u64, base: Option<&Pin>, wanted: Option<&Pin>) -> Operation {
    use crate::crdt::merge::{Eventual, Sight, Write};
    let (author, time) = (PeerId::random(), Timestamp::from_unix_seconds(1_100));
    let write = Write::by(author, time, cid(1), base.cloned(), Sight::of_state(index, base));
    let write = write.tried_as(Some([attempt; 16]));
    let write = match wanted {
        Some(pin) => write.pin(pin.clone()),
        None => write.unpin(),
    };
    Operation::Merge(Box::new(Merge { writes: vec![Eventual::new(write).unwrap()], holders: Vec::new() }))
}

fn everywhere(name: &str) -> Pin {
    let mut pin = pin(1, name);
    (pin.options.replication_factor_min, pin.options.replication_factor_max) = (-1, -1);
    normalised(pin)
}

/// The name that stands after operations, one an entry.
fn stands_after(operations: Vec<(u8, Operation)>) -> Option<String> {
    let mut state = State::default();
    for (at, operation) in (2_000..).zip(operations) {
        state.apply(&[entry(at, vec![operation])]);
    }
    state.pins.get(&cid(1)).map(|pin| pin.options.name.clone())
}

#[test]
fn a_request_that_a_leader_and_a_merge_carry_out_takes_effect_once() {
    let (a, b) = (everywhere("a"), everywhere("b"));
    let put = |pin: &Pin| Operation::Put(Box::new(pin.clone()));
    let remove = || Operation::Remove { cid: cid(1) };
    let pin_merged = || (50, tried(7, 0, None, Some(&a)));
    assert_eq!(stands_after(vec![pin_merged()]).as_deref(), Some("a"));
    assert_eq!(stands_after(vec![(7, put(&a)), pin_merged()]).as_deref(), Some("a"));
    assert_eq!(stands_after(vec![(7, put(&a)), (8, remove()), pin_merged()]), None, "it was removed since");
    assert_eq!(stands_after(vec![pin_merged(), (8, remove()), (7, put(&a))]), None, "the first attempt comes late");
    let unpin_merged = || (51, tried(9, 1, Some(&a), None));
    assert_eq!(stands_after(vec![(1, put(&a)), unpin_merged()]), None);
    let late = vec![(1, put(&a)), unpin_merged(), (2, put(&b)), (9, remove())];
    assert_eq!(stands_after(late).as_deref(), Some("b"), "the first attempt comes late, and b is not what it saw");
    let early = vec![(1, put(&a)), (9, remove()), (2, put(&a)), unpin_merged()];
    assert_eq!(stands_after(early).as_deref(), Some("a"), "it was pinned again since");
    // What had no effect in the log has it by the merge.
    assert_eq!(stands_after(vec![(9, remove()), (1, put(&a)), (51, tried(9, 2, Some(&a), None))]), None);
}

#[test]
fn who_saw_an_attempt_that_the_log_carried_out_has_seen_what_the_log_made_of_it() {
    use crate::crdt::merge::{Eventual, Sight, Write};
    let (author, time) = (PeerId::random(), Timestamp::from_unix_seconds(1_100));
    let (old, new) = (everywhere("old"), everywhere("new"));
    let mut sight = Sight::of_state(2_000, Some(&old));
    sight.suspect(&new);
    let write = Write::by(author, time, cid(1), Some(old.clone()), sight).tried_as(Some([7; 16])).pin(new.clone());
    let pinned = Eventual::new(write).unwrap();
    let mut sight = Sight::of_state(2_000, Some(&old));
    sight.add(&pinned);
    let unpinned = Eventual::new(Write::by(author, time, cid(1), Some(new.clone()), sight).unpin()).unwrap();
    // Its leader's clock is ahead.
    let mut later = new;
    later.timestamp = Timestamp::from_unix_seconds(1_400);
    let orders = [
        vec![vec![pinned.clone(), unpinned.clone()]],
        vec![vec![pinned], vec![unpinned.clone()]],
        vec![vec![unpinned]],
    ];
    for writes in orders {
        let mut operations =
            vec![(1, Operation::Put(Box::new(old.clone()))), (7, Operation::Put(Box::new(later.clone())))];
        for (number, writes) in (50..).zip(writes) {
            operations.push((number, Operation::Merge(Box::new(Merge { writes, holders: Vec::new() }))));
        }
        assert_eq!(stands_after(operations), None, "it was unpinned by who had pinned it");
    }
}

/// A merge of these writes.
fn merging(writes: Vec<crate::crdt::merge::Write>) -> Operation {
    let writes = writes.into_iter().map(|write| crate::crdt::merge::Eventual::new(write).unwrap()).collect();
    Operation::Merge(Box::new(Merge { writes, holders: Vec::new() }))
}

#[test]
fn an_attempt_comes_too_late_when_a_write_that_has_seen_its_own_was_merged() {
    use crate::crdt::merge::{Eventual, Sight, Write};
    let [old, tried, newer, theirs] = ["old", "tried", "newer", "theirs"].map(everywhere);
    let at = Timestamp::from_unix_seconds;
    let of_old = || Sight::of_state(2_000, Some(&old));
    let first = Write::by(PeerId::random(), at(1_100), cid(1), Some(old.clone()), of_old());
    let first = first.tried_as(Some([7; 16])).pin(tried.clone());
    let mut sight = of_old();
    sight.add(&Eventual::new(first.clone()).unwrap());
    let second = Write::by(PeerId::random(), at(1_200), cid(1), Some(tried.clone()), sight).pin(newer);
    let put = |pin: &Pin| Operation::Put(Box::new(pin.clone()));
    let theirs = Pin { timestamp: at(1_500), ..theirs };
    let late = vec![
        (1, put(&old)),
        (2, put(&theirs)),
        (50, merging(vec![second])),
        (7, put(&tried)),
        (51, merging(vec![first])),
    ];
    assert_eq!(stands_after(late).as_deref(), Some("theirs"), "who asked for it has changed his mind long since");
}

#[test]
fn who_pins_again_has_seen_his_own_removal_and_nobody_elses() {
    use crate::crdt::merge::{Eventual, Rule, Sight, Write};
    let [old, again] = ["old", "again"].map(everywhere);
    let at = Timestamp::from_unix_seconds;
    let author = PeerId::random();
    let of_old = || Sight::of_state(2_000, Some(&old));
    let gone = Write::by(author, at(1_100), cid(1), Some(old.clone()), of_old()).tried_as(Some([7; 16])).unpin();
    let mut sight = of_old();
    sight.add(&Eventual::new(gone.clone()).unwrap());
    let back = Write::by(author, at(1_200), cid(1), None, sight).pin(again);
    for (remover, lost) in [(7, vec![]), (8, vec![Rule::PinBeatsUnpin])] {
        let mut state = State::default();
        let removed = [(1, Operation::Put(Box::new(old.clone()))), (remover, Operation::Remove { cid: cid(1) })];
        for (at, operation) in (2_000..).zip(removed) {
            state.apply(&[entry(at, vec![operation])]);
        }
        state.apply(&[entry(2_002, vec![(50, merging(vec![gone.clone(), back.clone()]))])]);
        assert_eq!(state.pins[&cid(1)].options.name, "again");
        let told: Vec<Rule> = state.conflicts.iter().map(|event| event.conflict.rule).collect();
        assert_eq!(told, lost, "removed by request {remover}");
    }
}

#[test]
fn the_log_has_its_own_name_for_what_it_made_of_an_attempt() {
    use crate::crdt::merge::{Sight, Write};
    let [old, tried, other] = ["old", "tried", "other"].map(everywhere);
    let at = Timestamp::from_unix_seconds;
    let write =
        |seen: &Pin| Write::by(PeerId::random(), at(1_100), cid(1), Some(seen.clone()), Sight::of_state(1, Some(seen)));
    let first = write(&old).tried_as(Some([7; 16])).pin(tried.clone());
    let unpinned =
        Write::by(PeerId::random(), at(1_150), cid(1), Some(tried.clone()), Sight::of_state(2, Some(&tried)));
    let put = |pin: &Pin| Operation::Put(Box::new(pin.clone()));
    // An entry in between: the history begins after the index that its author had applied.
    let between = || (9, Operation::Put(Box::new(Pin { cid: cid(2), ..other.clone() })));
    let operations = vec![
        (1, put(&old)),
        (7, put(&tried)),
        between(),
        (50, merging(vec![first])),
        (51, merging(vec![unpinned.unpin()])),
    ];
    assert_eq!(stands_after(operations), None, "its author had seen it in the log");
}

#[test]
fn nobody_has_seen_what_the_same_entry_wrote_before_the_merge() {
    use crate::crdt::merge::{Rule, Sight, Write};
    let [old, log, apart] = ["old", "log", "apart"].map(everywhere);
    let at = Timestamp::from_unix_seconds;
    let mut state = State::default();
    state.apply(&[entry(2_000, vec![(1, Operation::Put(Box::new(old.clone())))])]);
    let write = Write::by(PeerId::random(), at(1_100), cid(1), Some(old.clone()), Sight::of_state(1, Some(&old)));
    let log = Pin { timestamp: at(1_500), ..log };
    let both = vec![(2, Operation::Put(Box::new(log))), (50, merging(vec![write.pin(apart)]))];
    state.apply(&[entry(2_001, both)]);
    assert_eq!(state.pins[&cid(1)].options.name, "log");
    let told: Vec<Rule> = state.conflicts.iter().map(|event| event.conflict.rule).collect();
    assert_eq!(told, [Rule::NewerPin]);
}

#[test]
fn what_merges_left_is_forgotten_with_the_merges_however_entries_are_grouped() {
    use crate::crdt::merge::{Sight, Write};
    const DAY: i64 = 24 * 3600;
    let write = |number: u8, seconds: i64| {
        let pin = Pin { cid: cid(number), ..everywhere("apart") };
        let time = Timestamp::from_unix_seconds(seconds);
        let author = PeerId::from_bytes(&[0, 1, number]).unwrap();
        Write::by(author, time, cid(number), None, Sight::of_state(0, None)).pin(pin)
    };
    let merge_at = |number: u8, seconds: i64| entry(seconds, vec![(number, merging(vec![write(number, seconds)]))]);
    let entries: Vec<Entry> = (1..40)
        .map(|number| merge_at(number, 2_000))
        .chain((40..44).map(|number| merge_at(number, 2_000 + 61 * DAY)))
        .collect();
    let [mut together, mut apart] = [State::default(), State::default()];
    together.apply(&entries);
    for entry in &entries {
        apart.apply(std::slice::from_ref(entry));
    }
    let kept: Vec<Cid> = apart.histories.keys().copied().collect();
    assert_eq!(kept.len(), 4, "the old ones are gone");
    assert!((40..44).all(|number| kept.contains(&cid(number))));
    assert_eq!(together.histories, apart.histories);
    assert_eq!(apart.pins.len(), 43, "what was merged stays");
}
