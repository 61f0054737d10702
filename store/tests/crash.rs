//! A process killed between any two writes leaves a store whose parts agree; a folder is used by one process at a
//! time; a cut-off install is finished; a damaged database says so.

#![expect(clippy::unwrap_used, reason = "a test binary")]
#![expect(clippy::print_stdout, reason = "the child process tells its parent how far it is")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use cluster_core::catchup::stage::stage_from;
use cluster_core::consensus::digest::shard_of;
use cluster_core::consensus::operation::encode_pin;
use cluster_core::crdt::{ShardMeta, TailEntry};
use cluster_core::ports::{
    Changes, LocalEffect, OutboxStore, RequestKey, Scan, Settled, ShardState, StagedOverview, Staging, StateStore,
    StateView, TailPlace, TailRow, TrackerCounts, TrackerStore,
};
use cluster_core::testing::suite::{
    self,
    pinset::{assert_sound, changes, cid, pin, pin_on, put, record, rows, track},
    tails::tail,
};
use cluster_store::{RocksState, Store, StoreError, StoreOptions};
use cluster_types::{StatusFilter, Timestamp, TrackerStatus};
use openraft::Vote;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use tempfile::TempDir;

/// Tells the child where to write.
const FOLDER: &str = "CLUSTER_STORE_CRASH_FOLDER";
/// Updates the parent lets the child make before it kills it.
const UPDATES: [usize; 3] = [1, 40, 150];

fn open(folder: &Path) -> Store {
    Store::open(folder, StoreOptions::default()).unwrap()
}

/// One step of the child: pins come, move and go; records and outcomes with them; the position moves.
fn step(number: u64) -> impl Fn(&dyn StateView) -> Result<Changes, cluster_core::ports::StateError> {
    move |view| {
        let low = u8::try_from(number % 7).unwrap_or(0);
        let mut pins = vec![(cid(number), Some(pin_on(number, &[low, low + 1])))];
        if number >= 5 {
            pins.push((cid(number - 5), Some(pin_on(number - 5, &[low + 2]))));
        }
        if number >= 9 && number.is_multiple_of(3) {
            pins.push((cid(number - 9), None));
        }
        let due = Some(i64::try_from(number).unwrap_or(0));
        let tracker = pins.iter().map(|(cid, pin)| {
            let status = if pin.is_some() { TrackerStatus::PinQueued } else { TrackerStatus::UnpinQueued };
            (*cid, Some(record(number, status, due)))
        });
        let tracker = tracker.collect();
        let outcomes = vec![(RequestKey { window: number, id: [1; 16] }, Bytes::from_static(b"done"))];
        let applied = Some(Bytes::from(number.to_be_bytes().to_vec()));
        let forget_before_window = number.checked_sub(20);
        Ok(Changes { tracker, outcomes, applied, forget_before_window, ..changes(view, pins)? })
    }
}

/// Not a test of its own: the process that is killed.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = open(Path::new(&folder));
    let state = store.state();
    for number in 0.. {
        state.update(Box::new(step(number))).await.unwrap();
        let settled = record(number, TrackerStatus::Pinned, None);
        let job = Settled { cid: cid(number), generation: number, record: Some(settled) };
        assert_eq!(state.settle(vec![job]).await.unwrap(), [true]);
        if number % 50 == 17 {
            state.make_snapshot().await.unwrap();
        }
        println!("\ndone {number}");
    }
}

