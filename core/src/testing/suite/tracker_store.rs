//! The contract of `TrackerStore`, sentence by sentence.

use std::future::Future;
use std::sync::Arc;

use cluster_types::{Cid, StatusFilter, Timestamp, TrackerStatus};

use super::pinset::{cid, record, track};
use crate::consensus::digest::order_key;
use crate::ports::{Settled, StateStore, TrackedTask, TrackerCounts, TrackerRecord, TrackerStore};

/// Runs every test; `make` gives an empty store and what must outlive it.
pub async fn run<S, G, F, Fut>(make: F)
where
    S: StateStore + TrackerStore,
    F: Fn() -> Fut,
    Fut: Future<Output = (Arc<S>, G)>,
{
    what_is_due_comes_most_urgent_first(&*make().await.0).await;
    settling_counts_only_for_the_generation_it_was_started_with(&*make().await.0).await;
    settling_moves_every_index(&*make().await.0).await;
    listing_by_status_goes_in_order_and_resumes(&*make().await.0).await;
    counts_follow_every_change(&*make().await.0).await;
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn settled(number: u64, generation: u64, record: Option<TrackerRecord>) -> Settled {
    Settled { cid: cid(number), generation, record }
}

fn names(tasks: Vec<TrackedTask>) -> Vec<Cid> {
    tasks.into_iter().map(|task| task.cid).collect()
}

async fn due<S: TrackerStore>(store: &S, now: i64, limit: usize) -> Vec<Cid> {
    names(store.due(at(now), limit).await.expect("readable"))
}

async fn what_is_due_comes_most_urgent_first<S: StateStore + TrackerStore>(store: &S) {
    assert_eq!(store.next_due().await.expect("readable"), None);
    let queued = |due| record(1, TrackerStatus::PinQueued, due);
    let urgent = |due| TrackerRecord { priority: true, ..queued(Some(due)) };
    track(
        store,
        vec![
            (cid(1), Some(queued(Some(20)))),
            (cid(2), Some(queued(Some(10)))),
            (cid(3), Some(urgent(30))),
            (cid(4), Some(urgent(25))),
            (cid(5), Some(queued(Some(90)))),
            (cid(6), Some(queued(None))),
        ],
    )
    .await;
    assert_eq!(due(store, 30, 10).await, [4, 3, 2, 1].map(cid));
    assert_eq!(due(store, 30, 3).await, [4, 3, 2].map(cid), "the limit cuts the least urgent");
    assert_eq!(due(store, 24, 10).await, [2, 1].map(cid), "priority does not make it due");
    assert_eq!(due(store, 9, 10).await, []);
    assert_eq!(store.next_due().await.expect("readable"), Some(at(10)), "the soonest, whatever its priority");
    let tasks = store.due(at(10), 1).await.expect("readable");
    assert_eq!(tasks, [TrackedTask { cid: cid(2), record: queued(Some(10)) }]);
}

async fn settling_counts_only_for_the_generation_it_was_started_with<S: StateStore + TrackerStore>(store: &S) {
    track(store, vec![(cid(1), Some(record(5, TrackerStatus::PinQueued, Some(1))))]).await;
    let pinned = record(5, TrackerStatus::Pinned, None);
    let jobs = vec![settled(1, 4, None), settled(2, 5, Some(pinned.clone())), settled(1, 5, Some(pinned.clone()))];
    assert_eq!(store.settle(jobs).await.expect("settled"), [false, false, true]);
    assert_eq!(store.tracked(cid(1)).await.expect("readable"), Some(pinned));
    assert_eq!(store.tracked(cid(2)).await.expect("readable"), None, "what is not tracked is not made up");
    track(store, vec![(cid(1), Some(record(6, TrackerStatus::UnpinQueued, Some(2))))]).await;
    assert_eq!(store.settle(vec![settled(1, 5, None)]).await.expect("settled"), [false], "the change of the pin wins");
    let twice = vec![settled(1, 6, None), settled(1, 6, None)];
    assert_eq!(store.settle(twice).await.expect("settled"), [true, false], "each sees what the one before did");
    assert_eq!(store.tracked(cid(1)).await.expect("readable"), None);
    assert_eq!(store.settle(Vec::new()).await.expect("settled"), [false; 0]);
}

async fn settling_moves_every_index<S: StateStore + TrackerStore>(store: &S) {
    track(store, vec![(cid(1), Some(record(1, TrackerStatus::PinQueued, Some(10))))]).await;
    let failed = TrackerRecord { attempts: 2, ..record(1, TrackerStatus::PinError, Some(50)) };
    store.settle(vec![settled(1, 1, Some(failed))]).await.expect("settled");
    assert_eq!(due(store, 49, 10).await, []);
    assert_eq!(due(store, 50, 10).await, [cid(1)]);
    let queued = StatusFilter::of(&[TrackerStatus::PinQueued]);
    assert_eq!(store.by_status(queued, None, 10).await.expect("readable"), []);
    store.settle(vec![settled(1, 1, None)]).await.expect("settled");
    assert_eq!(store.next_due().await.expect("readable"), None);
    assert_eq!(store.by_status(StatusFilter::ALL, None, 10).await.expect("readable"), []);
}

async fn listing_by_status_goes_in_order_and_resumes<S: StateStore + TrackerStore>(store: &S) {
    let status =
        |number: u64| if number.is_multiple_of(2) { TrackerStatus::PinError } else { TrackerStatus::UnpinError };
    track(store, (0..40).map(|number| (cid(number), Some(record(number, status(number), None)))).collect()).await;
    track(store, (40..60).map(|number| (cid(number), Some(record(1, TrackerStatus::Pinned, None)))).collect()).await;
    let mut expected: Vec<Cid> = (0..40).map(cid).collect();
    expected.sort_by_key(order_key);
    let failed = StatusFilter::of(&[TrackerStatus::PinError, TrackerStatus::UnpinError]);
    let mut seen: Vec<Cid> = Vec::new();
    loop {
        let page = names(store.by_status(failed, seen.last().copied(), 7).await.expect("readable"));
        assert!(page.len() <= 7);
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(seen, expected);
    let all = store.by_status(StatusFilter::ALL, None, 100).await.expect("readable");
    assert_eq!(all.len(), 60);
}

async fn counts_follow_every_change<S: StateStore + TrackerStore>(store: &S) {
    use TrackerStatus as S;
    assert_eq!(store.counts(), TrackerCounts::default());
    let statuses = [S::PinQueued, S::UnpinQueued, S::PinError, S::UnpinError, S::Pinned, S::UnexpectedlyUnpinned];
    track(store, (0..).map(cid).zip(statuses.map(|status| Some(record(1, status, None)))).collect()).await;
    assert_eq!(store.counts(), TrackerCounts { queued: 2, unpins_queued: 1, failed: 2, unpins_failed: 1, pinned: 1 });
    store.settle(vec![settled(0, 1, Some(record(1, S::Pinned, None))), settled(1, 1, None)]).await.expect("settled");
    track(store, vec![(cid(2), Some(record(2, S::PinQueued, None))), (cid(3), None)]).await;
    assert_eq!(store.counts(), TrackerCounts { queued: 1, pinned: 2, ..TrackerCounts::default() });
}
