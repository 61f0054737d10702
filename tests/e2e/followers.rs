//! Three members and five followers: pins reach the followers, those that were away catch up, writes are refused, and
//! whoever merely knows the secret cannot make a follower believe anything.
//!
//! `CLUSTER_FOLLOW_OPERATIONS` sets how much is written while followers are away.

use std::time::Duration;

use bytes::Bytes;
use cluster_core::broadcast::{self, Batch, BatchEntry, Kind};
use cluster_core::consensus::log::LogId;
use cluster_core::consensus::operation::{Entry, Operation, Proposed};
use cluster_core::ports::{Gossip, GossipMessage, Topic, Transport};
use cluster_core::task::TaskGroup;
use cluster_net::{ClusterSecret, Identity, Network, NetworkConfig};
use cluster_tests::follower::Followers;
use cluster_tests::process::{NodeKind, ProcessCluster, SETTLE_LIMIT};
use cluster_tests::wait;
use cluster_types::{Cid, GlobalPinInfo, Pin, PinOptions, Timestamp, TrackerStatus};
use futures::{StreamExt, stream};
use tokio::sync::broadcast::Receiver;
use tokio::time::Instant;

use crate::client::{inline_cid, pin, unpin};

const EMBEDDED: [NodeKind; 3] = [NodeKind::Embedded, NodeKind::Embedded, NodeKind::Embedded];
const FOLLOWERS: usize = 5;
/// Writes that are under way at a time.
const AT_ONCE: usize = 64;

