//! Raft mode: peers that name each other in `init_peerset` found one cluster, in whatever order they start, and a founder
//! that lost its disk joins it again instead of founding another one.

use std::fs;
use std::time::Duration;

use cluster_tests::process::{NodeKind, ProcessCluster, START_LIMIT};
use cluster_tests::wait;
use serde_json::Value;

use crate::client::inline_cid;

/// Peers that name each other, in order of their ids; none runs.
fn founders() -> (ProcessCluster, Vec<usize>) {
    let mut cluster = ProcessCluster::empty().unwrap();
    for _ in 0..3 {
        cluster.make_peer(&NodeKind::Embedded).unwrap();
    }
    let identity = |number: usize| {
        let text = fs::read(cluster.peers[number].folder.join("identity.json")).unwrap();
        let identity: Value = serde_json::from_slice(&text).unwrap();
        identity["id"].as_str().unwrap().parse::<cluster_types::PeerId>().unwrap()
    };
    let mut ids: Vec<_> = (0..3).map(|number| (identity(number), number)).collect();
    let names: Vec<String> = ids.iter().map(|(peer, _)| peer.to_base58()).collect();
    let addresses: Vec<String> = ids
        .iter()
        .map(|(peer, number)| format!("/ip4/127.0.0.1/tcp/{}/p2p/{peer}\n", cluster.swarm_port(*number)))
        .collect();
    ids.sort_unstable();
    for number in 0..3 {
        cluster.set_variable(number, "CLUSTER_RAFT_INITPEERSET", &names.join(","));
        fs::write(cluster.peers[number].folder.join("peerstore"), addresses.concat()).unwrap();
    }
    (cluster, ids.into_iter().map(|(_, number)| number).collect())
}

async fn wait_said(cluster: &ProcessCluster, peer: usize, what: &str) {
    wait::until(what, START_LIMIT, || async {
        cluster.check_alive(peer).map_err(|error| format!("{error:#}"))?;
        if cluster.log(peer).contains(what) { Ok(()) } else { Err(cluster.log_tail(peer)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_name_each_other_found_one_cluster_together() {
    let (cluster, order) = founders();
    // Alone the first one waits: most of them have to be there.
    cluster.spawn_peer(order[0]).unwrap();
    wait_said(&cluster, order[0], "waiting for the peers of consensus.raft.init_peerset").await;
    let rest = reqwest::Client::builder().timeout(Duration::from_secs(1)).build().unwrap();
    assert!(rest.get(cluster.url(order[0], "/id")).send().await.is_err(), "it serves nobody yet");
    cluster.kill(order[0]).unwrap();
    for peer in [order[2], order[1]] {
        cluster.spawn_peer(peer).unwrap();
        wait_said(&cluster, peer, "waiting for the peers of consensus.raft.init_peerset").await;
    }
    cluster.start_peer(order[0]).await.unwrap();
    for peer in &order[1..] {
        cluster.wait_started(*peer).await.unwrap();
    }
    cluster.wait_voters(3).await;
    let pin = format!("/pins/{}?replication=-1", inline_cid(1));
    let answer = cluster.http(order[2]).post(cluster.url(order[2], &pin)).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    cluster.wait_equal().await;

    // The one that founded comes back with nothing.
    cluster.kill(order[0]).unwrap();
    cluster.lose_state(order[0]).unwrap();
    cluster.start_peer(order[0]).await.unwrap();
    let state = cluster.wait_equal().await;
    assert_eq!(state.pins, 1, "it is in the cluster that exists");
}
