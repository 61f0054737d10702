//! Linearizability of pin, unpin and read on 20 CIDs while leaders are killed.
//!
//! `CLUSTER_HISTORY_SECONDS` says how long (default 20). The reads go through a read barrier; the last test makes
//! a read stale, which must be found.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cluster_core::testing::linear::{Action, Operation, Told, check};
use cluster_tests::process::{NodeKind, ProcessCluster, START_LIMIT};
use cluster_tests::wait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use crate::client::{at_least, inline_cid, pin, read, unpin};

/// Registers in the history.
const CIDS: u32 = 20;
/// Clients at a time.
const CLIENTS: u64 = 6;

struct Shared {
    cluster: ProcessCluster,
    stop: AtomicBool,
    /// One tick for each call and each return: an order that all clients agree on.
    clock: AtomicU64,
}

async fn three() -> Arc<Shared> {
    let cluster = ProcessCluster::start(&[NodeKind::Embedded, NodeKind::Embedded, NodeKind::Embedded]).await.unwrap();
    Arc::new(Shared { cluster, stop: AtomicBool::new(false), clock: AtomicU64::new(0) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_with_kills_and_leader_changes_are_linearizable() {
    let seconds = std::env::var("CLUSTER_HISTORY_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let seed: u64 = rand::random::<u32>().into();
    println!("CLUSTER_HISTORY_SECONDS={seconds}, seed {seed}");
    let shared = three().await;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(act(Arc::clone(&shared), client, seed));
    }
    let ends = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut kills = 0;
    while tokio::time::Instant::now() < ends {
        // How long a leader is left in peace.
        tokio::time::sleep(Duration::from_millis(700)).await;
        let Some(leader) = shared.cluster.leader().await else { continue };
        shared.cluster.kill(leader).unwrap();
        kills += 1;
        shared.cluster.start_peer(leader).await.unwrap();
    }
    shared.stop.store(true, Ordering::Relaxed);
    let mut history = Vec::new();
    while let Some(operations) = clients.join_next().await {
        history.extend(operations.unwrap());
    }
    let certain = history.iter().filter(|operation| !matches!(operation.told, Told::Unknown | Told::Refused)).count();
    println!("{} operations, {certain} with a certain answer, {kills} leaders killed", history.len());
    at_least("certain answers", certain, 200).unwrap();
    at_least("killed leaders", kills, 1).unwrap();
    if let Err(violation) = check(&history) {
        let key = violation.culprit.key;
        let mut story: Vec<_> = history.iter().filter(|operation| operation.key == key).collect();
        story.sort_by_key(|operation| operation.called);
        panic!("{violation}\n{}", story.iter().map(|line| format!("{line:?}\n")).collect::<String>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_read_planted_on_purpose_is_found() {
    let shared = three().await;
    let leader = shared.cluster.leader().await.unwrap();
    let behind = (0..3).find(|peer| *peer != leader).unwrap();
    let cid = inline_cid(1);
    let mut history = Vec::new();
    record(&shared, &mut history, Action::Pin(1), pin(&shared.cluster, leader, &cid, "1")).await;
    shared.cluster.wait_equal().await;
    // A peer that comes back while nobody can tell it what it missed.
    shared.cluster.kill(behind).unwrap();
    record(&shared, &mut history, Action::Pin(2), pin(&shared.cluster, leader, &cid, "2")).await;
    assert_eq!(history[1].told, Told::Pinned);
    let others = || (0..3).filter(|peer| *peer != behind);
    others().for_each(|peer| shared.cluster.pause(peer).unwrap());
    shared.cluster.spawn_peer(behind).unwrap();
    let told = wait::until("an answer of the peer that is behind", START_LIMIT, || async {
        let told = read(&shared.cluster, behind, &cid, true).await;
        if told == Told::Unknown { Err("no answer yet") } else { Ok(told) }
    });
    let told = told.await;
    let (called, returned) = (tick(&shared), tick(&shared));
    history.push(Operation { key: 1, called, returned, action: Action::Read, told });
    assert_eq!(told, Told::Found(1), "it cannot know better");
    assert_eq!(check(&history).unwrap_err().culprit, history[2]);
    // Asked for what is current it says nothing rather than that.
    assert_eq!(read(&shared.cluster, behind, &cid, false).await, Told::Unknown);
    others().for_each(|peer| shared.cluster.resume(peer).unwrap());
    wait::until("the peer to catch up", START_LIMIT, || async {
        let told = read(&shared.cluster, behind, &cid, false).await;
        if told == Told::Found(2) { Ok(()) } else { Err(told) }
    })
    .await;
}

fn tick(shared: &Shared) -> u64 {
    shared.clock.fetch_add(1, Ordering::SeqCst)
}

async fn record(shared: &Shared, history: &mut Vec<Operation>, action: Action, done: impl Future<Output = Told>) {
    let called = tick(shared);
    let told = done.await;
    let returned = tick(shared);
    history.push(Operation { key: 1, called, returned, action, told });
}

async fn act(shared: Arc<Shared>, client: u64, seed: u64) -> Vec<Operation> {
    let mut chance = StdRng::seed_from_u64(seed ^ (client + 1));
    let mut history = Vec::new();
    let mut serial = client;
    while !shared.stop.load(Ordering::Relaxed) {
        let key = chance.random_range(0..CIDS);
        let cid = inline_cid(key.into());
        let peer = chance.random_range(0..3);
        serial += CLIENTS;
        let called = tick(&shared);
        let (action, told) = match chance.random_range(0..10) {
            0..4 => (Action::Pin(serial), pin(&shared.cluster, peer, &cid, &serial.to_string()).await),
            4..6 => (Action::Unpin, unpin(&shared.cluster, peer, &cid).await),
            _ => (Action::Read, read(&shared.cluster, peer, &cid, false).await),
        };
        let returned = tick(&shared);
        history.push(Operation { key, called, returned, action, told });
        if told == Told::Refused {
            // Nobody listens there now.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    history
}
