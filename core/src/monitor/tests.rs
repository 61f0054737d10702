//! Monitors that hear each other over gossip in memory, in virtual time.

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::Role;

use super::*;
use crate::consensus::Member;
use crate::ports::GossipError;
use crate::testing::MemState;
use crate::tracker::fakes::{FakeNode, TestClock, until};

/// Carries messages to everyone but their sender.
#[derive(Default)]
struct Air {
    listeners: Mutex<BTreeMap<PeerId, broadcast::Sender<GossipMessage>>>,
    sent: AtomicU64,
}

struct FakeGossip {
    peer: PeerId,
    air: Arc<Air>,
}

impl Air {
    fn send(&self, from: PeerId, data: Bytes) {
        self.sent.fetch_add(1, Ordering::SeqCst);
        for (peer, listener) in self.listeners.lock().iter() {
            if *peer != from {
                drop(listener.send(GossipMessage { from, data: data.clone() }));
            }
        }
    }
}

#[async_trait]
impl Gossip for FakeGossip {
    async fn publish(&self, _topic: Topic, data: Bytes) -> Result<(), GossipError> {
        self.air.send(self.peer, data);
        Ok(())
    }

    fn subscribe(&self, _topic: Topic) -> broadcast::Receiver<GossipMessage> {
        let mut listeners = self.air.listeners.lock();
        listeners.entry(self.peer).or_insert_with(|| broadcast::Sender::new(64)).subscribe()
    }
}

struct Peer {
    id: PeerId,
    monitor: Arc<Monitor>,
    node: Arc<FakeNode>,
    tasks: TaskGroup,
}

const CONFIG: MonitorConfig = MonitorConfig {
    ping_interval: Duration::from_secs(15),
    check_interval: Duration::from_secs(15),
    connect_swarms: Some(Duration::from_secs(30)),
};

fn peer(air: &Arc<Air>, clock: &Arc<TestClock>, name: &str) -> Peer {
    let (id, tasks, node) = (PeerId::random(), TaskGroup::new(), Arc::new(FakeNode::default()));
    let address = format!("/ip4/10.0.0.1/tcp/4001/p2p/{}", PeerId::random());
    *node.identity.lock() =
        IpfsId { id: name.to_owned(), addresses: vec![address.parse().unwrap()], error: String::new() };
    let ttl = Duration::from_secs(30);
    let tags = BTreeMap::from([("group".to_owned(), "default".to_owned())]);
    let informers: Vec<Box<dyn Informer>> = vec![
        Box::new(DiskInformer::new(node.clone(), DiskMetric::FreeSpace, ttl)),
        Box::new(QueueInformer::new(Arc::new(MemState::default()), 1, ttl)),
        Box::new(TagsInformer::new(tags, ttl)),
    ];
    let gossip = Arc::new(FakeGossip { peer: id, air: Arc::clone(air) });
    let (clock, name) = (clock.clone(), name.to_owned());
    let monitor = Monitor::start(CONFIG, gossip, clock, id, name, informers, node.clone(), &tasks);
    Peer { id, monitor, node, tasks }
}

fn world() -> (Arc<Air>, Arc<TestClock>) {
    (Arc::new(Air::default()), Arc::new(TestClock::new()))
}

async fn stop(peer: Peer) {
    assert!(peer.tasks.shut_down(Duration::from_secs(5)).await.is_empty());
    assert_eq!(peer.tasks.failed(), None);
}

fn sorted(mut peers: Vec<PeerId>) -> Vec<PeerId> {
    peers.sort();
    peers
}

