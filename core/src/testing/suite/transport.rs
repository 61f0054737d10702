//! The contract of `Transport`, sentence by sentence.
//!
//! Waits are on conditions. What takes real time on a real network has generous limits, so a slow machine is no error.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{Multiaddr, PeerId, Protocol};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::ports::{CallHandler, Gossip, MAX_MESSAGE, Purpose, Transport, TransportError};

/// Longer than anything that is going to succeed takes.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Shorter than a handler that hangs.
const IMPATIENCE: Duration = Duration::from_millis(300);

/// One peer of a network under test.
#[derive(Clone)]
pub struct TestPeer {
    /// Its calls.
    pub transport: Arc<dyn Transport>,
    /// Its gossip.
    pub gossip: Arc<dyn Gossip>,
}

impl std::fmt::Debug for TestPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TestPeer").field(&self.id()).finish()
    }
}

impl TestPeer {
    /// Its id.
    pub fn id(&self) -> PeerId {
        self.transport.local_peer()
    }
}

/// Makes networks to test.
#[async_trait]
pub trait NetworkFactory: Send + Sync {
    /// `count` peers that could reach each other, but know nobody yet.
    async fn peers(&self, count: usize) -> Vec<TestPeer>;
    /// An address where nobody answers.
    fn dead_address(&self) -> Multiaddr;
}

/// Runs every test of the suite.
pub async fn run_all(factory: &dyn NetworkFactory) {
    both_ends_know_each_other(factory).await;
    a_call_never_reaches_another_peer(factory).await;
    dialling_says_who_answers(factory).await;
    what_was_not_sent_is_reported_as_such(factory).await;
    a_call_is_delivered_at_most_once(factory).await;
    answers_belong_to_their_calls(factory).await;
    purposes_do_not_wait_for_each_other(factory).await;
    sizes_are_limited(factory).await;
    deadlines_end_calls(factory).await;
    calls_before_serving_are_refused(factory).await;
    too_many_calls_are_refused_unseen(factory).await;
    a_handler_survives_its_caller(factory).await;
    a_remembered_peer_is_connected_and_a_forgotten_one_is_not(factory).await;
}

/// Makes every peer remember every other, and waits until all are connected.
pub async fn connect_all(peers: &[TestPeer]) {
    for one in peers {
        for other in peers {
            one.transport.remember(other.id(), other.transport.own_addresses());
        }
    }
    for peer in peers {
        until("every peer is connected", || peer.transport.connected().len() == peers.len() - 1).await;
    }
}

/// Waits until `condition` holds.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "still waiting until {what}");
}

/// Answers with the caller, the purpose and the body; hangs on "hang" until it is let go; counts.
struct Witness {
    seen: Mutex<BTreeMap<Bytes, usize>>,
    finished: AtomicUsize,
    gate: Semaphore,
}

impl Witness {
    fn of(peer: &TestPeer) -> Arc<Self> {
        let witness = Arc::new(Self {
            seen: Mutex::new(BTreeMap::new()),
            finished: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        });
        peer.transport.serve(Arc::clone(&witness) as Arc<dyn CallHandler>);
        witness
    }

    fn times(&self, body: &[u8]) -> usize {
        self.seen.lock().get(body).copied().unwrap_or(0)
    }

    fn calls(&self) -> usize {
        self.seen.lock().values().sum()
    }

