//! The contract of [`IpfsNode`], as cases that any node can run.
//!
//! The cases share one node and leave it as full as they found it or fuller, so each uses content of its own, and
//! none says what the node must *not* list besides. They go one after the other: one of them collects garbage.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::watch;
use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{Cid, PinDepth};
use futures::{StreamExt, TryStreamExt};

use crate::ports::{Block, IpfsError, IpfsNode, PinProgress, PinRequest};
use crate::testing::dag;

/// A node under test.
pub struct IpfsFixture {
    /// The node. It finds no content but what it was given, and a fetch stalls after a short time.
    pub node: Arc<dyn IpfsNode>,
    /// What has to live as long as the node.
    pub keep: Box<dyn Any + Send>,
}

impl std::fmt::Debug for IpfsFixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IpfsFixture").finish_non_exhaustive()
    }
}

/// Makes nodes to test.
#[async_trait]
pub trait IpfsFactory: Send + Sync {
    /// A node for the whole suite.
    async fn node(&self) -> IpfsFixture;
}

/// Runs every case; panics at the first that fails. Returns how many there were.
pub async fn run(factory: &dyn IpfsFactory) -> usize {
    let fixture = factory.node().await;
    let node = fixture.node.as_ref();
    says_who_it_is(node).await;
    gives_back_the_blocks_it_was_given(node).await;
    refuses_a_block_that_does_not_match_its_cid(node).await;
    keeps_more_blocks_than_fit_into_a_request(node).await;
    pins_a_whole_dag(node).await;
    pins_a_root_alone(node).await;
    pins_what_is_pinned(node).await;
    deepens_a_pin(node).await;
    covers_a_direct_pin_by_a_recursive_one(node).await;
    unpins_whatever_is_or_is_not_pinned(node).await;
    lists_what_it_keeps_by_itself(node).await;
    stalls_when_a_block_is_nowhere(node).await;
    stops_a_fetch_that_is_dropped(node).await;
    pins_what_is_like_another_pin(node).await;
    pins_although_its_hints_are_of_no_use(node).await;
    imports_an_archive_unpinned(node).await;
    refuses_a_broken_archive(node).await;
    resolves_paths(node).await;
    says_how_full_it_is(node).await;
    collects_what_no_pin_protects(node).await;
    refuses_an_address_without_a_peer(node).await;
    drop(fixture.keep);
    21
}

/// A directory over two directories over four leaves, all of it named after the case: root first.
fn tree(case: &str) -> Vec<Block> {
    let leaves: Vec<Block> = (0..4).map(|n| dag::leaf(format!("{case} {n}"))).collect();
    let left = dag::directory(&[("a", leaves[0].cid), ("b", leaves[1].cid)]);
    let right = dag::directory(&[("a", leaves[2].cid), ("b", leaves[3].cid)]);
    let root = dag::directory(&[("left", left.cid), ("right", right.cid)]);
    [vec![root, left, right], leaves].concat()
}

fn request(cid: Cid, depth: PinDepth) -> PinRequest {
    PinRequest { cid, depth, origins: Vec::new(), update_from: None }
}

async fn pin(node: &dyn IpfsNode, cid: Cid, depth: PinDepth) -> Result<(), IpfsError> {
    node.pin(request(cid, depth), watch::Sender::new(PinProgress::default())).await
}

/// Puts a tree and pins its root.
async fn pinned_tree(node: &dyn IpfsNode, case: &str) -> Vec<Block> {
    let blocks = tree(case);
    node.put_blocks(blocks.clone()).await.expect("a sound tree is kept");
    pin(node, blocks[0].cid, PinDepth::RECURSIVE).await.expect("a tree that is there is pinned");
    blocks
}

async fn kept(node: &dyn IpfsNode, cid: Cid) -> Option<PinDepth> {
    node.pinned(cid).await.expect("the node says how something is pinned")
}

async fn says_who_it_is(node: &dyn IpfsNode) {
    let id = node.id().await.expect("the node says who it is");
    assert!(!id.id.is_empty(), "{id:?}");
    assert_eq!(id.error, "");
    assert_eq!(node.id().await.expect("and again").id, id.id, "it stays who it is");
}

