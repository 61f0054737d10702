//! A small IPFS node of our own, so that a cluster works with nothing else installed.
//!
//! It keeps blocks in the block store port, fetches and serves them over bitswap on a swarm of its own, walks DAGs to
//! pin them, and collects garbage. It is not a router: it knows the peers it was told of and those that came to it.
//!
//! **Invariant:** its swarm and key are never those of the cluster.
//! **Invariant:** no byte from outside is kept before it matches the hash it was asked by, or came with.

mod bitswap;
mod client;
mod config;
mod dialer;
mod fetch;
mod filter;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gc;
mod import;
mod kept;
mod key;
mod link;
mod pins;
pub mod rpc;
mod server;
mod streams;
mod swarm;
#[cfg(test)]
mod tests;
mod walk;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_core::ports::{Block, Blockstore, IpfsError, IpfsNode, PinRequest, ProgressSink, Root};
use cluster_core::task::{OnExit, TaskGroup};
use cluster_core::unixfs;
use cluster_types::{BoxError, Cid, GcKey, IpfsId, Multiaddr, PeerId, PinDepth, Protocol, RepoStat};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot};

use crate::check_block;
use bitswap::Bitswap;
pub use config::{EmbeddedConfig, StartError};
use fetch::{Fetcher, store_failed};
use kept::Kept;
use swarm::{COMMANDS, Command, Setup, SwarmActor};

/// How long the swarm may take for an answer, a connection included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Peers of a single request that are dialled.
const MAX_PEERS_PER_REQUEST: usize = 64;

/// The node.
pub struct EmbeddedNode {
    peer: PeerId,
    public_key: Vec<u8>,
    agent: String,
    storage_max: u64,
    /// Above this many bytes, room is made before something is added; more than `storage_max` is refused then.
    high_water: Option<u64>,
    kept: Arc<Kept>,
    fetcher: Fetcher,
    swarm: mpsc::Sender<Command>,
    collecting: tokio::sync::Mutex<()>,
}