fn kill_a_child_after(updates: usize, folder: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let done = lines.map_while(Result::ok).filter(|line| line.starts_with("done ")).take(updates).count();
    assert_eq!(done, updates, "the child came that far");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Panics unless indexes and counts of the tracker are those of its records.
async fn assert_tracker_sound(state: &RocksState) {
    let records: Vec<_> = rows(state, Scan::All { after: None })
        .await
        .into_iter()
        .filter_map(|row| Some((row.cid, row.tracked?)))
        .collect();
    let mut counts = TrackerCounts::default();
    for (_cid, record) in &records {
        counts.add(record.status);
    }
    assert_eq!(state.counts(), counts);
    for status in [TrackerStatus::PinQueued, TrackerStatus::Pinned, TrackerStatus::UnpinQueued] {
        let listed = state.by_status(StatusFilter::of(&[status]), None, usize::MAX).await.unwrap();
        assert_eq!(listed.len(), records.iter().filter(|(_cid, record)| record.status == status).count());
    }
    let due = state.due(Timestamp::from_unix_seconds(i64::from(i32::MAX)), usize::MAX).await.unwrap();
    assert_eq!(due.len(), records.iter().filter(|(_cid, record)| record.due.is_some()).count());
}

#[tokio::test]
async fn a_killed_process_leaves_a_store_whose_parts_agree() {
    for updates in UPDATES {
        let folder = TempDir::new().unwrap();
        kill_a_child_after(updates, folder.path());
        let store = open(folder.path());
        let state = store.state();
        let applied = state.applied().await.unwrap().unwrap();
        let applied = u64::from_be_bytes(applied.as_ref().try_into().unwrap());
        assert!(applied + 1 >= u64::try_from(updates).unwrap(), "a kill loses nothing that was written");
        assert_sound(state.as_ref(), &[0, 1, 2, 3, 4, 5, 6, 7, 8]).await;
        assert_tracker_sound(&state).await;
        let check = move |view: &dyn StateView| {
            let key = |window| RequestKey { window, id: [1; 16] };
            assert!(view.pin(&cid(applied))?.is_some());
            assert!(view.outcome(&key(applied))?.is_some() && view.outcome(&key(applied + 1))?.is_none());
            assert!(applied < 21 || view.outcome(&key(applied - 21))?.is_none());
            Ok(())
        };
        state.read(Box::new(check)).await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_second_process_is_told_which_folder_is_taken() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    let Err(error) = Store::open(folder.path(), StoreOptions::default()) else { panic!("it is taken") };
    assert!(matches!(error, StoreError::Locked { .. }));
    assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
    store.close().await.unwrap();
    drop(open(folder.path()));
    drop(open(folder.path()));
}

#[tokio::test]
async fn a_damaged_database_is_not_opened_and_says_what_to_do() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    put(store.state().as_ref(), (0..100).map(pin).collect(), "some").await;
    store.close().await.unwrap();
    drop(store);
    let database = folder.path().join("state");
    for entry in std::fs::read_dir(&database).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("MANIFEST") {
            std::fs::write(&path, b"this is not a manifest").unwrap();
        }
    }
    let Err(error) = Store::open(folder.path(), StoreOptions::default()) else { panic!("it is damaged") };
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    // Started anew without it, the peer would found a cluster of its own.
    assert!(error.to_string().contains("--bootstrap"), "{error}");
}

#[tokio::test]
async fn a_write_ahead_log_without_the_rest_of_the_database_is_not_overwritten() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    put(store.state().as_ref(), (0..100).map(pin).collect(), "some").await;
    store.close().await.unwrap();
    drop(store);
    let current = folder.path().join("state/CURRENT");
    let content = std::fs::read(&current).unwrap();
    std::fs::remove_file(&current).unwrap();
    let tables = std::fs::read_dir(folder.path().join("state"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "sst"));
    assert_eq!(tables.count(), 0, "everything is in the write-ahead log");
    let Err(error) = Store::open(folder.path(), StoreOptions::default()) else { panic!("it is damaged") };
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    std::fs::write(&current, content).unwrap();
    assert_eq!(open(folder.path()).state().pins(), 100);
}

#[tokio::test]
async fn a_bad_byte_inside_the_log_is_damage_and_looking_at_it_makes_nothing_worse() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    for number in 0..100 {
        put(store.state().as_ref(), vec![pin(number)], "some").await;
    }
    store.close().await.unwrap();
    drop(store);
    let entries = std::fs::read_dir(folder.path().join("state")).unwrap().map(|entry| entry.unwrap().path());
    let logs = entries.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let log = logs.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let whole = std::fs::read(&log).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    std::fs::write(&log, flipped).unwrap();
    let Err(error) = Store::open(folder.path(), StoreOptions::default()) else { panic!("it is damaged") };
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    std::fs::write(&log, &whole).unwrap();
    assert_eq!(open(folder.path()).state().pins(), 100);
}

