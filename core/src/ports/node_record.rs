//! The raft id of this peer, beside the log it belongs to.
//!
//! Contract: what was saved is loaded after any crash; a save is whole or not there at all.

use async_trait::async_trait;
use cluster_types::BoxError;

/// Keeps this peer's raft id.
#[async_trait]
pub trait NodeIdRecord: Send + Sync + 'static {
    /// The id, if this peer has one.
    async fn load(&self) -> Result<Option<u64>, BoxError>;
    /// Keeps the id; durable when it returns.
    async fn save(&self, node_id: u64) -> Result<(), BoxError>;
}
