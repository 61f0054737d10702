//! A side of a cut that has no quorum, in `crdt` mode, gives the pins of a peer that it lost to others of its own.

use std::collections::BTreeSet;

use cluster_tests::process::{Mode, ProcessCluster, SETTLE_LIMIT};
use cluster_tests::wait;
use cluster_types::{GlobalPinInfo, Pin, TrackerStatus};

use super::{PEERS, TURN_LIMIT};
use crate::client::{Commit, inline_cid, pin_with};

/// Pins of the peer that is lost: so many that each of two peers looks after some.
const PINS: u64 = 24;
/// A short silence is enough here.
const SOON: [(&str, &str); 1] = [("CLUSTER_REPINNINGGRACEPERIOD", "10s")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sides_without_a_quorum_replace_the_copies_of_a_lost_peer_by_peers_of_their_own() {
    let Some(cluster) = ProcessCluster::start_apart(Mode::Crdt, PEERS, &SOON).await.unwrap() else { return };
    let lost = cluster.leader().await.unwrap();
    let [a, b, c, d] = [1, 2, 3, 4].map(|step| (lost + step) % PEERS);
    let query = format!("name=0&replication-min=1&replication-max=1&user-allocations={}", cluster.peers[lost].id());
    for number in 0..PINS {
        assert_eq!(pin_with(&cluster, a, &inline_cid(number), &query).await.commit, Some(Commit::Log));
    }
    cluster.wait_equal().await;
    let all: Vec<usize> = (0..PEERS).collect();
    wait_held(&cluster, &all, &[lost]).await;
    cluster.cut(&[&[lost, a, b], &[c, d]]).unwrap();
    cluster.kill(lost).unwrap();
    for side in [[a, b], [c, d]] {
        wait_held(&cluster, &side, &side).await;
        let waiting = [cluster.state(side[0]).await.unwrap().eventual, cluster.state(side[1]).await.unwrap().eventual];
        println!("peers {side:?} made {waiting:?} writes");
        assert!(waiting.iter().all(|count| *count > 0), "without a quorum, and the work is shared: {waiting:?}");
    }
    cluster.heal().unwrap();
    cluster.start_peer(lost).await.unwrap();
    cluster.wait_equal().await;
    wait_held(&cluster, &all, &[a, b, c, d]).await;
}

/// Waits until each of `peers` says that each pin has one holder, one of `holders`, which has pinned it.
async fn wait_held(cluster: &ProcessCluster, peers: &[usize], holders: &[usize]) {
    let holders: BTreeSet<&str> = holders.iter().map(|holder| cluster.peers[*holder].id()).collect();
    for (peer, number) in peers.iter().flat_map(|peer| (0..PINS).map(move |number| (*peer, number))) {
        let cid = inline_cid(number);
        wait::until(&format!("CID {number} on one of {holders:?}"), TURN_LIMIT.max(SETTLE_LIMIT), || async {
            let pin: Pin =
                cluster.get(peer, &format!("/allocations/{cid}")).await.map_err(|error| format!("{error:#}"))?;
            let [holder] = pin.allocations[..] else { return Err(format!("{:?}", pin.allocations)) };
            if !holders.contains(holder.to_string().as_str()) {
                return Err(format!("{holder} has it"));
            }
            let info: GlobalPinInfo =
                cluster.get(peer, &format!("/pins/{cid}")).await.map_err(|error| format!("{error:#}"))?;
            let held = info.peer_map.get(&holder.to_string()).is_some_and(|pin| pin.status == TrackerStatus::Pinned);
            if held { Ok(()) } else { Err(format!("{:?}", info.peer_map)) }
        })
        .await;
    }
}
