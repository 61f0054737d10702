//! A block store in memory that counts what is put, and can fail as a disk does.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use cluster_core::ports::{Block, BlockError, Blockstore, Root};
use cluster_types::Cid;
use parking_lot::Mutex;

#[derive(Default)]
pub(crate) struct MemBlocks {
    blocks: Mutex<BTreeMap<Vec<u8>, Bytes>>,
    roots: Mutex<BTreeMap<Vec<u8>, Root>>,
    puts: AtomicU64,
    /// Blocks whose records are damaged.
    damaged: Mutex<BTreeSet<Vec<u8>>>,
    /// Blocks that cannot be read for another reason.
    unreadable: Mutex<BTreeSet<Vec<u8>>>,
    full: AtomicBool,
}

impl MemBlocks {
    /// Blocks that were put and new, since the start.
    pub(crate) fn puts(&self) -> u64 {
        self.puts.load(Ordering::SeqCst)
    }

    /// From now on the record of a block is damaged, until it is deleted.
    pub(crate) fn damage(&self, cid: &Cid) {
        self.damaged.lock().insert(cid.hash_bytes());
    }

    /// From now on a block cannot be read.
    pub(crate) fn make_unreadable(&self, cid: &Cid) {
        self.unreadable.lock().insert(cid.hash_bytes());
    }

    /// From now on nothing can be written.
    pub(crate) fn fill_up(&self) {
        self.full.store(true, Ordering::SeqCst);
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.lock().len()
    }

    pub(crate) fn holds(&self, cid: &Cid) -> bool {
        self.blocks.lock().contains_key(&cid.hash_bytes())
    }
}

fn after<T>(key: Option<T>) -> (Bound<T>, Bound<T>) {
    (key.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

#[async_trait]
impl Blockstore for MemBlocks {
    async fn get(&self, multihash: &[u8]) -> Result<Option<Bytes>, BlockError> {
        if self.damaged.lock().contains(multihash) {
            return Err(BlockError::Damaged { what: "a block".to_owned() });
        }
        if self.unreadable.lock().contains(multihash) {
            return Err(BlockError::Io { operation: "read a block", cause: "told to".into() });
        }
        Ok(self.blocks.lock().get(multihash).cloned())
    }

    async fn size(&self, multihash: &[u8]) -> Result<Option<u64>, BlockError> {
        Ok(self.blocks.lock().get(multihash).map(|data| data.len() as u64))
    }

    async fn put(&self, blocks: Vec<Block>) -> Result<(), BlockError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(BlockError::Io { operation: "write blocks", cause: "no space left".into() });
        }
        for block in blocks {
            if self.blocks.lock().insert(block.cid.hash_bytes(), block.data).is_none() {
                self.puts.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    async fn delete(&self, multihashes: Vec<Vec<u8>>) -> Result<(), BlockError> {
        // Others get their turn between the decision to delete and the deletion, as on a disk.
        tokio::task::yield_now().await;
        for multihash in multihashes {
            self.blocks.lock().remove(&multihash);
            self.damaged.lock().remove(&multihash);
        }
        Ok(())
    }

    async fn list(&self, from: Option<Vec<u8>>, limit: usize) -> Result<Vec<Vec<u8>>, BlockError> {
        tokio::task::yield_now().await;
        Ok(self.blocks.lock().range(after(from)).take(limit).map(|(multihash, _)| multihash.clone()).collect())
    }

    async fn used(&self) -> Result<u64, BlockError> {
        Ok(self.blocks.lock().values().map(|data| data.len() as u64).sum())
    }

    async fn flush(&self) -> Result<(), BlockError> {
        Ok(())
    }

    async fn put_root(&self, root: Root) -> Result<(), BlockError> {
        self.roots.lock().insert(root.cid.to_bytes(), root);
        Ok(())
    }

    async fn delete_root(&self, cid: &Cid) -> Result<bool, BlockError> {
        Ok(self.roots.lock().remove(&cid.to_bytes()).is_some())
    }

    async fn root(&self, cid: &Cid) -> Result<Option<Root>, BlockError> {
        Ok(self.roots.lock().get(&cid.to_bytes()).copied())
    }

    async fn roots(&self, from: Option<Cid>, limit: usize) -> Result<Vec<Root>, BlockError> {
        let from = from.map(|cid| cid.to_bytes());
        Ok(self.roots.lock().range(after(from)).take(limit).map(|(_, root)| *root).collect())
    }
}
