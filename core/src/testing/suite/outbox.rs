//! The contract of eventual writes in the state: the outbox and its numbers, shown and committed pins, what merges
//! leave, the event log; what of it travels with snapshots, and what survives a power cut.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use cluster_types::{Cid, Pin, Timestamp};

use super::pinset::{assert_sound, cid, cids, peer, pin, pin_on, put};
use super::state::shared;
use super::tails::{look, pool, update};
use crate::catchup::stage::stage_from;
use crate::consensus::digest::{order_key, shard_of};
use crate::crdt::merge::{Conflict, Eventual, History, Party, Place, Rule, Sight, VersionId, Wish, Write, merge};
use crate::ports::{
    Changes, ConflictEvent, LocalEffect, MAX_CONFLICTS, MergedAt, OutboxChange, OutboxCount, OutboxStore, PinChange,
    Scan, StateStore, StateView, Waiting,
};

/// Conflicts that one update of the suite adds.
const CONFLICTS: u64 = 5_000;

/// Runs every test of a store that stays open; `make` gives an empty one and what must outlive it.
pub async fn run<S, G, F, Fut>(make: F)
where
    S: StateStore,
    F: Fn() -> Fut,
    Fut: Future<Output = (Arc<S>, G)>,
{
    waiting_writes_keep_their_order(&*make().await.0).await;
    numbers_are_never_used_again(&*make().await.0).await;
    pages_of_the_outbox_are_bounded(&*make().await.0).await;
    what_is_shown_and_what_the_log_has(&*make().await.0).await;
    shards_follow_the_log(&*make().await.0).await;
    histories_are_kept_and_counted(&*make().await.0).await;
    merged_writes_are_remembered_oldest_first(&*make().await.0).await;
    pages_of_conflicts_are_bounded_and_newest_first(&*make().await.0).await;
    the_event_log_keeps_the_newest(&*make().await.0).await;
    let (from, _kept) = make().await;
    let (to, _also_kept) = make().await;
    a_snapshot_carries_merges_and_the_pins_of_the_log(&*from, &*to).await;
}

/// Everything that was flushed is there after `reopen`, which closes the store or cuts its power and opens it again.
pub async fn survives<S, G, F, Fut, R, Again>(make: F, reopen: R)
where
    S: StateStore,
    F: Fn() -> Fut,
    Fut: Future<Output = (Arc<S>, G)>,
    R: Fn(Arc<S>, G) -> Again,
    Again: Future<Output = (Arc<S>, G)>,
{
    let (store, kept) = make().await;
    put(&*store, vec![pin(1)], "log").await;
    update(&*store, comes([(write(1, 1), true), (write(2, 2), false), (write(3, 1), true)])).await;
    update(&*store, leaves([write(3, 1)])).await;
    let event = event(9, 0);
    let changes = Changes {
        pins: vec![PinChange { cid: cid(1), before: Some(pin(1)), after: Some(pin_on(1, &[1])) }],
        committed: vec![(cid(1), Some(Some(pin(1))))],
        histories: vec![(cid(4), Some(history(4, 8)))],
        merged: vec![(write(4, 1).id(), at(8))],
        conflicts: vec![event.clone()],
        ..Changes::default()
    };
    update(&*store, changes).await;
    store.flush().await.expect("flushed");
    let (store, kept) = reopen(store, kept).await;

    assert_eq!(store.waiting_count(), OutboxCount { own: 1, all: 2, last_own: 3 });
    assert_eq!(outbox(&*store, 10).await, [waiting(1, true, write(1, 1)), waiting(2, false, write(2, 2))]);
    assert_eq!(store.pin(cid(1)).await.expect("readable"), Some(pin_on(1, &[1])));
    assert_eq!(look(&*store, |view| view.pin(&cid(1))).await.expect("readable"), Some(pin(1)));
    assert_eq!(look(&*store, |view| (view.histories(), view.outbox_count().all)).await, (1, 2));
    assert_eq!(look(&*store, |view| view.history(&cid(4))).await.expect("readable"), Some(history(4, 8)));
    assert_eq!(merged(&*store, 9).await, [(write(4, 1).id(), at(8))]);
    assert_eq!(conflicts(&*store, 9).await, [event]);
    update(&*store, comes([(write(5, 1), true)])).await;
    assert_eq!(outbox(&*store, 10).await.last(), Some(&waiting(4, true, write(5, 1))), "3 was used");

    let flushes = futures::future::join_all((6..20).map(|number| {
        let store = &store;
        async move {
            update(&**store, comes([(write(number, 1), true)])).await;
            store.flush().await.expect("flushed");
        }
    }));
    flushes.await;
    let (store, _kept) = reopen(store, kept).await;
    assert_eq!(store.waiting_count(), OutboxCount { own: 16, all: 17, last_own: 18 });
    assert_eq!(outbox(&*store, 10).await.len(), 17);
}

