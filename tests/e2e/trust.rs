//! crdt mode with `trusted_peers`: peers made by `init --peers` with each other's addresses become one cluster, and who
//! knows the secret but is on no list stays outside.

use std::fs;
use std::time::Duration;

use cluster_core::testing::linear::Told;
use cluster_tests::process::{Mode, NodeKind, ProcessCluster};
use cluster_tests::wait;
use cluster_types::PeerId;
use serde_json::Value;

use crate::client::{inline_cid, pin};

/// Each look takes five seconds, and who has welcomed one stays for two minutes: the last may have to wait for that.
const LIMIT: Duration = Duration::from_secs(300);

/// The swarm address of a peer that was made, with its id.
fn address(cluster: &ProcessCluster, number: usize) -> String {
    let text = fs::read(cluster.peers[number].folder.join("identity.json")).unwrap();
    let identity: Value = serde_json::from_slice(&text).unwrap();
    let id: PeerId = identity["id"].as_str().unwrap().parse().unwrap();
    format!("/ip4/127.0.0.1/tcp/{}/p2p/{id}", cluster.swarm_port(number))
}

/// Makes `number` peers that name each other, as the documentation of `--peers` has it; none runs.
async fn named(number: usize) -> ProcessCluster {
    let mut cluster = ProcessCluster::empty_in(Mode::Crdt).unwrap();
    for _ in 0..number {
        cluster.make_peer(&NodeKind::Embedded).unwrap();
    }
    let addresses: Vec<String> = (0..number).map(|number| address(&cluster, number)).collect();
    for own in 0..number {
        let others: Vec<&str> =
            addresses.iter().enumerate().filter(|(other, _)| *other != own).map(|(_, other)| other.as_str()).collect();
        let others = others.join(",");
        let init = ["init", "--force", "--consensus", "crdt", "--ipfs", "embedded", "--peers", &others];
        let (code, said) = cluster.run_command(own, &init, None).await.unwrap();
        assert_eq!(code, Some(0), "{said}");
        let file = fs::read_to_string(cluster.peers[own].folder.join("service.json")).unwrap();
        let file: Value = serde_json::from_str(&file).unwrap();
        let trusted = file["consensus"]["crdt"]["trusted_peers"].as_array().unwrap().clone();
        assert_eq!(trusted.len(), number - 1);
    }
    cluster
}

async fn members(cluster: &ProcessCluster, peer: usize) -> Result<usize, String> {
    let id: Value = cluster.get(peer, "/id").await.map_err(|error| format!("{error:#}"))?;
    Ok(id["cluster_peers"].as_array().map_or(0, Vec::len))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_name_each_other_are_one_cluster_and_nobody_else_gets_in() {
    let mut cluster = named(3).await;
    for peer in 0..3 {
        cluster.spawn_peer(peer).unwrap();
    }
    for peer in 0..3 {
        wait::until("three members", LIMIT, || async {
            cluster.check_alive(peer).map_err(|error| format!("{error:#}"))?;
            match members(&cluster, peer).await {
                Ok(3) => Ok(()),
                other => Err(format!("{other:?}\n{}", cluster.log_tail(peer))),
            }
        })
        .await;
        cluster.wait_started(peer).await.unwrap();
    }
    cluster.wait_voters(3).await;
    assert_eq!(pin(&cluster, 1, &inline_cid(1), "inside").await, Told::Pinned);
    let before = cluster.wait_equal().await;
    let graph: Value = cluster.get(0, "/health/graph").await.unwrap();
    let trust = graph["cluster_trust_links"].as_object().unwrap();
    assert!(trust.len() == 3 && trust.values().all(|trusted| *trusted == Value::Bool(true)), "{graph}");

    // It knows the secret, trusts everybody, and is on nobody's list.
    let fourth = cluster.make_peer(&NodeKind::Embedded).unwrap();
    let member = address(&cluster, 0);
    let said = cluster.refused_start(fourth, &["--bootstrap", &member], &[]).await.unwrap();
    assert!(said.contains("the cluster does not let this peer in: not trusted: peer 12D3"), "{said}");
    // Nor does it get in unasked.
    fs::write(cluster.peers[fourth].folder.join("peerstore"), format!("{member}\n")).unwrap();
    cluster.spawn_peer(fourth).unwrap();
    wait::until("it to be refused", LIMIT, || async {
        let log = cluster.log(fourth);
        if log.contains("a peer does not trust this one") { Ok(()) } else { Err(log) }
    })
    .await;
    cluster.wait_started(fourth).await.unwrap();
    assert_eq!(members(&cluster, fourth).await, Ok(1), "a cluster of its own");
    assert_eq!(pin(&cluster, fourth, &inline_cid(2), "outside").await, Told::Pinned);
    for peer in 0..3 {
        assert_eq!(members(&cluster, peer).await, Ok(3));
        let state = cluster.state(peer).await.unwrap();
        assert_eq!((state.applied_index, &state.digest), (before.applied_index, &before.digest), "nothing has changed");
    }
}
