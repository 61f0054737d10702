//! What the network has to be told.

use std::path::PathBuf;
use std::time::Duration;

use cluster_types::Multiaddr;

use crate::identity::Identity;
use crate::secret::ClusterSecret;

/// How many connections a peer has at most, unless told otherwise: a few hundred members and many followers.
const DEFAULT_MAX_CONNECTIONS: u32 = 2_000;
/// How long connecting may take, unless told otherwise.
const DEFAULT_DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// Everything [`Network::start`](crate::Network::start) needs.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Who this peer is.
    pub identity: Identity,
    /// The key of the private network; without one anybody can connect.
    pub secret: Option<ClusterSecret>,
    /// Where to listen. Addresses that are not TCP are skipped with a warning.
    pub listen: Vec<Multiaddr>,
    /// When not empty: announce exactly these.
    pub announce: Vec<Multiaddr>,
    /// Never announce these: exact addresses, or masks as in `/ip4/10.0.0.0/ipcidr/8`.
    pub no_announce: Vec<Multiaddr>,
    /// Separates the gossip of clusters that share a secret.
    pub cluster_name: String,
    /// How often to ask the local network for peers; zero turns this off.
    pub mdns_interval: Duration,
    /// Where addresses of peers are kept over restarts.
    pub peerstore: Option<PathBuf>,
    /// How long connecting to a peer may take, handshakes included.
    pub dial_timeout: Duration,
    /// How many connections there may be at once: further ones are refused, but those of remembered peers.
    pub max_connections: u32,
    /// When connections are closed to have fewer.
    pub trim: TrimRule,
    /// How gossip spreads.
    pub gossip: GossipSettings,
}

/// When there are too many peers, those that nobody remembered are disconnected, the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimRule {
    /// More connected peers than this are too many …
    pub high_water: usize,
    /// … and so many are left.
    pub low_water: usize,
    /// Who came less than this ago is spared.
    pub grace_period: Duration,
}

impl Default for TrimRule {
    /// As the original, for as many followers as one peer serves.
    fn default() -> Self {
        Self { high_water: 1_600, low_water: 1_200, grace_period: Duration::from_secs(120) }
    }
}

/// How gossip spreads; the meaning of each is that of gossipsub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GossipSettings {
    /// How long a message is remembered, so that it is not delivered twice.
    pub seen_messages_ttl: Duration,
    /// How often the mesh is looked after.
    pub heartbeat_interval: Duration,
    /// The mesh has between 5 and 12 times so many peers, best 6 times.
    pub degree_factor: usize,
    /// Of so many heartbeats others are told what they may have missed.
    pub history_gossip: usize,
    /// Messages of so many heartbeats are kept for those who ask; at least `history_gossip`.
    pub history_length: usize,
    /// Whether own messages go to all peers, and not to the mesh only.
    pub flood_publish: bool,
}

impl Default for GossipSettings {
    fn default() -> Self {
        Self {
            seen_messages_ttl: Duration::from_secs(120),
            heartbeat_interval: Duration::from_secs(1),
            degree_factor: 1,
            history_gossip: 3,
            history_length: 5,
            flood_publish: true,
        }
    }
}

impl NetworkConfig {
    /// A private network on `listen`, with nothing found, announced or kept by itself.
    pub fn new(identity: Identity, secret: Option<ClusterSecret>, listen: Vec<Multiaddr>) -> Self {
        Self {
            identity,
            secret,
            listen,
            announce: Vec::new(),
            no_announce: Vec::new(),
            cluster_name: "ipfs-cluster".to_owned(),
            mdns_interval: Duration::ZERO,
            peerstore: None,
            dial_timeout: DEFAULT_DIAL_TIMEOUT,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            trim: TrimRule::default(),
            gossip: GossipSettings::default(),
        }
    }
}
