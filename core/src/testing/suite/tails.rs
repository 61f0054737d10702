//! The contract of tails and epochs: kept and dropped as updates say; a snapshot carries epochs, and tails stay where they
//! are; and the same log gives the same on every peer, however it was grouped and whatever came between.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use cluster_types::{Cid, Timestamp};
use futures::stream;
use openraft::EntryPayload;
use openraft::storage::RaftStateMachine;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::pinset::{cid, pin, pin_on, put};
use super::state::shared;
use crate::catchup::stage::stage_from;
use crate::consensus::digest::{SHARDS, order_key, shard_of};
use crate::consensus::log::{EffectAt, LogId, StateMachine};
use crate::consensus::operation::{Entry, Operation, Proposed};
use crate::crdt::{Document, Records, ShardMeta, TailEntry, shard};
use crate::ports::{Changes, LocalEffect, ShardState, ShardSum, StateStore, StateView, TailPlace, TailRow};
use crate::testing::MemState;
use crate::watch;

/// Entries of the log of the property.
const ENTRIES: u64 = 700;
/// The numbers that the CIDs of the pool are made from: some five of each shard.
const POOLED: u64 = 20_000;

/// Runs every test of one store; `make` gives an empty one and what must outlive it.
pub(super) async fn run<S, G, F, Fut>(make: F)
where
    S: StateStore,
    F: Fn() -> Fut,
    Fut: Future<Output = (Arc<S>, G)>,
{
    tails_are_kept_in_order_and_dropped_up_to_an_index(&*make().await.0).await;
    pages_are_bounded(&*make().await.0).await;
    pins_are_read_by_shard(&*make().await.0).await;
    let (from, _kept) = make().await;
    let (to, _also_kept) = make().await;
    a_snapshot_carries_epochs_and_leaves_tails_where_they_are(&*from, &*to).await;
}

async fn update<S: StateStore + ?Sized>(store: &S, changes: Changes) {
    store.update(Box::new(move |_view| Ok(changes))).await.expect("the update is carried out");
}

/// What a function sees in a consistent view.
async fn look<S, T, F>(store: &S, see: F) -> T
where
    S: StateStore + ?Sized,
    T: Send + 'static,
    F: FnOnce(&dyn StateView) -> T + Send + 'static,
{
    let seen = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&seen);
    let read = move |view: &dyn StateView| {
        *slot.lock() = Some(see(view));
        Ok(())
    };
    store.read(Box::new(read)).await.expect("the view is readable");
    let seen = seen.lock().take();
    seen.expect("the store shows a view")
}

fn row(shard: u16, index: u64, place: u32) -> TailRow {
    let before = place.is_multiple_of(2).then(|| Bytes::from(format!("{shard} {index} {place}")));
    TailRow { shard, place, entry: TailEntry { index, cid: cid(index), before } }
}

fn placed(row: &TailRow) -> (TailPlace, TailEntry) {
    (TailPlace { index: row.entry.index, place: row.place }, row.entry.clone())
}

/// The tail of a shard, read in pages of `limit`.
pub async fn tail<S: StateStore + ?Sized>(
    store: &S,
    shard: u16,
    after: TailPlace,
    limit: usize,
) -> Vec<(TailPlace, TailEntry)> {
    let read = move |view: &dyn StateView| {
        let (mut tail, mut after) = (Vec::new(), after);
        loop {
            let page = view.tail(shard, after, limit).expect("the tail is readable");
            assert!(page.len() <= limit);
            let Some((last, _entry)) = page.last() else { return tail };
            after = *last;
            tail.extend(page);
        }
    };
    look(store, read).await
}

