//! The contract of `Gossip`, sentence by sentence.
//!
//! Gossip is best effort, so the suite first waits until the peers hear each other, and then expects a quiet network to
//! deliver.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use cluster_types::PeerId;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::transport::{NetworkFactory, PATIENCE, TestPeer, connect_all};
use crate::ports::{GossipError, GossipMessage, Topic};

/// What the peers say until everybody hears everybody.
const GREETING: &[u8] = b"is anybody there?";

/// Runs every test of the suite.
pub async fn run_all(factory: &dyn NetworkFactory) {
    publishing_alone_is_no_error(factory).await;
    a_message_reaches_all_others_once_with_its_signer(factory).await;
    topics_are_apart(factory).await;
    sizes_are_limited(factory).await;
    a_slow_receiver_loses_the_oldest_and_is_told(factory).await;
}

/// Connected peers that have heard each other on every topic.
async fn acquainted(factory: &dyn NetworkFactory, count: usize) -> Vec<TestPeer> {
    let peers = factory.peers(count).await;
    connect_all(&peers).await;
    for topic in Topic::ALL {
        for speaker in &peers {
            for listener in peers.iter().filter(|peer| peer.id() != speaker.id()) {
                let mut heard = listener.gossip.subscribe(topic);
                let repeated = async {
                    loop {
                        speaker.gossip.publish(topic, Bytes::from_static(GREETING)).await.expect("it is open");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                };
                let hearing = async { while heard.recv().await.expect("it is open").from != speaker.id() {} };
                tokio::select! {
                    biased;
                    () = repeated => {}
                    heard = tokio::time::timeout(PATIENCE, hearing) => heard.expect("peers hear each other"),
                }
            }
        }
    }
    peers
}

/// The next message that is not a greeting.
async fn next(receiver: &mut Receiver<GossipMessage>) -> GossipMessage {
    let wait = async {
        loop {
            let message = receiver.recv().await.expect("it keeps up");
            if message.data != GREETING {
                return message;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the message arrives")
}

async fn publishing_alone_is_no_error(factory: &dyn NetworkFactory) {
    let peers = factory.peers(1).await;
    for topic in Topic::ALL {
        peers[0].gossip.publish(topic, Bytes::from_static(b"hello")).await.expect("nobody listens, and that is fine");
    }
}

async fn a_message_reaches_all_others_once_with_its_signer(factory: &dyn NetworkFactory) {
    let peers = acquainted(factory, 3).await;
    let mut receivers: Vec<_> = peers.iter().map(|peer| peer.gossip.subscribe(Topic::Metrics)).collect();
    for peer in &peers {
        for number in 0..10 {
            let text = format!("{} says {number}", peer.id());
            peer.gossip.publish(Topic::Metrics, text.into()).await.expect("it is open");
        }
    }
    // What is said last by each marks the end: by then everything else has come, or a quiet network has lost it.
    for (place, receiver) in receivers.iter_mut().enumerate() {
        let mut heard: BTreeMap<Bytes, PeerId> = BTreeMap::new();
        for _ in 0..20 {
            let message = next(receiver).await;
            assert!(message.data.starts_with(message.from.to_string().as_bytes()), "signed by another: {message:?}");
            assert_ne!(message.from, peers[place].id(), "its own message came back");
            assert_eq!(heard.insert(message.data.clone(), message.from), None, "twice: {message:?}");
        }
    }
    // A duplicate would be on its way now; a round of new messages overtakes nothing older on the same path.
    for peer in &peers {
        peer.gossip.publish(Topic::Metrics, Bytes::from_static(b"end")).await.expect("it is open");
    }
    for receiver in &mut receivers {
        for _ in 0..2 {
            assert_eq!(next(receiver).await.data, Bytes::from_static(b"end"));
        }
    }
}

async fn topics_are_apart(factory: &dyn NetworkFactory) {
    let peers = acquainted(factory, 2).await;
    let mut metrics = peers[1].gossip.subscribe(Topic::Metrics);
    let mut log = peers[1].gossip.subscribe(Topic::Log);
    peers[0].gossip.publish(Topic::Metrics, Bytes::from_static(b"a metric")).await.expect("it is open");
    peers[0].gossip.publish(Topic::Log, Bytes::from_static(b"an entry")).await.expect("it is open");
    assert_eq!(next(&mut metrics).await.data, Bytes::from_static(b"a metric"));
    assert_eq!(next(&mut log).await.data, Bytes::from_static(b"an entry"));
    for receiver in [&mut metrics, &mut log] {
        loop {
            match receiver.try_recv() {
                Ok(message) => assert_eq!(message.data, GREETING, "it belongs to the other topic"),
                Err(TryRecvError::Empty) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

async fn sizes_are_limited(factory: &dyn NetworkFactory) {
    let peers = acquainted(factory, 2).await;
    let mut receiver = peers[1].gossip.subscribe(Topic::Log);
    let size = Topic::MAX_MESSAGE + 1;
    let refused = peers[0].gossip.publish(Topic::Log, Bytes::from(vec![7; size])).await;
    assert!(matches!(refused, Err(GossipError::TooLarge { size: reported }) if reported == size), "{refused:?}");
    let largest = Bytes::from(vec![9; Topic::MAX_MESSAGE]);
    peers[0].gossip.publish(Topic::Log, largest.clone()).await.expect("it fits");
    assert!(next(&mut receiver).await.data == largest, "the message has changed on its way");
}

async fn a_slow_receiver_loses_the_oldest_and_is_told(factory: &dyn NetworkFactory) {
    let peers = acquainted(factory, 2).await;
    let mut slow = peers[1].gossip.subscribe(Topic::Metrics);
    let mut quick = peers[1].gossip.subscribe(Topic::Metrics);
    let mut last = Bytes::new();
    for number in 0..1_000_u32 {
        last = format!("message {number}").into();
        peers[0].gossip.publish(Topic::Metrics, last.clone()).await.expect("it is open");
        next(&mut quick).await;
    }
    let lost = match slow.recv().await {
        Err(RecvError::Lagged(lost)) => lost,
        other => panic!("nothing was lost: {other:?}"),
    };
    assert!(lost > 0);
    let mut newest = Bytes::new();
    while let Ok(message) = slow.try_recv() {
        newest = message.data;
    }
    assert_eq!(newest, last, "the newest message must survive");
}
