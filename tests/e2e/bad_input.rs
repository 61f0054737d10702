//! What is wrong is refused with words that say what to do; nothing is lost by it, nothing is done, nobody dies.

mod damage;
mod raw;
mod requests;
mod start;
mod strangers;
mod uploads;

use cluster_core::testing::linear::Told;
use cluster_tests::process::{NodeKind, ProcessCluster};
use cluster_types::{Cid, Pin, StateReport};

use crate::client::{inline_cid, pin};

const EMBEDDED: [NodeKind; 3] = [NodeKind::Embedded, NodeKind::Embedded, NodeKind::Embedded];

/// What a cluster held before it was mistreated.
struct Before {
    pinned: Cid,
    pin: Pin,
    digest: String,
    applied: u64,
    term: u64,
}

impl Before {
    /// Pins a little and waits until every peer has it.
    async fn of(cluster: &ProcessCluster) -> Self {
        for number in 0..3 {
            assert_eq!(pin(cluster, 0, &inline_cid(number), &number.to_string()).await, Told::Pinned);
        }
        let pinned = inline_cid(1);
        let state = cluster.wait_equal().await;
        let pin = cluster.get(0, &format!("/allocations/{pinned}")).await.unwrap();
        Self { pinned, pin, digest: state.digest, applied: state.applied_index, term: state.term }
    }

    /// Every peer is alive and holds what it held.
    async fn check_content(&self, cluster: &ProcessCluster, after: &str) -> StateReport {
        for number in (0..cluster.peers.len()).filter(|number| cluster.is_running(*number)) {
            cluster.check_alive(number).unwrap();
        }
        let state = cluster.wait_equal().await;
        assert_eq!(state.digest, self.digest, "after {after}: {:?}", cluster.pins(0).await);
        let pin: Pin = cluster.get(0, &format!("/allocations/{}", self.pinned)).await.unwrap();
        assert_eq!(pin, self.pin, "after {after}");
        state
    }

    /// The same, and not even an entry of the log has come of it.
    async fn check(&self, cluster: &ProcessCluster, after: &str) {
        let state = self.check_content(cluster, after).await;
        // A new leader writes an entry of its own.
        if state.term == self.term {
            assert_eq!(state.applied_index, self.applied, "after {after}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_uploads_and_strangers_are_refused_and_leave_no_trace() {
    let mut cluster = ProcessCluster::start(&EMBEDDED).await.unwrap();
    let before = Before::of(&cluster).await;
    requests::wrong_targets(&cluster, &before).await;
    before.check(&cluster, "malformed CIDs, paths, options and filters").await;
    requests::wrong_bodies(&cluster).await;
    before.check(&cluster, "malformed and oversized bodies and heads").await;
    requests::what_is_not_http(&cluster, &before).await;
    before.check(&cluster, "half requests and garbage on the REST port").await;
    uploads::broken_multipart(&cluster).await;
    uploads::hostile_archives(&cluster).await;
    before.check(&cluster, "broken uploads").await;
    strangers::garbage(&cluster).await;
    before.check(&cluster, "garbage on the swarm ports").await;
    strangers::another_secret(&mut cluster).await;
    before.check(&cluster, "a peer with another secret").await;
    requests::refused_in_order(&cluster, &before).await;
    before.check_content(&cluster, "writes that contradict the pinset").await;
    // Refused is refused, and the next right request works.
    assert_eq!(pin(&cluster, 2, &inline_cid(77), "77").await, Told::Pinned);
    assert_ne!(cluster.wait_equal().await.digest, before.digest);
}
