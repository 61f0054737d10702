//! The second stage: the configuration in checked types, one struct per section.
//!
//! Whoever holds a [`Config`] needs no further check: intervals are above zero, limits are in order, paths are
//! complete.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use cluster_core::tracker::HoldFilter;
use cluster_types::{Multiaddr, PeerId, ReplicationFactor};

use super::access::AccessConfig;
use super::folder::ConfigFolder;
use super::value::{ByteSize, ClusterSecret, Secret};

/// The whole configuration, checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The folder it was read from, where the peer keeps its files.
    pub folder: ConfigFolder,
    /// `cluster`.
    pub cluster: ClusterConfig,
    /// `consensus`.
    pub consensus: ConsensusConfig,
    /// `api.restapi`; without it the REST API is not served.
    pub rest_api: Option<HttpApiConfig>,
    /// `api.pinsvcapi`; without it the pinning service is not served.
    pub pinning_service: Option<HttpApiConfig>,
    /// `api.ipfsproxy`; without it the IPFS proxy is not served.
    pub ipfs_proxy: Option<ProxyConfig>,
    /// `ipfs_connector`: the node this peer looks after.
    pub ipfs: IpfsConfig,
    /// `pin_tracker.stateless`.
    pub tracker: TrackerConfig,
    /// `monitor.pubsubmon`.
    pub monitor: MonitorConfig,
    /// `allocator.balanced`.
    pub allocator: AllocatorConfig,
    /// `informer`: at least one.
    pub informers: InformersConfig,
    /// `observations`.
    pub telemetry: TelemetryConfig,
    /// Where state is kept; which engine `datastore` names has no effect on it.
    pub state_folder: PathBuf,
}

/// `cluster`: the peer itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// Shown in outputs; the host's name when the file gives none.
    pub peer_name: String,
    /// Key of the private network; without one the network is open.
    pub secret: Option<ClusterSecret>,
    /// Where the identity comes from when it does not come from `identity.json`.
    pub identity: IdentitySource,
    /// Leave the cluster for good at an orderly shutdown.
    pub leave_on_shutdown: bool,
    /// TCP addresses to listen on; at least one. Others that the file names (QUIC) are left out.
    pub listen_addresses: Vec<Multiaddr>,
    /// When not empty, exactly these are announced.
    pub announce_addresses: Vec<Multiaddr>,
    /// Never announced: addresses, or masks with `/ipcidr`.
    pub no_announce_addresses: Vec<Multiaddr>,
    /// Act as a relay for others.
    pub relay_hop: bool,
    /// How many connections are kept.
    pub connections: ConnectionLimits,
    /// What the swarm may use.
    pub resources: ResourceLimits,
    /// Gossip.
    pub pubsub: PubsubConfig,
    /// How long a dial may take.
    pub dial_timeout: Duration,
    /// How often expired pins are looked for.
    pub state_sync_interval: Duration,
    /// How often this peer retries what failed.
    pub pin_recover_interval: Duration,
    /// Copies of a pin that asks for nothing special.
    pub replication: ReplicationFactor,
    /// How often this peer says that it lives; the metric is valid twice as long.
    pub ping_interval: Duration,
    /// How often the member list is looked at.
    pub peer_watch_interval: Duration,
    /// How often the local network is searched for peers; nothing switches it off.
    pub mdns_interval: Option<Duration>,
    /// Allocate to trusted peers only.
    pub pin_only_on_trusted_peers: bool,
    /// Allocate to peers only that are not trusted.
    pub pin_only_on_untrusted_peers: bool,
    /// Repair automatically: the share of a peer that is gone goes to others.
    pub repinning: bool,
    /// How long a silent peer keeps its share before others take it over.
    pub repinning_grace_period: Duration,
    /// Read only.
    pub follower_mode: bool,
    /// What a follower holds, if not what is everywhere or names it.
    pub follower_filter: HoldFilter,
    /// Whether other peers may have garbage collected here.
    pub collects_for_others: bool,
    /// Where known addresses are kept.
    pub peerstore_file: PathBuf,
    /// Peers that are always connected to.
    pub peer_addresses: Vec<Multiaddr>,
}