impl fmt::Debug for EmbeddedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedNode").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl EmbeddedNode {
    /// Starts the node over `store`; returns when it listens. Its tasks end with `tasks`.
    pub async fn start(
        config: EmbeddedConfig,
        store: Arc<dyn Blockstore>,
        tasks: &TaskGroup,
    ) -> Result<Arc<Self>, StartError> {
        check(&config)?;
        let peers = by_peer(config.peers).map_err(|address| StartError::Config {
            setting: "peers",
            value: address.to_string(),
            reason: "an address must end with /p2p/<id>",
        })?;
        let key = key::load_or_create(&config.key_file)?;
        let peer = key.public().to_peer_id();
        let (public_key, agent) = (key.public().encode_protobuf(), config.agent.clone());
        let kept = Arc::new(Kept::new(store, config.import_grace));
        let (swarm, commands) = mpsc::channel(COMMANDS);
        let bitswap = Bitswap::new(Arc::clone(&kept), tasks.clone(), swarm.clone(), config.request_timeout);
        let setup = Setup { key, agent: config.agent, max_connections: config.max_connections, listen: config.listen };
        let actor = SwarmActor::start(setup, Arc::clone(&bitswap)).await?;
        let stop = tasks.stop_token();
        tasks.spawn("ipfs swarm", OnExit::StopPeer, ending(actor.run(commands, stop.clone())));
        let watch = Arc::clone(&bitswap).watch_time(config.request_timeout / 4, stop);
        tasks.spawn("bitswap clock", OnExit::StopPeer, ending(watch));
        let fetcher = Fetcher { bitswap, concurrency: config.fetch_concurrency, stall_timeout: config.stall_timeout };
        let storage_max = config.storage_max;
        let high_water = config.storage_gc_watermark.map(|percent| storage_max / 100 * u64::from(percent));
        let collecting = tokio::sync::Mutex::new(());
        let node = Self { peer, public_key, agent, storage_max, high_water, kept, fetcher, swarm, collecting };
        for (peer, addresses) in peers {
            let (reply, _nobody_waits) = oneshot::channel();
            drop(node.swarm.send(Command::Connect { peer, addresses, remember: true, reply }).await);
        }
        Ok(Arc::new(node))
    }

    /// The node's own peer id.
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    async fn ask_swarm<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, IpfsError> {
        let (reply, answer) = oneshot::channel();
        let asking = async {
            drop(self.swarm.send(command(reply)).await); // When the swarm is gone, so is the reply.
            answer.await
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, asking).await {
            Ok(answer) => answer.map_err(|gone| unreachable("the embedded IPFS node", gone.into())),
            Err(elapsed) => Err(unreachable("the embedded IPFS node", elapsed.into())),
        }
    }

    async fn connect_one(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<(), IpfsError> {
        let connected = self.ask_swarm(|reply| Command::Connect { peer, addresses, remember: true, reply }).await;
        connected.and_then(|answer| answer.map_err(|reason| unreachable(&peer.to_string(), reason.into())))
    }

    /// Dials where content may be found; whether that works shows by the blocks.
    async fn hint(&self, origins: Vec<Multiaddr>) {
        let usable = origins.into_iter().filter(|address| peer_of(address).is_some()).collect();
        let peers = by_peer(usable).unwrap_or_default();
        for (peer, addresses) in peers.into_iter().take(MAX_PEERS_PER_REQUEST) {
            let (reply, _nobody_waits) = oneshot::channel();
            drop(self.swarm.send(Command::Connect { peer, addresses, remember: false, reply }).await);
        }
    }

    /// Sees to it that something can be added: collects garbage above the watermark, refuses above the limit. Without a
    /// watermark there is no limit.
    async fn make_room(&self) -> Result<(), IpfsError> {
        let Some(high_water) = self.high_water else { return Ok(()) };
        if self.kept.store().used().await.map_err(store_failed)? <= high_water {
            return Ok(());
        }
        // One collection for all that wait for room.
        let collecting = self.collecting.lock().await;
        if self.kept.store().used().await.map_err(store_failed)? > high_water {
            gc::collect(&self.kept).await.map_err(store_failed)?;
        }
        drop(collecting);
        let used = self.kept.store().used().await.map_err(store_failed)?;
        if used <= self.storage_max {
            return Ok(());
        }
        Err(IpfsError::Refused {
            reason: format!(
                "maximum storage limit exceeded: {used} bytes are used, storage_max is {}",
                self.storage_max
            ),
        })
    }

    async fn keep_imported(&self, blocks: Vec<Block>) -> Result<(), IpfsError> {
        let multihashes: Vec<_> = blocks.iter().map(|block| block.cid.hash_bytes()).collect();
        self.kept.put_imported(blocks).await.map_err(store_failed)?;
        self.fetcher.bitswap.arrived(&multihashes, None);
        Ok(())
    }
}

#[async_trait]
impl IpfsNode for EmbeddedNode {
    async fn id(&self) -> Result<IpfsId, IpfsError> {
        let addresses = self.ask_swarm(|reply| Command::Addresses { reply }).await?;
        Ok(IpfsId { id: self.peer.to_string(), addresses, error: String::new() })
    }

    async fn pin(&self, request: PinRequest, progress: ProgressSink) -> Result<(), IpfsError> {
        self.hint(request.origins).await;
        pins::pin(&self.fetcher, Root { cid: request.cid, depth: request.depth }, &progress).await
    }

    async fn unpin(&self, cid: Cid) -> Result<(), IpfsError> {
        pins::unpin(&self.kept, &cid).await
    }

    async fn pinned(&self, cid: Cid) -> Result<Option<PinDepth>, IpfsError> {
        pins::pinned(&self.kept, &cid).await
    }