#[tokio::test]
async fn a_new_database_does_not_take_the_snapshots_of_a_former_one() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    put(store.state().as_ref(), (0..100).map(pin).collect(), "some").await;
    store.state().make_snapshot().await.unwrap();
    store.close().await.unwrap();
    drop(store);
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    let Err(error) = Store::open(folder.path(), StoreOptions::default()) else { panic!("its database is gone") };
    assert!(error.to_string().contains("`snapshots`"), "{error}");
    std::fs::remove_dir_all(folder.path().join("snapshots")).unwrap();
    assert_eq!(open(folder.path()).state().pins(), 0);
}

/// The file of the write-ahead log that is written now.
fn live_log(database: &Path) -> PathBuf {
    let paths = std::fs::read_dir(database).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().unwrap()
}

/// The database as a power cut leaves it: `flushed` bytes of the live log and nothing after.
fn copy_cut_off(from: &Path, to: &Path, flushed: u64) {
    std::fs::create_dir_all(to.join("state")).unwrap();
    for entry in std::fs::read_dir(from.join("state")).unwrap() {
        let path = entry.unwrap().path();
        match std::fs::copy(&path, to.join("state").join(path.file_name().unwrap())) {
            Ok(_bytes) => {}
            // The engine clears away what it does not need any more.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    let log = std::fs::File::options().write(true).open(live_log(&to.join("state"))).unwrap();
    assert!(flushed <= log.metadata().unwrap().len());
    log.set_len(flushed).unwrap();
}

/// The store as a power cut leaves it at worst: of the live log only what was promised to be flushed.
async fn cut_power(state: Arc<RocksState>, (folder, store): (TempDir, Store)) -> (Arc<RocksState>, (TempDir, Store)) {
    let whole = std::fs::metadata(live_log(&folder.path().join("state"))).unwrap().len();
    // The shortest log that is not taken for a damaged one.
    let (mut too_short, mut enough) = (None, whole);
    while too_short.map_or(0, |short: u64| short + 1) < enough {
        let tried = too_short.map_or(0, |short| short + 1).midpoint(enough - 1);
        let copy = TempDir::new().unwrap();
        copy_cut_off(folder.path(), copy.path(), tried);
        match Store::open(copy.path(), StoreOptions::default()) {
            Ok(_opened) => enough = tried,
            Err(StoreError::Damaged { .. }) => too_short = Some(tried),
            Err(error) => panic!("{error:?}"),
        }
    }
    let copy = TempDir::new().unwrap();
    copy_cut_off(folder.path(), copy.path(), enough);
    drop((state, store));
    let store = open(copy.path());
    (store.state(), (copy, store))
}

#[tokio::test]
async fn what_was_flushed_of_eventual_writes_survives_a_power_cut() {
    let make = || async {
        let folder = TempDir::new().unwrap();
        let store = open(folder.path());
        (store.state(), (folder, store))
    };
    suite::outbox::survives(make, cut_power).await;
    let (state, kept) = make().await;
    put(state.as_ref(), vec![pin(1)], "flushed").await;
    state.flush().await.unwrap();
    put(state.as_ref(), vec![pin(2)], "not flushed").await;
    let (state, _kept) = cut_power(state, kept).await;
    assert_eq!(state.applied().await.unwrap(), Some(Bytes::from_static(b"flushed")), "this is how a cut looks");
}

#[tokio::test]
async fn damage_in_the_flushed_log_is_not_taken_for_its_end_but_a_cut_off_end_is() {
    let (folder, copy, damaged) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = open(folder.path());
    put(store.state().as_ref(), (0..1_000).map(pin).collect(), "flushed").await;
    store.raft_log().save_vote(&Vote::new(4, 2)).await.unwrap();
    let live = live_log(&folder.path().join("state"));
    let flushed = std::fs::metadata(&live).unwrap().len();
    put(store.state().as_ref(), (1_000..1_100).map(pin).collect(), "not flushed").await;
    assert!(std::fs::metadata(&live).unwrap().len() > flushed);

    copy_cut_off(folder.path(), copy.path(), flushed);
    let cut_off = open(copy.path());
    assert_eq!(cut_off.state().applied().await.unwrap(), Some(Bytes::from_static(b"flushed")));
    assert_eq!(cut_off.raft_log().read_vote().await.unwrap(), Some(Vote::new(4, 2)));

    copy_cut_off(folder.path(), damaged.path(), flushed);
    let log = live_log(&damaged.path().join("state"));
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    for start in 0..2 {
        let end = Store::open(damaged.path(), StoreOptions::default());
        let Err(error) = end else { panic!("start {start}: the vote is lost") };
        let StoreError::Damaged { cause, .. } = &error else { panic!("{error:?}") };
        assert!(cause.to_string().contains("must not vote"), "{cause}");
        assert!(error.to_string().contains("--bootstrap"), "{error}");
    }
}

#[tokio::test]
async fn tables_without_their_list_are_not_overwritten() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    put(store.state().as_ref(), (0..100).map(pin).collect(), "some").await;
    store.state().make_snapshot().await.unwrap();
    store.close().await.unwrap();
    let current = folder.path().join("state/CURRENT");
    let content = std::fs::read(&current).unwrap();
    std::fs::remove_file(&current).unwrap();
    let Err(error) = Store::open(folder.path(), StoreOptions::default()) else { panic!("it is damaged") };
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    std::fs::write(&current, content).unwrap();
    assert_eq!(open(folder.path()).state().pins(), 100);
}

#[tokio::test]
async fn a_frozen_state_outlives_the_process_and_older_ones_are_cleared_away() {
    let folder = TempDir::new().unwrap();
    {
        let store = open(folder.path());
        let state = store.state();
        put(state.as_ref(), (0..10).map(pin).collect(), "first").await;
        let first = state.make_snapshot().await.unwrap();
        put(state.as_ref(), (10..20).map(pin).collect(), "second").await;
        state.make_snapshot().await.unwrap();
        drop(first);
        store.close().await.unwrap();
    }
    let store = open(folder.path());
    let current = store.state().current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.applied(), Bytes::from_static(b"second"));
    let left: Vec<_> = std::fs::read_dir(folder.path().join("snapshots")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn a_frozen_state_that_is_unreadable_is_dropped_and_made_again() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    put(store.state().as_ref(), (0..10).map(pin).collect(), "some").await;
    store.state().make_snapshot().await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let snapshots = folder.path().join("snapshots");
    let frozen = std::fs::read_dir(&snapshots).unwrap().next().unwrap().unwrap().path();
    std::fs::write(frozen.join("db/CURRENT"), b"no manifest").unwrap();
    let store = open(folder.path());
    let state = store.state();
    assert!(state.current_snapshot().await.unwrap().is_none());
    assert_eq!(std::fs::read_dir(&snapshots).unwrap().count(), 0);
    assert_eq!(state.make_snapshot().await.unwrap().applied(), Bytes::from_static(b"some"));
    assert_eq!(state.pins(), 10);
}

/// The effect of the receiver: what comes is queued.
fn queueing() -> LocalEffect {
    Arc::new(|_before, after, _tracked| Some(after.map(|_pin| record(9, TrackerStatus::PinQueued, Some(9)))))
}

/// The place of a copy of the database that a child process was killed in.
const INSTALL_CHILD: &str = "CLUSTER_TEST_INSTALL";

/// What the parent makes, and the child installs.
async fn stage_two_thousand(folder: &Path) -> (TempDir, Store) {
    let from_folder = TempDir::new().unwrap();
    let (from, to) = (open(from_folder.path()), open(folder));
    put(from.state().as_ref(), (0..2_000).map(|number| pin_on(number, &[1])).collect(), "sender").await;
    put(to.state().as_ref(), (1_000..3_000).map(|number| pin_on(number, &[2])).collect(), "receiver").await;
    let add = |view: &dyn StateView| {
        let shard = shard_of(&cid(2));
        let mut state = view.shard(shard)?;
        state.meta = ShardMeta { epoch: 3, previous: 3, since_epoch: 1, since_previous: 1 };
        let entry = TailEntry { index: 5, cid: cid(2), before: Some(encode_pin(&pin(2)).into()) };
        let tail = vec![TailRow { shard, place: 0, entry }];
        Ok(Changes { shards: vec![(shard, state)], tail, ..Changes::default() })
    };
    to.state().update(Box::new(add)).await.unwrap();
    let tracked = record(1, TrackerStatus::Pinned, None);
    track(to.state().as_ref(), (1_000..1_100).map(|number| (cid(number), Some(tracked.clone()))).collect()).await;
    let snapshot = from.state().make_snapshot().await.unwrap();
    stage_from(to.state().as_ref(), &snapshot, 11).await.unwrap();
    to.close().await.unwrap();
    (from_folder, from)
}

/// In a child process: says that it begins, installs, and says that it is done; it is killed meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_installs() {
    let Ok(folder) = std::env::var(INSTALL_CHILD) else { return };
    let store = open(Path::new(&folder));
    std::fs::write(Path::new(&folder).join("begun"), b"").unwrap();
    store.state().install_staged(queueing()).await.unwrap();
    std::fs::write(Path::new(&folder).join("done"), b"").unwrap();
}

