//! Staging while the state moves.

use super::*;
use crate::consensus::digest::shard_of;
use crate::testing::MemState;
use crate::testing::suite::pinset::{cid, pin_on};
use crate::testing::suite::tails::write_with_tail;

/// Another CID of the shard of the first.
fn neighbour() -> u64 {
    (1..).find(|number| shard_of(&cid(*number)) == shard_of(&cid(0))).unwrap()
}

async fn holder(state: &MemState, index: u64, holder: u8) {
    write_with_tail(state, index, vec![(cid(0), Some(pin_on(0, &[holder])))]).await;
}

#[tokio::test]
async fn changes_to_what_has_moved_meanwhile_are_nobodys_fault() {
    let (donor, state, shard) = (MemState::new(), MemState::new(), shard_of(&cid(0)));
    for (index, at) in [(1, 1), (2, 2), (3, 1)] {
        holder(&donor, index, at).await;
    }
    let other = pin_on(neighbour(), &[1]);
    write_with_tail(&donor, 4, vec![(other.cid, Some(other.clone()))]).await;
    let manifest = Manifest::of(Bytes::new(), &donor.shards().await.unwrap().0).unwrap();
    holder(&state, 1, 1).await;

    let stage = Stage::new(&state, &manifest, 4, 1);
    let since = || Gathered::Changes(vec![(other.cid, Some(encode_pin(&other).into()))]);
    assert_eq!(stage.base(shard).await.unwrap(), Some(1));
    holder(&state, 2, 2).await;
    assert_eq!(stage.keep(shard, since()).await.unwrap(), Kept::Moved);
    // The records were those of before as well.
    assert_eq!(stage.records(shard).await.unwrap().len(), 1);
    holder(&state, 3, 1).await;
    assert_eq!(stage.keep(shard, since()).await.unwrap(), Kept::Moved);
    assert_eq!(stage.records(shard).await.unwrap().len(), 1);
    let lie = Gathered::Changes(vec![(cid(0), None)]);
    assert_eq!(stage.keep(shard, lie).await.unwrap(), Kept::Wrong);
    assert_eq!(stage.base(shard).await.unwrap(), Some(1));
    assert_eq!(stage.keep(shard, since()).await.unwrap(), Kept::Right);
}

#[tokio::test]
async fn an_excerpt_names_what_changed_since_and_what_is_not_known() {
    let (donor, reader) = (MemState::new(), MemState::new());
    for number in 0..3 {
        for state in [&donor, &reader] {
            write_with_tail(state, number + 1, vec![(cid(number), Some(pin_on(number, &[1])))]).await;
        }
    }
    holder(&donor, 4, 2).await;
    let frozen = donor.make_snapshot().await.unwrap();
    let manifest = manifest_of(&frozen).await.unwrap();
    let own = || async { reader.shards().await.unwrap().0 };
    let excerpt = excerpt_of(&frozen, &manifest, 3).await.unwrap();
    assert_eq!(excerpt, Excerpt::of(&manifest, &[shard_of(&cid(0))]));
    assert_eq!(excerpt.complete(&own().await), Some(manifest.clone()));
    // Of a shard that the donor has received itself it does not know what changed.
    let received = shard_of(&cid(1));
    let update = move |view: &dyn StateView| {
        let shards = vec![(received, ShardState { tail_from: 4, ..view.shard(received)? })];
        Ok(crate::ports::Changes { shards, drop_tail: vec![(received, 4)], ..Default::default() })
    };
    donor.update(Box::new(update)).await.unwrap();
    let frozen = donor.make_snapshot().await.unwrap();
    let mut both = [shard_of(&cid(0)), received];
    both.sort_unstable();
    assert_eq!(excerpt_of(&frozen, &manifest, 3).await.unwrap(), Excerpt::of(&manifest, &both));
    // Who stands elsewhere cannot make use of it.
    holder(&reader, 4, 3).await;
    write_with_tail(&reader, 5, vec![(cid(2), None)]).await;
    assert_eq!(excerpt.complete(&own().await), None);
}
