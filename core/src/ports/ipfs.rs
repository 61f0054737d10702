//! The IPFS node a peer looks after.
//!
//! Contract:
//! * `pin` returns when the whole DAG (to the wanted depth) is on the node and protected from its garbage collection;
//!   pinning what is pinned is success; it ends with [`IpfsError::Stalled`] when nothing arrives for the node's stall
//!   time, and never because of the total time; dropping the future stops the fetch;
//! * `unpin` of what is not pinned is success;
//! * `pins` ends with an error unless the node said that its list is complete: a listing without its end mark says
//!   nothing about what is missing;
//! * `put_blocks` checks every block against its CID and keeps all of them or reports an error;
//! * every call has a deadline of its own, inside the adapter.

use crate::watch;
use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{BoxError, Cid, ErrorClass, GcKey, IpfsId, Multiaddr, PinDepth, RepoStat};
use futures::stream::BoxStream;

use super::blockstore::Block;

/// How far a fetch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinProgress {
    /// Blocks looked at so far.
    pub blocks: u64,
    /// Bytes fetched so far; 0 where the node does not tell.
    pub bytes: u64,
}

/// Where a fetch tells how far it is.
pub type ProgressSink = watch::Sender<PinProgress>;

/// What to pin, and what may help to fetch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRequest {
    /// The root.
    pub cid: Cid,
    /// How deep.
    pub depth: PinDepth,
    /// Where the content may be found.
    pub origins: Vec<Multiaddr>,
    /// A pin whose blocks are mostly the same.
    pub update_from: Option<Cid>,
}

/// A call on the IPFS node failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IpfsError {
    /// No answer from the node.
    #[error("cannot reach the IPFS node at {endpoint}")]
    Unreachable {
        /// Where it should be.
        endpoint: String,
        /// Why there is no answer.
        #[source]
        cause: BoxError,
    },
    /// The node answered, and said no. The text is what the node said.
    #[error("{reason}")]
    Refused {
        /// What the node said, with the operation it refused.
        reason: String,
    },
    /// Nothing arrived for too long.
    #[error("no block arrived for {seconds} s; {blocks} blocks are there. Is a peer that has the content connected?")]
    Stalled {
        /// How long nothing arrived.
        seconds: u64,
        /// How many blocks had arrived.
        blocks: u64,
    },
    /// The answer makes no sense, or ended too early.
    #[error("the IPFS node gave an incomplete or malformed answer to {operation}: {reason}")]
    BadAnswer {
        /// What was asked.
        operation: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A block does not match its CID, or is too large.
    #[error("block {cid} is refused: {reason}")]
    BadBlock {
        /// The block's name.
        cid: Cid,
        /// What is wrong with it.
        reason: String,
    },
    /// Unpinning is switched off by configuration.
    #[error("ipfs unpinning is disallowed by configuration on this peer")]
    UnpinDisabled,
}

impl IpfsError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unreachable { .. } | Self::Stalled { .. } | Self::BadAnswer { .. } => ErrorClass::Unavailable,
            Self::Refused { .. } | Self::BadBlock { .. } | Self::UnpinDisabled => ErrorClass::Invalid,
        }
    }
}

/// An IPFS node.
#[async_trait]
pub trait IpfsNode: Send + Sync + 'static {
    /// Who the node is and where it listens.
    async fn id(&self) -> Result<IpfsId, IpfsError>;
    /// Fetches and keeps a DAG.
    async fn pin(&self, request: PinRequest, progress: ProgressSink) -> Result<(), IpfsError>;
    /// Keeps a DAG no longer.
    async fn unpin(&self, cid: Cid) -> Result<(), IpfsError>;
    /// How a DAG is kept; `None` when it is not, or only as a part of another.
    async fn pinned(&self, cid: Cid) -> Result<Option<PinDepth>, IpfsError>;
    /// Everything the node keeps by itself.
    fn pins(&self) -> BoxStream<'static, Result<(Cid, PinDepth), IpfsError>>;
    /// Keeps blocks, unprotected from garbage collection until something that holds them is pinned.
    async fn put_blocks(&self, blocks: Vec<Block>) -> Result<(), IpfsError>;
    /// A block, fetched if need be.
    async fn block(&self, cid: Cid) -> Result<Bytes, IpfsError>;
    /// Imports a CAR archive's blocks, unpinned, and returns its roots.
    async fn import_car(&self, car: BoxStream<'static, Result<Bytes, std::io::Error>>) -> Result<Vec<Cid>, IpfsError>;
    /// The root CID behind `/ipfs/…`, `/ipns/…` or `/ipld/…`.
    async fn resolve(&self, path: &str) -> Result<Cid, IpfsError>;
    /// How full it is.
    async fn repo_stat(&self) -> Result<RepoStat, IpfsError>;
    /// Removes what nothing protects.
    async fn collect_garbage(&self) -> Result<Vec<GcKey>, IpfsError>;
    /// Connects to another node; an address ends with `/p2p/<id>`.
    async fn connect(&self, addresses: Vec<Multiaddr>) -> Result<(), IpfsError>;
    /// The nodes it is connected to.
    async fn connected(&self) -> Result<Vec<String>, IpfsError>;
}
