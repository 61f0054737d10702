//! The actor that owns the libp2p swarm, and the handle others ask it through.
//!
//! **Invariant:** the loop never waits for the disk, for a handler or for another queue; what takes time happens in
//! tasks of its own, which learn the outcome through a oneshot.
//! **Invariant:** requests come through one queue of [`REQUEST_QUEUE`]; when it is full, callers wait within their
//! own deadlines.

mod actor;
mod behaviour;
mod build;
mod closing;
mod connections;
mod gate;
mod trim;

use std::sync::Arc;

use bytes::Bytes;
use cluster_core::ports::{GossipError, GossipMessage, Topic};
use cluster_types::{BoxError, Multiaddr, PeerId};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};

pub(crate) use actor::SwarmActor;
pub(crate) use build::{Announce, build_swarm, usable_listen_addresses};

use crate::discovery::AddressBook;

/// How many requests may wait for the swarm; each is handled in microseconds.
pub(crate) const REQUEST_QUEUE: usize = 256;
/// How many metrics messages a slow receiver may be behind before it loses the oldest; 32 MiB of the largest.
const METRICS_BACKLOG: usize = 256;
/// The same for log messages.
const LOG_BACKLOG: usize = 64;

/// What the actor and the ports both see.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Peers, addresses, and who is connected.
    pub(crate) book: Mutex<AddressBook>,
    /// Wakes the actor after the book was changed from outside.
    pub(crate) wake: Notify,
    /// Wakes the keeper of the peerstore.
    pub(crate) book_changed: Notify,
    /// Where this peer can be reached, without `/p2p`.
    pub(crate) own_addresses: Mutex<Vec<Multiaddr>>,
    metrics: broadcast::Sender<GossipMessage>,
    log: broadcast::Sender<GossipMessage>,
}

impl Shared {
    pub(crate) fn new(book: AddressBook) -> Self {
        Self {
            book: Mutex::new(book),
            wake: Notify::new(),
            book_changed: Notify::new(),
            own_addresses: Mutex::new(Vec::new()),
            metrics: broadcast::Sender::new(METRICS_BACKLOG),
            log: broadcast::Sender::new(LOG_BACKLOG),
        }
    }

    /// Where messages on `topic` go.
    pub(crate) fn listeners(&self, topic: Topic) -> &broadcast::Sender<GossipMessage> {
        match topic {
            Topic::Metrics => &self.metrics,
            Topic::Log => &self.log,
        }
    }
}

/// No connection could be made.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// No address is known.
    #[error("no address of the peer is known")]
    NoAddress,
    /// The peer is this peer.
    #[error("the address leads back to this peer")]
    Myself,
    /// Every address failed.
    #[error("{0}")]
    Failed(String),
    /// Too many are waiting for connections.
    #[error("too many calls are waiting for connections")]
    Busy,
    /// The network is shutting down.
    #[error("the network is shutting down")]
    Closed,
}

/// What the actor can be asked.
#[derive(Debug)]
pub(crate) enum Request {
    /// Be connected to a peer.
    Connect { peer: PeerId, reply: oneshot::Sender<Result<(), ConnectError>> },
    /// Connect to an address, whoever is there.
    Dial { address: Multiaddr, reply: oneshot::Sender<Result<PeerId, ConnectError>> },
    /// Publish a message.
    Publish { topic: Topic, data: Bytes, reply: oneshot::Sender<Result<(), GossipError>> },
}

/// Asks the actor.
#[derive(Clone, Debug)]
pub(crate) struct SwarmHandle {
    requests: mpsc::Sender<Request>,
}

impl SwarmHandle {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (requests, received) = mpsc::channel(REQUEST_QUEUE);
        (Self { requests }, received)
    }

    /// Returns when the peer is connected.
    pub(crate) async fn connect(&self, peer: PeerId) -> Result<(), ConnectError> {
        self.ask(|reply| Request::Connect { peer, reply }).await.unwrap_or(Err(ConnectError::Closed))
    }

    /// Connects to an address and says who is there.
    pub(crate) async fn dial(&self, address: Multiaddr) -> Result<PeerId, ConnectError> {
        self.ask(|reply| Request::Dial { address, reply }).await.unwrap_or(Err(ConnectError::Closed))
    }

    /// Publishes a message.
    pub(crate) async fn publish(&self, topic: Topic, data: Bytes) -> Result<(), GossipError> {
        self.ask(|reply| Request::Publish { topic, data, reply }).await.unwrap_or(Err(GossipError::Closed))
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.ok()?;
        answer.await.ok()
    }
}

/// Says why connecting failed, as the cause of an error of the port.
impl From<ConnectError> for Arc<str> {
    fn from(error: ConnectError) -> Self {
        Self::from(error.to_string())
    }
}

/// An error of libp2p as a cause.
pub(crate) fn boxed(error: impl std::error::Error + Send + Sync + 'static) -> BoxError {
    Box::new(error)
}
