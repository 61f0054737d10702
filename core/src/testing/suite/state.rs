//! The contract of `StateStore`, sentence by sentence.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use cluster_types::{Cid, Pin, PinningRequest, RequestNumber, StatusFilter, Timestamp, TrackerStatus};
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::pinset::{assert_sound, cid, cids, peer, pin, pin_on, put, record, rows, track, write};
use crate::catchup::stage::stage_from;
use crate::consensus::digest::{SHARDS, order_key};
use crate::crdt::{Records, shard};
use crate::ports::{
    AnnexRow, Changes, LocalEffect, NamePlace, RequestKey, Row, Scan, ShardState, SnapshotHandle, StateError,
    StateStore, StateView, TrackerRecord, UpdateFn,
};

/// Pins that make a scan hand over several buffers.
const MANY: u64 = 2_000;

/// Runs every test; `make` gives an empty store and what must outlive it.
pub async fn run<S, G, F, Fut>(make: F)
where
    S: StateStore,
    F: Fn() -> Fut,
    Fut: Future<Output = (Arc<S>, G)>,
{
    an_update_is_all_or_nothing(&*make().await.0).await;
    updates_happen_one_at_a_time_in_the_order_of_the_calls(&*make().await.0).await;
    a_view_shows_everything_written_before(&*make().await.0).await;
    outcomes_are_forgotten_by_the_window(&*make().await.0).await;
    scans_go_in_order_and_resume_anywhere(&*make().await.0).await;
    a_scan_of_all_shows_records_whose_pin_is_gone(&*make().await.0).await;
    a_scan_shows_one_instant_and_holds_nobody_up(&*make().await.0).await;
    scans_by_peer_follow_every_change(&*make().await.0).await;
    scans_by_expiry_show_the_soonest_first(&*make().await.0).await;
    requests_are_listed_by_user_newest_first(&*make().await.0).await;
    searches_by_name_follow_every_change_and_resume_anywhere(&*make().await.0).await;
    searches_by_metadata_follow_every_change_and_resume_anywhere(&*make().await.0).await;
    scans_by_status_follow_every_change(&*make().await.0).await;
    sums_and_position_are_of_one_instant(&*make().await.0).await;
    a_snapshot_shows_the_instant_it_was_made_at(&*make().await.0).await;
    let (from, _kept) = make().await;
    let (to, _also_kept) = make().await;
    installing_replaces_the_state(&*from, &*to).await;
    super::staging::run(&make).await;
    super::tails::run(make).await;
}

async fn update<S: StateStore>(store: &S, changes: Changes) {
    store.update(Box::new(move |_view| Ok(changes))).await.expect("the update is carried out");
}

async fn an_update_is_all_or_nothing<S: StateStore>(store: &S) {
    assert_eq!(store.applied().await.expect("readable"), None);
    put(store, vec![pin(1)], "one").await;
    let refused = store.update(Box::new(|view| {
        assert!(view.pin(&cid(1))?.is_some());
        Err(StateError::Damaged { what: "on purpose".to_owned() })
    }));
    assert!(matches!(refused.await, Err(StateError::Damaged { .. })), "the function's error is the update's");
    assert_eq!(store.pin(cid(1)).await.expect("readable"), Some(pin(1)));
    assert_eq!(store.pin(cid(2)).await.expect("readable"), None);
    assert_eq!(store.applied().await.expect("readable"), Some(Bytes::from_static(b"one")));
    write(store, vec![(cid(1), None), (cid(2), Some(pin(2)))], "two").await;
    assert_eq!(store.pin(cid(1)).await.expect("readable"), None);
    assert_eq!(store.pins(), 1);
    assert_sound(store, &[]).await;
}

async fn updates_happen_one_at_a_time_in_the_order_of_the_calls<S: StateStore>(store: &S) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let calls = (0..100_u8).map(|number| {
        let seen = Arc::clone(&seen);
        let update: UpdateFn = Box::new(move |_view| {
            seen.lock().push(number);
            Ok(Changes { applied: Some(Bytes::from(vec![number])), ..Changes::default() })
        });
        store.update(update)
    });
    for end in join_all(calls).await {
        end.expect("the update is carried out");
    }
    assert_eq!(*seen.lock(), (0..100).collect::<Vec<_>>());
    assert_eq!(store.applied().await.expect("readable"), Some(Bytes::from_static(&[99])));
}

