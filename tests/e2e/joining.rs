//! Two clusters become one: nobody's pins are lost, and who lost against whom is told.
//!
//! `CLUSTER_JOIN_PINS` says how many pins each cluster has (default 1,000); a tenth of them are the same CIDs under other
//! names.

use std::time::Duration;

use cluster_core::testing::linear::Told;
use cluster_tests::process::{Mode, NodeKind, ProcessCluster};
use cluster_tests::wait;
use futures::{StreamExt, stream};

use crate::client::{inline_cid, pin};

/// Long enough for a restart, the move and the merge on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

async fn fill(cluster: &ProcessCluster, numbers: std::ops::Range<u32>, name: &str) {
    let peers = cluster.peers.len();
    let pins = numbers.map(|number| async move {
        let peer = usize::try_from(number).unwrap() % peers;
        assert_eq!(pin(cluster, peer, &inline_cid(number.into()), name).await, Told::Pinned, "pin {number}");
    });
    stream::iter(pins).buffer_unordered(64).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_with_pins_of_their_own_become_one() {
    let pins: u32 = std::env::var("CLUSTER_JOIN_PINS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000);
    let common = pins / 10;
    let embedded = [NodeKind::Embedded, NodeKind::Embedded];
    let large = ProcessCluster::start_in(Mode::Crdt, &[NodeKind::Embedded, NodeKind::Embedded, NodeKind::Embedded]);
    let large = large.await.unwrap();
    let small = large.beside().unwrap();
    let small = small.start_more(&embedded).await.unwrap();
    fill(&large, 0..pins, "of the large one").await;
    fill(&small, pins - common..2 * pins - common, "of the small one").await;

    // One of them is told; the other one stays connected to it, asks where it belongs now, and follows unasked.
    small.stop(0).await.unwrap();
    small.start_joining(0, &large.member_address(usize::MAX).unwrap()).await.unwrap();
    let wanted = u64::from(2 * pins - common);
    let everybody = [(&large, 0), (&large, 1), (&large, 2), (&small, 0), (&small, 1)];
    let mut digests = Vec::new();
    for (cluster, peer) in everybody {
        let whole = || async move {
            let state = cluster.state(peer).await.map_err(|error| error.to_string())?;
            let members = cluster.get::<serde_json::Value>(peer, "/id").await.map_err(|error| error.to_string())?;
            let members = members["cluster_peers"].as_array().map_or(0, Vec::len);
            if state.eventual == 0 && state.pins == wanted && members == 5 {
                Ok(state)
            } else {
                Err(format!("{members} members, {state:?}"))
            }
        };
        digests.push(wait::until("all pins on all peers", LIMIT, whole).await.digest);
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    for (cluster, peer) in everybody {
        assert_eq!(cluster.pins(peer).await.unwrap().len() as u64, wanted);
        let events = cluster.http(peer).get(cluster.url(peer, "/events?limit=1000")).send().await.unwrap();
        let events = events.text().await.unwrap();
        if peer_was_there(cluster, &large) {
            assert_eq!(events.lines().count(), usize::try_from(common).unwrap(), "each in common is told once");
            assert!(events.lines().all(|line| line.contains("newer-pin")), "{events}");
        }
    }
}

/// The event log is each peer's own: who came later may have got the outcome without the events.
fn peer_was_there(cluster: &ProcessCluster, large: &ProcessCluster) -> bool {
    std::ptr::eq(cluster, large)
}