/// How many operations are written while followers are away.
fn operations() -> u64 {
    std::env::var("CLUSTER_FOLLOW_OPERATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000)
}

async fn both() -> (ProcessCluster, Followers) {
    let cluster = ProcessCluster::start(&EMBEDDED).await.unwrap();
    let mut followers = Followers::of(&cluster).unwrap();
    for _ in 0..FOLLOWERS {
        followers.add().await.unwrap();
    }
    wait_level(&cluster, &followers).await;
    (cluster, followers)
}

/// Waits until every running follower has what the cluster has, which is not written to meanwhile.
async fn wait_level(cluster: &ProcessCluster, followers: &Followers) {
    let wanted = cluster.wait_equal().await;
    wait::until("the followers to have what the members have", SETTLE_LIMIT, || async {
        for number in followers.running() {
            let state = followers.state(number).await.map_err(|error| format!("follower {number}: {error:#}"))?;
            if state.applied_index < wanted.applied_index {
                return Err(format!("follower {number} is at {}, not {}", state.applied_index, wanted.applied_index));
            }
            assert_eq!(state.digest, wanted.digest, "follower {number} at {}", state.applied_index);
        }
        Ok(())
    })
    .await;
}

/// Waits until a follower's node holds a pin.
async fn wait_pinned(followers: &Followers, number: usize, cid: &Cid) {
    wait::until("the follower's node to hold the pin", SETTLE_LIMIT, || async {
        let info: GlobalPinInfo =
            followers.get(number, &format!("/pins/{cid}")).await.map_err(|error| format!("{error:#}"))?;
        let held = info.peer_map.len() == 1 && info.peer_map.values().all(|peer| peer.status == TrackerStatus::Pinned);
        if held { Ok(()) } else { Err(format!("{:?}", info.peer_map)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pins_reach_the_followers_and_those_that_were_away_catch_up() {
    let (cluster, followers) = both().await;
    let cid = inline_cid(1);
    let began = Instant::now();
    pin(&cluster, 0, &cid, "1").await;
    wait::until("the pin on every follower", SETTLE_LIMIT, || async {
        for number in followers.running() {
            followers.get::<Pin>(number, &format!("/allocations/{cid}")).await.map_err(|error| format!("{error:#}"))?;
        }
        Ok::<(), String>(())
    })
    .await;
    println!("a pin was on all {FOLLOWERS} followers after {:?}", began.elapsed());
    for number in followers.running() {
        wait_pinned(&followers, number, &cid).await;
    }
    refuses_writes(&followers).await;
    programs(&followers).await;

    let away = [1, 3];
    for number in away {
        assert_eq!(followers.stop(number).await.unwrap(), Some(0));
    }
    let offline = followers.program(away[0], &["list"]).await.unwrap();
    assert!(offline.contains(&format!("{:<20} {cid} 1\n", "offline")), "{offline}");
    let began = Instant::now();
    let (cluster_ref, count) = (&cluster, operations());
    stream::iter(0..count)
        .for_each_concurrent(AT_ONCE, |number| async move {
            let cid = inline_cid(100 + number);
            pin(cluster_ref, 0, &cid, "x").await;
            if number % 3 == 0 {
                unpin(cluster_ref, 1, &cid).await;
            }
        })
        .await;
    println!("{count} writes took {:?}", began.elapsed());
    wait_level(&cluster, &followers).await;
    let began = Instant::now();
    for number in away {
        followers.start(number).await.unwrap();
    }
    wait_level(&cluster, &followers).await;
    println!("two followers that missed them were level {:?} after they were started", began.elapsed());
}

/// A follower writes nothing, and says so as the original does.
async fn refuses_writes(followers: &Followers) {
    let text = "this peer is configured to be in follower mode. Write operations are disabled";
    for (method, path) in [
        (reqwest::Method::POST, format!("/pins/{}", inline_cid(9))),
        (reqwest::Method::DELETE, format!("/pins/{}", inline_cid(1))),
    ] {
        let (status, body) = followers.send(0, method, &path).await.unwrap();
        assert_eq!(status, 500, "{body}");
        assert!(body.contains(text), "{body}");
    }
}

/// `info` and `list` speak to the peer over its socket.
async fn programs(followers: &Followers) {
    let info = followers.program(0, &["info"]).await.unwrap();
    for line in ["Config source URL: Available (http://", "Cluster Peer online: true\n", "IPFS peer online: true\n"] {
        assert!(info.contains(line), "{info}");
    }
    let list = followers.program(0, &["list"]).await.unwrap();
    assert_eq!(list, format!("{:<20} {} 1\n", "pinned", inline_cid(1)));
    assert!(followers.overview().await.unwrap().contains(&format!("for {FOLLOWERS} follower peers")));
}

/// Somebody who knows the secret and is not trusted.
struct Stranger {
    network: std::sync::Arc<Network>,
    heard: Receiver<GossipMessage>,
    tasks: TaskGroup,
}

impl Stranger {
    async fn join(cluster: &ProcessCluster, followers: &Followers) -> Self {
        let secret = ClusterSecret::from_hex(cluster.secret()).unwrap();
        let config =
            NetworkConfig::new(Identity::generate(), Some(secret), vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()]);
        let tasks = TaskGroup::new();
        let network = Network::start(config, &tasks).await.unwrap();
        for (peer, address) in followers.addresses().into_iter().chain(cluster.addresses()) {
            network.remember(peer, vec![address]);
        }
        let heard = network.subscribe(Topic::Log);
        let wanted = followers.running().len() + cluster.peers.len();
        wait::until("the stranger to be connected", SETTLE_LIMIT, || async {
            let connected = network.connected().len();
            if connected >= wanted { Ok(()) } else { Err(connected) }
        })
        .await;
        Self { network, heard, tasks }
    }

    /// The next batch with entries that the leader tells.
    async fn next(&mut self) -> (Bytes, Batch) {
        loop {
            let message = tokio::time::timeout(SETTLE_LIMIT, self.heard.recv()).await.unwrap().unwrap();
            if let Some((Kind::Batch, body)) = broadcast::open(&message.data)
                && let Ok(batch) = Batch::decode(&body)
                && !batch.entries.is_empty()
            {
                return (message.data, batch);
            }
        }
    }

    async fn say(&self, message: Bytes) {
        self.network.publish(Topic::Log, message).await.unwrap();
    }
}

/// An entry behind `previous` that pins something nobody asked for.
fn forged(previous: LogId, digest: [u8; 32]) -> Bytes {
    let mut pin = Pin::new(
        inline_cid(666),
        PinOptions { replication_factor_min: -1, replication_factor_max: -1, ..PinOptions::default() },
    );
    pin.timestamp = Timestamp::from_unix_seconds(1_800_000_000);
    let operations = vec![Proposed { id: [6; 16], operation: Operation::Put(Box::new(pin)) }];
    let entry = Entry { time: Timestamp::from_unix_seconds(1_800_000_000), operations };
    let id = LogId::new((**previous.committed_leader_id()).into(), previous.index() + 1);
    let batch = Batch { previous: Some(previous), entries: vec![BatchEntry { id, entry, digest }] };
    broadcast::seal(Kind::Batch, &batch.encode())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_and_replayed_batches_of_a_peer_that_is_not_trusted_change_nothing() {
    let (cluster, followers) = both().await;
    let mut stranger = Stranger::join(&cluster, &followers).await;
    // It hears what the leader says, so what it says is heard as well.
    pin(&cluster, 0, &inline_cid(1), "1").await;
    let (pinned, _) = stranger.next().await;
    unpin(&cluster, 0, &inline_cid(1)).await;
    let (_, last) = stranger.next().await;
    wait_level(&cluster, &followers).await;
    let before = followers.state(0).await.unwrap();

    let previous = last.last().unwrap();
    // The digest is the one that a shard with this pin alone has, so that only the signature tells.
    let digest = only_pin_digest();
    for _ in 0..20 {
        stranger.say(pinned.clone()).await;
        stranger.say(forged(previous, digest)).await;
        stranger.say(forged(LogId::new((**previous.committed_leader_id()).into(), 1_000_000), digest)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Something genuine goes through the same channels behind it.
    pin(&cluster, 0, &inline_cid(2), "2").await;
    wait_level(&cluster, &followers).await;
    for number in followers.running() {
        let pins = followers.list(number).await.unwrap();
        assert!(pins.contains(&inline_cid(2).to_string()), "{pins}");
        for wrong in [inline_cid(1), inline_cid(666)] {
            assert!(!pins.contains(&wrong.to_string()), "{pins}");
        }
    }
    assert!(followers.state(0).await.unwrap().applied_index > before.applied_index);
    assert!(stranger.tasks.shut_down(Duration::from_secs(10)).await.is_empty());
}

/// What the shard of the forged pin is when it holds nothing else.
fn only_pin_digest() -> [u8; 32] {
    use cluster_core::consensus::digest::{shard_of, touched};
    use cluster_core::ports::ShardSum;
    let mut pin = Pin::new(
        inline_cid(666),
        PinOptions { replication_factor_min: -1, replication_factor_max: -1, ..PinOptions::default() },
    );
    pin.timestamp = Timestamp::from_unix_seconds(1_800_000_000);
    let mut sum = ShardSum::default();
    sum.add(&pin);
    touched([(shard_of(&pin.cid), &sum)])
}
