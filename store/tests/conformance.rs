//! The suites of the ports and openraft's own, over RocksDB in a temporary folder.

#![expect(clippy::unwrap_used, reason = "a test binary")]

use std::sync::Arc;

use bytes::Bytes;
use cluster_core::consensus::log::{StateMachine, TypeConfig};
use cluster_core::ports::{Block, Blockstore, NodeIdRecord, Root};
use cluster_core::testing::suite::{self, pinset::cid};
use cluster_core::watch;
use cluster_store::{BlockStore, RaftLog, RocksState, Store, StoreError, StoreOptions};
use cluster_types::PinDepth;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

async fn state() -> (Arc<RocksState>, (TempDir, Store)) {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    (store.state(), (folder, store))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_keeps_its_contract() {
    suite::state::run(state).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_keeps_its_contract_on_one_thread() {
    suite::state::run(state).await;
}

async fn reopen(closed: Arc<RocksState>, (folder, store): (TempDir, Store)) -> (Arc<RocksState>, (TempDir, Store)) {
    store.close().await.unwrap();
    drop((closed, store));
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    (store.state(), (folder, store))
}

/// `CLUSTER_TEST_PINS=1000000` asks the same of a large pinset; better with `--release`.
#[tokio::test(flavor = "multi_thread")]
async fn every_way_leads_to_the_same_on_disk() {
    let pins = std::env::var("CLUSTER_TEST_PINS").ok().map(|text| text.parse().unwrap());
    suite::catchup::every_way_leads_to_the_same(3, pins.unwrap_or(20_000), state, reopen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_on_disk_that_is_cut_off_goes_on() {
    suite::catchup::a_receiver_that_is_cut_off_goes_on(state, reopen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_donors_do_no_harm_to_a_disk() {
    suite::catchup::bad_donors_do_no_harm(state).await;
}

#[tokio::test]
async fn replicas_on_disk_agree() {
    for seed in 0..4 {
        suite::tails::replicas_agree(seed, state, reopen).await;
    }
}

#[tokio::test]
async fn the_tracker_keeps_its_contract() {
    suite::tracker_store::run(state).await;
}

#[tokio::test]
async fn the_block_store_keeps_its_contract() {
    suite::blockstore::run(|| async {
        let folder = TempDir::new().unwrap();
        (BlockStore::open(folder.path()).unwrap(), folder)
    })
    .await;
}

struct Builder;

impl StoreBuilder<TypeConfig, RaftLog, StateMachine, (TempDir, Store)> for Builder {
    async fn build(&self) -> Result<((TempDir, Store), RaftLog, StateMachine), StorageError<TypeConfig>> {
        let (state, kept) = state().await;
        let nothing = Arc::new(|_index| -> cluster_core::ports::LocalEffect { Arc::new(|_, _, _| None) });
        let machine = StateMachine::open(state, nothing, watch::Sender::new(0)).await.unwrap();
        let log = kept.1.raft_log();
        Ok((kept, log, machine))
    }
}

#[tokio::test]
async fn the_log_and_the_state_machine_pass_the_suite_of_openraft() {
    Suite::test_all(Builder).await.unwrap();
}

#[tokio::test]
async fn blocks_and_roots_are_there_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let blocks: Vec<Block> =
        (0..100).map(|number| Block { cid: cid(number), data: Bytes::from(vec![1; 100 * 100]) }).collect();
    let root = Root { cid: cid(1), depth: PinDepth::DIRECT };
    let store = BlockStore::open(folder.path()).unwrap();
    store.put(blocks.clone()).await.unwrap();
    store.put_root(root).await.unwrap();
    assert!(matches!(BlockStore::open(folder.path()), Err(StoreError::Locked { .. })));
    store.close().await.unwrap();
    assert!(store.get(&cid(1).hash_bytes()).await.is_err(), "closed is closed");
    let store = BlockStore::open(folder.path()).unwrap();
    for block in blocks {
        assert_eq!(store.get(&block.cid.hash_bytes()).await.unwrap(), Some(block.data));
    }
    assert_eq!(store.roots(None, 10).await.unwrap(), [root]);
}

#[tokio::test]
async fn the_raft_id_is_kept() {
    let (_state, (folder, store)) = state().await;
    let log = store.raft_log();
    assert_eq!(log.load().await.unwrap(), None);
    log.save(u64::MAX).await.unwrap();
    store.close().await.unwrap();
    assert!(log.load().await.is_err(), "closed is closed");
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    assert_eq!(store.raft_log().load().await.unwrap(), Some(u64::MAX));
}
