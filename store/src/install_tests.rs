//! Tests of what readers see while the state is replaced.

use std::time::Duration;

use cluster_core::catchup::stage::stage_from;
use cluster_core::ports::{Scan, StateStore};
use cluster_core::testing::suite::pinset::{cid, cids, pin, put};
use tempfile::TempDir;

use super::*;
use crate::Store;
use crate::engine::StoreOptions;

const LIMIT: Duration = Duration::from_secs(60);
const PINS: u64 = 3_000;

fn open() -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    (folder, store)
}

#[tokio::test]
async fn readers_of_pins_do_not_wait_for_an_install() {
    let (_folder, store) = open();
    let state = store.state();
    put(&*state, vec![pin(1)], "before").await;
    // As an install does, which then goes on for as long as it likes.
    let before = state.snapshots.copy(&state.door).await.unwrap();
    *state.before.write() = Some(Arc::new(Door::new(before)));
    let _whole = Arc::clone(&state.whole).write_owned().await;
    let reads = async {
        assert_eq!(state.pin(cid(1)).await.unwrap(), Some(pin(1)));
        assert_eq!(cids(&*state, Scan::All { after: None }).await, [cid(1)]);
        assert_eq!(state.applied().await.unwrap().unwrap(), "before");
        assert_eq!(state.shards().await.unwrap().0.iter().map(|shard| shard.sum.pins).sum::<u64>(), 1);
    };
    tokio::time::timeout(LIMIT, reads).await.expect("nobody waits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_the_state_before_or_after_and_nothing_in_between() {
    let ((_from_folder, from), (_to_folder, to)) = (open(), open());
    put(&*from.state(), (0..PINS).map(pin).collect(), "sender").await;
    let state = to.state();
    put(&*state, vec![pin(PINS)], "receiver").await;
    let snapshot = from.state().make_snapshot().await.unwrap();
    stage_from(&*state, &snapshot, 5).await.unwrap();
    let nothing: LocalEffect = Arc::new(|_, _, _| None);
    let reading = async {
        loop {
            let shown = cids(&*state, Scan::All { after: None }).await;
            assert!(shown == [cid(PINS)] || shown.len() as u64 == PINS, "{} pins are shown", shown.len());
            if shown.len() as u64 == PINS {
                return;
            }
        }
    };
    let (installed, ()) = futures::future::join(state.install_staged(nothing), reading).await;
    installed.unwrap();
    assert!(state.before.read().is_none(), "nobody reads the old state any more");
    assert_eq!(state.pin(cid(PINS)).await.unwrap(), None);
}

/// Killed after the last batch of an install and before the new state is frozen: raft would find a log purged further than
/// what its snapshot shows, and not start.
#[tokio::test]
async fn a_frozen_state_of_before_an_install_does_not_outlive_a_kill() {
    let ((_from_folder, from), (to_folder, to)) = (open(), open());
    put(&*from.state(), vec![pin(1)], "sender").await;
    let state = to.state();
    put(&*state, vec![pin(2)], "receiver").await;
    let snapshot = from.state().make_snapshot().await.unwrap();
    stage_from(&*state, &snapshot, 5).await.unwrap();
    let nothing: LocalEffect = Arc::new(|_, _, _| None);
    state.door.run(Kind::Urgent, move |database| prepare(database, &nothing)).await.unwrap();
    drop(state.snapshots.copy(&state.door).await.unwrap());
    assert_eq!(state.current_snapshot().await.unwrap().unwrap().applied(), "receiver");
    state.door.run(Kind::Urgent, carry_out).await.unwrap();
    drop((state, to));
    for _start in 0..2 {
        let to = Store::open(to_folder.path(), StoreOptions::default()).unwrap();
        assert_eq!(to.state().applied().await.unwrap().unwrap(), "sender");
        assert!(to.state().current_snapshot().await.unwrap().is_none(), "what it would show is no longer so");
    }
    let to = Store::open(to_folder.path(), StoreOptions::default()).unwrap();
    to.state().make_snapshot().await.unwrap();
    drop(to);
    let to = Store::open(to_folder.path(), StoreOptions::default()).unwrap();
    let kept = to.state().current_snapshot().await.unwrap().expect("a new one stays");
    assert_eq!(kept.applied(), "sender");
}
