//! One running peer: built from the inside out, stopped from the outside in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::cluster::duty::Outlook;
use cluster_core::cluster::meet::Meeting;
use cluster_core::cluster::{Cluster, ClusterParts, ClusterSettings, MetricAllocator, expiry, repin};
use cluster_core::consensus::Consensus;
use cluster_core::consensus::log::{EffectAt, LogConsensus, LogParts, bring_along};
use cluster_core::consensus::sequencer::Allocator;
use cluster_core::monitor::Monitor;
use cluster_core::ports::{
    Clock, Gossip, IpfsNode, NodeIdRecord, OutboxStore, StateStore, SystemClock, TrackerStore, Transport,
};
use cluster_core::rpc::CallServer;
use cluster_core::task::TaskGroup;
use cluster_core::tracker::{HoldRule, Tracker, local_effect};
use cluster_net::Network;
use cluster_store::{BlockStore, RaftLog, Store, StoreOptions};
use cluster_types::{BoxError, Multiaddr, PeerId, Role};

use crate::config::Config;
use crate::doors::{Doors, Taken};
use crate::following::{self, Ordering};
use crate::founding;
use crate::grace::{GRACE, Grace, close, shut_down};
use crate::joining;
use crate::state;
use crate::telemetry;
use crate::wire;

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
    /// Who answers at the addresses to join is not trusted.
    #[error(
        "cannot join the cluster of {peer}: consensus.crdt.trusted_peers does not name it. Name it there; or put \
         /p2p/{peer} behind its --bootstrap address and leave --no-trust away, then it is trusted for this start"
    )]
    HostNotTrusted {
        /// Who answers there.
        peer: PeerId,
    },
    /// It would found a cluster of its own beside that of peers which the configuration names.
    #[error(
        "this peer has no state yet, and {places} names other peers: in raft mode it does not found a cluster of its own \
         beside theirs. To join theirs, start it with --bootstrap <swarm address of a peer that runs>. To found one with \
         them, name them all in consensus.raft.init_peerset, on each of them"
    )]
    OthersNamed {
        /// Where they are named.
        places: String,
    },
    /// The state is that of a member, and the configuration says to follow, or the other way round.
    #[error(
        "the state in {folder} is that of {found}, and the configuration (cluster.follower_mode) is that of {wanted}: \
         change the one, or move the other away"
    )]
    OtherStanding {
        /// Where the state is.
        folder: String,
        /// Whose it is.
        found: &'static str,
        /// Who shall run on it.
        wanted: &'static str,
    },
    /// It was removed, and something waits here that no other peer may have.
    #[error(
        "this peer was removed from its cluster while {writes} writes that it had accepted without a quorum waited here: \
         they are in its state and nowhere else, perhaps. Start it with --bootstrap <swarm address of a member>, then it \
         joins again and they are merged; or give them up by moving its state folder away"
    )]
    RemovedWithWrites {
        /// How many.
        writes: u64,
    },
    /// A part ended that the peer cannot live without.
    #[error("{part} has ended; the log says why")]
    Ended {
        /// Which part.
        part: &'static str,
    },
}

/// Why a peer stops by itself although nothing is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEnd {
    /// It was removed from the cluster.
    Removed,
    /// It is to be started again, to join the cluster at these addresses with its pins.
    Joins(Vec<Multiaddr>),
}

/// A running peer.
pub struct Peer {
    config: Config,
    store: Store,
    blocks: Option<Arc<BlockStore>>,
    network: Arc<Network>,
    ipfs: Arc<dyn IpfsNode>,
    ordering_of: Ordering,
    doors: Doors,
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
    /// Starts a peer: store, swarm, node, monitor, consensus, tracker, services, APIs. Of one that cannot be started
    /// nothing is left behind, so that it may be started in another way.
    pub async fn start(config: Config, bootstrap: &[Multiaddr]) -> Result<Self, PeerError> {
        raise_file_limit();
        let groups: [TaskGroup; 4] = std::array::from_fn(|_| TaskGroup::new());
        let started = Box::pin(Self::start_in(groups.clone(), config, bootstrap)).await;
        if started.is_err() {
            shut_down(&groups).await;
        }
        started
    }