async fn tails_are_kept_in_order_and_dropped_up_to_an_index<S: StateStore>(store: &S) {
    let last = SHARDS - 1;
    let rows: Vec<TailRow> = [6, 7, 8, last]
        .into_iter()
        .flat_map(|shard| [(3, 0), (3, 1), (255, 0), (256, 0), (256, 1), (256, 2), (u64::MAX, 0)].map(|at| (shard, at)))
        .map(|(shard, (index, place))| row(shard, index, place))
        .collect();
    let mut shuffled = rows.clone();
    shuffled.reverse();
    let meta = ShardMeta { epoch: 255, previous: 2, since_epoch: 4, since_previous: 7 };
    let shards = vec![(7, ShardState { meta, ..ShardState::default() })];
    update(store, Changes { tail: shuffled, shards, ..Changes::default() }).await;
    let of = |shard: u16, above: u64| -> Vec<(TailPlace, TailEntry)> {
        rows.iter().filter(|row| row.shard == shard && row.entry.index > above).map(placed).collect()
    };
    for shard in [6, 7, 8, last] {
        for limit in [1, 2, 100] {
            assert_eq!(tail(store, shard, TailPlace::after(0), limit).await, of(shard, 0), "pages of {limit}");
        }
        assert_eq!(tail(store, shard, TailPlace::after(3), 2).await, of(shard, 3));
    }
    assert_eq!(tail(store, 7, TailPlace { index: 256, place: 1 }, 9).await, of(7, 0)[5..], "from within an entry");
    assert_eq!(tail(store, 5, TailPlace::after(0), 9).await, []);
    assert_eq!(look(store, |view| view.shard(7).map(|state| state.meta)).await.expect("readable"), meta);

    let more = row(7, 300, 0);
    let mut expected = of(7, 256);
    expected.insert(0, placed(&more));
    update(store, Changes { drop_tail: vec![(7, 256)], tail: vec![more], ..Changes::default() }).await;
    assert_eq!(tail(store, 7, TailPlace::after(0), 9).await, expected);
    for shard in [6, 8, last] {
        assert_eq!(tail(store, shard, TailPlace::after(0), 9).await, of(shard, 0), "others keep theirs");
    }
    update(store, Changes { drop_tail: vec![(last, u64::MAX)], ..Changes::default() }).await;
    assert_eq!(tail(store, last, TailPlace::after(0), 9).await, []);
}

async fn pages_are_bounded<S: StateStore>(store: &S) {
    let large = |index| {
        let entry = TailEntry { index, cid: cid(index), before: Some(Bytes::from(vec![7; 600 << 10])) };
        TailRow { shard: 9, place: 0, entry }
    };
    update(store, Changes { tail: (1..=3).map(large).collect(), ..Changes::default() }).await;
    let page = look(store, |view| view.tail(9, TailPlace::after(0), 100).map(|page| page.len())).await;
    assert_eq!(page.expect("readable"), 1, "two of them are more than a page holds");
    assert_eq!(tail(store, 9, TailPlace::after(0), 100).await.len(), 3);
}

async fn pins_are_read_by_shard<S: StateStore>(store: &S) {
    let is_pooled = |number: &u64| pool().iter().flatten().any(|cid_of| *cid_of == cid(*number));
    let (pooled, others): (Vec<u64>, Vec<u64>) = (0..POOLED).partition(is_pooled);
    let others = others.into_iter().take(200).map(pin);
    put(store, pooled.into_iter().map(|number| pin_on(number, &[1, 2])).chain(others).collect(), "some").await;
    for group in pool() {
        let shard = shard_of(&group[0]);
        for limit in [1, 2, 100] {
            let read = move |view: &dyn StateView| {
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    let page = view.shard_pins(shard, after.as_ref(), limit).expect("pins are readable");
                    assert!(page.len() <= limit);
                    let Some(last) = page.last() else { return found };
                    after = Some(last.cid);
                    found.extend(page);
                }
            };
            let found: Vec<Cid> = look(store, read).await.into_iter().map(|pin| pin.cid).collect();
            assert!(group.iter().all(|cid| found.contains(cid)));
            assert!(found.iter().all(|cid| shard_of(cid) == shard) && found.is_sorted_by_key(order_key));
        }
        let pins = look(store, move |view| shard::records(view, shard)).await.expect("records are readable").len();
        assert_eq!(look(store, move |view| view.shard(shard)).await.expect("readable").sum.pins, pins as u64);
    }
}

