//! One running peer: built from the inside out, stopped from the outside in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cluster_api::ApiServer;
use cluster_core::cluster::{Cluster, ClusterParts, ClusterSettings, MetricAllocator, expiry, repin};
use cluster_core::consensus::Consensus;
use cluster_core::consensus::log::{EffectAt, LogConsensus, LogParts};
use cluster_core::consensus::sequencer::Allocator;
use cluster_core::monitor::Monitor;
use cluster_core::ports::{Clock, Gossip, IpfsNode, NodeIdRecord, StateStore, SystemClock, TrackerStore, Transport};
use cluster_core::rpc::CallServer;
use cluster_core::task::TaskGroup;
use cluster_core::tracker::{Tracker, local_effect};
use cluster_net::Network;
use cluster_store::{BlockStore, RaftLog, Store, StoreOptions};
use cluster_types::{BoxError, Multiaddr, PeerId, Role};

use crate::config::Config;
use crate::wire;

/// How long stopping may take in all before what is late is named and left behind.
const GRACE: Duration = Duration::from_secs(20);
/// Pause between two looks whether the IPFS node answers.
const NODE_PAUSE: Duration = Duration::from_secs(1);
/// Every so many failed looks a warning is logged.
const NODE_WARNING: u32 = 10;

/// A peer could not be started, or ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// A part could not be started.
    #[error("cannot start {part}")]
    Start {
        /// Which part.
        part: &'static str,
        /// Why not.
        #[source]
        cause: BoxError,
    },
    /// Nobody answers at the addresses to join.
    #[error(
        "cannot join the cluster: no peer of it answers at the --bootstrap addresses. Are the addresses right, are \
         those peers up, and is the secret the same as theirs (cluster.secret in service.json, or CLUSTER_SECRET)?"
    )]
    NobodyToJoin {
        /// What the last one said.
        #[source]
        cause: BoxError,
    },
    /// A part ended that the peer cannot live without.
    #[error("{part} has ended; the log says why")]
    Ended {
        /// Which part.
        part: &'static str,
    },
}

/// A running peer.
pub struct Peer {
    config: Config,
    store: Store,
    blocks: Option<Arc<BlockStore>>,
    network: Arc<Network>,
    ipfs: Arc<dyn IpfsNode>,
    consensus: Arc<LogConsensus>,
    api: Option<ApiServer>,
    /// Services on top: tracker, monitor, reconcilers, adds.
    services: TaskGroup,
    /// The parts of consensus.
    ordering: TaskGroup,
    /// The embedded node.
    node: TaskGroup,
    /// The swarm.
    swarm: TaskGroup,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("folder", &self.config.folder).finish_non_exhaustive()
    }
}

impl Peer {
    /// Starts a peer: store, swarm, node, monitor, consensus, tracker, services, APIs.
    pub async fn start(config: Config, bootstrap: &[Multiaddr]) -> Result<Self, PeerError> {
        raise_file_limit();
        let [services, ordering, node, swarm] = std::array::from_fn(|_| TaskGroup::new());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Store::open(&config.state_folder, StoreOptions::default()).map_err(start("the store"))?;
        let network = wire::network(&config).map_err(start("the swarm"))?;
        let network = Network::start(network, &swarm).await.map_err(start("the swarm"))?;
        let server = Arc::new(CallServer::default());
        network.serve(Arc::clone(&server) as _);
        let (ipfs, blocks) = wire::ipfs_node(&config, &node).await.map_err(start("the IPFS node"))?;
        let rooms = Rooms { config: &config, store: &store, network: &network, ipfs: &ipfs, clock: &clock };
        let monitor = rooms.monitor(&services);
        let allocator = MetricAllocator::new(Arc::clone(&monitor), config.allocator.allocate_by.clone());
        let allocator: Arc<dyn Allocator> = Arc::new(allocator);
        let is_member = store.raft_log().load().await.map_err(start("the store"))?.is_some();
        let members = match dial(network.as_ref(), bootstrap, &config).await {
            // Who has joined before needs nobody to go on.
            Err(_) if is_member => Vec::new(),
            dialled => dialled?,
        };
        let parts = rooms.consensus(&server, &allocator, members);
        let consensus = LogConsensus::start(parts, &ordering).await.map_err(start("consensus"))?;
        monitor.follow_members(consensus.position(), &services);
        let cluster = rooms.cluster(&consensus, monitor, allocator, &services);
        server.serve_calls(Arc::clone(&cluster) as _);
        let api = match &config.rest_api {
            Some(rest) => {
                let started = ApiServer::start(wire::rest(rest), cluster, &services).await;
                Some(started.map_err(start("the REST API"))?)
            }
            None => None,
        };
        Ok(Self { config, store, blocks, network, ipfs, consensus, api, services, ordering, node, swarm })
    }

