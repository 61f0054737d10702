//! A record changed behind a peer's back is found after the start, told, and repaired from the others.

use std::time::Duration;

use cluster_core::testing::linear::Told;
use cluster_tests::process::{NodeKind, ProcessCluster};
use cluster_tests::wait;
use cluster_types::{Alert, GlobalPinInfo, Pin, PinOptions, TrackerStatus};

use crate::client::{inline_cid, pin};

/// A round of the first audit takes a minute on an idle machine.
const AUDIT_LIMIT: Duration = Duration::from_secs(240);
const PINS: u64 = 300;

async fn digest_alerts(cluster: &ProcessCluster, peer: usize) -> Vec<Alert> {
    let alerts: Vec<Alert> = cluster.get(peer, "/health/alerts").await.unwrap();
    alerts.into_iter().filter(|alert| alert.metric.name == "digest").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_changed_behind_a_peers_back_are_found_told_and_repaired() {
    let cluster = ProcessCluster::start(&[NodeKind::Embedded, NodeKind::Embedded, NodeKind::Embedded]).await.unwrap();
    let cluster = &cluster;
    let pins = (0..PINS).map(|number| async move {
        let (peer, name) = (usize::try_from(number).unwrap() % 3, format!("pin {number}"));
        assert_eq!(pin(cluster, peer, &inline_cid(number), &name).await, Told::Pinned);
    });
    futures::future::join_all(pins).await;
    let before = cluster.wait_equal().await;
    let expected = cluster.pins(0).await.unwrap();
    assert_eq!(cluster.stop(2).await.unwrap(), Some(0));

    let [changed, deleted, added] = [inline_cid(3), inline_cid(4), inline_cid(PINS + 7)];
    let folder = cluster.peers[2].folder.join("state");
    let tampered = cluster_store::testing::tamper(&folder, vec![changed, deleted, added], move |cid, before| {
        assert_eq!(before.is_some(), cid != added, "{cid}");
        let made_up = || Pin::new(cid, PinOptions { name: "made up".to_owned(), ..PinOptions::default() });
        let rename = |before: Pin| {
            let options = PinOptions { name: "changed".to_owned(), ..before.options };
            Pin { options, ..before }
        };
        if cid == deleted { None } else { Some(before.map_or_else(made_up, rename)) }
    });
    tampered.await.unwrap();
    cluster.start_peer(2).await.unwrap();

    wait::until("the damage to be found and repaired", AUDIT_LIMIT, || async {
        let told = digest_alerts(cluster, 2).await;
        let repaired = told.iter().filter(|alert| alert.metric.value.contains("repaired from the others")).count();
        if repaired >= 3 { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    for alert in digest_alerts(cluster, 2).await {
        assert_eq!(alert.metric.peer.to_base58(), cluster.peers[2].id());
        assert!(alert.metric.value.contains("did not add up"), "{alert:?}");
    }
    let after = cluster.wait_equal().await;
    assert_eq!((after.digest, after.pins), (before.digest, before.pins));
    for peer in 0..3 {
        assert_eq!(cluster.pins(peer).await.unwrap(), expected, "peer {peer}");
    }
    for cid in [changed, deleted] {
        let record: Pin = cluster.get(2, &format!("/allocations/{cid}")).await.unwrap();
        assert_eq!(record, expected[&cid.to_string()]);
        wait::until("the pin to be held again", AUDIT_LIMIT, || async {
            let info: GlobalPinInfo =
                cluster.get(2, &format!("/pins/{cid}")).await.map_err(|error| error.to_string())?;
            let pinned = info.peer_map.values().filter(|peer| peer.status == TrackerStatus::Pinned).count();
            if pinned == 3 { Ok(()) } else { Err(format!("{:?}", info.peer_map)) }
        })
        .await;
    }
    assert!(cluster.get::<Pin>(2, &format!("/allocations/{added}")).await.is_err(), "what was added is gone");
    assert!(cluster.log(2).contains("this peer's pinset was not what it should be"));
    for peer in [0, 1] {
        assert!(digest_alerts(cluster, peer).await.is_empty(), "peer {peer} is untouched");
        let log = cluster.log(peer);
        assert!(!log.contains("pinset was not what") && !log.contains("digest differs"), "{log}");
    }
}