    async fn start_in(groups: [TaskGroup; 4], config: Config, bootstrap: &[Multiaddr]) -> Result<Self, PeerError> {
        let [services, ordering, node, swarm] = groups;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        state::settle(&config.state_folder, config.consensus.backups).map_err(start("the store"))?;
        let store = Store::open(&config.state_folder, StoreOptions::default()).map_err(start("the store"))?;
        let kept: Arc<dyn StateStore> = store.state();
        state::check_if_dirty(&config.state_folder, &*kept).await.map_err(start("the store"))?;
        let network = wire::network(&config).map_err(start("the swarm"))?;
        let is_member = store.raft_log().load().await.map_err(start("the store"))?.is_some();
        following::check(&config, &store, is_member).await?;
        if !is_member && bootstrap.is_empty() && !config.cluster.follower_mode {
            founding::check(&config, network.identity.peer())?;
        }
        let doors = Taken::take(&config, &services).await?;
        let network = Network::start(network, &swarm).await.map_err(start("the swarm"))?;
        let doors = doors.open(&config, &network, &services).await?;
        for (peer, addresses) in founding::named_peers(&config, network.local_peer()) {
            network.remember(peer, addresses);
        }
        let server = Arc::new(CallServer::default());
        network.serve(Arc::clone(&server) as _);
        // Nobody has to let a follower in.
        let bootstrap = if config.cluster.follower_mode { &[] } else { bootstrap };
        let members = match joining::dial(network.as_ref(), bootstrap, &config).await {
            // Who has joined before needs nobody to go on.
            Err(_) if is_member => Vec::new(),
            dialled => joining::trusted(dialled?, &following::trust(&config), is_member)?,
        };
        let founds = !is_member && members.is_empty() && !config.cluster.follower_mode;
        let members = if founds { founding::gather(&config, &network, &server).await } else { members };
        let store = if is_member { joining::leave_for(&members, store, &config, &network).await? } else { store };
        let wire::Node { ipfs, blocks, changes } =
            wire::ipfs_node(&config, &node).await.map_err(start("the IPFS node"))?;
        let (ipfs, counts) = telemetry::counted(ipfs);
        let rooms = Rooms { config: &config, store: &store, network: &network, ipfs: &ipfs, clock: &clock };
        let monitor = rooms.monitor(&services);
        wire::announce_changes(&config, changes, &monitor, &services);
        let allocator = rooms.allocator(&monitor);
        let ordering_of = if config.cluster.follower_mode {
            rooms.follow(&server, &ordering).await
        } else {
            rooms.take_part(&server, &monitor, &allocator, members, [&ordering, &services]).await
        };
        let ordering_of = match ordering_of {
            Ok(ordering_of) => ordering_of,
            Err(error) => {
                shut_down(&[services, ordering, node, swarm]).await;
                close(store, blocks).await;
                return Err(error);
            }
        };
        let cluster = rooms.cluster(&ordering_of, monitor, allocator, &services);
        server.serve_calls(Arc::clone(&cluster) as _);
        cluster.watch_trust();
        if let Ordering::Log(_, meeting) = &ordering_of {
            meeting.start(&services);
        }
        doors.begin(&counts, &store, cluster);
        Ok(Self { config, store, blocks, network, ipfs, ordering_of, doors, services, ordering, node, swarm })
    }

    /// Returns when this peer can serve: it knows a leader, unless it only follows, and its IPFS node answers.
    pub async fn ready(&self) {
        if let Ordering::Log(log, _) = &self.ordering_of {
            // An error means that consensus has ended, which `ended` reports.
            let _ended = log.position().wait_for(|position| position.leader.is_some()).await;
        }
        let mut failures = 0;
        while let Err(error) = self.ipfs.id().await {
            failures += 1;
            if failures % NODE_WARNING == 0 {
                tracing::warn!(%error, "the IPFS node does not answer yet");
            }
            tokio::time::sleep(NODE_PAUSE).await;
        }
    }

    /// What identifies the cluster that this peer's state belongs to, if it does.
    pub(crate) async fn cluster_id(&self) -> Option<u64> {
        // What cannot be read now is said by what needs it.
        bring_along::cluster_of(self.store.state().as_ref()).await.unwrap_or_default()
    }

    /// For so long at least, this peer joins no other cluster by itself.
    pub(crate) fn stay(&self, time: Duration) {
        if let Ordering::Log(_, meeting) = &self.ordering_of {
            meeting.stay(time);
        }
    }

