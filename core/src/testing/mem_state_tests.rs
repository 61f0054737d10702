//! The doubles of the state's and the tracker's store keep their contracts.

use super::*;
use crate::testing::suite;

async fn make() -> (Arc<MemState>, ()) {
    (Arc::new(MemState::new()), ())
}

#[tokio::test]
async fn the_double_keeps_the_contract_of_the_state() {
    suite::state::run(make).await;
}

#[tokio::test]
async fn the_double_keeps_the_contract_of_eventual_writes() {
    suite::outbox::run(make).await;
    let power_cut = |state: Arc<MemState>, kept| async move {
        state.power_cut(0);
        (state, kept)
    };
    suite::outbox::survives(make, power_cut).await;
}

#[tokio::test]
async fn replicas_in_memory_agree() {
    for seed in 0..4 {
        let reopen = |state: Arc<MemState>, kept| async move {
            state.power_cut(usize::MAX);
            (state, kept)
        };
        suite::tails::replicas_agree(seed, make, reopen).await;
    }
}

fn cut_power(state: Arc<MemState>, kept: ()) -> std::future::Ready<(Arc<MemState>, ())> {
    state.sync();
    state.power_cut(0);
    std::future::ready((state, kept))
}

#[tokio::test(start_paused = true)]
async fn every_way_leads_to_the_same_in_memory() {
    for seed in 0..2 {
        suite::catchup::every_way_leads_to_the_same(seed, 5_000, make, cut_power).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_in_memory_that_is_cut_off_goes_on() {
    suite::catchup::a_receiver_that_is_cut_off_goes_on(make, cut_power).await;
}

#[tokio::test(start_paused = true)]
async fn bad_donors_do_no_harm_in_memory() {
    suite::catchup::bad_donors_do_no_harm(make).await;
}

#[tokio::test]
async fn the_double_keeps_the_contract_of_the_tracker() {
    suite::tracker_store::run(make).await;
}

#[tokio::test]
async fn a_power_cut_loses_whole_updates_from_the_end() {
    let state = MemState::new();
    let write = |byte: u8| -> UpdateFn {
        let applied = Some(Bytes::from(vec![byte]));
        Box::new(move |_view| Ok(Changes { applied, ..Changes::default() }))
    };
    for byte in 1..=4 {
        state.update(write(byte)).await.unwrap();
        if byte == 1 {
            state.sync();
        }
    }
    assert_eq!(state.unsynced(), 3);
    state.power_cut(1);
    assert_eq!(state.applied().await.unwrap(), Some(Bytes::from_static(&[2])));
    state.power_cut(0);
    assert_eq!(state.applied().await.unwrap(), Some(Bytes::from_static(&[2])));
}