async fn a_view_shows_everything_written_before<S: StateStore>(store: &S) {
    let key = RequestKey { window: 7, id: [1; 16] };
    let tracked = record(3, TrackerStatus::PinQueued, Some(10));
    put(store, vec![pin_on(1, &[1, 2])], "one").await;
    let outcomes = vec![(key, Bytes::from_static(b"done"))];
    update(store, Changes { outcomes, tracker: vec![(cid(1), Some(tracked.clone()))], ..Changes::default() }).await;
    let check = move |view: &dyn StateView| {
        assert_eq!(view.pin(&cid(1))?, Some(pin_on(1, &[1, 2])));
        assert_eq!(view.shard(crate::consensus::digest::shard_of(&cid(1)))?.sum.pins, 1);
        assert_eq!(view.outcome(&key)?, Some(Bytes::from_static(b"done")));
        assert_eq!(view.outcome(&RequestKey { window: 8, ..key })?, None);
        assert_eq!(view.tracked(&cid(1))?, Some(tracked.clone()));
        assert_eq!(view.tracked(&cid(2))?, None);
        Ok(())
    };
    let also = check.clone();
    store.update(Box::new(move |view| check(view).map(|()| Changes::default()))).await.expect("a view to update");
    store.read(Box::new(also)).await.expect("a view to read");
}

async fn outcomes_are_forgotten_by_the_window<S: StateStore>(store: &S) {
    let key = |window| RequestKey { window, id: [9; 16] };
    let outcomes = (1..=4).map(|window| (key(window), Bytes::from_static(b"x"))).collect();
    update(store, Changes { outcomes, ..Changes::default() }).await;
    let fresh = vec![(key(5), Bytes::from_static(b"y"))];
    update(store, Changes { forget_before_window: Some(3), outcomes: fresh, ..Changes::default() }).await;
    let check = move |view: &dyn StateView| {
        for window in 1..=5 {
            assert_eq!(view.outcome(&key(window))?.is_some(), window >= 3, "window {window}");
        }
        Ok(())
    };
    store.read(Box::new(check)).await.expect("readable");
}

fn sorted(numbers: impl IntoIterator<Item = u64>) -> Vec<Cid> {
    let mut cids: Vec<Cid> = numbers.into_iter().map(cid).collect();
    cids.sort_by_key(order_key);
    cids
}

async fn scans_go_in_order_and_resume_anywhere<S: StateStore>(store: &S) {
    put(store, (0..MANY).map(|number| pin_on(number, &[1])).collect(), "many").await;
    let expected = sorted(0..MANY);
    assert_eq!(cids(store, Scan::All { after: None }).await, expected);
    let absent = cid(MANY + 7);
    for after in [expected[0], expected[700], expected[expected.len() - 1], absent] {
        let rest: Vec<Cid> = expected.iter().copied().filter(|cid| order_key(cid) > order_key(&after)).collect();
        assert_eq!(cids(store, Scan::All { after: Some(after) }).await, rest);
        assert_eq!(cids(store, Scan::ByPeer { peer: peer(1), after: Some(after) }).await, rest);
    }
    let rows = rows(store, Scan::All { after: None }).await;
    assert!(rows.iter().all(|row| row.pin.as_ref().is_some_and(|pin| pin.cid == row.cid)));
}

async fn a_scan_of_all_shows_records_whose_pin_is_gone<S: StateStore>(store: &S) {
    put(store, (0..20).map(pin).collect(), "some").await;
    let tracked = record(1, TrackerStatus::UnpinQueued, None);
    track(store, (10..30).map(|number| (cid(number), Some(tracked.clone()))).collect()).await;
    let rows = rows(store, Scan::All { after: None }).await;
    assert_eq!(rows.iter().map(|row| row.cid).collect::<Vec<_>>(), sorted(0..30));
    for row in rows {
        let number = (0..30).find(|number| cid(*number) == row.cid).unwrap_or(u64::MAX);
        assert_eq!(row.pin.is_some(), number < 20);
        assert_eq!(row.tracked.is_some(), number >= 10);
    }
}