    /// Returns when the peer has reason to stop by itself: a vital part ended, or it was removed from the cluster.
    pub async fn ended(&self) -> Result<PeerEnd, PeerError> {
        let mut position = self.ordering_of.consensus().position();
        let [services, ordering, node, swarm] =
            [&self.services, &self.ordering, &self.node, &self.swarm].map(TaskGroup::stop_token);
        tokio::select! {
            removed = position.wait_for(|position| position.removed) => {
                if removed.is_ok() {
                    tracing::warn!("this peer was removed from the cluster and stops");
                    let writes = OutboxStore::waiting_count(self.store.state().as_ref()).own;
                    return if writes > 0 { Err(PeerError::RemovedWithWrites { writes }) } else { Ok(PeerEnd::Removed) };
                }
            }
            addresses = self.ordering_of.to_join() => return Ok(PeerEnd::Joins(addresses)),
            () = services.cancelled() => {}
            () = ordering.cancelled() => {}
            () = node.cancelled() => {}
            () = swarm.cancelled() => {}
        }
        let groups = [&self.services, &self.ordering, &self.node, &self.swarm];
        Err(PeerError::Ended { part: groups.iter().find_map(|group| group.failed()).unwrap_or("consensus") })
    }

    /// Where the swarm can be reached, with `/p2p/<id>`.
    pub fn swarm_addresses(&self) -> Vec<Multiaddr> {
        self.network.own_addresses()
    }

    /// Where the REST API listens.
    pub fn api_addresses(&self) -> Vec<Multiaddr> {
        self.doors.api.as_ref().map(|api| api.local_addresses().to_vec()).unwrap_or_default()
    }

    /// Where the IPFS proxy listens.
    pub fn proxy_addresses(&self) -> Vec<Multiaddr> {
        self.doors.proxy.as_ref().map(|proxy| proxy.local_addresses().to_vec()).unwrap_or_default()
    }

    /// Stops: APIs, running requests, services, consensus (leadership is handed over first), node, swarm, store. Takes
    /// [`GRACE`] at most.
    pub async fn stop(self) {
        let mut grace = Grace::new(GRACE);
        self.doors.stop(&mut grace).await;
        if let Ordering::Log(log, _) = &self.ordering_of
            && self.config.cluster.leave_on_shutdown
        {
            let left = log.remove_peer(self.network.local_peer());
            if let Some(Err(error)) = grace.wait("leaving the cluster", GRACE / 4, left).await {
                tracing::warn!(%error, "this peer could not leave the cluster");
            }
        }
        grace.shut_down(&self.services, GRACE / 4).await;
        if let Ordering::Log(log, _) = &self.ordering_of
            && log.position().borrow().role == Role::Leader
        {
            grace.wait("handing over", GRACE / 4, log.hand_over()).await;
        }
        grace.shut_down(&self.ordering, GRACE / 8).await;
        if let Ordering::Log(log, _) = &self.ordering_of {
            grace.wait("consensus", GRACE / 8, log.stop()).await;
        }
        grace.shut_down(&self.node, GRACE / 8).await;
        grace.wait("the swarm", GRACE / 8, self.network.stop()).await;
        grace.shut_down(&self.swarm, GRACE / 8).await;
        if let Some(blocks) = self.blocks
            && let Some(Err(error)) = grace.wait_last("the block store", blocks.close()).await
        {
            tracing::warn!(%error, "the block store did not close cleanly");
        }
        let applied_index = *self.ordering_of.applied().borrow();
        match grace.wait_last("the store", self.store.close()).await {
            // What `make bench` compares: a peer that ran from its first entry on flushes about once per entry.
            Some(Ok(())) => {
                tracing::info!(flushes = self.store.telemetry().flushes(), applied_index, "the store is closed");
            }
            Some(Err(error)) => tracing::warn!(%error, "the store did not close cleanly"),
            None => {}
        }
        let late = grace.late;
        if !late.is_empty() {
            tracing::warn!(?late, "these did not stop in time");
        }
    }
}

