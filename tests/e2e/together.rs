//! Three peers with embedded nodes: content in, copies where they belong, a peer lost, repaired, and back.

use std::time::Duration;

use cluster_tests::process::{NodeKind, ProcessCluster, SETTLE_LIMIT};
use cluster_tests::wait;
use cluster_types::{AddedOutput, GlobalPinInfo, Pin, TrackerStatus};
use reqwest::multipart::{Form, Part};

const EMBEDDED: [NodeKind; 3] = [NodeKind::Embedded, NodeKind::Embedded, NodeKind::Embedded];

/// Adds bytes through a peer and gives the root.
async fn add(cluster: &ProcessCluster, peer: usize, content: Vec<u8>, query: &str) -> AddedOutput {
    let form = Form::new().part("file", Part::bytes(content).file_name("file"));
    let answer =
        cluster.http(peer).post(cluster.url(peer, &format!("/add?{query}"))).multipart(form).send().await.unwrap();
    let body = answer.text().await.unwrap();
    let last = body.lines().last().unwrap_or_else(|| panic!("nothing was added: {body}"));
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// Waits until exactly `copies` peers have a pin.
async fn wait_pinned(cluster: &ProcessCluster, peer: usize, cid: &str, copies: usize) -> GlobalPinInfo {
    wait::until(&format!("{copies} copies"), SETTLE_LIMIT, || async {
        let info: GlobalPinInfo =
            cluster.get(peer, &format!("/pins/{cid}")).await.map_err(|error| format!("{error:#}"))?;
        let pinned = info.peer_map.values().filter(|peer| peer.status == TrackerStatus::Pinned).count();
        if pinned == copies { Ok(info) } else { Err(format!("{:?}", info.peer_map)) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_peers_share_is_fetched_by_the_others_and_it_comes_back_equal() {
    let cluster = ProcessCluster::start(&EMBEDDED).await.unwrap();
    let content: Vec<u8> = (0..3_000_000u32).flat_map(|number| number.to_le_bytes()).collect();
    let added = add(&cluster, 0, content, "name=kept&replication-min=2&replication-max=2").await;
    let cid = added.cid.unwrap().to_string();
    wait_pinned(&cluster, 0, &cid, 2).await;
    let before: Pin = cluster.get(1, &format!("/allocations/{cid}")).await.unwrap();
    assert_eq!(before.allocations.len(), 2);
    let lost = (0..3).find(|peer| cluster.peers[*peer].id() == before.allocations[0].to_base58()).unwrap();
    let alive = (lost + 1) % 3;
    cluster.kill(lost).unwrap();
    wait::until("a new allocation", SETTLE_LIMIT, || async {
        let pin: Pin =
            cluster.get(alive, &format!("/allocations/{cid}")).await.map_err(|error| format!("{error:#}"))?;
        if pin.allocations.contains(&before.allocations[0]) { Err(format!("{:?}", pin.allocations)) } else { Ok(()) }
    })
    .await;
    wait_pinned(&cluster, alive, &cid, 2).await;
    cluster.start_peer(lost).await.unwrap();
    cluster.wait_equal().await;
    // What it held is not its business any more.
    wait::until("the share of the returned peer to be dropped", SETTLE_LIMIT, || async {
        let info: GlobalPinInfo =
            cluster.get(lost, &format!("/pins/{cid}?local=true")).await.map_err(|error| format!("{error:#}"))?;
        let status = info.peer_map.values().next().map(|peer| peer.status);
        if status == Some(TrackerStatus::Remote) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_writes_are_refused_and_reads_go_on() {
    let cluster = ProcessCluster::start(&EMBEDDED).await.unwrap();
    let cid = crate::client::inline_cid(7);
    let pinned = crate::client::pin(&cluster, 0, &cid, "7").await;
    assert_eq!(pinned, cluster_core::testing::linear::Told::Pinned);
    cluster.wait_equal().await;
    cluster.kill(1).unwrap();
    cluster.kill(2).unwrap();
    // The first write may be caught while the leader does not know yet that it is alone.
    wait::until("a refusal", Duration::from_secs(90), || async {
        let url = cluster.url(0, &format!("/pins/{}", crate::client::inline_cid(8)));
        let answer = cluster.http(0).post(url).send().await.map_err(|error| error.to_string())?;
        let (status, body) = (answer.status(), answer.text().await.unwrap_or_default());
        if status == 503 && body.contains("no quorum") { Ok(()) } else { Err(format!("{status}: {body}")) }
    })
    .await;
    let pins = cluster.pins(0).await.unwrap();
    assert!(pins.contains_key(&cid.to_string()), "reads are local");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_stop_hands_over_and_leaves_with_code_0() {
    let cluster = ProcessCluster::start(&EMBEDDED).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    assert_eq!(cluster.stop(leader).await.unwrap(), Some(0));
    // It left only when another had taken over: nobody has to find out that it is gone, which takes a second.
    let heir = cluster.leader().await;
    assert!(heir.is_some_and(|heir| heir != leader), "{heir:?}");
    let log = cluster.log(leader);
    for trouble in ["could not be handed over", "took over leadership in time", "did not stop in time"] {
        assert!(!log.contains(trouble), "{log}");
    }
    let told = crate::client::pin(&cluster, (leader + 1) % 3, &crate::client::inline_cid(1), "1").await;
    assert_eq!(told, cluster_core::testing::linear::Told::Pinned);
    cluster.start_peer(leader).await.unwrap();
    cluster.wait_equal().await;
}
