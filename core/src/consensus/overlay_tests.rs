//! What this peer's records become when what is shown over the log changes.

use std::sync::Arc;

use cluster_types::{PeerId, Pin, PinOptions, TrackerStatus};
use parking_lot::Mutex;

use super::*;
use crate::consensus::apply::{LogClock, apply};
use crate::consensus::operation::{Entry, Operation, Proposed};
use crate::crdt::merge::{Sight, Write};
use crate::ports::{MergedAt, StateStore};
use crate::testing::MemState;
use crate::tracker::fakes::{cid, record};
use crate::tracker::{HoldRule, PriorityRule, local_effect};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000 + seconds)
}

fn pin(peer: PeerId, name: &str) -> Pin {
    let options = PinOptions {
        replication_factor_min: 1,
        replication_factor_max: 2,
        name: name.to_owned(),
        expire_at: at(50),
        ..PinOptions::default()
    };
    let mut pin = Pin::new(cid(1), options);
    (pin.timestamp, pin.allocations) = (at(0), vec![peer]);
    pin
}

fn waits(write: Write) -> (VersionId, OutboxChange) {
    let write = Eventual::new(write).unwrap();
    (write.id(), OutboxChange::Put { write: Box::new(write), own: true })
}

async fn write(state: &MemState, changes: Changes) {
    state.update(Box::new(move |_view| Ok(changes))).await.unwrap();
}

/// Applies entries, each of one operation, from `index` on, in one group.
async fn carry_out(state: &MemState, index: u64, operations: Vec<Operation>, effect: &LocalEffect) {
    let effect = Arc::clone(effect);
    let entry =
        |(number, operation)| Entry { time: at(60), operations: vec![Proposed { id: [number; 16], operation }] };
    let entries: Vec<Entry> = (u8::try_from(index).unwrap()..).zip(operations).map(entry).collect();
    let update =
        move |view: &dyn StateView| Ok(apply(view, LogClock::default(), (index..).zip(&entries), &effect)?.changes);
    state.update(Box::new(update)).await.unwrap();
}

#[tokio::test]
async fn a_pin_that_was_gone_within_a_group_is_pinned_again_also_where_something_waits() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let effect: LocalEffect = {
        let seen = Arc::clone(&seen);
        Arc::new(move |before, after, _tracked| {
            seen.lock().push((before.is_some(), after.is_some()));
            None
        })
    };
    let (state, me) = (MemState::new(), PeerId::random());
    let put = Operation::Put(Box::new(pin(me, "a")));
    carry_out(&state, 1, vec![put.clone()], &effect).await;
    let stands = state.pin(cid(1)).await.unwrap();
    let sight = Sight::of_state(1, stands.as_ref());
    let repair = Write::by(me, at(5), cid(1), stands, sight).reallocate(vec![PeerId::random()]);
    write(&state, Changes { outbox: vec![waits(repair).1], ..Changes::default() }).await;
    let raised = Arc::clone(&effect);
    state.update(Box::new(move |view| raise(view, [cid(1)], 1, &raised))).await.unwrap();
    seen.lock().clear();

    let shown = state.pin(cid(1)).await.unwrap();
    carry_out(&state, 2, vec![Operation::Remove { cid: cid(1) }, put], &effect).await;
    assert_eq!(state.pin(cid(1)).await.unwrap(), shown, "shown is the same before and after");
    assert_eq!(*seen.lock(), [(true, false), (false, true)], "the node may have dropped it in between");
}

#[tokio::test]
async fn what_the_tracker_did_for_a_write_that_had_no_effect_is_undone() {
    let me = PeerId::random();
    let effect: LocalEffect = Arc::new(move |before, after, tracked| {
        local_effect(&HoldRule::allocated_to(me), before, after, tracked, 9, at(60), PriorityRule::default())
    });
    let state = MemState::new();
    carry_out(&state, 1, vec![Operation::Put(Box::new(pin(me, "a")))], &effect).await;
    let stands = state.pin(cid(1)).await.unwrap();
    let sight = Sight::of_state(1, stands.as_ref());
    let (id, expiry) = waits(Write::by(me, at(70), cid(1), stands.clone(), sight).expire());
    write(&state, Changes { outbox: vec![expiry], ..Changes::default() }).await;
    let raised = Arc::clone(&effect);
    state.update(Box::new(move |view| raise(view, [cid(1)], 1, &raised))).await.unwrap();
    assert_eq!(state.pin(cid(1)).await.unwrap(), None);
    // The node has dropped it, and nothing is left to do.
    write(&state, Changes { tracker: vec![(cid(1), None)], ..Changes::default() }).await;

    // A snapshot comes: by the clock of the leader who merged the expiry it was too early.
    state.update(Box::new(|view| lower(view, [cid(1)]))).await.unwrap();
    let merged = vec![(id, MergedAt { index: 8, time: at(40) })];
    write(&state, Changes { merged, ..Changes::default() }).await;
    let raised = Arc::clone(&effect);
    state.update(Box::new(move |view| raise(view, [cid(1)], 9, &raised))).await.unwrap();
    assert_eq!(state.pin(cid(1)).await.unwrap(), stands);
    let tracked = state.contents(false).tracked.first().map(|task| task.record.status);
    assert_eq!(tracked, Some(TrackerStatus::PinQueued));
}

#[tokio::test]
async fn what_is_kept_for_a_write_that_lost_is_dropped() {
    let me = PeerId::random();
    let effect: LocalEffect = Arc::new(move |before, after, tracked| {
        local_effect(&HoldRule::allocated_to(me), before, after, tracked, 9, at(60), PriorityRule::default())
    });
    let state = MemState::new();
    let (id, eventual) = waits(Write::by(me, at(5), cid(1), None, Sight::of_state(1, None)).pin(pin(me, "a")));
    write(&state, Changes { outbox: vec![eventual], ..Changes::default() }).await;
    let raised = Arc::clone(&effect);
    state.update(Box::new(move |view| raise(view, [cid(1)], 1, &raised))).await.unwrap();
    let held = Some(record(3, TrackerStatus::Pinned, None));
    write(&state, Changes { tracker: vec![(cid(1), held)], ..Changes::default() }).await;

    state.update(Box::new(|view| lower(view, [cid(1)]))).await.unwrap();
    let merged = vec![(id, MergedAt { index: 8, time: at(40) })];
    write(&state, Changes { merged, ..Changes::default() }).await;
    let raised = Arc::clone(&effect);
    state.update(Box::new(move |view| raise(view, [cid(1)], 9, &raised))).await.unwrap();
    assert_eq!(state.pin(cid(1)).await.unwrap(), None, "somebody who had seen it removed it");
    let tracked = state.contents(false).tracked.first().map(|task| task.record.status);
    assert_eq!(tracked, Some(TrackerStatus::UnpinQueued));
}
