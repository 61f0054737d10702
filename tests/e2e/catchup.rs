//! Promise P5: who missed more than the log keeps fetches the shards that differ, however often it is killed on its way.

use std::time::Duration;

use cluster_core::testing::linear::Told;
use cluster_tests::process::{NodeKind, ProcessCluster};
use cluster_tests::wait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::client::{inline_cid, pin};

/// Entries between two snapshots.
const OFTEN: &str = "16";
/// Pins that the peer misses.
const MISSED: u64 = 400;
/// How often it is killed while it comes back.
const KILLS: u32 = 5;
/// Until it says that it is no longer catching up.
const OVER_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_missed_more_than_the_log_keeps_is_brought_its_shards() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut cluster = ProcessCluster::empty().unwrap();
    for number in 0..3 {
        cluster.make_peer(&NodeKind::Embedded).unwrap();
        cluster.set_variable(number, "CLUSTER_RAFT_SNAPSHOTTHRESHOLD", OFTEN);
        cluster.start_peer(number).await.unwrap();
    }
    cluster.wait_voters(3).await;
    cluster.wait_metrics(3).await;
    for number in 0..50 {
        assert_eq!(pin(&cluster, 0, &inline_cid(number), "p").await, Told::Pinned);
    }
    cluster.wait_equal().await;
    cluster.kill(2).unwrap();
    for number in 50..50 + MISSED {
        assert_eq!(pin(&cluster, 0, &inline_cid(number), "p").await, Told::Pinned);
    }
    let mut chance = StdRng::seed_from_u64(seed);
    for _kill in 0..KILLS {
        cluster.spawn_peer(2).unwrap();
        // The length of the pause decides where on its way it is hit.
        tokio::time::sleep(Duration::from_millis(chance.random_range(100..900))).await;
        cluster.kill(2).unwrap();
    }
    cluster.start_peer(2).await.unwrap();
    let state = cluster.wait_equal().await;
    assert_eq!(state.pins, 50 + MISSED);
    let log = cluster.log(2);
    assert!(log.contains("catching up by shards"), "it had to: {}", cluster.log_tail(2));
    // The pins are there a moment before the installation has told that it is done.
    let told = wait::until("catching up is over", OVER_LIMIT, || async {
        let id: serde_json::Value = cluster.get(2, "/id").await.map_err(|error| error.to_string())?;
        id.get("catching_up").map_or_else(|| Ok(id.clone()), |still| Err(still.to_string()))
    })
    .await;
    assert!(told.get("id").is_some(), "it is the answer of a peer: {told}");
}
