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
    /// How many connections there may be at once.
    pub max_connections: u32,
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
        }
    }
}