    /// Returns when this peer can serve: it knows a leader and its IPFS node answers.
    pub async fn ready(&self) {
        let mut position = self.consensus.position();
        // An error means that consensus has ended, which `ended` reports.
        let _ended = position.wait_for(|position| position.leader.is_some()).await;
        let mut failures = 0;
        while let Err(error) = self.ipfs.id().await {
            failures += 1;
            if failures % NODE_WARNING == 0 {
                tracing::warn!(%error, "the IPFS node does not answer yet");
            }
            tokio::time::sleep(NODE_PAUSE).await;
        }
    }

    /// Returns when the peer has reason to stop by itself: a vital part ended, or it was removed from the cluster.
    pub async fn ended(&self) -> Result<(), PeerError> {
        let mut position = self.consensus.position();
        let [services, ordering, node, swarm] =
            [&self.services, &self.ordering, &self.node, &self.swarm].map(TaskGroup::stop_token);
        tokio::select! {
            removed = position.wait_for(|position| position.removed) => {
                if removed.is_ok() {
                    tracing::warn!("this peer was removed from the cluster and stops");
                    return Ok(());
                }
            }
            () = services.cancelled() => {}
            () = ordering.cancelled() => {}
            () = node.cancelled() => {}
            () = swarm.cancelled() => {}
        }
        let groups = [&self.services, &self.ordering, &self.node, &self.swarm];
        Err(PeerError::Ended { part: groups.iter().find_map(|group| group.failed()).unwrap_or("consensus") })
    }

    /// Where the REST API listens.
    pub fn api_addresses(&self) -> Vec<Multiaddr> {
        self.api.as_ref().map(|api| api.local_addresses().to_vec()).unwrap_or_default()
    }

    /// Stops: APIs, running requests, services, consensus (leadership is handed over first), node, swarm, store.
    pub async fn stop(self) {
        let mut late = Vec::new();
        if let Some(api) = self.api
            && !api.stop(GRACE / 4).await
        {
            late.push("REST requests");
        }
        if self.config.cluster.leave_on_shutdown {
            let left = self.consensus.remove_peer(self.network.local_peer());
            match tokio::time::timeout(GRACE, left).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "this peer could not leave the cluster"),
                Err(_) => tracing::warn!("this peer found no quorum to leave the cluster"),
            }
        }
        late.extend(self.services.shut_down(GRACE / 4).await);
        if self.consensus.position().borrow().role == Role::Leader {
            self.consensus.hand_over().await;
        }
        late.extend(self.ordering.shut_down(GRACE / 8).await);
        self.consensus.stop().await;
        late.extend(self.node.shut_down(GRACE / 8).await);
        self.network.stop().await;
        late.extend(self.swarm.shut_down(GRACE / 8).await);
        if let Some(blocks) = self.blocks
            && let Err(error) = blocks.close().await
        {
            tracing::warn!(%error, "the block store did not close cleanly");
        }
        let applied_index = *self.consensus.applied().borrow();
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "the store did not close cleanly");
        }
        // What `make bench` compares: a peer that ran from its first entry on flushes about once per entry.
        tracing::info!(flushes = self.store.telemetry().flushes(), applied_index, "the store is closed");
        if !late.is_empty() {
            tracing::warn!(?late, "these did not stop in time");
        }
    }
}

/// The rooms at the bottom, for building those that stand on them.
struct Rooms<'a> {
    config: &'a Config,
    store: &'a Store,
    network: &'a Arc<Network>,
    ipfs: &'a Arc<dyn IpfsNode>,
    clock: &'a Arc<dyn Clock>,
}

