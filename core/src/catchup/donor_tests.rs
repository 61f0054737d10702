//! Donors.

use std::time::Duration;

use futures::poll;

use super::super::turns::{LONGEST_REST, REST, WAITING};
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
    assert_eq!(donor.answer(peer(9), Asker::Member, whole(4, 1)).await.unwrap(), Told::Behind);
    assert_eq!(kinds(&donor.answer(peer(9), Asker::Member, since(1, 3)).await.unwrap()), [(PartKind::Complete, 1)]);
    assert_eq!(kinds(&donor.answer(peer(9), Asker::Member, since(2, 2)).await.unwrap()), [(PartKind::Complete, 0)]);
    // As it was then, not as it is.
    for (asked, then) in [(since(1, 2), 2), (whole(2, 1), 2), (since(0, 1), 1), (whole(3, 1), 3)] {
        let Told::Shards { packed, .. } = donor.answer(peer(9), Asker::Member, asked).await.unwrap() else {
            panic!("it can tell")
        };
        let expected = encode_pin(&pin_on(1, &[then]));
        assert_eq!(unpack(&packed, 1).unwrap(), [(cid(1), Some(expected.into()))]);
    }
    cut_tail(&state).await;
    assert_eq!(kinds(&donor.answer(peer(9), Asker::Member, since(1, 3)).await.unwrap()), [(PartKind::BaseGone, 0)]);
    assert_eq!(kinds(&donor.answer(peer(9), Asker::Member, since(1, 2)).await.unwrap()), [(PartKind::IndexGone, 0)]);
    assert_eq!(kinds(&donor.answer(peer(9), Asker::Member, whole(3, 1)).await.unwrap()), [(PartKind::Complete, 1)]);
    for nonsense in [vec![], vec![3, 3], vec![4, 3], vec![4096]] {
        let asked = ask(3, Wanted::Whole { shards: nonsense, skip: 0 });
        assert_eq!(donor.answer(peer(9), Asker::Member, asked).await.unwrap_err().class, ErrorClass::Invalid);
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
    assert_eq!(kinds(&donor.answer(peer(9), Asker::Member, whole(3, 1)).await.unwrap()), [(PartKind::IndexGone, 0)]);
    let lent = donor.lend(3, frozen);
    assert_eq!(kinds(&donor.answer(peer(9), Asker::Member, whole(3, 1)).await.unwrap()), [(PartKind::Complete, 1)]);
    drop((lent, state.make_snapshot().await.unwrap()));
    assert_eq!(kinds(&donor.answer(peer(9), Asker::Member, whole(3, 1)).await.unwrap()), [(PartKind::IndexGone, 0)]);
}

#[tokio::test]
async fn questions_beyond_what_may_wait_are_refused_at_once() {
    let (_state, _applied, donor) = three_entries().await;
    let busy = donor.turns.hold().await;
    let mut waiting: Vec<_> =
        (0..WAITING).map(|_| Box::pin(donor.answer(peer(1), Asker::Member, whole(3, 1)))).collect();
    for question in &mut waiting {
        assert!(poll!(question).is_pending());
    }
    assert_eq!(donor.answer(peer(1), Asker::Member, whole(3, 1)).await.unwrap(), Told::Busy);
    let mut others: Vec<_> =
        (0..WAITING).map(|_| Box::pin(donor.answer(peer(2), Asker::Member, whole(3, 1)))).collect();
    for question in &mut others {
        assert!(poll!(question).is_pending());
    }
    assert_eq!(
        donor.answer(peer(3), Asker::Member, whole(3, 1)).await.unwrap(),
        Told::Busy,
        "all together have a bound, too"
    );
    drop((busy, waiting));
    for question in others {
        assert!(matches!(question.await.unwrap(), Told::Shards { .. }));
    }
    assert!(matches!(donor.answer(peer(1), Asker::Member, whole(3, 1)).await.unwrap(), Told::Shards { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_donor_rests_while_writes_come_in_and_only_then() {
    let (_state, applied, donor) = three_entries().await;
    drop(donor.answer(peer(1), Asker::Member, whole(3, 1)).await.unwrap());
    let rest_after = async |took: Duration| {
        let mut pace = donor.turns.hold().await;
        pace.rest(Asker::Member, took, *donor.applied.borrow());
        pace.rest_of(Asker::Member)
    };
    assert_eq!(rest_after(Duration::from_millis(10)).await, Duration::ZERO, "nothing was written");
    applied.send_replace(4);
    assert_eq!(rest_after(Duration::from_millis(10)).await, Duration::from_millis(10) * REST);
    applied.send_replace(5);
    assert_eq!(rest_after(Duration::from_secs(10)).await, LONGEST_REST);
    let began = Instant::now();
    drop(donor.answer(peer(1), Asker::Member, whole(3, 1)).await.unwrap());
    assert_eq!(began.elapsed().as_millis(), LONGEST_REST.as_millis(), "the next answer waits");
}

#[tokio::test(start_paused = true)]
async fn members_are_served_before_strangers_and_in_slots_of_their_own() {
    let (_state, applied, donor) = three_entries().await;
    let busy = donor.turns.hold().await;
    let mut strangers = Vec::new();
    for stranger in [5, 6] {
        strangers
            .extend((0..WAITING - 1).map(|_| Box::pin(donor.answer(peer(stranger), Asker::Stranger, whole(3, 1)))));
    }
    for question in &mut strangers {
        assert!(poll!(question).is_pending());
    }
    let mut manifests: Vec<_> = [5, 6].map(|number| Box::pin(donor.manifest(peer(number), Asker::Stranger, 0))).into();
    for question in &mut manifests {
        assert!(poll!(question).is_pending());
    }
    let refused = donor.manifest(peer(5), Asker::Stranger, 0).await.unwrap_err();
    assert_eq!(refused.class, ErrorClass::Unavailable, "a manifest takes a slot");
    assert_eq!(donor.answer(peer(7), Asker::Stranger, whole(3, 1)).await.unwrap(), Told::Busy);
    let mut member = Box::pin(donor.answer(peer(1), Asker::Member, whole(3, 1)));
    assert!(poll!(&mut member).is_pending(), "strangers take no slot of members");
    drop(busy);
    for _ in 0..9 {
        for question in &mut strangers {
            assert!(poll!(question).is_pending(), "a member waits");
        }
    }
    assert!(matches!(member.await.unwrap(), Told::Shards { .. }));
    for question in strangers {
        assert!(matches!(question.await.unwrap(), Told::Shards { .. }));
    }
    for question in manifests {
        assert_eq!(question.await.unwrap().0, 0, "the test wrote no position");
    }
    // What strangers ask makes strangers rest.
    applied.send_replace(4);
    let mut pace = donor.turns.hold().await;
    pace.rest(Asker::Stranger, Duration::from_secs(10), 4);
    assert_eq!(pace.rest_of(Asker::Member), Duration::ZERO);
    assert_eq!(pace.rest_of(Asker::Stranger), LONGEST_REST);
    drop(pace);
    let began = Instant::now();
    let stranger = donor.answer(peer(5), Asker::Stranger, whole(3, 1));
    let member = async {
        drop(donor.answer(peer(1), Asker::Member, whole(3, 1)).await.unwrap());
        began.elapsed()
    };
    let (stranger, member) = futures::join!(stranger, member);
    assert!(matches!(stranger.unwrap(), Told::Shards { .. }));
    assert_eq!(
        (member, began.elapsed() >= LONGEST_REST),
        (Duration::ZERO, true),
        "nobody rests for a stranger's answer"
    );
}
