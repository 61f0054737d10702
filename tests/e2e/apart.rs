//! A peer that no quorum answers, in `crdt` mode: it takes writes, shows them, keeps what it should, and they are merged
//! when the others are back. What lost is told everywhere.

use std::time::Duration;

use cluster_tests::process::{Mode, NodeKind, ProcessCluster, SETTLE_LIMIT, START_LIMIT};
use cluster_tests::wait;
use cluster_types::{Alert, Cid, Event, EventAuthor, GlobalPinInfo, Pin, TrackerStatus};
use tokio::time::Instant;

use crate::client::inline_cid;

const EMBEDDED: [NodeKind; 3] = [NodeKind::Embedded, NodeKind::Embedded, NodeKind::Embedded];
/// How long a quorum has to answer before a peer accepts a write alone: the default.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(2);
/// How much longer than that an answer may take on a busy machine; less than an attempt without that limit takes.
const SLACK: Duration = Duration::from_secs(6);

/// Pins everywhere; gives what the header says of how it was accepted.
async fn pin(cluster: &ProcessCluster, peer: usize, cid: &Cid, name: &str) -> String {
    let path = format!("/pins/{cid}?name={name}&replication-min=-1&replication-max=-1");
    let answer = cluster.http(peer).post(cluster.url(peer, &path)).send().await.unwrap();
    let status = answer.status();
    let commit = answer.headers().get("x-cluster-commit").map(|commit| commit.to_str().unwrap().to_owned());
    let body = answer.text().await.unwrap();
    assert!(status.is_success(), "{status}: {body}");
    commit.unwrap_or_else(|| panic!("no commit: {body}"))
}

async fn sees_quorum(cluster: &ProcessCluster, peer: usize) -> bool {
    let answer = cluster.http(peer).get(cluster.url(peer, "/health")).send().await.unwrap();
    assert_eq!(answer.status(), 204, "it is alive, with or without a quorum");
    answer.headers()["x-cluster-quorum"] == "true"
}

/// Waits until a peer's node holds a pin.
async fn wait_kept(cluster: &ProcessCluster, peer: usize, cid: &Cid) {
    wait::until(&format!("peer {peer} to keep it"), SETTLE_LIMIT, || async {
        let path = format!("/pins/{cid}?local=true");
        let info: GlobalPinInfo = cluster.get(peer, &path).await.map_err(|error| format!("{error:#}"))?;
        let pinned = info.peer_map.values().any(|info| info.status == TrackerStatus::Pinned);
        if pinned { Ok(()) } else { Err(format!("{:?}", info.peer_map)) }
    })
    .await;
}

/// Waits until no write of a peer waits any more.
async fn wait_merged(cluster: &ProcessCluster, peer: usize) {
    wait::until("the writes to be merged", SETTLE_LIMIT, || async {
        let state = cluster.state(peer).await.map_err(|error| format!("{error:#}"))?;
        if state.eventual == 0 { Ok(()) } else { Err(state) }.map_err(|state| format!("{state:?}"))
    })
    .await;
}

