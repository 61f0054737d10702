//! Two clusters become one: nobody's pins are lost, and who lost against whom is told.
//!
//! `CLUSTER_JOIN_PINS` says how many pins each cluster has (default 1,000); a tenth of them are the same CIDs under other
//! names.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cluster_core::cluster::Named;
use cluster_core::cluster::meet::ClusterInfo;
use cluster_core::ports::Transport;
use cluster_core::rpc::{Call, CallServer, PeerService, Reply};
use cluster_core::task::TaskGroup;
use cluster_core::testing::linear::Told;
use cluster_net::{ClusterSecret, Identity, Network, NetworkConfig};
use cluster_tests::process::{Mode, NodeKind, ProcessCluster};
use cluster_tests::wait;
use cluster_types::{ErrorClass, PeerId, WireError};
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

/// A host that welcomes everybody, gives out raft ids, and never lets anybody in.
struct Host {
    says: ClusterInfo,
    asked_to_let_in: AtomicUsize,
}

#[async_trait]
impl PeerService for Host {
    async fn answer(&self, _from: PeerId, call: Call) -> Result<Reply, WireError> {
        if let Call::Meet { .. } = call {
            return Ok(Reply::Cluster { cluster: Some(self.says.clone()), welcome: true });
        }
        if let Call::Reserve = call {
            return Ok(Reply::Index(5));
        }
        if let Call::Join { .. } = call {
            self.asked_to_let_in.fetch_add(1, Ordering::Relaxed);
        }
        Err(WireError::new(ErrorClass::Unavailable, "not today"))
    }

    fn is_member(&self, _peer: &PeerId) -> bool {
        false
    }

    fn trusts(&self, _peer: &PeerId) -> bool {
        true
    }
}

/// Connects such a host to the peers of a cluster.
async fn host_beside(cluster: &ProcessCluster) -> (Arc<Host>, TaskGroup) {
    let secret = ClusterSecret::from_hex(cluster.secret()).unwrap();
    let config = NetworkConfig::new(Identity::generate(), Some(secret), vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()]);
    let tasks = TaskGroup::new();
    let network = Network::start(config, &tasks).await.unwrap();
    let (peer, addresses) = (network.local_peer(), network.own_addresses());
    let says = ClusterInfo {
        id: 7,
        name: "ipfs-cluster".to_owned(),
        node_id: 7,
        members: 1,
        pins: u64::MAX,
        sociable: true,
        addresses: addresses.clone(),
        remnant: false,
        peers: vec![Named { peer, addresses }],
    };
    let host = Arc::new(Host { says, asked_to_let_in: AtomicUsize::new(0) });
    let server = Arc::new(CallServer::default());
    server.serve_calls(Arc::clone(&host) as _);
    network.serve(server);
    for (peer, address) in cluster.addresses() {
        network.remember(peer, vec![address]);
    }
    (host, tasks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_goes_on_by_itself_and_does_not_try_again_at_once() {
    let cluster = ProcessCluster::start_in(Mode::Crdt, &[NodeKind::Embedded]).await.unwrap();
    assert_eq!(pin(&cluster, 0, &inline_cid(1), "before").await, Told::Pinned);
    let (host, tasks) = host_beside(&cluster).await;
    // While it tries, it does not answer.
    wait::until("it to try, and to give up", LIMIT, || async {
        let asked = host.asked_to_let_in.load(Ordering::Relaxed);
        let leader = cluster.state(0).await.map(|state| state.leader);
        if asked > 0 && matches!(leader, Ok(Some(_))) {
            Ok(())
        } else {
            Err((asked, leader.map_err(drop), cluster.log_tail(0)))
        }
    })
    .await;
    let asked = host.asked_to_let_in.load(Ordering::Relaxed);
    for number in [2_u64, 3] {
        wait::until("it to serve", LIMIT, || async {
            let state = cluster.state(0).await.map_err(|error| format!("{error:#}"))?;
            let settled = state.leader.is_some() && state.eventual == 0 && state.pins == number - 1;
            if settled { Ok(()) } else { Err(format!("{state:?}")) }
        })
        .await;
        assert_eq!(pin(&cluster, 0, &inline_cid(number), "after").await, Told::Pinned);
        assert_eq!(host.asked_to_let_in.load(Ordering::Relaxed), asked, "within the pause");
        if number == 2 {
            assert_eq!(cluster.stop(0).await.unwrap(), Some(0), "in order");
            drop(tasks.shut_down(LIMIT).await);
            cluster.start_peer(0).await.unwrap();
        }
    }
}