/// However far it came: the next start finishes it, or it has not begun.
#[tokio::test]
async fn an_install_that_was_killed_is_finished_at_the_next_start() {
    let mut finished = 0;
    for wait in [0, 1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 512, 1_024, 4_096] {
        let folder = TempDir::new().unwrap();
        let (_from_folder, from) = stage_two_thousand(folder.path()).await;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_installs"])
            .env(INSTALL_CHILD, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !folder.path().join("begun").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let store = open(folder.path());
        let state = store.state();
        if state.applied().await.unwrap() == Some(Bytes::from_static(b"receiver")) {
            assert_eq!(state.pins(), 2_000, "nothing of it is seen before it is whole");
            assert_sound(state.as_ref(), &[1, 2]).await;
            state.install_staged(queueing()).await.unwrap();
        } else {
            finished += 1;
        }
        assert_eq!(state.applied().await.unwrap(), Some(Bytes::from_static(b"sender")));
        let shared = |shards: Vec<ShardState>| shards.iter().map(ShardState::shared).collect::<Vec<_>>();
        let expected = from.state().shards().await.unwrap().0;
        assert_eq!(shared(state.shards().await.unwrap().0), shared(expected));
        assert_sound(state.as_ref(), &[1, 2]).await;
        assert_eq!(tail(state.as_ref(), shard_of(&cid(2)), TailPlace::after(0), 9).await, []);
        assert_tracker_sound(&state).await;
        assert_eq!(state.counts(), TrackerCounts { queued: 2_000, ..TrackerCounts::default() });
        assert_eq!(state.staged().await.unwrap(), StagedOverview::default());
        let frozen = state.make_snapshot().await.unwrap();
        assert_eq!(frozen.applied(), Bytes::from_static(b"sender"));
        store.close().await.unwrap();
        from.close().await.unwrap();
    }
    assert!(finished > 0, "some were killed late enough");
}

#[tokio::test]
async fn what_is_staged_survives_a_kill() {
    let folder = TempDir::new().unwrap();
    let (_from_folder, _from) = stage_two_thousand(folder.path()).await;
    let store = open(folder.path());
    assert!(store.state().staged().await.unwrap().shards.len() > 1_000);
    let manifest = store.state().staged().await.unwrap().manifest;
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.state().staged().await.unwrap().manifest, manifest);
}