async fn a_snapshot_carries_epochs_and_leaves_tails_where_they_are<S: StateStore>(from: &S, to: &S) {
    let meta = ShardMeta { epoch: 9, previous: 4, since_epoch: 0, since_previous: 2 };
    let (at, same) = (shard_of(&cid(5)), shard_of(&cid(6)));
    for store in [from, to] {
        put(store, vec![pin(6)], "both").await;
        let state = look(store, move |view| view.shard(same)).await.expect("readable");
        let shards = vec![(same, ShardState { meta, ..state })];
        update(store, Changes { shards, tail: vec![row(same, 8, 0)], ..Changes::default() }).await;
    }
    put(from, vec![pin(5)], "sender").await;
    let state = look(from, move |view| view.shard(at)).await.expect("readable");
    let rows: Vec<TailRow> = (0..2).map(|place| row(at, 8, place)).collect();
    update(from, Changes { shards: vec![(at, ShardState { meta, ..state })], tail: rows, ..Changes::default() }).await;
    let other = ShardState { meta: ShardMeta { since_previous: 1, ..meta }, ..ShardState::default() };
    update(
        to,
        Changes { shards: vec![(at + 1, other)], tail: vec![row(at, 7, 0), row(at + 1, 7, 0)], ..Changes::default() },
    )
    .await;
    let snapshot = from.make_snapshot().await.expect("made");
    let nothing: LocalEffect = Arc::new(|_, _, _| None);
    stage_from(to, &snapshot, 11).await.expect("staged");
    to.install_staged(nothing).await.expect("installed");
    assert_eq!(shared(to).await, shared(from).await);
    let received = look(to, move |view| view.shard(at)).await.expect("readable");
    assert_eq!((received.tail_from, received.oldest(), received.covers(10)), (11, 11, false));
    assert_eq!(tail(to, at, TailPlace::after(0), 9).await, [], "what came has no past here");
    assert_eq!(tail(to, at + 1, TailPlace::after(0), 9).await, [], "nor has what went");
    let kept = look(to, move |view| view.shard(same)).await.expect("readable");
    assert_eq!((kept.tail_from, kept.oldest()), (0, 4));
    assert_eq!(tail(to, same, TailPlace::after(0), 9).await.len(), 1, "what nothing happened to keeps its tail");
}

/// Makes pins be as given, as the log entry `index` does, with the tail.
pub(crate) async fn write_with_tail<S: StateStore + ?Sized>(
    store: &S,
    index: u64,
    pins: Vec<(Cid, Option<cluster_types::Pin>)>,
) {
    let update = move |view: &dyn StateView| {
        let mut changes = super::pinset::changes(view, pins)?;
        for (place, change) in (0..).zip(&changes.pins) {
            let before = change.before.as_ref().map(|pin| crate::consensus::operation::encode_pin(pin).into());
            let entry = TailEntry { index, cid: change.cid, before };
            changes.tail.push(TailRow { shard: shard_of(&change.cid), place, entry });
        }
        Ok(changes)
    };
    store.update(Box::new(update)).await.expect("the update is carried out");
}

/// CIDs of three shards: few in each, so that short logs begin epochs.
fn pool() -> &'static [Vec<Cid>] {
    static POOL: OnceLock<Vec<Vec<Cid>>> = OnceLock::new();
    POOL.get_or_init(|| {
        let shards = [0, 1, 2].map(|number| shard_of(&cid(number)));
        let mut pool = vec![Vec::new(); shards.len()];
        for cid in (0..POOLED).map(cid) {
            if let Some(place) = shards.iter().position(|shard| *shard == shard_of(&cid)) {
                pool[place].push(cid);
            }
        }
        pool
    })
}

