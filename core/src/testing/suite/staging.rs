//! The contract of `Staging`.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use cluster_types::ErrorClass;

use super::pinset::{assert_sound, cid, pin, pin_on, put};
use super::state::{content, shared};
use crate::catchup::stage::{manifest_of, stage_from};
use crate::catchup::{Gather, Gathered, Kept, Stage, encode_manifest};
use crate::consensus::digest::shard_of;
use crate::consensus::operation::encode_pin;
use crate::ports::{AnnexRow, LocalEffect, ShardSum, StagedHead, StagedOverview, StagedShard, StateStore};

/// Runs every test; `make` gives an empty store and what must outlive it.
pub(super) async fn run<S, G, F, Fut>(make: &F)
where
    S: StateStore,
    F: Fn() -> Fut,
    Fut: Future<Output = (Arc<S>, G)>,
{
    what_is_staged_is_kept_shard_by_shard(&*make().await.0).await;
    let (from, _kept) = make().await;
    let (to, _also_kept) = make().await;
    what_is_not_whole_is_not_installed(&*from, &*to).await;
    let (from, _kept) = make().await;
    let (to, _also_kept) = make().await;
    a_state_that_moves_meanwhile_is_made_right(&*from, &*to).await;
}

fn nothing() -> LocalEffect {
    Arc::new(|_, _, _| None)
}

fn staged(index: u64, number: u64) -> StagedShard {
    let head = StagedHead { index, sum: ShardSum { pins: number, hash: [1; 32] }, base: ShardSum::default() };
    let changes = vec![(cid(number), Some(Bytes::from(encode_pin(&pin(number))))), (cid(number + 1), None)];
    StagedShard { head, changes }
}

async fn what_is_staged_is_kept_shard_by_shard<S: StateStore>(store: &S) {
    assert_eq!(store.staged().await.expect("readable"), StagedOverview::default());
    let manifest = Bytes::from_static(b"a manifest");
    store.stage(7, manifest.clone()).await.expect("kept");
    let row = AnnexRow { kind: 1, key: Bytes::from(vec![3; 24]), value: Bytes::from_static(b"o") };
    store.stage_annex(vec![row], false).await.expect("kept");
    store.stage_shards(vec![(4, Some(staged(7, 1))), (4095, Some(staged(7, 2)))]).await.expect("kept");
    store.stage_shards(vec![(4, Some(staged(8, 3))), (9, None)]).await.expect("kept");
    let overview = store.staged().await.expect("readable");
    assert_eq!((overview.manifest, overview.annex), (Some(manifest), (1, false)));
    assert_eq!(overview.shards, [(4, staged(8, 3).head), (4095, staged(7, 2).head)]);
    assert_eq!(store.staged_shard(4).await.expect("readable"), Some(staged(8, 3)), "the later one counts");
    assert_eq!(store.staged_shard(9).await.expect("readable"), None);
    assert_eq!(store.pins(), 0, "the state is not touched");

    let newer = Bytes::from_static(b"a newer one");
    store.stage(9, newer.clone()).await.expect("kept");
    let overview = store.staged().await.expect("readable");
    assert_eq!((overview.manifest, overview.annex, overview.shards.len()), (Some(newer), (0, false), 2));
    store.stage_shards(vec![(4, None)]).await.expect("dropped");
    assert_eq!(store.staged_shard(4).await.expect("readable"), None);
    store.unstage().await.expect("dropped");
    assert_eq!(store.staged().await.expect("readable"), StagedOverview::default());
}

async fn what_is_not_whole_is_not_installed<S: StateStore>(from: &S, to: &S) {
    put(from, (0..50).map(pin).collect(), "sender").await;
    put(to, vec![pin(99)], "receiver").await;
    let snapshot = from.make_snapshot().await.expect("made");
    let before = shared(to).await;
    let refused = async |why: &str| {
        let error = to.install_staged(nothing()).await.expect_err(why);
        assert_eq!(error.class(), ErrorClass::Invalid, "{why}");
        assert_eq!(shared(to).await, before, "{why}");
    };
    refused("nothing is staged").await;
    stage_from(to, &snapshot, 5).await.expect("staged");
    let missing = shard_of(&cid(7));
    let kept = to.staged_shard(missing).await.expect("readable");
    to.stage_shards(vec![(missing, None)]).await.expect("dropped");
    refused("a shard is missing").await;
    let mut other = kept.clone().expect("it was staged");
    other.head.base.pins += 1;
    to.stage_shards(vec![(missing, Some(other))]).await.expect("kept");
    refused("a shard is the difference to something else").await;
    to.stage_shards(vec![(missing, kept)]).await.expect("kept");
    let manifest = to.staged().await.expect("readable").manifest.expect("it was begun");
    to.stage(5, manifest).await.expect("kept");
    refused("the annex is missing").await;
    to.stage_annex(Vec::new(), true).await.expect("kept");
    to.install_staged(nothing()).await.expect("now it is whole");
    assert_eq!(shared(to).await, shared(from).await);
    assert_sound(to, &[]).await;
}

async fn a_state_that_moves_meanwhile_is_made_right<S: StateStore>(from: &S, to: &S) {
    put(to, (0..30).map(pin).collect(), "receiver").await;
    put(from, (0..30).map(pin).chain((40..60).map(|number| pin_on(number, &[1]))).collect(), "sender").await;
    let snapshot = from.make_snapshot().await.expect("made");
    let manifest = manifest_of(&snapshot).await.expect("readable");
    to.stage(5, encode_manifest(&manifest)).await.expect("begun");
    to.stage_annex(Vec::new(), true).await.expect("kept");
    let stage = Stage::new(to, &manifest, 5, 1);
    let (missing, differing) = stage.missing().await.expect("compared");
    assert_eq!(missing.len(), differing);
    assert!(stage.verify().await.is_err(), "nothing has come yet");
    let shards = content(&snapshot).await.1;
    for at in missing {
        let mut wrong = shards[usize::from(at)].1.clone();
        wrong.pop_first();
        let kept = stage.keep(at, Gathered::Whole(wrong)).await.expect("compared");
        assert_eq!(kept, Kept::Wrong, "its sum is another one");
        let right = Gathered::Whole(shards[usize::from(at)].1.clone());
        assert_eq!(stage.keep(at, right).await.expect("compared"), Kept::Right);
    }
    stage.verify().await.expect("everything is there");
    // Entries of the log of its own arrive after all: of a shard that is staged, and of one that was right.
    for (index, number) in [(2, 41), (3, 0)] {
        super::tails::write_with_tail(to, index, vec![(cid(number), Some(pin_on(number, &[9])))]).await;
    }
    assert!(stage.verify().await.is_err(), "the state has moved");
    stage.settle().await.expect("sorted out");
    stage.verify().await.expect("everything is there again");
    to.install_staged(nothing()).await.expect("installed");
    assert_eq!(shared(to).await, shared(from).await);
    assert_sound(to, &[1, 9]).await;
}