/// A write by peer `author` who wants the pin made from `number`.
fn write(number: u64, author: u8) -> Eventual {
    checked(number, author, pin_on(number, &[author]))
}

fn checked(number: u64, author: u8, pin: Pin) -> Eventual {
    let time = Timestamp::from_unix_seconds(1_800_000_000);
    let write = Write::by(peer(author), time, cid(number), None, Sight::of_state(5, None));
    Eventual::new(write.pin(pin)).expect("the write makes sense")
}

fn comes(writes: impl IntoIterator<Item = (Eventual, bool)>) -> Changes {
    let put = |(write, own)| OutboxChange::Put { write: Box::new(write), own };
    Changes { outbox: writes.into_iter().map(put).collect(), ..Changes::default() }
}

fn leaves(writes: impl IntoIterator<Item = Eventual>) -> Changes {
    let remove = |write: Eventual| OutboxChange::Remove { cid: write.cid, id: write.id() };
    Changes { outbox: writes.into_iter().map(remove).collect(), ..Changes::default() }
}

fn waiting(number: u64, own: bool, write: Eventual) -> Waiting {
    Waiting { number, own, write }
}

fn at(index: u64) -> MergedAt {
    let time = Timestamp::from_unix_nanos(1_800_000_000_000_000_000 + i128::from(index));
    MergedAt { index, time }
}

/// What a merge at `index` leaves of the pin made from `number`.
fn history(number: u64, index: u64) -> History {
    let place = Place::entry(index, at(index).time, 0);
    merge(None, None, &write(number, 1), place).history
}

fn event(index: u64, place: u32) -> ConflictEvent {
    let party = |author: u8, wish| Party { author: Some(peer(author)), wish, time: at(index).time, record: None };
    let (winner, loser) = (party(1, Wish::Pin), party(2, Wish::Unpin));
    let conflict = Conflict { cid: cid(index), winner, loser, rule: Rule::PinBeatsUnpin, stale: false };
    ConflictEvent { index, place, time: at(index).time, conflict }
}

/// All of the outbox, read in pages of `limit`.
async fn outbox<S: OutboxStore + ?Sized>(store: &S, limit: usize) -> Vec<Waiting> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = store.outbox(after, limit).await.expect("the outbox is readable");
        assert!(page.len() <= limit);
        let Some(last) = page.last() else { return all };
        after = last.number;
        all.extend(page);
    }
}

/// All of the event log, read in pages of `limit`.
async fn conflicts<S: OutboxStore + ?Sized>(store: &S, limit: usize) -> Vec<ConflictEvent> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = store.conflicts(before, limit).await.expect("the event log is readable");
        assert!(page.len() <= limit);
        let Some(last) = page.last() else { return all };
        before = Some((last.index, last.place));
        all.extend(page);
    }
}

async fn merged<S: StateStore>(store: &S, limit: usize) -> Vec<(VersionId, MergedAt)> {
    look(store, move |view| view.oldest_merged(limit)).await.expect("readable")
}