async fn a_scan_shows_one_instant_and_holds_nobody_up<S: StateStore>(store: &S) {
    put(store, (0..MANY).map(pin).collect(), "many").await;
    let mut slow: Vec<_> = (0..4).map(|_reader| store.scan(Scan::All { after: None })).collect();
    for reader in &mut slow {
        assert!(reader.next().await.is_some_and(|row| row.is_ok()));
    }
    write(store, (0..MANY).map(|number| (cid(number), None)).collect(), "none").await;
    put(store, (MANY..MANY + 9).map(pin).collect(), "others").await;
    drop(slow.pop());
    for reader in slow {
        let rest: Vec<_> = reader.try_collect().await.expect("the scan ends well");
        assert_eq!(rest.iter().map(|row| row.cid).collect::<Vec<_>>(), sorted(0..MANY)[1..]);
    }
    assert_eq!(cids(store, Scan::All { after: None }).await, sorted(MANY..MANY + 9));
}

async fn scans_by_peer_follow_every_change<S: StateStore>(store: &S) {
    let by = |number| Scan::ByPeer { peer: peer(number), after: None };
    put(store, vec![pin_on(1, &[1, 2]), pin_on(2, &[2, 3]), pin(3)], "one").await;
    assert_eq!(cids(store, by(2)).await, sorted([1, 2]));
    assert_eq!(cids(store, by(9)).await, sorted([]));
    write(store, vec![(cid(1), Some(pin_on(1, &[3]))), (cid(2), Some(pin(2)))], "two").await;
    assert_eq!(cids(store, by(2)).await, sorted([]), "neither moved away nor everywhere");
    assert_eq!(cids(store, by(3)).await, sorted([1]));
    write(store, vec![(cid(1), None)], "three").await;
    assert_sound(store, &[1, 2, 3]).await;
}

fn expiring(number: u64, seconds: i64) -> Pin {
    let mut pin = pin(number);
    pin.options.expire_at = Timestamp::from_unix_seconds(seconds);
    pin
}

fn called(number: u64, name: &str) -> Pin {
    let mut pin = pin(number);
    name.clone_into(&mut pin.options.name);
    pin
}

/// A pin with requests: number, user, name, and when it was made in milliseconds.
fn requested(number: u64, requests: &[(u8, &str, &str, i64)]) -> Pin {
    let request = |(id, user, name, created): &(u8, &str, &str, i64)| PinningRequest {
        id: RequestNumber([*id; 16]),
        user: (*user).to_owned(),
        name: (*name).to_owned(),
        meta: [("k".to_owned(), "v".to_owned())].into(),
        origins: Vec::new(),
        created: Timestamp::from_unix_millis(*created),
    };
    Pin { requests: requests.iter().map(request).collect(), only_requested: true, ..pin(number) }
}

async fn requests_are_listed_by_user_newest_first<S: StateStore>(store: &S) {
    let scan = async |user: &str, name: Option<&str>, before: Option<i64>, after: Option<i64>| {
        let [before, after] = [before, after].map(|time| time.map(Timestamp::from_unix_millis));
        let scan = Scan::Requested { user: user.to_owned(), name: name.map(str::to_owned), before, after };
        let rows: Vec<Row> = store.scan(scan).try_collect().await.expect("the scan ends well");
        let id = |row: &Row| row.request.filter(|id| row.pin.as_ref().is_some_and(|pin| pin.request(id).is_some()));
        rows.iter().map(|row| id(row).expect("a request of the pin").0[0]).collect::<Vec<u8>>()
    };
    let long = "u".repeat(300);
    let first = requested(1, &[(1, "ann", "a", 1_000), (2, "ann", "b", 3_000), (3, "bob", "a", 2_000)]);
    let second = requested(2, &[(4, "ann", "a", 2_000), (5, "", "", 5), (6, &long, "x", 1), (7, &long[1..], "x", 2)]);
    let third = requested(3, &[(8, "ann", "a", 2_000), (9, "anna", "a", 9_000), (10, "ann", "", -5)]);
    put(store, vec![first, second, third, pin(4)], "one").await;
    assert_eq!(scan("ann", None, None, None).await, [2, 4, 8, 1, 10]);
    assert_eq!(scan("ann", Some("a"), None, None).await, [4, 8, 1]);
    assert_eq!(scan("ann", Some(""), None, None).await, [10]);
    assert_eq!(scan("ann", None, Some(3_000), Some(1_000)).await, [4, 8], "both ends are left out");
    assert_eq!(scan("ann", Some("a"), Some(2_000), None).await, [1]);
    assert_eq!(scan("", None, None, None).await, [5]);
    assert_eq!(scan(&long, None, None, None).await, [6], "the index does not tell long names apart, the scan does");
    assert!(scan("an", None, None, None).await.is_empty());
    let fewer = requested(1, &[(2, "ann", "b", 3_000), (3, "bob", "renamed", 2_000)]);
    write(store, vec![(cid(1), Some(fewer)), (cid(2), None)], "two").await;
    assert_eq!(scan("ann", None, None, None).await, [2, 8, 10]);
    assert!(scan("bob", Some("a"), None, None).await.is_empty());
    assert_eq!(scan("bob", Some("renamed"), None, None).await, [3]);
    assert_sound(store, &[]).await;
}

