//! A peer is removed while it is away with writes that nobody else has: they are not lost, and nobody is left in the dark.

use std::time::Duration;

use cluster_core::testing::linear::Told;
use cluster_tests::process::{Mode, NodeKind, ProcessCluster};
use cluster_tests::wait;

use crate::client::{inline_cid, pin};

const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_removed_with_writes_says_so_and_brings_them_when_it_joins_again() {
    let nodes = [NodeKind::Embedded, NodeKind::Embedded, NodeKind::Embedded];
    let cluster = ProcessCluster::start_in(Mode::Crdt, &nodes).await.unwrap();
    let (lost, before, alone) = (2, inline_cid(1), inline_cid(2));
    assert_eq!(pin(&cluster, 0, &before, "before").await, Told::Pinned);
    cluster.wait_equal().await;
    [0, 1].iter().for_each(|peer| cluster.pause(*peer).unwrap());
    assert_eq!(pin(&cluster, lost, &alone, "alone").await, Told::Pinned);
    assert_eq!(cluster.state(lost).await.unwrap().eventual, 1);
    cluster.kill(lost).unwrap();
    [0, 1].iter().for_each(|peer| cluster.resume(*peer).unwrap());
    wait::until("the others to remove it", LIMIT, || async {
        let request = cluster.http(0).delete(cluster.url(0, &format!("/peers/{}", cluster.peers[lost].id())));
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let answer = answer.error_for_status().map_err(|error| error.to_string())?;
        let members: serde_json::Value = cluster.get(0, "/id").await.map_err(|error| error.to_string())?;
        if members["cluster_peers"].as_array().map_or(0, Vec::len) == 2 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;

    let said = cluster.refused_start(lost, &[], &[]).await.unwrap();
    assert!(said.contains("was removed from its cluster while 1 writes"), "{said}");
    assert!(said.contains("--bootstrap"), "{said}");

    cluster.rejoin_peer(lost).await.unwrap();
    for peer in 0..3 {
        wait::until("the write to be merged", LIMIT, || async {
            let state = cluster.state(peer).await.map_err(|error| format!("{error:#}"))?;
            if state.eventual == 0 && state.pins == 2 { Ok(()) } else { Err(format!("{state:?}")) }
        })
        .await;
        assert!(cluster.pins(peer).await.unwrap().contains_key(&alone.to_string()), "peer {peer}");
    }
    cluster.wait_equal().await;
}
