//! Excerpts: completed, refused, damaged.

use proptest::prelude::*;

use super::*;
use crate::crdt::testing::damaged;
use crate::ports::ShardSum;

fn shards() -> Vec<ShardState> {
    let state = |shard: u64| ShardState {
        sum: ShardSum { pins: 250 + shard % 9, hash: *blake3::hash(&shard.to_be_bytes()).as_bytes() },
        meta: ShardMeta { epoch: 900 + shard, previous: 300 + shard, since_epoch: 40, since_previous: 600 },
        tail_from: shard % 3,
    };
    (0..u64::from(SHARDS)).map(state).collect()
}

fn change(shards: &mut [ShardState], numbers: &[u16]) {
    for number in numbers {
        let state = &mut shards[usize::from(*number)];
        state.sum.pins += 1;
        state.sum.hash = *blake3::hash(&state.sum.hash).as_bytes();
        state.meta.since_epoch += 1;
    }
}

fn manifest(shards: &[ShardState]) -> Manifest {
    Manifest::of(Bytes::from_static(b"position"), shards).unwrap()
}

#[test]
fn who_has_the_other_shards_gets_the_whole_manifest_back() {
    let (own, changed) = (shards(), [0, 1, 700, SHARDS - 1]);
    let mut theirs = own.clone();
    change(&mut theirs, &changed);
    let whole = manifest(&theirs);
    let excerpt = Excerpt::decode(&Excerpt::of(&whole, &changed).encode()).unwrap();
    assert_eq!(excerpt.complete(&own), Some(whole.clone()));
    assert_eq!(Excerpt::of(&whole, &[]).complete(&theirs), Some(whole.clone()), "nothing has changed");
    assert_eq!(Excerpt::of(&whole, &changed[1..]).complete(&own), None, "a shard is missing");
    let mut apart = own.clone();
    change(&mut apart, &[5]);
    assert_eq!(excerpt.complete(&apart), None, "another shard is not as it should be");
    let mut epochs = own.clone();
    epochs[5].meta.since_epoch += 1;
    assert_eq!(excerpt.complete(&epochs), None, "nor are its epochs");
    assert_eq!(excerpt.complete(&own[1..]), None);
    assert!(excerpt.encode().len() < whole.encode().len() / 100);
}

#[test]
fn shards_come_in_order_and_once() {
    let whole = manifest(&shards());
    let mut excerpt = Excerpt::of(&whole, &[3, 4]);
    excerpt.marks[1].0 = 3;
    assert!(Excerpt::decode(&excerpt.encode()).is_err(), "twice");
    let mut message: wire::Excerpt = FORMAT.decode(&Excerpt::of(&whole, &[3, 4]).encode()).unwrap();
    message.steps = vec![3, u32::MAX];
    assert!(Excerpt::decode(&FORMAT.encode(&message)).is_err(), "beyond the last");
    message.steps = vec![3];
    assert!(Excerpt::decode(&FORMAT.encode(&message)).is_err(), "columns of different lengths");
}

proptest! {
    #[test]
    fn damaged_bytes_are_an_error_or_another_excerpt(bytes in damaged(Excerpt::of(&manifest(&shards()), &[1, 9, 77]).encode())) {
        if let Ok(excerpt) = Excerpt::decode(&bytes) {
            let _ = excerpt.complete(&shards());
        }
    }
}