async fn searches_by_name_follow_every_change_and_resume_anywhere<S: StateStore>(store: &S) {
    let by = |prefix: &str| Scan::ByName { prefix: prefix.to_owned(), after: None };
    let long = "x".repeat(300);
    let pins = [
        (1, "photo-b"),
        (2, "photo-a"),
        (3, "phot"),
        (4, "photo-a"),
        (5, ""),
        (6, &long),
        (7, "photo-\0z"),
        (8, "Photo"),
    ];
    put(store, pins.iter().map(|(number, name)| called(*number, name)).collect(), "one").await;
    let same = sorted([2, 4]);
    let photos = [&[cid(7)][..], &same, &[cid(1)]].concat();
    assert_eq!(cids(store, by("photo-")).await, photos);
    assert_eq!(cids(store, by("photo-a")).await, same);
    assert_eq!(cids(store, by("photo-\0")).await, [7].map(cid));
    assert_eq!(cids(store, by("photo-\0y")).await, []);
    assert_eq!(cids(store, by(&long[..200])).await, [6].map(cid));
    assert_eq!(cids(store, by(&format!("{}y", &long[..200]))).await, []);
    assert_eq!(cids(store, by("")).await.len(), 7, "all that have a name");
    for (place, after) in photos.iter().enumerate() {
        let name = pins.iter().find(|(number, _)| cid(*number) == *after).expect("one of them").1.to_owned();
        let resumed = Scan::ByName { prefix: "photo-".to_owned(), after: Some(NamePlace { name, cid: *after }) };
        assert_eq!(cids(store, resumed).await, photos[place + 1..], "after {place}");
    }
    write(store, vec![(cid(1), Some(called(1, "other"))), (cid(2), None)], "two").await;
    assert_eq!(cids(store, by("photo-")).await, [7, 4].map(cid));
    let gone = Scan::ByName {
        prefix: "photo-".to_owned(),
        after: Some(NamePlace { name: "photo-a".to_owned(), cid: same[0] }),
    };
    let left = if same[0] == cid(2) { vec![cid(4)] } else { vec![] };
    assert_eq!(cids(store, gone).await, left);
}

async fn searches_by_metadata_follow_every_change_and_resume_anywhere<S: StateStore>(store: &S) {
    let with = |number: u64, texts: &[(&str, &str)]| {
        let mut pin = pin(number);
        pin.options.metadata = texts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        pin
    };
    let by = |key: &str, value: &str| Scan::ByMeta { key: key.to_owned(), value: value.to_owned(), after: None };
    let long = "y".repeat(200);
    let pins = vec![
        with(1, &[("kind", "photo"), ("of", "me")]),
        with(2, &[("kind", "photo")]),
        with(3, &[("kind", "photos")]),
        with(4, &[("kin", "dphoto")]),
        with(5, &[(&long, &long)]),
        with(6, &[("kind", "photo")]),
    ];
    put(store, pins, "one").await;
    let photos = sorted([1, 2, 6]);
    assert_eq!(cids(store, by("kind", "photo")).await, photos);
    assert_eq!(cids(store, by("of", "me")).await, [1].map(cid));
    assert_eq!(cids(store, by("of", "")).await, []);
    assert_eq!(cids(store, by(&long, &long)).await, [5].map(cid));
    assert_eq!(cids(store, by(&long, &long[..150])).await, [], "what the index does not tell apart is looked at");
    for (place, after) in photos.iter().enumerate() {
        let resumed = Scan::ByMeta { key: "kind".to_owned(), value: "photo".to_owned(), after: Some(*after) };
        assert_eq!(cids(store, resumed).await, photos[place + 1..]);
    }
    write(store, vec![(cid(1), Some(with(1, &[("of", "me")]))), (cid(2), None)], "two").await;
    assert_eq!(cids(store, by("kind", "photo")).await, [6].map(cid));
}