/// The rooms at the bottom, for building those that stand on them.
pub(crate) struct Rooms<'a> {
    pub(crate) config: &'a Config,
    pub(crate) store: &'a Store,
    pub(crate) network: &'a Arc<Network>,
    pub(crate) ipfs: &'a Arc<dyn IpfsNode>,
    pub(crate) clock: &'a Arc<dyn Clock>,
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

    fn allocator(&self, monitor: &Arc<Monitor>) -> Arc<dyn Allocator> {
        let allocate_by = self.config.allocator.allocate_by.clone();
        let allocator = MetricAllocator::new(Arc::clone(monitor), allocate_by, self.network.local_peer());
        Arc::new(allocator.limited_to(wire::holders(&self.config.cluster), following::trust(self.config)))
    }

    /// Takes part in the ordering.
    async fn take_part(
        &self,
        server: &Arc<CallServer>,
        monitor: &Arc<Monitor>,
        allocator: &Arc<dyn Allocator>,
        bootstrap: Vec<PeerId>,
        [ordering, services]: [&TaskGroup; 2],
    ) -> Result<Ordering, PeerError> {
        let parts = self.consensus(server, allocator, bootstrap);
        let log = LogConsensus::start(parts, ordering).await.map_err(start("consensus"))?;
        log.spread_voters(wire::regions(monitor));
        monitor.follow_members(log.position(), services);
        let trust = following::trust(self.config);
        let meeting = Meeting::new(Arc::clone(&log), self.store.state(), Arc::clone(self.network) as _, trust);
        Ok(Ordering::Log(log, meeting))
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
            effect_at: self.effect(),
            record: Arc::new(self.store.raft_log()),
            transport: Arc::clone(self.network) as _,
            gossip: Arc::clone(self.network) as _,
            server: Arc::clone(server),
            allocator: Arc::clone(allocator),
            clock: Arc::clone(self.clock),
            chance: rand::make_rng(),
            bootstrap,
            settings: wire::consensus(self.config),
        }
    }

    /// What a changed pin means on this peer.
    pub(crate) fn effect(&self) -> EffectAt {
        effect(self.network.local_peer(), self.config, Arc::clone(self.clock))
    }

    /// Tracker, reconcilers, and the facade on top of everything.
    fn cluster(
        &self,
        ordering_of: &Ordering,
        monitor: Arc<Monitor>,
        allocator: Arc<dyn Allocator>,
        services: &TaskGroup,
    ) -> Arc<Cluster> {
        let config = &self.config.cluster;
        let state: Arc<dyn StateStore> = self.store.state();
        let agreement = ordering_of.consensus();
        let tracker = Tracker::start(
            wire::tracker(self.config),
            hold(self.network.local_peer(), self.config),
            Arc::clone(&state),
            self.store.state(),
            Arc::clone(self.ipfs),
            Arc::clone(self.clock),
            ordering_of.applied(),
            rand::random(),
            services,
        );
        // Members act on these; on a follower they rest.
        let repair = repin::RepinConfig {
            enabled: config.repinning && !config.follower_mode,
            grace: config.repinning_grace_period,
            ..repin::RepinConfig::default()
        };
        let (peer, grace) = (self.network.local_peer(), config.repinning_grace_period);
        let outlook = Outlook { peer, suspects: monitor.suspects(), grace };
        repin::start(repair, Arc::clone(&state), Arc::clone(&agreement), outlook.clone(), services);
        let (interval, clock) = (config.state_sync_interval, Arc::clone(self.clock));
        expiry::start(interval, Arc::clone(&state), Arc::clone(&agreement), clock, outlook, services);
        Arc::new(Cluster::new(ClusterParts {
            settings: ClusterSettings {
                peer_name: config.peer_name.clone(),
                default_replication: config.replication,
                collects_for_others: config.collects_for_others,
            },
            consensus: agreement,
            standing: ordering_of.standing(),
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

pub(crate) fn start<E: Into<BoxError>>(part: &'static str) -> impl FnOnce(E) -> PeerError {
    move |cause| PeerError::Start { part, cause: cause.into() }
}

/// What this peer's node shall hold.
pub(crate) fn hold(peer: PeerId, config: &Config) -> HoldRule {
    if config.cluster.follower_mode {
        HoldRule::filtered(peer, config.cluster.follower_filter.clone())
    } else {
        HoldRule::allocated_to(peer)
    }
}

/// What a changed pin means on this peer.
pub(crate) fn effect(peer: PeerId, config: &Config, clock: Arc<dyn Clock>) -> EffectAt {
    let (hold, rule) = (hold(peer, config), wire::priority(&config.tracker));
    Arc::new(move |generation| {
        let (hold, clock) = (hold.clone(), Arc::clone(&clock));
        Arc::new(move |before, after, tracked| {
            local_effect(&hold, before, after, tracked, generation, clock.now(), rule)
        })
    })
}

/// RocksDB and the swarm together need more open files than many systems allow by default.
fn raise_file_limit() {
    const WANTED: u64 = 65_536;
    if let Err(error) = rlimit::increase_nofile_limit(WANTED) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