/// Identities that stand elsewhere than in `identity.json`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct IdentitySource {
    /// `CLUSTER_ID` and `CLUSTER_PRIVATEKEY`: come before the file.
    pub environment: Option<(PeerId, Secret)>,
    /// `CLUSTER_ID` or `CLUSTER_PRIVATEKEY` alone: takes the place of that half of the file.
    pub half: Option<IdentityHalf>,
    /// `cluster.id` and `cluster.private_key` of old files: used to write the file when there is none.
    pub legacy: Option<(PeerId, Secret)>,
}

/// One half of an identity.
#[derive(Clone, Debug)]
pub enum IdentityHalf {
    /// Who the peer is.
    Id(PeerId),
    /// Its key.
    Key(Secret),
}

/// `cluster.connection_manager`.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Above this many, connections are closed …
    pub high_water: usize,
    /// … until this many are left.
    pub low_water: usize,
    /// Connections younger than this are kept.
    pub grace_period: Duration,
}

/// `cluster.resource_manager`.
#[derive(Clone, Copy, Debug)]
pub struct ResourceLimits {
    /// Whether there are limits at all.
    pub enabled: bool,
    /// 0: a quarter of the machine's memory.
    pub memory_bytes: u64,
    /// 0: half of what the process may open.
    pub file_descriptors: u64,
}

/// `cluster.pubsub`.
#[derive(Clone, Copy, Debug)]
pub struct PubsubConfig {
    /// How long a message is remembered.
    pub seen_messages_ttl: Duration,
    /// How often the mesh is looked after.
    pub heartbeat_interval: Duration,
    /// The mesh has 6 times this many neighbours.
    pub degree_factor: usize,
    /// Heartbeats whose messages are advertised.
    pub history_gossip: usize,
    /// Heartbeats whose messages are kept.
    pub history_length: usize,
    /// Send own messages to everyone.
    pub flood_publish: bool,
}

/// `consensus`: how peers agree.
#[derive(Clone, Debug)]
pub struct ConsensusConfig {
    /// Clusters of other names are strangers.
    pub cluster_name: String,
    /// What happens without a quorum.
    pub mode: ConsensusMode,
    /// How many members vote.
    pub max_voters: usize,
    /// Entries of the log between two snapshots; so many stay in the log behind the last one.
    pub snapshot_threshold: usize,
    /// How long a voter may be absent before another member gets its seat.
    pub voter_grace: Duration,
    /// Heartbeats and elections.
    pub timings: ConsensusTimings,
    /// How many states that were set aside are kept.
    pub backups: usize,
}

/// Which consensus section the file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsensusMode {
    /// `crdt`: writes without a quorum are accepted as eventual.
    Crdt {
        /// Whose word counts.
        trusted: TrustedPeers,
        /// How long a quorum has to answer.
        commit_timeout: Duration,
    },
    /// `raft`: writes without a quorum are refused.
    Raft {
        /// Peers that this one belongs to: it founds no cluster of its own.
        initial_peers: Vec<PeerId>,
        /// How long a write waits for a leader.
        leader_timeout: Duration,
    },
}

/// `consensus.crdt.trusted_peers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedPeers {
    /// Everyone who knows the secret.
    Everyone,
    /// These, and this peer itself.
    Only(Vec<PeerId>),
}

/// Heartbeats and elections; `heartbeat < election_min <= election_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsensusTimings {
    /// The leader speaks at least this often.
    pub heartbeat_interval: Duration,
    /// Silence of the leader that leads to an election: at least this long …
    pub election_timeout_min: Duration,
    /// … and at most this long, chosen at random.
    pub election_timeout_max: Duration,
}