async fn alone_and_back(cluster: &ProcessCluster, lone: usize, cid: &Cid) {
    let others = || (0..3).filter(|peer| *peer != lone);
    cluster.wait_equal().await;
    assert!(sees_quorum(cluster, lone).await);
    others().for_each(|peer| cluster.pause(peer).unwrap());
    let started = Instant::now();
    assert_eq!(pin(cluster, lone, cid, "alone").await, "eventual");
    let took = started.elapsed();
    println!("accepted without a quorum after {took:?}");
    assert!(took < COMMIT_TIMEOUT + SLACK, "it took {took:?}");
    let shown: Pin = cluster.get(lone, &format!("/allocations/{cid}")).await.unwrap();
    assert_eq!(shown.options.name, "alone");
    assert_eq!(cluster.state(lone).await.unwrap().eventual, 1);
    wait_kept(cluster, lone, cid).await;
    wait::until("it to say that it is alone", START_LIMIT, || async {
        let alerts: Vec<Alert> = cluster.get(lone, "/health/alerts").await.map_err(|error| format!("{error:#}"))?;
        let told = alerts.iter().any(|alert| alert.metric.name == "quorum");
        if told && !sees_quorum(cluster, lone).await { Ok(()) } else { Err(format!("{alerts:?}")) }
    })
    .await;
    others().for_each(|peer| cluster.resume(peer).unwrap());
    wait_merged(cluster, lone).await;
    cluster.wait_equal().await;
    for peer in 0..3 {
        let pins = cluster.pins(peer).await.unwrap();
        assert_eq!(pins.get(&cid.to_string()).map(|pin| pin.options.name.as_str()), Some("alone"), "peer {peer}");
        wait_kept(cluster, peer, cid).await;
    }
    wait::until("it to say that it is not alone", START_LIMIT, || async {
        if sees_quorum(cluster, lone).await { Ok(()) } else { Err("no quorum") }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_peer_takes_a_pin_and_all_have_it_when_they_are_back() {
    let cluster = ProcessCluster::start_in(Mode::Crdt, &EMBEDDED).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    alone_and_back(&cluster, (leader + 1) % 3, &inline_cid(1)).await;
    // A leader that nobody hears has begun to write the pin into its log.
    let leader = wait::until("a leader", START_LIMIT, || async { cluster.leader().await.ok_or("nobody leads") }).await;
    alone_and_back(&cluster, leader, &inline_cid(2)).await;
    let events = cluster.http(leader).get(cluster.url(leader, "/events")).send().await.unwrap();
    assert_eq!(events.status(), 204, "nobody contradicted anybody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_made_apart_stands_against_an_unpin_and_every_peer_tells_of_it() {
    let cluster = ProcessCluster::start_in(Mode::Crdt, &EMBEDDED).await.unwrap();
    let (lone, cid) = (2, inline_cid(3));
    assert_ne!(pin(&cluster, 0, &cid, "before").await, "eventual");
    cluster.wait_equal().await;
    cluster.kill(lone).unwrap();
    // Without a leader for a moment, if that was it.
    wait::until("the others to unpin it", SETTLE_LIMIT, || async {
        let answer = cluster.http(0).delete(cluster.url(0, &format!("/pins/{cid}"))).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let commit = answer.headers().get("x-cluster-commit").cloned();
        if answer.status() == 404 || commit.is_some_and(|commit| commit != "eventual") { Ok(()) } else { Err(answer) }
            .map_err(|answer| format!("{answer:?}"))
    })
    .await;
    wait_merged(&cluster, 0).await;
    cluster.kill(0).unwrap();
    cluster.kill(1).unwrap();
    cluster.spawn_peer(lone).unwrap();
    wait::until("it to answer", START_LIMIT, || async {
        cluster.state(lone).await.map(drop).map_err(|error| format!("{error:#}"))
    })
    .await;
    assert_eq!(pin(&cluster, lone, &cid, "kept").await, "eventual");
    cluster.spawn_peer(0).unwrap();
    cluster.spawn_peer(1).unwrap();
    wait_merged(&cluster, lone).await;
    cluster.wait_equal().await;
    let mut told: Vec<Event> = Vec::new();
    for peer in 0..3 {
        let shown: Pin = cluster.get(peer, &format!("/allocations/{cid}")).await.unwrap();
        assert_eq!(shown.options.name, "kept", "peer {peer}");
        told.push(cluster.get(peer, "/events?limit=1").await.unwrap());
    }
    assert!(told.iter().all(|event| *event == told[0]), "{told:?}");
    let Event { rule, winner, loser, .. } = &told[0];
    assert_eq!((told[0].cid, rule.as_str(), loser.wish.as_str()), (cid, "pin-beats-unpin", "unpin"));
    assert_eq!((winner.author.to_string().as_str(), loser.author), (cluster.peers[lone].id(), EventAuthor::Log));
    assert_eq!(winner.pin.as_ref().map(|pin| pin.options.name.as_str()), Some("kept"));
    let before = format!("/events?before={}", told[0].at());
    assert_eq!(cluster.http(0).get(cluster.url(0, &before)).send().await.unwrap().status(), 204, "there is no other");
}