async fn gives_back_the_blocks_it_was_given(node: &dyn IpfsNode) {
    let directory = dag::directory(&[("leaf", dag::leaf("given leaf").cid)]);
    let blocks = vec![dag::leaf("given leaf"), dag::as_v0(&directory), dag::leaf("")];
    node.put_blocks(blocks.clone()).await.expect("blocks of several kinds are kept at once");
    for block in blocks.iter().chain([&directory]) {
        assert_eq!(node.block(block.cid).await.expect("a block that was put is there"), block.data);
    }
    node.put_blocks(Vec::new()).await.expect("no blocks are no error");
}

async fn refuses_a_block_that_does_not_match_its_cid(node: &dyn IpfsNode) {
    let lie = Block { cid: dag::leaf("what it says").cid, data: Bytes::from_static(b"what it is") };
    let error = node.put_blocks(vec![dag::leaf("sound"), lie]).await.expect_err("a lie is refused");
    assert!(matches!(error, IpfsError::BadBlock { .. }), "{error}");
}

async fn keeps_more_blocks_than_fit_into_a_request(node: &dyn IpfsNode) {
    let mut blocks: Vec<Block> = (0..40_u8).map(|n| dag::leaf(vec![n; 256 * 1024])).collect();
    let links: Vec<(String, Cid)> = blocks.iter().enumerate().map(|(n, leaf)| (format!("{n:03}"), leaf.cid)).collect();
    let links: Vec<(&str, Cid)> = links.iter().map(|(name, cid)| (name.as_str(), *cid)).collect();
    let root = dag::directory(&links);
    blocks.insert(20, root.clone());
    node.put_blocks(blocks).await.expect("many blocks are kept");
    pin(node, root.cid, PinDepth::RECURSIVE).await.expect("all of them are there");
    node.unpin(root.cid).await.expect("unpinned");
}

async fn pins_a_whole_dag(node: &dyn IpfsNode) {
    let blocks = tree("whole");
    node.put_blocks(blocks.clone()).await.expect("kept");
    assert_eq!(kept(node, blocks[0].cid).await, None, "blocks alone are not pinned");
    let progress = watch::Sender::new(PinProgress::default());
    let seen = progress.subscribe();
    node.pin(request(blocks[0].cid, PinDepth::RECURSIVE), progress).await.expect("pinned");
    assert_eq!(kept(node, blocks[0].cid).await, Some(PinDepth::RECURSIVE));
    assert_eq!(kept(node, blocks[1].cid).await, None, "a part is not kept by itself");
    assert!(seen.borrow().blocks > 0, "the fetch said how far it is");
}

async fn pins_a_root_alone(node: &dyn IpfsNode) {
    let root = tree("alone").swap_remove(0);
    node.put_blocks(vec![root.clone()]).await.expect("kept");
    pin(node, root.cid, PinDepth::DIRECT).await.expect("the missing children do not matter");
    assert_eq!(kept(node, root.cid).await, Some(PinDepth::DIRECT));
    pin(node, root.cid, PinDepth::DIRECT).await.expect("and again");
}

async fn pins_what_is_pinned(node: &dyn IpfsNode) {
    let blocks = pinned_tree(node, "twice").await;
    pin(node, blocks[0].cid, PinDepth::RECURSIVE).await.expect("pinning again is success");
    pin(node, blocks[1].cid, PinDepth::RECURSIVE).await.expect("pinning a part is success");
    assert_eq!(kept(node, blocks[1].cid).await, Some(PinDepth::RECURSIVE));
}

async fn deepens_a_pin(node: &dyn IpfsNode) {
    let blocks = tree("deeper");
    node.put_blocks(blocks.clone()).await.expect("kept");
    pin(node, blocks[0].cid, PinDepth::DIRECT).await.expect("pinned");
    pin(node, blocks[0].cid, PinDepth::RECURSIVE).await.expect("deepened");
    assert_eq!(kept(node, blocks[0].cid).await, Some(PinDepth::RECURSIVE));
}

