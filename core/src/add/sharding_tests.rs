//! Uploads in shards: what they hold, who holds them, what is pinned, and that all of it goes again.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster_types::{AddParams, PinDepth, PinOptions, PinType, ReplicationFactor};

use super::fakes::{MemHost, file, run};
use super::sharding::{Limits, ShardSink, parts};
use super::whole::Wish;
use super::*;
use crate::unixfs::links;

const SIZE: usize = 3_000_000;
const REPLICATION: ReplicationFactor = ReplicationFactor::Between { min: 2, max: 2 };
/// Four blocks of the usual size are a shard, four links a block.
const LIMITS: Limits = Limits { bytes: 1_100_000, links: 3, blocks: 100 };

fn params() -> AddParams {
    let options = PinOptions { name: "n".to_owned(), shard_size: LIMITS.bytes, ..PinOptions::default() };
    AddParams { shard: true, options, ..AddParams::default() }
}

async fn add_with(host: &Arc<MemHost>, params: &AddParams, limits: Limits) -> (Vec<AddedOutput>, ServiceResult<Cid>) {
    let wish = Wish::new(params, REPLICATION);
    let mut sink = ShardSink::with_limits(Arc::clone(host) as Arc<dyn AddHost>, wish, limits);
    run(&mut sink, params, file(SIZE)).await
}

/// Hashes of the blocks that a shard or a cluster DAG lists, its own maps excluded.
fn listed(host: &MemHost, peer: &cluster_types::PeerId, cid: Cid, is_map: &dyn Fn(&Cid) -> bool) -> Vec<Cid> {
    let data = host.peers.lock()[peer].blocks[&cid.hash_bytes()].clone();
    let below = links(&cid, &data).unwrap();
    below.into_iter().flat_map(|cid| if is_map(&cid) { listed(host, peer, cid, is_map) } else { vec![cid] }).collect()
}

fn is_map(cid: &Cid) -> bool {
    cid.codec() == cluster_types::Codec::DAG_CBOR
}

