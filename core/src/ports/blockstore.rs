//! Blocks by multihash, and the roots that protect them: what the embedded IPFS node stands on.
//!
//! Contract:
//! * a block is keyed by its multihash, so the same bytes under CIDv0 and CIDv1 are one block;
//! * the store trusts its caller that bytes match the hash (checked at the edge, where they come in);
//! * a put that returned is readable at once, and survives a power cut after the next [`Blockstore::flush`];
//! * deleting what is not there is no error;
//! * listings go in key order and resume after any key, deleted or not.

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{BoxError, Cid, ErrorClass, PinDepth};

/// One block: its CID and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What names it.
    pub cid: Cid,
    /// What it holds; its hash has been checked against the CID.
    pub data: Bytes,
}

/// A DAG that must be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its root block.
    pub cid: Cid,
    /// How much of it.
    pub depth: PinDepth,
}

/// The block store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// Reading or writing failed.
    #[error("the block store cannot {operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        cause: BoxError,
    },
    /// What was read is not what was written.
    #[error("the block store holds a damaged record: {what}")]
    Damaged {
        /// Which record.
        what: String,
    },
}

impl BlockError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Io { .. } => ErrorClass::Unavailable,
            Self::Damaged { .. } => ErrorClass::Fatal,
        }
    }
}

/// Keeps blocks and roots.
#[async_trait]
pub trait Blockstore: Send + Sync + 'static {
    /// The bytes of a block.
    async fn get(&self, multihash: &[u8]) -> Result<Option<Bytes>, BlockError>;
    /// The size of a block in bytes.
    async fn size(&self, multihash: &[u8]) -> Result<Option<u64>, BlockError>;
    /// Keeps blocks; those already there stay as they are.
    async fn put(&self, blocks: Vec<Block>) -> Result<(), BlockError>;
    /// Drops blocks.
    async fn delete(&self, multihashes: Vec<Vec<u8>>) -> Result<(), BlockError>;
    /// At most `limit` multihashes after `after`, in order.
    async fn list(&self, after: Option<Vec<u8>>, limit: usize) -> Result<Vec<Vec<u8>>, BlockError>;
    /// Bytes used on disk, roughly.
    async fn used(&self) -> Result<u64, BlockError>;
    /// Makes everything written so far survive a power cut.
    async fn flush(&self) -> Result<(), BlockError>;

    /// Protects a DAG; durable when it returns, and everything put before it is, too.
    async fn put_root(&self, root: Root) -> Result<(), BlockError>;
    /// No longer protects a DAG; says whether it was protected. Durable when it returns.
    async fn delete_root(&self, cid: &Cid) -> Result<bool, BlockError>;
    /// How a DAG is protected.
    async fn root(&self, cid: &Cid) -> Result<Option<Root>, BlockError>;
    /// At most `limit` roots after `after`, in the order of their CIDs' bytes.
    async fn roots(&self, after: Option<Cid>, limit: usize) -> Result<Vec<Root>, BlockError>;
}