/// A peer's state, fed with a log.
struct Replica<S, G> {
    state: Arc<S>,
    kept: G,
    machine: StateMachine,
    applied: usize,
}

impl<S: StateStore, G> Replica<S, G> {
    async fn open((state, kept): (Arc<S>, G)) -> Self {
        let nothing: EffectAt = Arc::new(|_index| Arc::new(|_, _, _| None));
        let store = Arc::clone(&state);
        let mut machine = StateMachine::open(store, nothing, watch::Sender::new(0)).await.expect("the state opens");
        let (last, _membership) = machine.applied_state().await.expect("the position is known");
        let applied = last.map_or(0, |id| usize::try_from(id.index).expect("a short log"));
        Self { state, kept, machine, applied }
    }

    /// Applies the next `count` entries in one group; the first entry of the log has index 1.
    async fn apply(&mut self, log: &[Entry], count: usize) {
        let group = &log[self.applied..][..count];
        let entries = (self.applied as u64 + 1..).zip(group).map(|(index, entry)| {
            let log_id = LogId::new(1.into(), index);
            Ok((openraft::Entry { log_id, payload: EntryPayload::Normal(entry.clone()) }, None))
        });
        self.machine.apply(stream::iter(entries.collect::<Vec<_>>())).await.expect("the entries are applied");
        self.applied += count;
    }

    /// Applies the log up to `end` in groups of any size.
    async fn apply_in_groups(&mut self, log: &[Entry], end: usize, chance: &mut StdRng) {
        while self.applied < end {
            let count = chance.random_range(1..=150).min(end - self.applied);
            self.apply(log, count).await;
        }
    }

    /// The oldest index of a shard that is covered.
    async fn oldest(&self, shard: u16) -> u64 {
        look(self.state.as_ref(), move |view| view.shard(shard)).await.expect("readable").oldest()
    }

    /// Epochs, sums, and the tails of the pool's shards.
    async fn kept(&self) -> (Vec<(ShardSum, ShardMeta)>, BTreeMap<u16, Vec<(TailPlace, TailEntry)>>) {
        let mut tails = BTreeMap::new();
        for group in pool() {
            let shard = shard_of(&group[0]);
            tails.insert(shard, tail(self.state.as_ref(), shard, TailPlace::after(0), 13).await);
        }
        (self.state.shards().await.expect("readable").0.iter().map(ShardState::shared).collect(), tails)
    }

    async fn records_at(&self, shard: u16, index: u64) -> Option<Records> {
        look(self.state.as_ref(), move |view| shard::records_at(view, shard, index)).await.expect("readable")
    }
}

fn random_log(chance: &mut StdRng) -> Vec<Entry> {
    let mut log = Vec::new();
    for index in 0..ENTRIES {
        let operations = (0..chance.random_range(0..4)).map(|_| {
            let group = &pool()[chance.random_range(0..pool().len())];
            let cid = group[chance.random_range(0..group.len())];
            let name = chance.random_range(0..30);
            let operation = match chance.random_range(0..4) {
                0 => Operation::Remove { cid },
                _ => Operation::Put(Box::new(cluster_types::Pin { cid, ..pin(name) })),
            };
            // A request comes twice now and then.
            let mut id = [0; 16];
            id[..4].copy_from_slice(&chance.random_range(0..2_000_u32).to_le_bytes());
            Proposed { id, operation }
        });
        let operations = operations.collect();
        log.push(Entry { time: Timestamp::from_unix_seconds(1_800_000_000 + 3 * index.cast_signed()), operations });
    }
    log
}

fn document(shard: u16, records: Records) -> Vec<u8> {
    Document::canonical(shard, records).expect("records of this shard").save()
}