#[tokio::test(start_paused = true)]
async fn peers_hear_every_metric_of_each_other_and_of_themselves() {
    let (air, clock) = world();
    let (a, b) = (peer(&air, &clock, "a"), peer(&air, &clock, "b"));
    let names = ["freespace", "ping", "pinqueue", "tag:group"];
    until(|| [&a, &b].iter().all(|peer| peer.monitor.metric_names() == names)).await;
    until(|| names.iter().all(|name| a.monitor.metrics(name).len() == 2)).await;
    tokio::time::sleep(CONFIG.ping_interval * 20).await;
    for name in names {
        let heard: Vec<PeerId> = a.monitor.metrics(name).iter().map(|metric| metric.peer).collect();
        assert_eq!(heard, sorted(vec![a.id, b.id]), "{name}");
    }
    let snapshot = a.monitor.snapshot(&["freespace".to_owned()]);
    assert_eq!(snapshot.get("freespace", &b.id).map(|metric| metric.weight), Some(2));
    assert_eq!(snapshot.peers("ping").len(), 2);
    assert_eq!(a.monitor.ping_value(&b.id).unwrap().peer_name, "b");
    assert_eq!(a.monitor.alerts(), []);
    stop(a).await;
    stop(b).await;
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_answered_at_once_and_the_nodes_are_connected() {
    let (air, clock) = world();
    let a = peer(&air, &clock, "a");
    tokio::time::sleep(Duration::from_secs(20)).await;
    let b = peer(&air, &clock, "b");
    let began = clock.now();
    until(|| b.monitor.metrics("freespace").len() == 2).await;
    until(|| !a.node.dialled.lock().is_empty() && !b.node.dialled.lock().is_empty()).await;
    assert!(clock.now().since(began) < Duration::from_secs(3));
    assert!(a.node.dialled.lock().contains(&b.node.identity.lock().addresses));
    stop(a).await;
    stop(b).await;
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_cannot_follow_the_membership_stops_the_peer() {
    let (air, clock) = world();
    let a = peer(&air, &clock, "a");
    let position = watch::Sender::new(Position::default());
    a.monitor.follow_members(position.subscribe(), &a.tasks);
    drop(position);
    until(|| a.tasks.failed().is_some()).await;
    assert_eq!(a.tasks.failed(), Some("monitor members"));
    assert!(a.tasks.shut_down(Duration::from_secs(5)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_silent_member_is_suspect_until_it_returns() {
    let (air, clock) = world();
    let (a, b) = (peer(&air, &clock, "a"), peer(&air, &clock, "b"));
    let member = |peer: &Peer, node_id| Member { peer: peer.id, node_id, voter: true, addresses: Vec::new() };
    let members = vec![member(&a, 1), member(&b, 2)];
    let position = watch::Sender::new(Position { role: Role::Leader, members, ..Position::default() });
    a.monitor.follow_members(position.subscribe(), &a.tasks);
    until(|| a.monitor.metrics("ping").len() == 2).await;
    let suspects = a.monitor.suspects();
    assert!(suspects.borrow().is_empty());
    let silent = b.id;
    let metric = b.monitor.metrics("ping").into_iter().find(|metric| metric.peer == silent).unwrap();
    stop(b).await;
    until(|| suspects.borrow().contains(&silent)).await;
    assert!(a.monitor.alerts().iter().any(|alert| alert.metric.peer == silent && alert.metric.name == "ping"));
    air.send(silent, wire::encode(&[metric], Duration::from_secs(30)).unwrap());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(suspects.borrow().is_empty(), "at once, not at the next check");
    stop(a).await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_node_does_not_silence_its_peer() {
    let (air, clock) = world();
    let a = peer(&air, &clock, "a");
    until(|| a.monitor.ipfs_id().is_some()).await;
    a.node.down.store(true, Ordering::SeqCst);
    tokio::time::sleep(CONFIG.ping_interval * 10).await;
    assert_eq!(a.monitor.metrics("ping").len(), 1);
    assert_eq!(a.monitor.ipfs_id().unwrap().id, "a", "the last good answer stays");
    stop(a).await;
}

#[tokio::test(start_paused = true)]
async fn lies_and_rubbish_are_dropped_and_counted() {
    let (air, clock) = world();
    let a = peer(&air, &clock, "a");
    until(|| a.monitor.metrics("ping").len() == 1).await;
    let (liar, victim) = (PeerId::random(), PeerId::random());
    let mut metric = a.monitor.metrics("ping").remove(0);
    metric.peer = victim;
    let ttl = Duration::from_secs(30);
    air.send(liar, wire::encode(std::slice::from_ref(&metric), ttl).unwrap());
    air.send(liar, Bytes::from_static(b"rubbish"));
    air.send(liar, Bytes::from(vec![b'['; 1024 * 1024]));
    metric.peer = liar;
    air.send(liar, wire::encode(&vec![metric.clone(); 1000], ttl).unwrap());
    metric.value = "x".repeat(100_000);
    air.send(liar, wire::encode(&[metric], ttl).unwrap());
    until(|| a.monitor.counts().malformed == 4).await;
    assert_eq!(a.monitor.counts().foreign, 1);
    assert_eq!(a.monitor.metrics("ping").len(), 1);
    stop(a).await;
}

#[tokio::test(start_paused = true)]
async fn strangers_cannot_make_a_peer_talk_without_end() {
    let (air, clock) = world();
    let a = peer(&air, &clock, "a");
    until(|| a.monitor.metrics("ping").len() == 1).await;
    tokio::time::sleep(CONFIG.ping_interval * 4).await;
    let template = a.monitor.metrics("ping").remove(0);
    let before = air.sent.load(Ordering::SeqCst);
    let strangers = 100;
    for _ in 0..strangers {
        let stranger = PeerId::random();
        let metric = Metric { peer: stranger, ..template.clone() };
        air.send(stranger, wire::encode(&[metric], Duration::from_secs(30)).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let own = air.sent.load(Ordering::SeqCst) - before - strangers;
    assert!((1..=4 * 2).contains(&own), "{own} messages of four informers within two seconds");
    stop(a).await;
}

#[test]
fn the_message_format_is_pinned() {
    let text = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let peer = text.parse().unwrap();
    let golden = format!(
        r#"{{"version":1,"ttl_ms":30000,"metrics":[{{"name":"tag:group","peer":"{text}","value":"default","expire":7,"valid":true,"weight":-3,"partitionable":true,"received_at":5}}]}}"#
    );
    let now = cluster_types::Timestamp::from_unix_seconds(1_000);
    let read = wire::decode(golden.as_bytes(), peer, now).unwrap();
    let sent = Metric { expire: 7, received_at: 5, ..read[0].clone() };
    assert_eq!((sent.weight, sent.value.as_str(), sent.partitionable), (-3, "default", true));
    assert_eq!(wire::encode(&[sent], Duration::from_secs(30)).unwrap(), golden.as_bytes());
    let newer = golden.replace(r#""version":1"#, r#""version":2"#);
    assert_eq!(wire::decode(newer.as_bytes(), peer, now), Err(Rejected::Malformed));
}

#[test]
fn validity_counts_from_the_receiver_s_clock_and_has_a_limit() {
    let peer = PeerId::random();
    let metric = Metric {
        name: "ping".to_owned(),
        peer,
        value: String::new(),
        expire: i64::MAX,
        valid: true,
        weight: 0,
        partitionable: false,
        received_at: 5,
    };
    let now = cluster_types::Timestamp::from_unix_seconds(1_000);
    let read = |ttl| wire::decode(&wire::encode(std::slice::from_ref(&metric), ttl).unwrap(), peer, now).unwrap();
    let seconds = |ttl| read(ttl)[0].expire / 1_000_000_000;
    assert_eq!(seconds(Duration::from_secs(30)), 1_030);
    assert_eq!(seconds(Duration::MAX), 1_000 + 24 * 3600);
}