async fn scans_by_expiry_show_the_soonest_first<S: StateStore>(store: &S) {
    let until = |seconds| Scan::Expiring { until: Timestamp::from_unix_seconds(seconds) };
    put(store, vec![expiring(1, 300), expiring(2, 100), expiring(3, 200), pin(4), expiring(5, -50)], "one").await;
    assert_eq!(cids(store, until(200)).await, [5, 2, 3].map(cid), "up to the end, the end included");
    assert_eq!(cids(store, until(-60)).await, []);
    put(store, vec![expiring(2, 400), pin(3)], "two").await;
    assert_eq!(cids(store, until(400)).await, [5, 1, 2].map(cid));
    write(store, vec![(cid(5), None)], "three").await;
    assert_sound(store, &[]).await;
}

async fn scans_by_status_follow_every_change<S: StateStore>(store: &S) {
    use TrackerStatus as S;
    put(store, (0..6).map(pin).collect(), "one").await;
    let statuses = [S::PinQueued, S::PinError, S::Pinned, S::PinError, S::UnpinQueued, S::Pinned];
    let records = (0..).map(cid).zip(statuses.map(|status| Some(record(1, status, None)))).collect();
    track(store, records).await;
    let by = |statuses: &[S], after| Scan::ByStatus { filter: StatusFilter::of(statuses), after };
    assert_eq!(cids(store, by(&[S::PinError, S::UnpinQueued], None)).await, sorted([1, 3, 4]));
    assert_eq!(cids(store, Scan::ByStatus { filter: StatusFilter::ALL, after: None }).await, sorted(0..6));
    let order = sorted([1, 3, 4]);
    assert_eq!(cids(store, by(&[S::PinError, S::UnpinQueued], Some(order[0]))).await, order[1..]);
    track(store, vec![(cid(1), Some(record(2, S::Pinned, None))), (cid(3), None)]).await;
    assert_eq!(cids(store, by(&[S::PinError], None)).await, []);
    let pinned = rows(store, by(&[S::Pinned], None)).await;
    assert_eq!(pinned.iter().map(|row| row.cid).collect::<Vec<_>>(), sorted([1, 2, 5]));
    assert!(pinned.iter().all(|row| row.pin.is_some() && row.tracked.is_some()));
}

async fn sums_and_position_are_of_one_instant<S: StateStore>(store: &S) {
    let (sums, applied) = store.shards().await.expect("readable");
    assert_eq!((sums.len(), applied), (4096, None));
    put(store, (0..50).map(pin).collect(), "fifty").await;
    let (sums, applied) = store.shards().await.expect("readable");
    assert_eq!(sums.iter().map(|state| state.sum.pins).sum::<u64>(), 50);
    assert_eq!(applied, Some(Bytes::from_static(b"fifty")));
    assert_sound(store, &[]).await;
}

/// Everything a frozen state shows.
pub(super) async fn content(snapshot: &Arc<dyn SnapshotHandle>) -> (Bytes, Vec<(ShardState, Records)>, Vec<AnnexRow>) {
    let shown = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&shown);
    let look = move |view: &dyn StateView| {
        let shards = (0..SHARDS).map(|at| Ok((view.shard(at)?, shard::records(view, at)?)));
        *slot.lock() = Some(shards.collect::<Result<Vec<_>, StateError>>()?);
        Ok(())
    };
    snapshot.read(Box::new(look)).await.expect("the snapshot is readable");
    let shards = shown.lock().take().expect("the snapshot shows a view");
    let annex: Vec<Vec<AnnexRow>> = snapshot.annex().try_collect().await.expect("the annex is readable");
    (snapshot.applied(), shards, annex.concat())
}

async fn a_snapshot_shows_the_instant_it_was_made_at<S: StateStore>(store: &S) {
    assert!(store.current_snapshot().await.expect("readable").is_none());
    put(store, (0..20).map(|number| pin_on(number, &[1])).collect(), "then").await;
    let then = store.make_snapshot().await.expect("made");
    let first = content(&then).await;
    put(store, (20..40).map(|number| pin_on(number, &[2])).collect(), "now").await;
    assert_eq!(then.applied(), Bytes::from_static(b"then"));
    assert_eq!(content(&then).await, first, "it can be read more than once");
    let current = store.current_snapshot().await.expect("readable").expect("there is one");
    assert_eq!(current.applied(), then.applied());
    let now = store.make_snapshot().await.expect("made");
    let current = store.current_snapshot().await.expect("readable").expect("there is one");
    assert_eq!((current.applied(), now.applied()), (Bytes::from_static(b"now"), Bytes::from_static(b"now")));
    assert_eq!(content(&then).await, first, "whoever is reading the old one goes on");
}