/// Replicas that apply one log: entry by entry in memory; in groups with restarts (`reopen`); and from a snapshot on.
/// Their epochs are equal, and their tails as far back as they go; every covered index gives the documents of then.
#[expect(clippy::print_stdout, reason = "a run that failed is repeated by its seed")]
pub async fn replicas_agree<S, G, F, Fut, R, Reopened>(seed: u64, make: F, reopen: R)
where
    S: StateStore,
    F: Fn() -> Fut,
    Fut: Future<Output = (Arc<S>, G)>,
    R: Fn(Arc<S>, G) -> Reopened,
    Reopened: Future<Output = (Arc<S>, G)>,
{
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let log = random_log(&mut chance);
    let shards: Vec<u16> = pool().iter().map(|group| shard_of(&group[0])).collect();

    let mut single = Replica::open((Arc::new(MemState::new()), ())).await;
    let mut past: Vec<Vec<Records>> = Vec::new();
    for index in 0..=log.len() {
        if index > 0 {
            single.apply(&log, 1).await;
        }
        let at = shards.clone();
        let now =
            look(single.state.as_ref(), move |view| at.iter().map(|at| shard::records(view, *at)).collect()).await;
        let now: Result<Vec<Records>, crate::ports::StateError> = now;
        past.push(now.expect("readable"));
    }

    let cut = chance.random_range(log.len() / 4..log.len());
    let mut grouped = Replica::open(make().await).await;
    grouped.apply_in_groups(&log, cut, &mut chance).await;
    let mut installed = Replica::open(make().await).await;
    installed.apply_in_groups(&log, cut / 3, &mut chance).await;
    let snapshot = grouped.state.make_snapshot().await.expect("made");
    let nothing: LocalEffect = Arc::new(|_, _, _| None);
    stage_from(installed.state.as_ref(), &snapshot, cut as u64).await.expect("staged");
    installed.state.install_staged(nothing).await.expect("installed");
    let mut installed = Replica::open((installed.state, installed.kept)).await;
    let mut grouped = Replica::open(reopen(grouped.state, grouped.kept).await).await;
    assert_eq!((grouped.applied, installed.applied), (cut, cut));
    assert_eq!(grouped.kept().await.0, installed.kept().await.0);
    grouped.apply_in_groups(&log, log.len(), &mut chance).await;
    installed.apply_in_groups(&log, log.len(), &mut chance).await;
    let installed = Replica::open(reopen(installed.state, installed.kept).await).await;

    let expected = single.kept().await;
    assert_eq!(grouped.kept().await, expected);
    let since = installed.kept().await;
    assert_eq!(since.0, expected.0);
    for (shard, tail) in &since.1 {
        let from = installed.oldest(*shard).await;
        let expected: Vec<_> = expected.1[shard].iter().filter(|(at, _)| at.index > from).cloned().collect();
        assert_eq!(*tail, expected, "shard {shard}, as far back as it goes");
    }
    assert!(expected.0.iter().any(|(_sum, meta)| meta.previous > 0), "the log is long enough to drop tails");
    for (place, shard) in shards.iter().enumerate() {
        let meta = expected.0[usize::from(*shard)].1;
        assert_eq!(expected.1[shard].len() as u64, meta.since_previous);
        let beyond = meta.previous.checked_sub(1);
        assert!(beyond.is_none() || grouped.records_at(*shard, meta.previous - 1).await.is_none());
        let mut indexes = vec![meta.previous, meta.epoch, ENTRIES];
        indexes.extend((0..10).map(|_| chance.random_range(meta.previous..=ENTRIES)));
        for index in indexes {
            let then = document(*shard, past[usize::try_from(index).expect("a short log")][place].clone());
            let records = grouped.records_at(*shard, index).await.expect("covered");
            assert!(document(*shard, records) == then, "shard {shard} as of {index}");
            let records = installed.records_at(*shard, index).await;
            assert_eq!(records.is_some(), index >= installed.oldest(*shard).await, "shard {shard} as of {index}");
            assert!(records.is_none_or(|records| document(*shard, records) == then), "shard {shard} as of {index}");
        }
    }
}