async fn covers_a_direct_pin_by_a_recursive_one(node: &dyn IpfsNode) {
    let blocks = pinned_tree(node, "covered").await;
    pin(node, blocks[0].cid, PinDepth::DIRECT).await.expect("what is kept deeper is kept");
    assert!(kept(node, blocks[0].cid).await.is_some());
}

async fn unpins_whatever_is_or_is_not_pinned(node: &dyn IpfsNode) {
    let blocks = pinned_tree(node, "unpinned").await;
    node.unpin(blocks[1].cid).await.expect("a part is not pinned, which is success");
    assert_eq!(kept(node, blocks[0].cid).await, Some(PinDepth::RECURSIVE));
    node.unpin(blocks[0].cid).await.expect("unpinned");
    assert_eq!(kept(node, blocks[0].cid).await, None);
    node.unpin(blocks[0].cid).await.expect("unpinned already");
    node.unpin(dag::leaf("never heard of").cid).await.expect("never pinned");

    pin(node, blocks[3].cid, PinDepth::DIRECT).await.expect("pinned");
    node.unpin(blocks[3].cid).await.expect("a direct pin goes, too");
    assert_eq!(kept(node, blocks[3].cid).await, None);
}

async fn lists_what_it_keeps_by_itself(node: &dyn IpfsNode) {
    let blocks = pinned_tree(node, "listed").await;
    pin(node, blocks[3].cid, PinDepth::DIRECT).await.expect("pinned");
    let listed: Vec<(Cid, PinDepth)> = node.pins().try_collect().await.expect("a complete listing");
    let by_cid: BTreeMap<Cid, PinDepth> = listed.iter().copied().collect();
    assert_eq!(by_cid.len(), listed.len(), "nothing is listed twice");
    assert_eq!(by_cid.get(&blocks[0].cid), Some(&PinDepth::RECURSIVE));
    assert_eq!(by_cid.get(&blocks[3].cid), Some(&PinDepth::DIRECT));
    assert_eq!(by_cid.get(&blocks[1].cid), None, "a part is not listed");
}

async fn stalls_when_a_block_is_nowhere(node: &dyn IpfsNode) {
    let mut blocks = tree("incomplete");
    let missing = blocks.pop().expect("a tree has leaves");
    let (root, child) = (blocks[0].cid, blocks[2].cid);
    let error = pin(node, missing.cid, PinDepth::DIRECT).await.expect_err("nobody has the root");
    assert!(matches!(error, IpfsError::Stalled { .. }), "{error}");
    node.put_blocks(blocks).await.expect("kept");
    let error = pin(node, root, PinDepth::RECURSIVE).await.expect_err("nobody has a leaf");
    assert!(matches!(error, IpfsError::Stalled { blocks, .. } if blocks > 0), "{error}");
    assert_eq!(kept(node, root).await, None);
    pin(node, child, PinDepth::DIRECT).await.expect("the node goes on");
    node.put_blocks(vec![missing]).await.expect("kept");
    pin(node, root, PinDepth::RECURSIVE).await.expect("now everything is there");
}

async fn stops_a_fetch_that_is_dropped(node: &dyn IpfsNode) {
    let missing = dag::leaf("dropped").cid;
    let fetch = pin(node, missing, PinDepth::RECURSIVE);
    let late = tokio::time::timeout(Duration::from_millis(50), fetch).await;
    assert!(late.is_err(), "the fetch was under way: {late:?}");
    assert_eq!(kept(node, missing).await, None);
}

async fn pins_what_is_like_another_pin(node: &dyn IpfsNode) {
    let old = pinned_tree(node, "old").await;
    let leaf = dag::leaf("the new part");
    let root = dag::directory(&[("left", old[1].cid), ("right", leaf.cid)]);
    node.put_blocks(vec![leaf, root.clone()]).await.expect("kept");
    let update = PinRequest { update_from: Some(old[0].cid), ..request(root.cid, PinDepth::RECURSIVE) };
    node.pin(update, watch::Sender::new(PinProgress::default())).await.expect("pinned");
    assert_eq!(kept(node, root.cid).await, Some(PinDepth::RECURSIVE));
    assert_eq!(kept(node, old[0].cid).await, Some(PinDepth::RECURSIVE), "the old pin stays");
}

