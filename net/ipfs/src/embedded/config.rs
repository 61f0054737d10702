//! How the embedded node is set up, and why it may not start.

use std::path::PathBuf;
use std::time::Duration;

use cluster_types::{BoxError, ErrorClass, Multiaddr};

/// How an [`super::EmbeddedNode`] is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedConfig {
    /// Where its key is kept; made when there is none.
    pub key_file: PathBuf,
    /// Where it listens: TCP addresses; port 0 takes a free one.
    pub listen: Vec<Multiaddr>,
    /// Nodes to connect to and to stay connected to; every address ends with `/p2p/<id>`.
    pub peers: Vec<Multiaddr>,
    /// Bytes it may use, as [`cluster_types::RepoStat`] tells. Allocation looks at it; adds to this node are refused above
    /// it if there is a watermark.
    pub storage_max: u64,
    /// Percents of `storage_max` above which an add to this node collects garbage first; none: never.
    pub storage_gc_watermark: Option<u8>,
    /// A fetch ends when no block arrives for so long.
    pub stall_timeout: Duration,
    /// Another peer is asked when one sends nothing for so long.
    pub request_timeout: Duration,
    /// Blocks a single fetch asks for at a time.
    pub fetch_concurrency: usize,
    /// Connections in all, without those to `peers`.
    pub max_connections: u32,
    /// Blocks that were put and are not pinned yet are safe from garbage collection until none was put for so long.
    pub import_grace: Duration,
    /// What it calls itself towards other nodes.
    pub agent: String,
}

impl EmbeddedConfig {
    /// The defaults, with the key at `key_file`: listens on Kubo's port 4001, 10 GB, two minutes until a fetch stalls.
    pub fn new(key_file: PathBuf) -> Self {
        let listen = ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001"];
        Self {
            key_file,
            listen: listen.iter().map(|text| text.parse().expect("a constant address parses")).collect(),
            peers: Vec::new(),
            storage_max: 10_000_000_000,
            storage_gc_watermark: None,
            stall_timeout: Duration::from_secs(120),
            request_timeout: Duration::from_secs(5),
            fetch_concurrency: 32,
            max_connections: 256,
            import_grace: Duration::from_secs(15 * 60),
            agent: format!("ipfs-cluster/{}", cluster_types::VERSION),
        }
    }
}

/// The embedded node cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The key cannot be read or made.
    #[error(
        "cannot use the IPFS node's key in {}: restore it from a backup, or move it away to give the node a new id",
        path.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: BoxError,
    },
    /// It cannot listen.
    #[error("the IPFS node cannot listen on {address}: is another program (or another peer) using the port?")]
    Listen {
        /// Where.
        address: Multiaddr,
        /// Why.
        #[source]
        cause: BoxError,
    },
    /// The swarm cannot be set up.
    #[error("cannot set up the IPFS node's swarm")]
    Swarm {
        /// Why.
        #[source]
        cause: BoxError,
    },
    /// A configured value makes no sense.
    #[error("the embedded IPFS node's {setting} is {value}: {reason}")]
    Config {
        /// Which.
        setting: &'static str,
        /// What it is.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl StartError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Config { .. } | Self::Listen { .. } => ErrorClass::Invalid,
            Self::Key { .. } | Self::Swarm { .. } => ErrorClass::Fatal,
        }
    }
}
