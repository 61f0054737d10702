//! Two of three peers are lost for good: the third goes on as a new cluster, with everything it had.

use std::time::Duration;

use cluster_core::testing::linear::Told;
use cluster_tests::process::{NodeKind, ProcessCluster, SETTLE_LIMIT};
use cluster_tests::wait;
use cluster_types::Role;

use crate::client::{inline_cid, pin};

const RECOVER: [&str; 3] = ["state", "recover", "--force-new-cluster"];
const PINS: u64 = 20;

/// Waits until all running peers vote.
async fn wait_all_vote(cluster: &ProcessCluster) {
    wait::until("all to vote", SETTLE_LIMIT, || async {
        let mut roles = Vec::new();
        for number in (0..cluster.peers.len()).filter(|number| cluster.is_running(*number)) {
            roles.push(cluster.state(number).await.map_err(|error| format!("{error:#}"))?.role);
        }
        let vote = roles.iter().all(|role| matches!(role, Role::Leader | Role::Voter));
        if vote { Ok(()) } else { Err(format!("{roles:?}")) }
    })
    .await;
}

async fn recover(cluster: &ProcessCluster) {
    let (code, said) = cluster.run_command(0, &RECOVER, None).await.unwrap();
    assert_eq!(code, Some(1), "it asks, and nobody answers: {said}");
    assert!(said.contains("Members dropped:          2") && said.contains("left as it is"), "{said}");
    for peer in &cluster.peers[1..3] {
        assert!(said.contains(&format!("{} (voter)", peer.id())), "{said}");
    }
    // Killed wherever it may be: it is the old peer, or the new founder.
    let words = [RECOVER.as_slice(), &["--yes"]].concat();
    for millis in [1, 20, 40, 60, 80, 100, 130, 160, 200] {
        cluster.run_command(0, &words, Some(Duration::from_millis(millis))).await.unwrap();
    }
    let (code, said) = cluster.run_command(0, &words, None).await.unwrap();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Done.") || said.contains("nothing to do"), "{said}");
    let (code, said) = cluster.run_command(0, &words, None).await.unwrap();
    assert!(code == Some(0) && said.contains("nothing to do"), "{said}");
}

/// A lost peer comes back as it was: it must get nowhere, and say so.
async fn refuse_the_old(cluster: &ProcessCluster, number: usize) {
    let before = cluster.state(0).await.unwrap();
    cluster.spawn_peer(number).unwrap();
    wait::until("the old peer to say that it is no member", SETTLE_LIMIT, || async {
        if cluster.check_alive(number).is_err() && cluster.log(number).contains("this peer was removed") {
            return Ok(());
        }
        let answer =
            cluster.http(number).get(cluster.url(number, "/health")).send().await.map_err(|error| error.to_string())?;
        let (status, body) = (answer.status(), answer.text().await.unwrap_or_default());
        if status == 503 && body.contains("move its state folder away") {
            Ok(())
        } else {
            Err(format!("{status} {body}"))
        }
    })
    .await;
    let after = cluster.state(0).await.unwrap();
    assert_eq!((after.term, after.role), (before.term, Role::Leader), "it disturbed nobody");
    cluster.kill(number).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_goes_on_as_a_new_cluster_with_all_it_had() {
    let nodes = [NodeKind::Embedded, NodeKind::Embedded, NodeKind::Embedded];
    let mut cluster = ProcessCluster::start(&nodes).await.unwrap();
    for number in 0..PINS {
        let peer = usize::try_from(number % 3).unwrap();
        assert_eq!(pin(&cluster, peer, &inline_cid(number), &number.to_string()).await, Told::Pinned);
    }
    let before = cluster.wait_equal().await;
    let (code, said) = cluster.run_command(0, &RECOVER, None).await.unwrap();
    assert!(code == Some(1) && !said.contains("Members dropped"), "not while it runs: {said}");
    for number in [1, 2, 0] {
        cluster.kill(number).unwrap();
    }
    recover(&cluster).await;

    cluster.start_peer(0).await.unwrap();
    let after = cluster.state(0).await.unwrap();
    assert_eq!((after.pins, &after.digest), (before.pins, &before.digest));
    assert_eq!(pin(&cluster, 0, &inline_cid(100), "100").await, Told::Pinned, "it is a quorum by itself");
    refuse_the_old(&cluster, 1).await;
    cluster.lose_state(1).unwrap();
    cluster.rejoin_peer(1).await.unwrap();
    cluster.add_peer(&NodeKind::Embedded).await.unwrap();
    wait_all_vote(&cluster).await;
    assert_eq!(pin(&cluster, 3, &inline_cid(101), "101").await, Told::Pinned);
    cluster.wait_equal().await;
    for peer in [0, 1, 3] {
        let pins = cluster.pins(peer).await.unwrap();
        for number in (0..PINS).chain([100, 101]) {
            let found = pins.get(&inline_cid(number).to_string());
            assert_eq!(found.map(|pin| pin.options.name.clone()), Some(number.to_string()), "peer {peer}");
        }
    }
    // What the peer that is lost for good had is given to others.
    let gone = cluster.url(0, &format!("/peers/{}", cluster.peers[2].id()));
    let answer = cluster.http(0).delete(gone).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}