    fn let_go(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}

#[async_trait]
impl CallHandler for Witness {
    async fn handle(&self, from: PeerId, purpose: Purpose, body: Bytes) -> Bytes {
        *self.seen.lock().entry(body.clone()).or_default() += 1;
        if body.starts_with(b"hang") {
            let _passed = self.gate.acquire().await;
        }
        self.finished.fetch_add(1, Ordering::SeqCst);
        if body.len() > 1_000 {
            return body;
        }
        format!("{from} {} {}", purpose.as_str(), String::from_utf8_lossy(&body)).into()
    }
}

async fn call(from: &TestPeer, to: &TestPeer, purpose: Purpose, body: &'static str) -> Result<Bytes, TransportError> {
    from.transport.call(to.id(), purpose, Bytes::from_static(body.as_bytes()), PATIENCE).await
}

async fn connected(factory: &dyn NetworkFactory, count: usize) -> Vec<TestPeer> {
    let peers = factory.peers(count).await;
    connect_all(&peers).await;
    peers
}

async fn both_ends_know_each_other(factory: &dyn NetworkFactory) {
    let peers = connected(factory, 3).await;
    let _witnesses: Vec<_> = peers.iter().map(Witness::of).collect();
    for caller in &peers {
        for called in peers.iter().filter(|peer| peer.id() != caller.id()) {
            for purpose in Purpose::ALL {
                let answer = call(caller, called, purpose, "hello").await.expect("connected peers answer");
                assert_eq!(answer, format!("{} {} hello", caller.id(), purpose.as_str()));
            }
        }
    }
}

async fn a_call_never_reaches_another_peer(factory: &dyn NetworkFactory) {
    let peers = factory.peers(2).await;
    let witness = Witness::of(&peers[1]);
    let pretended = PeerId::random();
    let bare: Vec<Multiaddr> = peers[1].transport.own_addresses().into_iter().map(without_peer).collect();
    peers[0].transport.remember(pretended, bare.clone());
    let error = peers[0]
        .transport
        .call(pretended, Purpose::Call, Bytes::from_static(b"secret"), PATIENCE)
        .await
        .expect_err("another peer lives there");
    assert!(matches!(error, TransportError::NotSent { peer, .. } if peer == pretended), "{error:?}");
    let lie = bare[0].clone().with(Protocol::P2p(pretended));
    assert!(peers[0].transport.dial(lie, PATIENCE).await.is_err());
    assert_eq!(witness.calls(), 0);
}

async fn dialling_says_who_answers(factory: &dyn NetworkFactory) {
    let peers = factory.peers(2).await;
    let _witness = Witness::of(&peers[1]);
    let address = peers[1].transport.own_addresses()[0].clone();
    let with_id = peers[0].transport.dial(address.clone(), PATIENCE).await.expect("it listens");
    let without_id = peers[0].transport.dial(without_peer(address), PATIENCE).await.expect("it listens");
    assert_eq!((with_id, without_id), (peers[1].id(), peers[1].id()));
    assert!(call(&peers[0], &peers[1], Purpose::Call, "after the dial").await.is_ok());
    let dead = factory.dead_address();
    let error = peers[0].transport.dial(dead.clone(), PATIENCE).await.expect_err("nobody is there");
    assert!(matches!(&error, TransportError::Unreachable { address, .. } if *address == dead), "{error:?}");
}

async fn what_was_not_sent_is_reported_as_such(factory: &dyn NetworkFactory) {
    let peers = factory.peers(1).await;
    let stranger = PeerId::random();
    for round in 0..2 {
        let error = peers[0]
            .transport
            .call(stranger, Purpose::Call, Bytes::from_static(b"hello"), PATIENCE)
            .await
            .expect_err("nobody is there");
        assert!(matches!(error, TransportError::NotSent { peer, .. } if peer == stranger), "{round}: {error:?}");
        peers[0].transport.remember(stranger, vec![factory.dead_address()]);
    }
}

async fn a_call_is_delivered_at_most_once(factory: &dyn NetworkFactory) {
    let peers = connected(factory, 2).await;
    let witness = Witness::of(&peers[1]);
    let body = Bytes::from_static(b"hang once");
    let error = peers[0].transport.call(peers[1].id(), Purpose::Call, body.clone(), IMPATIENCE).await;
    assert!(error.is_err());
    for number in 0..100_u8 {
        let body = Bytes::from(vec![b'n', number]);
        peers[0].transport.call(peers[1].id(), Purpose::Call, body, PATIENCE).await.expect("it answers");
    }
    witness.let_go();
    until("the hanging call is over", || witness.finished.load(Ordering::SeqCst) == witness.calls()).await;
    assert!(witness.times(&body) <= 1);
    assert!((0..100).all(|number| witness.times(&[b'n', number]) == 1));
}

async fn answers_belong_to_their_calls(factory: &dyn NetworkFactory) {
    let peers = connected(factory, 2).await;
    let witness = Witness::of(&peers[1]);
    let mut calls: FuturesUnordered<_> = (0..40_u32)
        .map(|number| {
            let (transport, to) = (Arc::clone(&peers[0].transport), peers[1].id());
            async move {
                let text = format!("call {number}");
                let answer = transport.call(to, Purpose::Call, text.clone().into(), PATIENCE).await;
                (text, answer)
            }
        })
        .collect();
    while let Some((text, answer)) = calls.next().await {
        assert!(answer.expect("it answers").ends_with(text.as_bytes()));
    }
    let slow = call(&peers[0], &peers[1], Purpose::Call, "hang");
    let quick = async {
        until("the slow call is being handled", || witness.times(b"hang") == 1).await;
        call(&peers[0], &peers[1], Purpose::Call, "quick").await.expect("a slow call is not in the way");
        witness.let_go();
    };
    let (slow, ()) = futures::join!(slow, quick);
    assert!(slow.expect("it was let go").ends_with(b"hang"));
}

async fn purposes_do_not_wait_for_each_other(factory: &dyn NetworkFactory) {
    let peers = connected(factory, 2).await;
    let witness = Witness::of(&peers[1]);
    let mut large = vec![b'.'; MAX_MESSAGE];
    large[..4].copy_from_slice(b"hang");
    let large = Bytes::from(large);
    let mut transfers: FuturesUnordered<_> =
        (0..2).map(|_| peers[0].transport.call(peers[1].id(), Purpose::Bulk, large.clone(), PATIENCE)).collect();
    let votes = async {
        until("a transfer is under way", || witness.times(&large) > 0).await;
        for _ in 0..20 {
            call(&peers[0], &peers[1], Purpose::Control, "vote").await.expect("transfers are not in the way");
        }
        witness.let_go();
    };
    futures::join!(votes, async { while transfers.next().await.is_some() {} });
}

async fn sizes_are_limited(factory: &dyn NetworkFactory) {
    let peers = connected(factory, 2).await;
    let witness = Witness::of(&peers[1]);
    let size = MAX_MESSAGE + 1;
    let too_large = Bytes::from(vec![1; size]);
    let error = peers[0].transport.call(peers[1].id(), Purpose::Bulk, too_large, PATIENCE).await;
    assert!(matches!(error, Err(TransportError::TooLarge { size: reported }) if reported == size), "{error:?}");
    assert_eq!(witness.calls(), 0);
    let largest = Bytes::from((0..MAX_MESSAGE).map(|place| (place % 251) as u8).collect::<Vec<_>>());
    let answer = peers[0].transport.call(peers[1].id(), Purpose::Bulk, largest.clone(), PATIENCE).await;
    assert!(answer.expect("it fits") == largest, "the body has changed on its way");
    let empty = peers[0].transport.call(peers[1].id(), Purpose::Call, Bytes::new(), PATIENCE).await;
    assert!(empty.expect("it fits").ends_with(b"call "));
}

async fn deadlines_end_calls(factory: &dyn NetworkFactory) {
    let peers = connected(factory, 2).await;
    let witness = Witness::of(&peers[1]);
    call(&peers[0], &peers[1], Purpose::Call, "the way is open").await.expect("it answers");
    let error = peers[0].transport.call(peers[1].id(), Purpose::Call, Bytes::from_static(b"hang"), IMPATIENCE).await;
    assert!(matches!(error, Err(TransportError::Timeout { after, .. }) if after == IMPATIENCE), "{error:?}");
    call(&peers[0], &peers[1], Purpose::Call, "the next one").await.expect("the way is still open");
    witness.let_go();
}

async fn calls_before_serving_are_refused(factory: &dyn NetworkFactory) {
    let peers = connected(factory, 2).await;
    let error = call(&peers[0], &peers[1], Purpose::Call, "early").await;
    assert!(matches!(error, Err(TransportError::Overloaded { peer }) if peer == peers[1].id()), "{error:?}");
    let witness = Witness::of(&peers[1]);
    call(&peers[0], &peers[1], Purpose::Call, "late").await.expect("it serves now");
    assert_eq!(witness.times(b"early"), 0);
}

async fn too_many_calls_are_refused_unseen(factory: &dyn NetworkFactory) {
    let peers = connected(factory, 2).await;
    let witness = Witness::of(&peers[1]);
    let mut refused = 0;
    let mut calls: FuturesUnordered<_> =
        (0..600).map(|_| call(&peers[0], &peers[1], Purpose::Control, "hang")).collect();
    let mut answered = 0;
    while let Some(outcome) = calls.next().await {
        match outcome {
            Err(TransportError::Overloaded { .. }) => {
                refused += 1;
                if refused == 100 {
                    call(&peers[0], &peers[1], Purpose::Call, "other purposes go on").await.expect("they do");
                    witness.let_go();
                }
            }
            Ok(_) => answered += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(answered > 0);
    assert_eq!(witness.times(b"hang"), answered);
}

async fn a_handler_survives_its_caller(factory: &dyn NetworkFactory) {
    let peers = connected(factory, 2).await;
    let witness = Witness::of(&peers[1]);
    {
        let abandoned = call(&peers[0], &peers[1], Purpose::Call, "hang");
        let begun = until("the call is being handled", || witness.times(b"hang") == 1);
        futures::pin_mut!(abandoned, begun);
        futures::future::select(abandoned, begun).await;
    }
    witness.let_go();
    until("the handler has come to its end", || witness.finished.load(Ordering::SeqCst) == 1).await;
    call(&peers[0], &peers[1], Purpose::Call, "the next one").await.expect("the way is open");
}

async fn a_remembered_peer_is_connected_and_a_forgotten_one_is_not(factory: &dyn NetworkFactory) {
    let peers = factory.peers(3).await;
    assert!(peers[0].transport.connected().is_empty());
    for other in &peers[1..] {
        peers[0].transport.remember(other.id(), other.transport.own_addresses());
    }
    until("both are connected", || peers[0].transport.connected().len() == 2).await;
    until("the others see it too", || peers[1].transport.connected() == [peers[0].id()]).await;
    let connected = peers[0].transport.connected();
    assert!(connected.is_sorted());
    for other in &peers[1..] {
        assert!(other.transport.own_addresses().iter().all(|address| ends_with(address, other.id())));
        let known = peers[0].transport.addresses_of(&other.id());
        assert!(!known.is_empty());
        assert!(known.iter().all(|address| !ends_with(address, other.id())), "{known:?}");
    }
    peers[0].transport.forget(peers[1].id());
    until("the forgotten one is gone", || peers[0].transport.connected() == [peers[2].id()]).await;
    assert!(peers[0].transport.addresses_of(&peers[1].id()).is_empty());
}

fn ends_with(address: &Multiaddr, peer: PeerId) -> bool {
    address.iter().last() == Some(Protocol::P2p(peer))
}

fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}
