//! The double keeps the contracts, and its faults do what they say.

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::ports::{CallHandler, Gossip, Topic, Transport, TransportError};
use crate::testing::suite;
use crate::testing::suite::transport::{NetworkFactory, TestPeer};

/// Networks in memory, kept as long as the factory: peers hold theirs weakly.
#[derive(Default)]
struct InMemory {
    nets: Mutex<Vec<MemNet>>,
}

#[async_trait]
impl NetworkFactory for InMemory {
    async fn peers(&self, count: usize) -> Vec<TestPeer> {
        let net = MemNet::new(1);
        let peers: Vec<_> = (0..count)
            .map(|_| {
                let peer = net.peer(PeerId::random());
                TestPeer { transport: Arc::clone(&peer) as Arc<dyn Transport>, gossip: peer }
            })
            .collect();
        self.nets.lock().push(net);
        peers
    }

    fn dead_address(&self) -> Multiaddr {
        Multiaddr::empty().with(Protocol::Memory(999_999))
    }
}

struct Echo;

#[async_trait]
impl CallHandler for Echo {
    async fn handle(&self, _from: PeerId, _purpose: Purpose, body: Bytes) -> Bytes {
        body
    }
}

fn three(seed: u64) -> (MemNet, Vec<Arc<MemPeer>>) {
    let net = MemNet::new(seed);
    let peers: Vec<_> = (0..3).map(|_| net.peer(PeerId::random())).collect();
    for one in &peers {
        one.serve(Arc::new(Echo));
        for other in &peers {
            one.remember(other.local_peer(), other.own_addresses());
        }
    }
    (net, peers)
}

async fn echo(from: &MemPeer, to: &MemPeer) -> Result<Bytes, TransportError> {
    from.call(to.local_peer(), Purpose::Call, Bytes::from_static(b"echo"), Duration::from_secs(1)).await
}

#[tokio::test(start_paused = true)]
async fn the_double_keeps_the_contract_of_calls() {
    suite::transport::run_all(&InMemory::default()).await;
}

#[tokio::test(start_paused = true)]
async fn the_double_keeps_the_contract_of_gossip() {
    suite::gossip::run_all(&InMemory::default()).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_noticed_and_a_cut_one_way_is_silence() {
    let (net, peers) = three(1);
    let (one, other) = (peers[0].local_peer(), peers[1].local_peer());
    net.cut(one, other);
    assert!(matches!(echo(&peers[0], &peers[1]).await, Err(TransportError::NotSent { .. })));
    assert_eq!(peers[0].connected(), [peers[2].local_peer()]);
    net.heal(one, other);
    assert!(echo(&peers[0], &peers[1]).await.is_ok());
    net.cut_one_way(other, one);
    assert!(matches!(echo(&peers[0], &peers[1]).await, Err(TransportError::Timeout { .. })));
    net.heal_all();
    net.isolate(one);
    assert!(peers[0].connected().is_empty());
    assert_eq!(peers[1].connected(), [peers[2].local_peer()]);
}

#[tokio::test(start_paused = true)]
async fn gossip_goes_around_a_cut_but_not_to_an_isolated_peer() {
    let (net, peers) = three(1);
    let mut heard = peers[1].subscribe(Topic::Log);
    net.cut(peers[0].local_peer(), peers[1].local_peer());
    peers[0].publish(Topic::Log, Bytes::from_static(b"around")).await.unwrap();
    assert_eq!(heard.try_recv().unwrap().data, Bytes::from_static(b"around"));
    net.isolate(peers[1].local_peer());
    peers[0].publish(Topic::Log, Bytes::from_static(b"lost")).await.unwrap();
    assert!(heard.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_replayed_message_comes_after_more_than_a_minute() {
    let (net, peers) = three(1);
    net.set_gossip_replay(1.0);
    let mut heard = peers[1].subscribe(Topic::Log);
    let before = tokio::time::Instant::now();
    peers[0].publish(Topic::Log, Bytes::from_static(b"again")).await.unwrap();
    let first = heard.recv().await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), first);
    assert!(before.elapsed() > Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_crashed_peer_comes_back_without_its_memory() {
    let (net, peers) = three(1);
    let id = peers[1].local_peer();
    net.crash(id);
    assert!(matches!(echo(&peers[0], &peers[1]).await, Err(TransportError::NotSent { .. })));
    let again = net.peer(id);
    assert!(matches!(echo(&peers[0], &again).await, Err(TransportError::Overloaded { .. })));
    again.serve(Arc::new(Echo));
    assert!(echo(&peers[0], &again).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    async fn trace(seed: u64) -> Vec<(bool, Duration)> {
        let (net, peers) = three(seed);
        net.set_delay(Duration::from_millis(1)..Duration::from_millis(50));
        net.set_break_rate(0.3);
        let mut trace = Vec::new();
        for _ in 0..50 {
            let before = tokio::time::Instant::now();
            let outcome = echo(&peers[0], &peers[1]).await;
            assert!(matches!(outcome, Ok(_) | Err(TransportError::Broken { .. })), "{outcome:?}");
            trace.push((outcome.is_ok(), before.elapsed()));
        }
        trace
    }
    let first = trace(7).await;
    assert_eq!(first, trace(7).await);
    assert_ne!(first, trace(8).await);
    assert!(first.iter().any(|(ok, _)| *ok) && first.iter().any(|(ok, _)| !*ok));
}
