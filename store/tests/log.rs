//! The raft log: one flush for many, nothing lost, nothing held whole.

#![expect(clippy::unwrap_used, reason = "a test binary")]

use cluster_core::consensus::log::{LogId, TypeConfig, Vote};
use cluster_core::consensus::operation::{Entry, Operation, Proposed};
use cluster_store::{RaftLog, Store, StoreOptions};
use cluster_types::Timestamp;
use futures::StreamExt;
use openraft::alias::EntryOf;
use openraft::storage::{IOFlushed, LeaderBoundedStreamError, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::OneshotReceiverOf;
use openraft::{EntryPayload, Vote as AnyVote};
use tempfile::TempDir;

/// Some 1 KiB an entry.
const OPERATIONS: usize = 50;

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(term.into(), index)
}

fn entry(term: u64, index: u64) -> EntryOf<TypeConfig> {
    let operations = vec![Proposed { id: [7; 16], operation: Operation::Reserve }; OPERATIONS];
    let payload = EntryPayload::Normal(Entry { time: Timestamp::from_unix_seconds(1), operations });
    openraft::Entry { log_id: log_id(term, index), payload }
}

fn open(folder: &TempDir) -> (Store, RaftLog) {
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    let log = store.raft_log();
    (store, log)
}

type Flushed = OneshotReceiverOf<TypeConfig, Result<(), std::io::Error>>;

async fn append(log: &mut RaftLog, entries: Vec<EntryOf<TypeConfig>>) -> Flushed {
    let (sender, flushed) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(sender)).await.unwrap();
    flushed
}

async fn fill(log: &mut RaftLog, indexes: std::ops::Range<u64>) {
    let entries = indexes.map(|index| entry(1, index)).collect();
    append(log, entries).await.await.unwrap().unwrap();
}

fn indexes(entries: &[EntryOf<TypeConfig>]) -> Vec<u64> {
    entries.iter().map(|entry| entry.log_id.index).collect()
}

#[tokio::test]
async fn many_appends_share_a_flush_and_all_are_told() {
    let folder = TempDir::new().unwrap();
    let (store, mut log) = open(&folder);
    let before = store.telemetry().flushes();
    let mut waiting = Vec::new();
    for index in 0..500 {
        waiting.push(append(&mut log, vec![entry(1, index)]).await);
        assert_eq!(log.try_get_log_entries(index..=index).await.unwrap().len(), 1, "readable when append returns");
    }
    for flushed in waiting {
        flushed.await.unwrap().unwrap();
    }
    let flushes = store.telemetry().flushes() - before;
    assert!((1..=500).contains(&flushes), "{flushes} flushes");
    fill(&mut log, 500..600).await;
    assert_eq!(store.telemetry().flushes() - before, flushes + 1, "a batch of entries is one flush");
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let vote: Vote = AnyVote::new_committed(3, 9);
    {
        let (store, mut log) = open(&folder);
        fill(&mut log, 1..20).await;
        log.save_vote(&vote).await.unwrap();
        log.purge(log_id(1, 5)).await.unwrap();
        log.truncate_after(Some(log_id(1, 15))).await.unwrap();
        store.close().await.unwrap();
    }
    let (store, mut log) = open(&folder);
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 5)), Some(log_id(1, 15))));
    assert_eq!(indexes(&log.try_get_log_entries(..).await.unwrap()), (6..=15).collect::<Vec<_>>());
    log.purge(log_id(1, 15)).await.unwrap();
    drop((store, log));
    let (_store, mut log) = open(&folder);
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 15)), Some(log_id(1, 15))));
}

#[tokio::test]
async fn long_ranges_come_in_bounded_pieces() {
    let folder = TempDir::new().unwrap();
    let (_store, mut log) = open(&folder);
    fill(&mut log, 1..5000).await;
    let some = log.limited_get_log_entries(1, 5000).await.unwrap();
    assert!(!some.is_empty() && some.len() < 4999, "{} entries", some.len());
    assert_eq!(log.try_get_log_entries(1..5000).await.unwrap().len(), 4999, "this one never stops early");
    let all: Vec<_> = log.entries_stream(1..).await.map(Result::unwrap).collect().await;
    assert_eq!(indexes(&all), (1..5000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_leaders_stream_ends_when_the_vote_changes() {
    let folder = TempDir::new().unwrap();
    let (store, mut log) = open(&folder);
    fill(&mut log, 1..5000).await;
    let vote: Vote = AnyVote::new_committed(3, 9);
    log.save_vote(&vote).await.unwrap();
    let mut reader = log.clone();
    let mut stream = Box::pin(reader.leader_bounded_stream(*vote.leader_id(), 1..5000).await);
    assert!(stream.next().await.unwrap().is_ok());
    log.save_vote(&AnyVote::new(4, 2)).await.unwrap();
    let rest: Vec<_> = stream.collect().await;
    assert!(matches!(rest.last(), Some(Err(LeaderBoundedStreamError::LeaderChanged(_)))));
    assert!(rest.len() < 4998, "it ended early");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_hole_is_an_error() {
    let folder = TempDir::new().unwrap();
    let (_store, mut log) = open(&folder);
    fill(&mut log, 1..5).await;
    fill(&mut log, 7..9).await;
    assert!(log.try_get_log_entries(1..9).await.is_err());
    assert_eq!(log.try_get_log_entries(7..100).await.unwrap().len(), 2, "absence at the end is none");
}

#[tokio::test]
async fn a_closed_log_refuses_and_answers_everybody() {
    let folder = TempDir::new().unwrap();
    let (store, mut log) = open(&folder);
    let waiting = append(&mut log, vec![entry(1, 1)]).await;
    store.close().await.unwrap();
    waiting.await.unwrap().unwrap();
    let (sender, _flushed) = TypeConfig::oneshot();
    assert!(log.append(vec![entry(1, 2)], IOFlushed::signal(sender)).await.is_err());
    assert!(log.save_vote(&AnyVote::new(4, 2)).await.is_err());
}