impl Rooms<'_> {
    fn monitor(&self, services: &TaskGroup) -> Arc<Monitor> {
        let tracker_store: Arc<dyn TrackerStore> = self.store.state();
        Monitor::start(
            wire::monitor(self.config),
            Arc::clone(self.network) as Arc<dyn Gossip>,
            Arc::clone(self.clock),
            self.network.local_peer(),
            self.config.cluster.peer_name.clone(),
            wire::informers(&self.config.informers, self.ipfs, &tracker_store),
            Arc::clone(self.ipfs),
            services,
        )
    }

    fn consensus(
        &self,
        server: &Arc<CallServer>,
        allocator: &Arc<dyn Allocator>,
        bootstrap: Vec<PeerId>,
    ) -> LogParts<RaftLog> {
        LogParts {
            log: self.store.raft_log(),
            state: self.store.state(),
            effect_at: effect(self.network.local_peer(), self.config, Arc::clone(self.clock)),
            record: Arc::new(self.store.raft_log()),
            transport: Arc::clone(self.network) as _,
            server: Arc::clone(server),
            allocator: Arc::clone(allocator),
            clock: Arc::clone(self.clock),
            chance: rand::make_rng(),
            bootstrap,
            settings: wire::consensus(self.config),
        }
    }

    /// Tracker, reconcilers, and the facade on top of everything.
    fn cluster(
        &self,
        consensus: &Arc<LogConsensus>,
        monitor: Arc<Monitor>,
        allocator: Arc<dyn Allocator>,
        services: &TaskGroup,
    ) -> Arc<Cluster> {
        let config = &self.config.cluster;
        let state: Arc<dyn StateStore> = self.store.state();
        let agreement: Arc<dyn Consensus> = Arc::clone(consensus) as _;
        let tracker = Tracker::start(
            wire::tracker(self.config),
            self.network.local_peer(),
            Arc::clone(&state),
            self.store.state(),
            Arc::clone(self.ipfs),
            Arc::clone(self.clock),
            consensus.applied(),
            rand::random(),
            services,
        );
        let repair = repin::RepinConfig {
            enabled: config.repinning,
            grace: config.repinning_grace_period,
            ..repin::RepinConfig::default()
        };
        repin::start(repair, Arc::clone(&state), Arc::clone(&agreement), monitor.suspects(), services);
        let interval = config.state_sync_interval;
        expiry::start(interval, Arc::clone(&state), agreement, Arc::clone(self.clock), services);
        Arc::new(Cluster::new(ClusterParts {
            settings: ClusterSettings { peer_name: config.peer_name.clone(), default_replication: config.replication },
            consensus: Arc::clone(consensus),
            state,
            tracker,
            monitor,
            allocator,
            ipfs: Arc::clone(self.ipfs),
            transport: Arc::clone(self.network) as _,
            clock: Arc::clone(self.clock),
            tasks: services.clone(),
        }))
    }
}

fn start<E: Into<BoxError>>(part: &'static str) -> impl FnOnce(E) -> PeerError {
    move |cause| PeerError::Start { part, cause: cause.into() }
}

/// What a changed pin means on this peer.
fn effect(peer: PeerId, config: &Config, clock: Arc<dyn Clock>) -> EffectAt {
    let rule = wire::priority(&config.tracker);
    Arc::new(move |generation| {
        let clock = Arc::clone(&clock);
        Arc::new(move |before, after, tracked| {
            local_effect(&peer, before, after, tracked, generation, clock.now(), rule)
        })
    })
}

/// Finds out who answers at the addresses to join.
async fn dial(transport: &dyn Transport, bootstrap: &[Multiaddr], config: &Config) -> Result<Vec<PeerId>, PeerError> {
    let mut members = Vec::new();
    let mut last = None;
    for address in bootstrap {
        match transport.dial(address.clone(), config.cluster.dial_timeout * 4).await {
            Ok(peer) => members.push(peer),
            Err(error) => {
                tracing::warn!(%address, error = %cluster_types::ErrorChain(&error), "a bootstrap address does not answer");
                last = Some(error);
            }
        }
    }
    match last {
        Some(error) if members.is_empty() => Err(PeerError::NobodyToJoin { cause: error.into() }),
        _ => Ok(members),
    }
}

/// RocksDB and the swarm together need more open files than many systems allow by default.
fn raise_file_limit() {
    const WANTED: u64 = 65_536;
    if let Err(error) = rlimit::increase_nofile_limit(WANTED) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