async fn pins_although_its_hints_are_of_no_use(node: &dyn IpfsNode) {
    let blocks = tree("hints");
    node.put_blocks(blocks.clone()).await.expect("kept");
    let nobody = "/ip4/127.0.0.1/tcp/1/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ";
    let hinted = PinRequest {
        origins: vec![nobody.parse().expect("an address"); 12],
        update_from: Some(dag::leaf("not pinned").cid),
        ..request(blocks[0].cid, PinDepth::RECURSIVE)
    };
    node.pin(hinted, watch::Sender::new(PinProgress::default())).await.expect("pinned");
    assert_eq!(kept(node, blocks[0].cid).await, Some(PinDepth::RECURSIVE));
}

async fn imports_an_archive_unpinned(node: &dyn IpfsNode) {
    let blocks = tree("archive");
    let archive = dag::car(&[blocks[0].cid], &blocks);
    let pieces: Vec<Result<Bytes, io::Error>> =
        archive.chunks(7).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let roots = node.import_car(futures::stream::iter(pieces).boxed()).await.expect("a sound archive");
    assert_eq!(roots, vec![blocks[0].cid]);
    assert_eq!(kept(node, blocks[0].cid).await, None, "an import does not pin");
    for block in &blocks {
        assert_eq!(node.block(block.cid).await.expect("every block came in"), block.data);
    }
}

async fn refuses_a_broken_archive(node: &dyn IpfsNode) {
    let blocks = tree("broken archive");
    let archive = dag::car(&[blocks[0].cid], &blocks);
    let mut wrong = archive.to_vec();
    *wrong.last_mut().expect("an archive is not empty") ^= 1;
    for broken in [archive.slice(..archive.len() - 1), archive.slice(..20), Bytes::new(), Bytes::from(wrong)] {
        let stream = futures::stream::iter([Ok(broken)]).boxed();
        node.import_car(stream).await.expect_err("a broken archive is refused");
    }
    let cut = [Ok(archive.slice(..100)), Err(io::Error::other("the sender went away"))];
    node.import_car(futures::stream::iter(cut).boxed()).await.expect_err("an upload that broke is refused");
    node.id().await.expect("the node goes on");
}

async fn resolves_paths(node: &dyn IpfsNode) {
    let blocks = tree("path");
    node.put_blocks(blocks.clone()).await.expect("kept");
    let root = blocks[0].cid;
    for (path, cid) in [
        (format!("/ipfs/{root}"), root),
        (format!("/ipld/{root}"), root),
        (format!("/ipfs/{root}/left"), blocks[1].cid),
        (format!("/ipfs/{root}/right/b"), blocks[6].cid),
    ] {
        assert_eq!(node.resolve(&path).await.expect("it can be resolved"), cid, "{path}");
    }
    for path in [format!("/ipfs/{root}/nothing"), "/ipfs/".to_owned(), "nonsense".to_owned(), String::new()] {
        assert!(node.resolve(&path).await.is_err(), "{path}");
    }
}