#[tokio::test]
async fn shards_hold_every_block_once_and_are_pinned_with_their_dag_and_root() {
    let host = Arc::new(MemHost::new(3));
    let (outputs, root) = add_with(&host, &params(), LIMITS).await;
    let root = root.unwrap();
    let names: Vec<_> = outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["d/f", "d", "shard-0", "shard-1", "shard-2", "n-clusterDAG"]);
    assert_eq!(outputs[1].cid, Some(root));

    let pins = host.pins();
    let names: Vec<_> = pins.iter().map(|pin| pin.options.name.as_str()).collect();
    assert_eq!(names, ["n-shard-0", "n-shard-1", "n-shard-2", "n-clusterDAG", "n"]);
    let (shards, [cluster_dag, meta]) = pins.split_at(3) else { panic!("{pins:?}") };
    let mut blocks = BTreeSet::new();
    let mut before = None;
    for (pin, output) in shards.iter().zip(&outputs[2..]) {
        assert_eq!((pin.kind, pin.reference, Some(pin.cid)), (PinType::Shard, before, output.cid));
        assert_eq!((pin.options.shard_size, &pin.allocations), (output.size, &output.allocations));
        assert_eq!((pin.max_depth, pin.allocations.len()), (PinDepth(2), 2));
        assert!(output.size < LIMITS.bytes && output.size > 0);
        before = Some(pin.cid);
        for peer in &pin.allocations {
            let cids = listed(&host, peer, pin.cid, &is_map);
            let bytes: usize = cids.iter().map(|cid| host.peers.lock()[peer].blocks[&cid.hash_bytes()].len()).sum();
            assert_eq!(bytes as u64, output.size);
            assert!(cids.iter().all(|cid| cid.codec() == cluster_types::Codec::RAW), "a pin must not go on from there");
            blocks.extend(cids.iter().map(Cid::hash_bytes));
        }
    }
    let plain = Arc::new(MemHost::new(1));
    let mut sink = WholeSink::new(
        Arc::clone(&plain) as Arc<dyn AddHost>,
        Wish::new(&AddParams::default(), ReplicationFactor::Everywhere),
    );
    let (_, whole) = run(&mut sink, &AddParams::default(), file(SIZE)).await;
    assert_eq!(whole.unwrap(), root, "the content is the same");
    assert_eq!(blocks, plain.change(0, |peer| peer.blocks.keys().cloned().collect()));

    assert_eq!((cluster_dag.kind, cluster_dag.max_depth), (PinType::ClusterDag, PinDepth::DIRECT));
    assert_eq!((cluster_dag.reference, cluster_dag.options.replication_factor_min), (Some(root), -1));
    assert_eq!(outputs[5].cid, Some(cluster_dag.cid));
    assert_eq!(outputs[5].size, outputs[2..5].iter().map(|shard| shard.size).sum::<u64>());
    let of_dag = listed(&host, &host.ids[0], cluster_dag.cid, &|_| false);
    assert_eq!(of_dag, shards.iter().map(|pin| pin.cid).collect::<Vec<_>>());
    assert_eq!((meta.kind, meta.cid, meta.reference), (PinType::Meta, root, Some(cluster_dag.cid)));
    assert!(meta.allocations.is_empty());
    assert_eq!(
        parts(host.as_ref(), cluster_dag.cid).await.unwrap(),
        pins[..4].iter().map(|pin| pin.cid).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_dag_of_more_shards_than_links_fit_a_block_has_another_level_that_is_pinned_too() {
    let host = Arc::new(MemHost::new(2));
    let limits = Limits { bytes: 300_000, ..LIMITS };
    let (outputs, root) = add_with(&host, &params(), limits).await;
    root.unwrap();
    let pins = host.pins();
    let of_kind = |kind| pins.iter().filter(|pin| pin.kind == kind).map(|pin| pin.cid).collect::<Vec<_>>();
    let (shards, lists) = (of_kind(PinType::Shard), of_kind(PinType::ClusterDag));
    assert!(shards.len() > 9, "{} shards", shards.len());
    assert_eq!(lists.len(), 1 + shards.len().div_ceil(LIMITS.links));
    let cluster_dag = outputs.last().unwrap().cid.unwrap();
    assert_eq!(lists.last(), Some(&cluster_dag), "once the root is pinned, so is the rest");
    let found = parts(host.as_ref(), cluster_dag).await.unwrap();
    assert_eq!(found.iter().collect::<BTreeSet<_>>(), shards.iter().chain(&lists).collect::<BTreeSet<_>>());
    assert_eq!(found.last(), Some(&cluster_dag));
}

#[tokio::test]
async fn each_shard_finds_holders_of_its_own_when_one_fails() {
    for batch in 0..8 {
        let host = Arc::new(MemHost::new(3));
        host.fail_at(1, batch);
        let (outputs, root) = add_with(&host, &params(), LIMITS).await;
        root.unwrap();
        for output in &outputs[2..5] {
            assert_eq!(output.allocations.len(), 2);
            for peer in &output.allocations {
                assert!(host.has_all(peer, output.cid.unwrap()), "{} at {peer}, batch {batch}", output.name);
            }
        }
    }
}

#[tokio::test]
async fn a_sharded_upload_that_fails_leaves_nothing_pinned() {
    for until in 0..5 {
        let host = Arc::new(MemHost::new(2));
        *host.pins_until.lock() = Some(until);
        assert!(add_with(&host, &params(), LIMITS).await.1.is_err());
        assert!(host.pins().is_empty(), "{:?}", host.pins());
    }
    let host = Arc::new(MemHost::new(2));
    host.fail_at(1, 5);
    assert!(add_with(&host, &params(), LIMITS).await.1.is_err());
    assert!(host.pins().is_empty());
    let none = Arc::new(MemHost::new(2));
    let (outputs, end) = add_with(&none, &AddParams { no_pin: true, ..params() }, LIMITS).await;
    assert!(end.is_ok() && none.pins().is_empty() && outputs.len() == 6);
}

#[tokio::test]
async fn what_is_added_again_with_other_shards_leaves_none_of_the_old_ones() {
    let host = Arc::new(MemHost::new(2));
    let (_, first) = add_with(&host, &params(), LIMITS).await;
    let (_, again) = add_with(&host, &params(), Limits { bytes: 2_000_000, ..LIMITS }).await;
    assert_eq!(first.unwrap(), again.unwrap());
    let kinds: Vec<_> = host.pins().iter().map(|pin| pin.kind).collect();
    assert_eq!(kinds, [PinType::Shard, PinType::Shard, PinType::ClusterDag, PinType::Meta]);

    // The same once more, and this time the last pin fails: what was there before stays.
    let before = host.pins().len();
    *host.pins_until.lock() = Some(before);
    assert!(add_with(&host, &params(), Limits { bytes: 2_000_000, ..LIMITS }).await.1.is_err());
    assert_eq!(host.pins().len(), before);
}

#[tokio::test]
async fn a_shard_has_a_size_of_its_own_and_a_block_must_fit() {
    let host = Arc::new(MemHost::new(2));
    let sink = ShardSink::new(
        Arc::clone(&host) as Arc<dyn AddHost>,
        Wish::new(&AddParams { shard: true, ..AddParams::default() }, REPLICATION),
    );
    assert_eq!(sink.shard_size(), 100 * 1024 * 1024);
    let (_, end) = add_with(&host, &params(), Limits { bytes: 262_144, ..LIMITS }).await;
    assert_eq!(end.unwrap_err().message, "block doesn't fit in empty shard: shard size too small?");
    let few = Limits { blocks: 2, ..LIMITS };
    let (outputs, _) = add_with(&host, &params(), few).await;
    assert!(outputs.iter().filter(|output| output.name.starts_with("shard-")).all(|shard| shard.size < 600_000));
}

#[test]
fn lists_are_canonical_dag_cbor() {
    let cids: Vec<Cid> = (0..300).map(crate::tracker::fakes::cid).collect();
    let map = sharding::map(&cids);
    assert_eq!(&map.data[..5], [0xb9, 0x01, 0x2c, 0x61, b'0'], "300 pairs, the key 0 first");
    assert_eq!(links(&map.cid, &map.data).unwrap(), cids);
    assert_eq!(sharding::map(&[]).data.as_ref(), [0xa0]);
}
