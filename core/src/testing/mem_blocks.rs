//! Blocks in memory, as a disk would keep them: blocks survive a power cut after a flush, roots at once.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{Cid, PinDepth};
use parking_lot::Mutex;

use crate::ports::{Block, BlockError, Blockstore, Root};

/// The double of the block store; a clone shares the same "disk".
#[derive(Clone, Debug, Default)]
pub struct MemBlocks {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    written: BTreeMap<Vec<u8>, Bytes>,
    durable: BTreeMap<Vec<u8>, Bytes>,
    roots: BTreeMap<Vec<u8>, (Cid, PinDepth)>,
}

impl MemBlocks {
    /// No blocks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses what was put or deleted since the last flush.
    pub fn power_cut(&self) {
        let mut inner = self.inner.lock();
        inner.written = inner.durable.clone();
    }
}

/// At most `limit` entries after a key, deleted or not.
fn page<V>(map: &BTreeMap<Vec<u8>, V>, after: Option<Vec<u8>>, limit: usize) -> impl Iterator<Item = (&Vec<u8>, &V)> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    map.range::<Vec<u8>, _>((from, Bound::Unbounded)).take(limit)
}

#[async_trait]
impl Blockstore for MemBlocks {
    async fn get(&self, multihash: &[u8]) -> Result<Option<Bytes>, BlockError> {
        Ok(self.inner.lock().written.get(multihash).cloned())
    }

    async fn size(&self, multihash: &[u8]) -> Result<Option<u64>, BlockError> {
        let inner = self.inner.lock();
        Ok(inner.written.get(multihash).map(|data| data.len().try_into().unwrap_or(u64::MAX)))
    }

    async fn put(&self, blocks: Vec<Block>) -> Result<(), BlockError> {
        let mut inner = self.inner.lock();
        for block in blocks {
            inner.written.entry(block.cid.hash_bytes()).or_insert(block.data);
        }
        Ok(())
    }

    async fn delete(&self, multihashes: Vec<Vec<u8>>) -> Result<(), BlockError> {
        let mut inner = self.inner.lock();
        for multihash in multihashes {
            inner.written.remove(&multihash);
        }
        Ok(())
    }

    async fn list(&self, after: Option<Vec<u8>>, limit: usize) -> Result<Vec<Vec<u8>>, BlockError> {
        Ok(page(&self.inner.lock().written, after, limit).map(|(key, _data)| key.clone()).collect())
    }

    async fn used(&self) -> Result<u64, BlockError> {
        let bytes: usize = self.inner.lock().written.values().map(Bytes::len).sum();
        Ok(bytes.try_into().unwrap_or(u64::MAX))
    }

    async fn flush(&self) -> Result<(), BlockError> {
        let mut inner = self.inner.lock();
        inner.durable = inner.written.clone();
        Ok(())
    }

    async fn put_root(&self, root: Root) -> Result<(), BlockError> {
        self.inner.lock().roots.insert(root.cid.to_bytes(), (root.cid, root.depth));
        Ok(())
    }

    async fn delete_root(&self, cid: &Cid) -> Result<bool, BlockError> {
        Ok(self.inner.lock().roots.remove(&cid.to_bytes()).is_some())
    }

    async fn root(&self, cid: &Cid) -> Result<Option<Root>, BlockError> {
        Ok(self.inner.lock().roots.get(&cid.to_bytes()).map(|(cid, depth)| Root { cid: *cid, depth: *depth }))
    }

    async fn roots(&self, after: Option<Cid>, limit: usize) -> Result<Vec<Root>, BlockError> {
        let inner = self.inner.lock();
        let roots = page(&inner.roots, after.map(|cid| cid.to_bytes()), limit);
        Ok(roots.map(|(_key, (cid, depth))| Root { cid: *cid, depth: *depth }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::suite;

    #[tokio::test]
    async fn the_double_keeps_the_contract_of_the_block_store() {
        suite::blockstore::run(|| async { (Arc::new(MemBlocks::new()), ()) }).await;
    }
}
