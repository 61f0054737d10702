//! Starts and stops the network, and puts its parts behind the `Transport` port.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_core::ports::{CallHandler, Purpose, Transport, TransportError};
use cluster_core::task::{OnExit, TaskGroup};
use cluster_types::{Bandwidth, BoxError, Multiaddr, PeerId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bandwidth::Meters;
use crate::config::NetworkConfig;
use crate::discovery::{AddressBook, keep_peerstore, load_peerstore, with_peer};
use crate::error::NetError;
use crate::http::{Door, HttpStreams};
use crate::rpc::{Calls, Server};
use crate::swarm::{ConnectError, Shared, SwarmActor, SwarmHandle, boxed, build_swarm};

/// How long [`Network::stop`] waits for connections to close and the peerstore to be written.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The peer's place in the private swarm.
pub struct Network {
    local: PeerId,
    pub(crate) shared: Arc<Shared>,
    meters: Arc<Meters>,
    pub(crate) swarm: SwarmHandle,
    calls: Arc<Calls>,
    server: Arc<Server>,
    /// Where HTTP comes in.
    http: Door,
    stop: CancellationToken,
    running: TaskTracker,
}

impl Network {
    /// Starts listening, and connects to the peers of the peerstore. Returns when the listeners are bound.
    pub async fn start(config: NetworkConfig, tasks: &TaskGroup) -> Result<Arc<Self>, NetError> {
        let local = config.identity.peer();
        let mut book = AddressBook::new(local);
        if let Some(path) = &config.peerstore {
            for (peer, addresses) in load_peerstore(path) {
                book.remember(peer, &addresses, Instant::now());
            }
        }
        let shared = Arc::new(Shared::new(book));
        let meters = Arc::new(Meters::default());
        let mut actor = SwarmActor::new(build_swarm(&config, &meters)?, Arc::clone(&shared), &config);
        let stop = tasks.stop_token().child_token();
        let mut control = actor.stream_control();
        let http = actor.http();
        let server = Server::new(Arc::clone(&shared), tasks.clone(), stop.clone());
        server.accept(&mut control).map_err(|cause| NetError::SetUp { part: "calls", cause: boxed(cause) })?;
        if let Err(error) = actor.listen(&config.listen).await {
            stop.cancel();
            return Err(error);
        }
        let (swarm, requests) = SwarmHandle::new();
        let calls = Calls::new(local, control, swarm.clone(), tasks.clone(), stop.clone(), config.dial_timeout);
        let running = TaskTracker::new();
        let ended = running.track_future(actor.run(requests, stop.clone()));
        let group_stop = tasks.stop_token();
        tasks.spawn("swarm", OnExit::StopPeer, async move {
            ended.await;
            // The network may be stopped before the rest of the peer; only a panic ends this task too early.
            group_stop.cancelled().await;
            Ok::<(), BoxError>(())
        });
        if let Some(path) = config.peerstore {
            let ended = running.track_future(keep_peerstore(path, Arc::clone(&shared), stop.clone()));
            tasks.spawn("peerstore", OnExit::Continue, async move {
                ended.await;
                Ok::<(), BoxError>(())
            });
        }
        running.close();
        Ok(Arc::new(Self { local, shared, meters, swarm, calls, server, http, stop, running }))
    }

    /// Takes the streams on which others want to speak HTTP with this peer, from now on. Only once.
    pub fn accept_http(&self) -> Result<HttpStreams, NetError> {
        self.http.open()
    }

    /// Ends calls, writes the peerstore, closes connections.
    pub async fn stop(&self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP_TIMEOUT, self.running.wait()).await.is_err() {
            tracing::warn!("the network did not stop in time");
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("local", &self.local).finish_non_exhaustive()
    }
}

#[async_trait]
impl Transport for Network {
    fn local_peer(&self) -> PeerId {
        self.local
    }

    async fn call(
        &self,
        peer: PeerId,
        purpose: Purpose,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        self.calls.call(peer, purpose, body, timeout).await
    }

    fn serve(&self, handler: Arc<dyn CallHandler>) {
        self.server.serve(handler);
    }

    async fn dial(&self, address: Multiaddr, timeout: Duration) -> Result<PeerId, TransportError> {
        let unreachable = |cause: BoxError| TransportError::Unreachable { address: address.clone(), cause };
        match tokio::time::timeout(timeout, self.swarm.dial(address.clone())).await {
            Ok(Ok(peer)) => Ok(peer),
            Ok(Err(error)) => Err(unreachable(boxed(error))),
            Err(_elapsed) => Err(unreachable(boxed(ConnectError::Failed(format!("no connection within {timeout:?}"))))),
        }
    }

    fn remember(&self, peer: PeerId, addresses: Vec<Multiaddr>) {
        self.shared.book.lock().remember(peer, &addresses, Instant::now());
        self.shared.wake.notify_one();
    }

    fn forget(&self, peer: PeerId) {
        self.shared.book.lock().forget(&peer);
        self.shared.wake.notify_one();
    }

    fn connected(&self) -> Vec<PeerId> {
        self.shared.book.lock().connected_peers()
    }

    fn addresses_of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.shared.book.lock().addresses_of(peer)
    }

    fn bandwidth(&self) -> Option<BTreeMap<String, Bandwidth>> {
        Some(self.meters.read())
    }

    fn own_addresses(&self) -> Vec<Multiaddr> {
        self.shared.own_addresses.lock().iter().map(|address| with_peer(address.clone(), self.local)).collect()
    }
}