/// `api.restapi` and `api.pinsvcapi`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpApiConfig {
    /// Where to listen; at least one address.
    pub listen_addresses: Vec<Multiaddr>,
    /// The host of its own on which it is served over libp2p.
    pub libp2p: Option<HttpHostConfig>,
    /// Certificate and key files; both or none.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Time limits.
    pub timeouts: HttpTimeouts,
    /// The most bytes the headers of a request may have; at least 4096.
    pub max_header_bytes: usize,
    /// Who may ask; everyone when there is nobody.
    pub basic_auth: Option<BasicAuth>,
    /// What they may do, and the rules for their tokens.
    pub access: AccessConfig,
    /// Where requests are logged; with everything else when there is none.
    pub log_file: Option<PathBuf>,
    /// Added to every answer.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Names by which this peer may be called, besides `localhost`.
    pub allowed_hosts: Vec<String>,
    /// How much at once.
    pub limits: HttpLimits,
    /// Cross-origin rules.
    pub cors: CorsConfig,
}

/// A libp2p host that serves HTTP and nothing else.
#[derive(Clone, Debug)]
pub struct HttpHostConfig {
    /// Where it listens; at least one address.
    pub listen_addresses: Vec<Multiaddr>,
    /// Who it is.
    pub peer: PeerId,
    /// The key of that peer, as in `identity.json`.
    pub private_key: Secret,
}

/// How much an HTTP API does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections.
    pub connections: usize,
    /// Connections from one address; 0: as many as there are.
    pub connections_per_ip: usize,
    /// Requests that change state.
    pub writes: usize,
    /// The most bytes of an upload; nothing means no limit.
    pub upload_bytes: Option<u64>,
}

/// Users and their passwords; at least one.
pub type BasicAuth = BTreeMap<String, Secret>;

/// Time limits of an HTTP server; nothing means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpTimeouts {
    /// For a whole request.
    pub read: Option<Duration>,
    /// For its headers.
    pub read_header: Option<Duration>,
    /// For the answer.
    pub write: Option<Duration>,
    /// Between two requests on a connection.
    pub idle: Option<Duration>,
}

/// Cross-origin rules; empty lists mean the server's own rules.
#[derive(Clone, Debug)]
pub struct CorsConfig {
    /// Which pages may ask.
    pub allowed_origins: Vec<String>,
    /// With which methods.
    pub allowed_methods: Vec<String>,
    /// With which headers.
    pub allowed_headers: Vec<String>,
    /// Which headers of the answer they see.
    pub exposed_headers: Vec<String>,
    /// Whether credentials may come along.
    pub allow_credentials: bool,
    /// How long a browser remembers this.
    pub max_age: Duration,
}

/// `api.ipfsproxy`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProxyConfig {
    /// Where to listen; at least one address.
    pub listen_addresses: Vec<Multiaddr>,
    /// The node behind the proxy.
    pub node_address: Multiaddr,
    /// Whether the node is spoken to over TLS.
    pub node_https: bool,
    /// Where requests are logged.
    pub log_file: Option<PathBuf>,
    /// Time limits.
    pub timeouts: HttpTimeouts,
    /// The most bytes the headers of a request may have; at least 4096.
    pub max_header_bytes: usize,
    /// Headers of the node that are passed on besides the usual ones.
    pub extract_headers_extra: Vec<String>,
    /// Where they are asked for.
    pub extract_headers_path: String,
    /// How long they are remembered.
    pub extract_headers_ttl: Duration,
}

/// `ipfs_connector`: the node this peer looks after.
#[derive(Clone, Debug)]
pub enum IpfsConfig {
    /// `ipfshttp`: a Kubo beside the peer.
    Kubo(KuboConfig),
    /// `embedded`: a node inside the peer.
    Embedded(EmbeddedNodeConfig),
}

