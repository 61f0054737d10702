//! A raft id kept in memory.

use async_trait::async_trait;
use cluster_types::BoxError;
use parking_lot::Mutex;

use crate::ports::NodeIdRecord;

/// The double of the raft id's record.
#[derive(Debug, Default)]
pub struct MemRecord(Mutex<Option<u64>>);

#[async_trait]
impl NodeIdRecord for MemRecord {
    async fn load(&self) -> Result<Option<u64>, BoxError> {
        Ok(*self.0.lock())
    }

    async fn save(&self, node_id: u64) -> Result<(), BoxError> {
        *self.0.lock() = Some(node_id);
        Ok(())
    }
}
