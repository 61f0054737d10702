//! Donors.

use futures::poll;

use super::super::wire::Wanted;
use super::*;
use crate::consensus::digest::shard_of;
use crate::consensus::operation::encode_pin;
use crate::crdt::packed::unpack;
use crate::ports::{Changes, ShardState};
use crate::testing::MemState;
use crate::testing::suite::pinset::{cid, peer, pin, pin_on};
use crate::testing::suite::tails::write_with_tail;

fn ask(index: u64, what: Wanted) -> Ask {
    Ask { index, enough: u32::MAX, what }
}

fn whole(index: u64, number: u64) -> Ask {
    ask(index, Wanted::Whole { shards: vec![shard_of(&cid(number))], skip: 0 })
}

/// A state at index 3: a pin came, changed, and changed again.
async fn three_entries() -> (Arc<MemState>, watch::Sender<u64>, Donor) {
    let state = Arc::new(MemState::new());
    for index in 1..=3 {
        write_with_tail(state.as_ref(), index, vec![(cid(1), Some(pin_on(1, &[u8::try_from(index).unwrap()])))]).await;
    }
    let (applied, receiver) = watch::channel(3);
    let donor = Donor::new(Arc::clone(&state) as _, receiver);
    (state, applied, donor)
}

fn kinds(told: &Told) -> Vec<(PartKind, u32)> {
    let Told::Shards { parts, .. } = told else { panic!("{told:?}") };
    parts.iter().map(|(_, kind, records)| (*kind, *records)).collect()
}

/// As if the shard had been received as of index 3.
async fn cut_tail(state: &MemState) {
    let at = shard_of(&cid(1));
    let update = move |view: &dyn crate::ports::StateView| {
        let shards = vec![(at, ShardState { tail_from: 3, ..view.shard(at)? })];
        Ok(Changes { shards, drop_tail: vec![(at, 3)], ..Changes::default() })
    };
    state.update(Box::new(update)).await.unwrap();
}

#[tokio::test]
async fn a_donor_says_what_it_cannot_tell() {
    let (state, _applied, donor) = three_entries().await;
    let since = |base, index| ask(index, Wanted::Since { base, shards: vec![shard_of(&cid(1))] });
    assert_eq!(donor.answer(peer(9), whole(4, 1)).await.unwrap(), Told::Behind);
    assert_eq!(kinds(&donor.answer(peer(9), since(1, 3)).await.unwrap()), [(PartKind::Complete, 1)]);
    assert_eq!(kinds(&donor.answer(peer(9), since(2, 2)).await.unwrap()), [(PartKind::Complete, 0)]);
    // As it was then, not as it is.
    for (asked, then) in [(since(1, 2), 2), (whole(2, 1), 2), (since(0, 1), 1), (whole(3, 1), 3)] {
        let Told::Shards { packed, .. } = donor.answer(peer(9), asked).await.unwrap() else { panic!("it can tell") };
        let expected = encode_pin(&pin_on(1, &[then]));
        assert_eq!(unpack(&packed, 1).unwrap(), [(cid(1), Some(expected.into()))]);
    }
    cut_tail(&state).await;
    assert_eq!(kinds(&donor.answer(peer(9), since(1, 3)).await.unwrap()), [(PartKind::BaseGone, 0)]);
    assert_eq!(kinds(&donor.answer(peer(9), since(1, 2)).await.unwrap()), [(PartKind::IndexGone, 0)]);
    assert_eq!(kinds(&donor.answer(peer(9), whole(3, 1)).await.unwrap()), [(PartKind::Complete, 1)]);
    for nonsense in [vec![], vec![3, 3], vec![4, 3], vec![4096]] {
        let asked = ask(3, Wanted::Whole { shards: nonsense, skip: 0 });
        assert_eq!(donor.answer(peer(9), asked).await.unwrap_err().class, ErrorClass::Invalid);
    }
}

#[tokio::test]
async fn a_frozen_state_that_is_lent_tells_what_the_present_one_cannot() {
    let (state, applied, donor) = three_entries().await;
    let frozen = state.make_snapshot().await.unwrap();
    write_with_tail(state.as_ref(), 4, vec![(cid(1), Some(pin(1)))]).await;
    applied.send_replace(4);
    cut_tail(&state).await;
    let update = |view: &dyn crate::ports::StateView| {
        let at = shard_of(&cid(1));
        let shards = vec![(at, ShardState { tail_from: 4, ..view.shard(at)? })];
        Ok(Changes { shards, ..Changes::default() })
    };
    state.update(Box::new(update)).await.unwrap();
    assert_eq!(kinds(&donor.answer(peer(9), whole(3, 1)).await.unwrap()), [(PartKind::IndexGone, 0)]);
    let lent = donor.lend(3, frozen);
    assert_eq!(kinds(&donor.answer(peer(9), whole(3, 1)).await.unwrap()), [(PartKind::Complete, 1)]);
    drop((lent, state.make_snapshot().await.unwrap()));
    assert_eq!(kinds(&donor.answer(peer(9), whole(3, 1)).await.unwrap()), [(PartKind::IndexGone, 0)]);
}

#[tokio::test]
async fn questions_beyond_what_may_wait_are_refused_at_once() {
    let (_state, _applied, donor) = three_entries().await;
    let busy = donor.pace.lock().await;
    let mut waiting: Vec<_> = (0..WAITING).map(|_| Box::pin(donor.answer(peer(1), whole(3, 1)))).collect();
    for question in &mut waiting {
        assert!(poll!(question).is_pending());
    }
    assert_eq!(donor.answer(peer(1), whole(3, 1)).await.unwrap(), Told::Busy);
    let mut others: Vec<_> = (0..WAITING).map(|_| Box::pin(donor.answer(peer(2), whole(3, 1)))).collect();
    for question in &mut others {
        assert!(poll!(question).is_pending());
    }
    assert_eq!(donor.answer(peer(3), whole(3, 1)).await.unwrap(), Told::Busy, "all together have a bound, too");
    drop((busy, waiting));
    for question in others {
        assert!(matches!(question.await.unwrap(), Told::Shards { .. }));
    }
    assert!(matches!(donor.answer(peer(1), whole(3, 1)).await.unwrap(), Told::Shards { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_donor_rests_while_writes_come_in_and_only_then() {
    let (_state, applied, donor) = three_entries().await;
    drop(donor.answer(peer(1), whole(3, 1)).await.unwrap());
    let rest_after = async |took: Duration| {
        let mut pace = donor.pace.lock().await;
        pace.rest(took, *donor.applied.borrow());
        pace.free_at.saturating_duration_since(Instant::now())
    };
    assert_eq!(rest_after(Duration::from_millis(10)).await, Duration::ZERO, "nothing was written");
    applied.send_replace(4);
    assert_eq!(rest_after(Duration::from_millis(10)).await, Duration::from_millis(10) * REST);
    applied.send_replace(5);
    assert_eq!(rest_after(Duration::from_secs(10)).await, LONGEST_REST);
    let began = Instant::now();
    drop(donor.answer(peer(1), whole(3, 1)).await.unwrap());
    assert_eq!(began.elapsed().as_millis(), LONGEST_REST.as_millis(), "the next answer waits");
}