async fn waiting_writes_keep_their_order<S: StateStore>(store: &S) {
    assert_eq!(store.waiting_count(), OutboxCount::default());
    assert_eq!(store.outbox(0, 9).await.expect("readable"), []);
    let (one, other) = (write(1, 1), write(1, 2));
    update(store, comes([(write(9, 2), false), (one.clone(), true)])).await;
    update(store, comes([(other.clone(), false), (write(3, 1), true)])).await;
    let all = [
        waiting(1, false, write(9, 2)),
        waiting(2, true, one.clone()),
        waiting(3, false, other.clone()),
        waiting(4, true, write(3, 1)),
    ];
    for limit in [1, 2, 100] {
        assert_eq!(outbox(store, limit).await, all, "pages of {limit}");
    }
    assert_eq!(store.outbox(2, 1).await.expect("readable"), all[2..3], "from behind a number");
    assert_eq!(store.outbox(u64::MAX, 1).await.expect("readable"), []);
    assert_eq!(store.outbox(0, 0).await.expect("readable"), []);
    let on_one = look(store, |view| view.waiting(&cid(1))).await.expect("readable");
    assert_eq!(on_one, all[1..3], "of one pin, by number");
    assert_eq!(look(store, |view| view.waiting(&cid(2))).await.expect("readable"), []);
    assert_eq!(store.waiting_count(), OutboxCount { own: 2, all: 4, last_own: 4 });
    assert_eq!(look(store, |view| view.outbox_count()).await, store.waiting_count());

    update(store, leaves([one, write(77, 1)])).await;
    assert_eq!(outbox(store, 2).await, [all[0].clone(), all[2].clone(), all[3].clone()]);
    assert_eq!(store.waiting_count(), OutboxCount { own: 1, all: 3, last_own: 4 });
    assert_eq!(look(store, |view| view.waiting(&cid(1))).await.expect("readable"), all[2..3]);
    update(store, leaves([other])).await;
    assert_eq!(store.waiting_count(), OutboxCount { own: 1, all: 2, last_own: 4 });
}

async fn numbers_are_never_used_again<S: StateStore>(store: &S) {
    update(store, comes([(write(1, 1), true)])).await;
    update(store, leaves([write(1, 1)])).await;
    assert_eq!(outbox(store, 9).await, []);
    assert_eq!(store.waiting_count(), OutboxCount { own: 0, all: 0, last_own: 1 });
    let mut both = comes([(write(2, 1), true), (write(3, 1), false)]);
    both.outbox.extend(leaves([write(2, 1)]).outbox);
    update(store, both).await;
    assert_eq!(outbox(store, 9).await, [waiting(3, false, write(3, 1))], "came and left at once");
    assert_eq!(store.waiting_count(), OutboxCount { own: 0, all: 1, last_own: 2 });
    update(store, comes([(write(1, 1), false)])).await;
    assert_eq!(outbox(store, 1).await.last(), Some(&waiting(4, false, write(1, 1))));
}

async fn pages_of_the_outbox_are_bounded<S: StateStore>(store: &S) {
    let large = |number: u64| {
        let mut pin = pin(number);
        pin.options.metadata.insert("k".to_owned(), "v".repeat(50 << 10));
        (checked(number, 1, pin), true)
    };
    update(store, comes((1..=30).map(large))).await;
    let page = store.outbox(0, 100).await.expect("readable");
    assert!((1..30).contains(&page.len()), "{} rows are more than a page holds", page.len());
    assert_eq!(outbox(store, 100).await.len(), 30);
}

/// Shows `shown` where the log has `log`.
fn overlay(log: Option<Pin>, shown: Option<Pin>) -> Changes {
    let cid = log.as_ref().or(shown.as_ref()).map(|pin| pin.cid).expect("there is one of them");
    let mut changes = Changes { committed: vec![(cid, Some(log.clone()))], ..Changes::default() };
    if log != shown {
        changes.pins.push(PinChange { cid, before: log, after: shown });
    }
    changes
}