/// `ipfs_connector.ipfshttp`.
#[derive(Clone, Debug)]
pub struct KuboConfig {
    /// The RPC of the node.
    pub node_address: Multiaddr,
    /// How long after the start the nodes of the cluster are connected; nothing switches it off.
    pub connect_swarms_delay: Option<Duration>,
    /// For calls without a limit of their own.
    pub request_timeout: Duration,
    /// How long pinning may go on without progress.
    pub pin_timeout: Duration,
    /// For unpinning.
    pub unpin_timeout: Duration,
    /// For a garbage collection.
    pub repo_gc_timeout: Duration,
    /// After this many pins free space is looked at anew; 0 switches it off.
    pub informer_trigger_interval: u64,
    /// Never unpin anything.
    pub unpin_disabled: bool,
}

/// `ipfs_connector.embedded`.
#[derive(Clone, Debug)]
pub struct EmbeddedNodeConfig {
    /// Where other IPFS nodes reach this one; at least one TCP address.
    pub listen_addresses: Vec<Multiaddr>,
    /// How much the node may keep.
    pub storage_max: ByteSize,
    /// Percents of it above which an add through the node's RPC collects garbage first; none: there is no limit.
    pub storage_gc_watermark: Option<u8>,
    /// Where Kubo's RPC is served besides the socket in the peer's folder: TCP addresses.
    pub rpc_listen_addresses: Vec<Multiaddr>,
    /// How long pinning may go on without progress.
    pub pin_timeout: Duration,
}

/// `pin_tracker.stateless`.
#[derive(Clone, Copy, Debug)]
pub struct TrackerConfig {
    /// The most pins that wait; more are refused.
    pub max_queue_size: usize,
    /// How many pins are under way at once.
    pub concurrent_pins: usize,
    /// Pins younger than this come first.
    pub priority_max_age: Duration,
    /// After this many tries they no longer do.
    pub priority_max_retries: u32,
}

/// `monitor.pubsubmon`.
#[derive(Clone, Copy, Debug)]
pub struct MonitorConfig {
    /// How often metrics are checked for expiry.
    pub check_interval: Duration,
}

/// `allocator.balanced`.
#[derive(Clone, Debug)]
pub struct AllocatorConfig {
    /// Names of metrics, the first divides first.
    pub allocate_by: Vec<String>,
}

/// `informer`: what this peer tells about itself.
#[derive(Clone, Debug)]
pub struct InformersConfig {
    /// `disk`.
    pub disk: Option<DiskInformerConfig>,
    /// `tags`.
    pub tags: Option<TagsInformerConfig>,
    /// `pinqueue`.
    pub queue: Option<QueueInformerConfig>,
}

/// `informer.disk`.
#[derive(Clone, Copy, Debug)]
pub struct DiskInformerConfig {
    /// How long the metric is valid.
    pub ttl: Duration,
    /// What is told.
    pub metric: DiskMetric,
}

/// What the disk informer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskMetric {
    /// Room that is left.
    FreeSpace,
    /// Room that is taken.
    RepoSize,
}

/// `informer.tags`.
#[derive(Clone, Debug)]
pub struct TagsInformerConfig {
    /// How long the metrics are valid.
    pub ttl: Duration,
    /// One metric `tag:<name>` each.
    pub tags: BTreeMap<String, String>,
}

/// `informer.pinqueue`.
#[derive(Clone, Copy, Debug)]
pub struct QueueInformerConfig {
    /// How long the metric is valid.
    pub ttl: Duration,
    /// Queue lengths within one bucket weigh the same; 0 and 1 compare them as they are.
    pub weight_bucket_size: u64,
}

/// `observations`.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// Serve `/metrics`.
    pub enabled: bool,
    /// Where.
    pub prometheus_address: Multiaddr,
    /// How often numbers are gathered: without effect, they are read when somebody asks.
    pub reporting_interval: Duration,
    /// Send traces: accepted, not sent yet.
    pub tracing_enabled: bool,
    /// Share of requests that is traced.
    pub tracing_sampling: f64,
    /// What traces are filed under.
    pub tracing_service: String,
}

/// The host's name, or a word in its place.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "peer".to_owned())
}
