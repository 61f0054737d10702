//! The contract of `Blockstore`, sentence by sentence. What a power cut leaves is each adapter's own test.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use cluster_types::{Cid, Codec, PinDepth};

use super::pinset::cid;
use crate::ports::{Block, Blockstore, Root};

/// Runs every test; `make` gives an empty store and what must outlive it.
pub async fn run<S, G, F, Fut>(make: F)
where
    S: Blockstore,
    F: Fn() -> Fut,
    Fut: Future<Output = (Arc<S>, G)>,
{
    what_was_put_is_there_at_once(&*make().await.0).await;
    a_block_is_named_by_its_multihash_alone(&*make().await.0).await;
    what_is_there_stays_as_it_is(&*make().await.0).await;
    deleting_takes_away_what_is_there(&*make().await.0).await;
    listings_go_in_order_and_resume_after_any_key(&*make().await.0).await;
    use_grows_with_the_blocks(&*make().await.0).await;
    roots_are_kept_until_they_are_deleted(&*make().await.0).await;
}

fn block(number: u64, length: usize) -> Block {
    let byte = number.to_le_bytes()[0];
    Block { cid: cid(number), data: Bytes::from(vec![byte; length]) }
}

fn key(number: u64) -> Vec<u8> {
    cid(number).hash_bytes()
}

async fn what_was_put_is_there_at_once<S: Blockstore>(store: &S) {
    // Empty, small, around 4 KiB, and a large one.
    let blocks: Vec<Block> = (0..).zip([0, 1, 4095, 4096, 4097, 1 << 20]).map(|(n, length)| block(n, length)).collect();
    store.put(blocks.clone()).await.expect("put");
    for block in blocks {
        let key = block.cid.hash_bytes();
        let size = u64::try_from(block.data.len()).unwrap_or(u64::MAX);
        assert_eq!(store.size(&key).await.expect("readable"), Some(size));
        assert_eq!(store.get(&key).await.expect("readable"), Some(block.data));
    }
    assert_eq!(store.get(&key(99)).await.expect("readable"), None);
    assert_eq!(store.size(&key(99)).await.expect("readable"), None);
    store.put(Vec::new()).await.expect("nothing to put is no error");
    store.flush().await.expect("flushed");
}

async fn a_block_is_named_by_its_multihash_alone<S: Blockstore>(store: &S) {
    let v1 = Cid::new_v1(Codec::DAG_PB, *cid(1).hash());
    let v0 = Cid::new_v0(*cid(1).hash()).expect("sha2-256 makes a version 0");
    store.put(vec![Block { cid: v0, data: Bytes::from_static(b"bytes") }]).await.expect("put");
    assert_eq!(store.get(&v1.hash_bytes()).await.expect("readable"), Some(Bytes::from_static(b"bytes")));
    store.put(vec![Block { cid: v1, data: Bytes::from_static(b"bytes") }]).await.expect("put");
    assert_eq!(store.list(None, 10).await.expect("readable"), [key(1)]);
}

async fn what_is_there_stays_as_it_is<S: Blockstore>(store: &S) {
    store.put(vec![block(1, 10)]).await.expect("put");
    store.put(vec![block(1, 10), block(2, 10)]).await.expect("put");
    assert_eq!(store.get(&key(1)).await.expect("readable"), Some(block(1, 10).data));
    assert_eq!(store.list(None, 10).await.expect("readable").len(), 2);
}

async fn deleting_takes_away_what_is_there<S: Blockstore>(store: &S) {
    store.put(vec![block(1, 10), block(2, 9000)]).await.expect("put");
    store.delete(vec![key(1), key(2), key(3)]).await.expect("what is not there is no error");
    for number in 1..=3 {
        assert_eq!(store.get(&key(number)).await.expect("readable"), None);
        assert_eq!(store.size(&key(number)).await.expect("readable"), None);
    }
    store.put(vec![block(2, 9000)]).await.expect("put again");
    assert_eq!(store.get(&key(2)).await.expect("readable"), Some(block(2, 9000).data));
}

async fn listings_go_in_order_and_resume_after_any_key<S: Blockstore>(store: &S) {
    store.put((0..50).map(|number| block(number, 20)).collect()).await.expect("put");
    let mut expected: Vec<Vec<u8>> = (0..50).map(key).collect();
    expected.sort();
    let mut seen: Vec<Vec<u8>> = Vec::new();
    loop {
        let page = store.list(seen.last().cloned(), 8).await.expect("readable");
        assert!(page.len() <= 8);
        let Some(last) = page.last().cloned() else { break };
        seen.extend(page);
        store.delete(vec![last]).await.expect("deleted under the listing");
    }
    assert_eq!(seen, expected);
    assert_eq!(store.list(None, 0).await.expect("readable"), Vec::<Vec<u8>>::new());
}

async fn use_grows_with_the_blocks<S: Blockstore>(store: &S) {
    let before = store.used().await.expect("readable");
    // Of different bytes, so that a store that finds equal blocks has to keep them all.
    store.put((0..16).map(|number| block(number, 1 << 18)).collect()).await.expect("put");
    store.flush().await.expect("flushed");
    let used = store.used().await.expect("readable") - before;
    assert!(used >= 1 << 20, "four MiB use {used} bytes");
}

async fn roots_are_kept_until_they_are_deleted<S: Blockstore>(store: &S) {
    let root = |number, depth| Root { cid: cid(number), depth: PinDepth(depth) };
    for number in 0..10 {
        store.put_root(root(number, -1)).await.expect("put");
    }
    store.put_root(root(3, 0)).await.expect("a new depth replaces the old one");
    assert_eq!(store.root(&cid(3)).await.expect("readable"), Some(root(3, 0)));
    assert!(store.delete_root(&cid(4)).await.expect("deleted"));
    assert!(!store.delete_root(&cid(4)).await.expect("already gone"));
    assert_eq!(store.root(&cid(4)).await.expect("readable"), None);
    let mut expected: Vec<Cid> = (0..10).filter(|number| *number != 4).map(cid).collect();
    expected.sort_by_key(Cid::to_bytes);
    let mut seen: Vec<Root> = Vec::new();
    loop {
        let page = store.roots(seen.last().map(|root| root.cid), 4).await.expect("readable");
        assert!(page.len() <= 4);
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(seen.iter().map(|root| root.cid).collect::<Vec<_>>(), expected);
    let after_gone: Vec<Cid> =
        store.roots(Some(cid(4)), 100).await.expect("readable").into_iter().map(|root| root.cid).collect();
    assert_eq!(after_gone, expected.into_iter().filter(|one| one.to_bytes() > cid(4).to_bytes()).collect::<Vec<_>>());
}