async fn what_is_shown_and_what_the_log_has<S: StateStore>(store: &S) {
    put(store, vec![pin_on(1, &[1]), pin_on(2, &[1]), pin_on(4, &[1])], "log").await;
    for changes in [
        overlay(Some(pin_on(1, &[1])), Some(pin_on(1, &[2]))),
        overlay(Some(pin_on(2, &[1])), None),
        overlay(None, Some(pin_on(3, &[2]))),
    ] {
        update(store, changes).await;
    }
    let log = [Some(pin_on(1, &[1])), Some(pin_on(2, &[1])), None, Some(pin_on(4, &[1]))];
    let shown = [Some(pin_on(1, &[2])), None, Some(pin_on(3, &[2])), Some(pin_on(4, &[1]))];
    let seen = |view: &dyn StateView| {
        let both = (1..=4).map(|number| (view.pin(&cid(number)), view.shown(&cid(number))));
        let both: Vec<_> = both.map(|(log, shown)| (log.expect("readable"), shown.expect("readable"))).collect();
        both.into_iter().unzip::<_, _, Vec<_>, Vec<_>>()
    };
    assert_eq!(look(store, seen).await, (log.to_vec(), shown.to_vec()));
    let expected = (log.to_vec(), shown.to_vec());
    let check = move |view: &dyn StateView| {
        assert_eq!(seen(view), expected, "an update sees what a read does");
        Ok(Changes::default())
    };
    store.update(Box::new(check)).await.expect("the update is carried out");
    for (number, shown) in (1..).zip(&shown) {
        assert_eq!(store.pin(cid(number)).await.expect("readable"), *shown);
    }
    assert_eq!((store.pins(), store.settled_count()), (3, 3));
    let mut listed: Vec<Cid> = [1, 3, 4].map(cid).to_vec();
    listed.sort_by_key(order_key);
    assert_eq!(cids(store, Scan::All { after: None }).await, listed);
    listed.retain(|listed| *listed != cid(4));
    assert_eq!(cids(store, Scan::ByPeer { peer: peer(2), after: None }).await, listed);

    // The log gets what waits, or what waits is gone: shown is what the log has.
    let change = |number, before, after| PinChange { cid: cid(number), before, after };
    let pins = vec![change(2, None, log[1].clone()), change(3, shown[2].clone(), None)];
    let committed = (1..=3).map(|number| (cid(number), None)).collect();
    update(store, Changes { pins, committed, ..Changes::default() }).await;
    assert_eq!(store.settled_count(), 0);
    let now = vec![shown[0].clone(), log[1].clone(), None, log[3].clone()];
    assert_eq!(look(store, seen).await, (now.clone(), now));
}

async fn shards_follow_the_log<S: StateStore>(store: &S) {
    let shard = shard_of(&pool()[0][0]);
    let mut numbers = (0..).filter(|number| shard_of(&cid(*number)) == shard).take(6).collect::<Vec<u64>>();
    numbers.sort_by_key(|number| order_key(&cid(*number)));
    put(store, numbers[1..5].iter().map(|number| pin_on(*number, &[1])).collect(), "log").await;
    let [fresh, gone, same, changed, plain, last] = [0, 1, 2, 3, 4, 5].map(|place: usize| numbers[place]);
    for changes in [
        overlay(None, Some(pin_on(fresh, &[2]))),
        overlay(Some(pin_on(gone, &[1])), None),
        overlay(Some(pin_on(same, &[1])), Some(pin_on(same, &[1]))),
        overlay(Some(pin_on(changed, &[1])), Some(pin_on(changed, &[2]))),
        overlay(None, Some(pin_on(last, &[2]))),
    ] {
        update(store, changes).await;
    }
    let expected: Vec<Pin> = [gone, same, changed, plain].map(|number| pin_on(number, &[1])).to_vec();
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
        assert_eq!(look(store, read).await, expected, "pages of {limit}");
    }
    let behind = look(store, move |view| view.shard_pins(shard, Some(&cid(gone)), 9)).await;
    assert_eq!(behind.expect("readable"), expected[1..]);
}