async fn says_how_full_it_is(node: &dyn IpfsNode) {
    let before = node.repo_stat().await.expect("the node says how full it is");
    assert!(before.storage_max > 0 && before.repo_size > 0, "{before:?}");
    let data: Vec<u8> = (0..1_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let blocks = data.chunks(1_000_000).map(|data| dag::leaf(data.to_vec())).collect();
    node.put_blocks(blocks).await.expect("kept");
    let after = node.repo_stat().await.expect("the node says how full it is");
    assert!(after.repo_size > before.repo_size, "{before:?} {after:?}");
}

async fn collects_what_no_pin_protects(node: &dyn IpfsNode) {
    let whole = pinned_tree(node, "protected").await;
    let direct = dag::leaf("protected alone");
    let garbage = tree("garbage");
    node.put_blocks([vec![direct.clone()], garbage.clone()].concat()).await.expect("kept");
    pin(node, direct.cid, PinDepth::DIRECT).await.expect("pinned");
    let removed = node.collect_garbage().await.expect("garbage is collected");
    assert!(removed.iter().all(|key| key.error.is_empty()), "{removed:?}");
    let gone = |block: &Block| removed.iter().any(|key| key.key.is_some_and(|key| key.hash() == block.cid.hash()));
    assert!(garbage.iter().all(gone), "everything that is not pinned goes");
    assert!(!whole.iter().chain([&direct]).any(gone), "nothing that is pinned goes");
    for block in whole.iter().chain([&direct]) {
        assert_eq!(node.block(block.cid).await.expect("it is still there"), block.data);
    }
}

async fn refuses_an_address_without_a_peer(node: &dyn IpfsNode) {
    let address = "/ip4/127.0.0.1/tcp/1".parse().expect("an address");
    assert!(node.connect(vec![address]).await.is_err());
    assert!(node.connect(Vec::new()).await.is_err());
    node.connected().await.expect("the node says whom it is connected to");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::mem_ipfs::{IpfsCall, IpfsFault, ListingFault, MemIpfs, MemIpfsWorld};

    const STALL: Duration = Duration::from_secs(3);

    struct Memory;

    #[async_trait]
    impl IpfsFactory for Memory {
        async fn node(&self) -> IpfsFixture {
            IpfsFixture { node: MemIpfs::new(STALL), keep: Box::new(()) }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_node_in_memory_keeps_the_contract() {
        assert_eq!(run(&Memory).await, 21);
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_of_one_world_fetch_from_each_other() {
        let world = MemIpfsWorld::default();
        let (here, there) = (MemIpfs::in_world(&world, STALL), MemIpfs::in_world(&world, STALL));
        let blocks = tree("far away");
        let fetch = pin(here.as_ref(), blocks[0].cid, PinDepth::RECURSIVE);
        let (fetched, put) = futures::join!(fetch, there.put_blocks(blocks.clone()));
        assert!(put.is_ok() && fetched.is_ok(), "a block that comes within the stall time is found");
        there.collect_garbage().await.unwrap();
        assert_eq!(here.block(blocks[6].cid).await.unwrap(), blocks[6].data, "what was fetched is kept here");
    }

    #[tokio::test(start_paused = true)]
    async fn it_fails_hangs_and_lies_as_told() {
        let node = MemIpfs::new(STALL);
        node.find_everything();
        let cid = dag::leaf("told").cid;
        node.break_call_times(IpfsCall::Pin, IpfsFault::Refused("no".to_owned()), 2);
        for _ in 0..2 {
            assert_eq!(pin(node.as_ref(), cid, PinDepth::RECURSIVE).await.unwrap_err().to_string(), "no");
        }
        pin(node.as_ref(), cid, PinDepth::RECURSIVE).await.unwrap();
        node.lie_about(cid, None);
        assert_eq!(kept(node.as_ref(), cid).await, None);
        assert_eq!(node.true_pins().len(), 1);
        node.break_call(IpfsCall::Unpin, IpfsFault::Hangs);
        let mend = async { node.mend() };
        let (unpinned, ()) = futures::join!(node.unpin(cid), mend);
        unpinned.unwrap();
        assert!(node.true_pins().is_empty());
        assert_eq!(node.calls().last(), Some(&(IpfsCall::Unpin, Some(cid))));
    }

    #[tokio::test(start_paused = true)]
    async fn its_listings_break_as_told() {
        let node = MemIpfs::new(STALL);
        node.find_everything();
        for n in 0..5 {
            pin(node.as_ref(), dag::leaf(format!("{n}")).cid, PinDepth::RECURSIVE).await.unwrap();
        }
        let listed = || node.pins().collect::<Vec<_>>();
        node.break_listings(ListingFault::Breaks(2));
        assert_eq!(listed().await.iter().map(Result::is_ok).collect::<Vec<_>>(), vec![true, true, false]);
        node.break_listings(ListingFault::EndsSilently(2));
        assert_eq!(listed().await.iter().map(Result::is_ok).collect::<Vec<_>>(), vec![true, true]);
        node.mend();
        assert_eq!(listed().await.len(), 5);
    }
}