    fn pins(&self) -> BoxStream<'static, Result<(Cid, PinDepth), IpfsError>> {
        pins::pins(Arc::clone(&self.kept))
    }

    async fn put_blocks(&self, blocks: Vec<Block>) -> Result<(), IpfsError> {
        for block in &blocks {
            check_block(&block.cid, &block.data)?;
        }
        // What a CID holds itself needs no place in the store.
        self.keep_imported(blocks.into_iter().filter(|block| unixfs::identity_data(&block.cid).is_none()).collect())
            .await
    }

    async fn block(&self, cid: Cid) -> Result<Bytes, IpfsError> {
        self.fetcher.fetch_block(cid).await
    }

    async fn import_car(&self, car: BoxStream<'static, Result<Bytes, std::io::Error>>) -> Result<Vec<Cid>, IpfsError> {
        import::import_car(self, car).await
    }

    async fn resolve(&self, path: &str) -> Result<Cid, IpfsError> {
        let (root, rest) = import::parse_path(path)?;
        let fetch = |cid| async move { self.block(cid).await.map_err(BoxError::from) };
        unixfs::read::resolve(fetch, root, rest).await.map_err(|error| import::not_resolved(path, error))
    }

    async fn repo_stat(&self) -> Result<RepoStat, IpfsError> {
        let repo_size = self.kept.store().used().await.map_err(store_failed)?;
        Ok(RepoStat { repo_size, storage_max: self.storage_max })
    }

    async fn collect_garbage(&self) -> Result<Vec<GcKey>, IpfsError> {
        let _one_at_a_time = self.collecting.lock().await;
        gc::collect(&self.kept).await.map_err(store_failed)
    }

    async fn connect(&self, addresses: Vec<Multiaddr>) -> Result<(), IpfsError> {
        let peers = by_peer(addresses).map_err(|address| IpfsError::Refused {
            reason: format!("cannot connect to {address}: the address must end with /p2p/<id>"),
        })?;
        if peers.is_empty() {
            return Err(IpfsError::Refused { reason: "cannot connect to no address".to_owned() });
        }
        if peers.len() > MAX_PEERS_PER_REQUEST {
            return Err(IpfsError::Refused {
                reason: format!("cannot connect to more than {MAX_PEERS_PER_REQUEST} peers at once"),
            });
        }
        let mut connecting = stream::iter(peers)
            .map(|(peer, addresses)| self.connect_one(peer, addresses))
            .buffer_unordered(MAX_PEERS_PER_REQUEST);
        let mut result = Ok(());
        while let Some(one) = connecting.next().await {
            result = result.and(one);
        }
        result
    }

    async fn connected(&self) -> Result<Vec<String>, IpfsError> {
        let peers = self.ask_swarm(|reply| Command::Connected { reply }).await?;
        Ok(peers.iter().map(PeerId::to_string).collect())
    }
}

async fn ending(task: impl Future<Output = ()>) -> Result<(), BoxError> {
    task.await;
    Ok(())
}

fn check(config: &EmbeddedConfig) -> Result<(), StartError> {
    let bad = |setting, value: String, reason| Err(StartError::Config { setting, value, reason });
    if !(1..=1024).contains(&config.fetch_concurrency) {
        return bad("fetch_concurrency", config.fetch_concurrency.to_string(), "it must be between 1 and 1024");
    }
    if config.request_timeout < Duration::from_millis(10) {
        return bad("request_timeout", format!("{:?}", config.request_timeout), "it must be at least 10 ms");
    }
    if config.stall_timeout.is_zero() {
        return bad("stall_timeout", "0".to_owned(), "every fetch would end at once");
    }
    Ok(())
}

fn unreachable(endpoint: &str, cause: BoxError) -> IpfsError {
    IpfsError::Unreachable { endpoint: endpoint.to_owned(), cause }
}

fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        Some(_) | None => None,
    }
}

/// Groups addresses by the peer they end with; an address without one is handed back.
fn by_peer(addresses: Vec<Multiaddr>) -> Result<BTreeMap<PeerId, Vec<Multiaddr>>, Multiaddr> {
    let mut peers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for address in addresses {
        match peer_of(&address) {
            Some(peer) => peers.entry(peer).or_default().push(address),
            None => return Err(address),
        }
    }
    Ok(peers)
}