async fn histories_are_kept_and_counted<S: StateStore>(store: &S) {
    let set = |histories| Changes { histories, ..Changes::default() };
    assert_eq!(look(store, |view| view.histories()).await, 0);
    update(store, set(vec![(cid(1), Some(history(1, 8))), (cid(2), Some(history(2, 8))), (cid(3), None)])).await;
    update(store, set(vec![(cid(1), Some(history(1, 9)))])).await;
    assert_eq!(look(store, |view| view.histories()).await, 2);
    let oldest = |limit| look(store, move |view| view.oldest_histories(limit));
    assert_eq!(oldest(9).await.expect("readable"), [(cid(2), 8), (cid(1), 9)]);
    assert_eq!(oldest(1).await.expect("readable"), [(cid(2), 8)]);
    assert_eq!(look(store, |view| view.history(&cid(1))).await.expect("readable"), Some(history(1, 9)));
    assert_eq!(look(store, |view| view.history(&cid(3))).await.expect("readable"), None);
    update(store, set(vec![(cid(1), None), (cid(4), None)])).await;
    assert_eq!(look(store, |view| view.histories()).await, 1);
    assert_eq!(oldest(9).await.expect("readable"), [(cid(2), 8)]);
    assert_eq!(look(store, |view| view.history(&cid(1))).await.expect("readable"), None);
    assert_eq!(look(store, |view| view.history(&cid(2))).await.expect("readable"), Some(history(2, 8)));
}

async fn merged_writes_are_remembered_oldest_first<S: StateStore>(store: &S) {
    let id = |byte| VersionId::from_bytes([byte; 32]);
    let all = [(id(9), at(7)), (id(1), at(255)), (id(2), at(256)), (id(3), at(256)), (id(0), at(900))];
    let mut shuffled = all.to_vec();
    shuffled.reverse();
    update(store, Changes { merged: shuffled, ..Changes::default() }).await;
    assert_eq!(merged(store, 100).await, all, "by index, then by name");
    assert_eq!(merged(store, 3).await, all[..3]);
    assert!(look(store, move |view| view.is_merged(&id(3))).await.expect("readable"));
    assert!(!look(store, move |view| view.is_merged(&id(4))).await.expect("readable"));
    let fresh = (id(5), at(901));
    let changes = Changes { forget_merged: all[..3].to_vec(), merged: vec![fresh], ..Changes::default() };
    update(store, changes).await;
    assert_eq!(merged(store, 100).await, [all[3], all[4], fresh]);
    assert!(!look(store, move |view| view.is_merged(&id(9))).await.expect("readable"));
}

async fn pages_of_conflicts_are_bounded_and_newest_first<S: StateStore>(store: &S) {
    assert_eq!(conflicts(store, 9).await, []);
    let all: Vec<_> = [(3, 0), (255, 0), (256, 0), (256, 1), (300, 0)].map(|(index, place)| event(index, place)).into();
    update(store, Changes { conflicts: all[2..].to_vec(), ..Changes::default() }).await;
    update(store, Changes { conflicts: all[..2].to_vec(), ..Changes::default() }).await;
    let newest: Vec<_> = all.into_iter().rev().collect();
    for limit in [1, 2, 100] {
        assert_eq!(conflicts(store, limit).await, newest, "pages of {limit}");
    }
    assert_eq!(store.conflicts(Some((256, 1)), 1).await.expect("readable"), newest[2..3]);
    assert_eq!(store.conflicts(Some((0, 0)), 1).await.expect("readable"), []);
    let large = |place| {
        let mut large = event(400, place);
        let mut lost = pin(400);
        lost.options.metadata.insert("k".to_owned(), "v".repeat(300 << 10));
        large.conflict.loser.record = Some(lost);
        large
    };
    update(store, Changes { conflicts: (0..4).map(large).collect(), ..Changes::default() }).await;
    let page = store.conflicts(None, 100).await.expect("readable");
    assert!((1..4).contains(&page.len()), "{} rows are more than a page holds", page.len());
    assert_eq!(conflicts(store, 100).await.len(), newest.len() + 4);
}