/// Queues what comes and what changes, drops what goes, and notes what it was asked.
fn queueing(asked: Arc<Mutex<Vec<Cid>>>) -> LocalEffect {
    Arc::new(move |before: Option<&Pin>, after: Option<&Pin>, _tracked: Option<&TrackerRecord>| {
        let pin = before.or(after)?;
        asked.lock().push(pin.cid);
        Some(after.map(|_pin| record(50, TrackerStatus::PinQueued, Some(1))))
    })
}

/// What is equal on all peers.
pub(super) async fn shared<S: StateStore + ?Sized>(
    store: &S,
) -> (Vec<impl PartialEq + std::fmt::Debug + use<S>>, Option<Bytes>) {
    let (shards, applied) = store.shards().await.expect("readable");
    (shards.iter().map(ShardState::shared).collect(), applied)
}

async fn installing_replaces_the_state<S: StateStore>(from: &S, to: &S) {
    let (same, gone, changed, fresh) = (pin_on(1, &[1]), pin_on(2, &[1]), pin_on(3, &[2]), pin_on(4, &[3]));
    let key = |window| RequestKey { window, id: [4; 16] };
    let outcome = |window| Changes { outcomes: vec![(key(window), Bytes::from_static(b"o"))], ..Changes::default() };
    put(from, vec![same.clone(), changed.clone(), fresh.clone()], "sender").await;
    update(from, outcome(1)).await;
    put(to, vec![same.clone(), gone.clone(), pin_on(3, &[1, 9])], "receiver").await;
    update(to, outcome(2)).await;
    let tracked = record(7, TrackerStatus::Pinned, None);
    track(to, [&same, &gone].map(|pin| (pin.cid, Some(tracked.clone()))).to_vec()).await;

    let snapshot = from.make_snapshot().await.expect("made");
    stage_from(to, &snapshot, 9).await.expect("staged");
    assert_eq!(to.applied().await.expect("readable"), Some(Bytes::from_static(b"receiver")), "not yet installed");
    assert_eq!(to.pin(gone.cid).await.expect("readable"), Some(gone.clone()), "the state is whole meanwhile");
    let asked = Arc::new(Mutex::new(Vec::new()));
    to.install_staged(queueing(Arc::clone(&asked))).await.expect("installed");

    let mut asked = std::mem::take(&mut *asked.lock());
    asked.sort_by_key(order_key);
    assert_eq!(asked, sorted([2, 3, 4]), "only what differs is asked about");
    assert_eq!(to.applied().await.expect("readable"), Some(Bytes::from_static(b"sender")));
    assert_eq!(shared(to).await, shared(from).await);
    let seen = rows(to, Scan::All { after: None }).await;
    assert_eq!(seen.iter().map(|row| row.cid).collect::<Vec<_>>(), sorted([1, 3, 4]));
    for row in seen {
        let expected = if row.cid == same.cid { TrackerStatus::Pinned } else { TrackerStatus::PinQueued };
        assert_eq!(row.tracked.map(|record| record.status), Some(expected));
        assert_eq!(row.pin, from.pin(row.cid).await.expect("readable"));
    }
    let check = move |view: &dyn StateView| {
        assert!(view.outcome(&key(1))?.is_some() && view.outcome(&key(2))?.is_none());
        assert_eq!(view.tracked(&cid(2))?, None);
        Ok(())
    };
    to.read(Box::new(check)).await.expect("readable");
    assert_sound(to, &[1, 2, 3, 9]).await;
    let current = to.current_snapshot().await.expect("readable").expect("the installed one");
    assert_eq!(current.applied(), snapshot.applied());
    let (_, _, annex) = content(&current).await;
    assert_eq!(annex, content(&snapshot).await.2, "others can be served from it");
    assert_eq!(to.staged().await.expect("readable"), Default::default(), "nothing is staged any more");
    stage_from(to, &snapshot, 9).await.expect("staged");
    let nothing: LocalEffect = Arc::new(|_, _, _| panic!("nothing differs"));
    to.install_staged(nothing).await.expect("what differs in nothing is installed too");
    assert_sound(to, &[1, 2, 3, 9]).await;
}