async fn the_event_log_keeps_the_newest<S: StateStore>(store: &S) {
    let add = |from: u64, number: u64| Changes {
        conflicts: (from..from + number).map(|index| event(index, 0)).collect(),
        ..Changes::default()
    };
    for from in (0..MAX_CONFLICTS).step_by(usize::try_from(CONFLICTS).expect("it is small")) {
        update(store, add(from, CONFLICTS)).await;
    }
    let oldest = |up_to| async move { store.conflicts(Some((up_to, 0)), 100).await.expect("readable") };
    assert_eq!(oldest(2).await, [event(1, 0), event(0, 0)], "as many as it keeps");
    update(store, add(MAX_CONFLICTS, 3)).await;
    assert_eq!(oldest(5).await, [event(4, 0), event(3, 0)], "the oldest three made place");
    assert_eq!(store.conflicts(None, 1).await.expect("readable"), [event(MAX_CONFLICTS + 2, 0)]);
    update(store, add(MAX_CONFLICTS + 3, 1)).await;
    assert_eq!(oldest(5).await, [event(4, 0)]);
}

async fn a_snapshot_carries_merges_and_the_pins_of_the_log<S: StateStore>(from: &S, to: &S) {
    put(from, vec![pin_on(1, &[1]), pin_on(2, &[1]), pin_on(4, &[1])], "sender").await;
    for changes in [
        overlay(Some(pin_on(1, &[1])), Some(pin_on(1, &[2]))),
        overlay(Some(pin_on(2, &[1])), None),
        overlay(None, Some(pin_on(3, &[2]))),
        comes([(write(1, 1), true)]),
    ] {
        update(from, changes).await;
    }
    let of = |numbers: [u64; 2], index| Changes {
        histories: numbers.map(|number| (cid(number), Some(history(number, index)))).to_vec(),
        merged: numbers.map(|number| (write(number, 1).id(), at(index))).to_vec(),
        conflicts: vec![event(index, 0)],
        ..Changes::default()
    };
    update(from, of([5, 6], 8)).await;
    put(to, vec![pin_on(2, &[3])], "receiver").await;
    update(to, of([6, 7], 3)).await;
    update(to, comes([(write(8, 2), true), (write(9, 3), false)])).await;

    let snapshot = from.make_snapshot().await.expect("made");
    let nothing: LocalEffect = Arc::new(|_, _, _| None);
    for _twice in 0..2 {
        stage_from(to, &snapshot, 9).await.expect("staged");
        to.install_staged(Arc::clone(&nothing)).await.expect("installed");
        assert_eq!(to.applied().await.expect("readable"), Some(Bytes::from_static(b"sender")));
        assert_eq!(shared(to).await, shared(from).await);
        for number in 1..=4 {
            let (log, here) = (look(from, move |view| view.pin(&cid(number))).await, to.pin(cid(number)).await);
            assert_eq!(here.expect("readable"), log.expect("readable"), "pin {number}");
        }
        assert_sound(to, &[1, 2, 3]).await;
        for number in 5..=7 {
            let [theirs, here] = [from, to].map(|store| look(store, move |view| view.history(&cid(number))));
            assert_eq!(here.await.expect("readable"), theirs.await.expect("readable"));
        }
        assert_eq!(look(to, |view| view.histories()).await, 2);
        assert_eq!(merged(to, 9).await, merged(from, 9).await);
        assert!(!look(to, |view| view.is_merged(&write(7, 1).id())).await.expect("readable"));
        assert_eq!(conflicts(to, 9).await, [event(3, 0)], "the event log is the receiver's own");
        assert_eq!(outbox(to, 9).await, [waiting(1, true, write(8, 2)), waiting(2, false, write(9, 3))]);
        assert_eq!(to.waiting_count(), OutboxCount { own: 1, all: 2, last_own: 1 });
    }
    assert_eq!(store_names(from).await, [1, 3, 4], "freezing changes nothing that is shown");
}

async fn store_names<S: StateStore>(store: &S) -> Vec<u64> {
    let listed = cids(store, Scan::All { after: None }).await;
    (0..9).filter(|number| listed.contains(&cid(*number))).collect()
}
