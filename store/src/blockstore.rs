//! Blocks and roots on a RocksDB instance of their own.
//!
//! Why its own: a flush of the raft log must not carry megabytes of blocks, and a frozen state must not keep deleted
//! blocks on the disk. Blocks from 4 KiB on are in blob files, which are written once and not moved by compactions.
//! Space of deleted blocks comes back when compactions meet their removals.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_core::ports::{Block, BlockError, Blockstore, Root, StateError};
use cluster_types::Cid;
use rocksdb::WriteBatch;

use crate::blocking::{Door, Kind};
use crate::engine::{Engine, StoreOptions};
use crate::error::{StoreError, as_block_error};
use crate::keys::{self, Family};
use crate::telemetry::StoreTelemetry;
use crate::{codec, db};

/// The folder of the blocks' database.
pub(crate) const BLOCK_FOLDER: &str = "blocks";
/// Bytes of blocks written in one batch, if one block is not longer.
const BATCH_BYTES: usize = 4 << 20;
/// Removals written in one batch.
const BATCH_REMOVALS: usize = 4096;
/// Memory of the blocks' database: blocks are mostly read once.
const OPTIONS: StoreOptions = StoreOptions { memory: 64 << 20, write_buffers: 48 << 20 };

/// The blocks and roots of an embedded IPFS node.
#[derive(Debug)]
pub struct BlockStore {
    door: Door<Database>,
}

#[derive(Debug)]
struct Database {
    engine: Engine,
    /// Held until the database is closed.
    _lock: std::fs::File,
}

impl BlockStore {
    /// Opens or makes the block store in the data folder `folder`. Blocks.
    pub fn open(folder: &Path) -> Result<Arc<Self>, StoreError> {
        let lock = db::lock(folder, BLOCK_FOLDER)?;
        let place = folder.join(BLOCK_FOLDER);
        let engine = Engine::open(&place, &Family::BLOCKS, &OPTIONS, Arc::new(StoreTelemetry::default()))?;
        Ok(Arc::new(Self { door: Door::new(Database { engine, _lock: lock }) }))
    }

    /// Flushes and closes; the folder is free when it returns.
    pub async fn close(&self) -> Result<(), BlockError> {
        let closed = self.door.close(|database| {
            database.engine.flush()?;
            database.engine.stop_background_work();
            Ok(())
        });
        closed.await.map_err(as_block_error)
    }

    async fn run<R, F>(&self, job: F) -> Result<R, BlockError>
    where
        R: Send + 'static,
        F: FnOnce(&Engine) -> Result<R, StateError> + Send + 'static,
    {
        let end = self.door.run(Kind::Ordinary, move |database: &Database| job(&database.engine)).await;
        end.map_err(as_block_error)
    }
}

#[async_trait]
impl Blockstore for BlockStore {
    async fn get(&self, multihash: &[u8]) -> Result<Option<Bytes>, BlockError> {
        let key = multihash.to_vec();
        self.run(move |engine| Ok(engine.get(Family::Blocks, &key)?.map(Bytes::from))).await
    }

    async fn size(&self, multihash: &[u8]) -> Result<Option<u64>, BlockError> {
        let key = multihash.to_vec();
        self.run(move |engine| {
            let size = engine.get(Family::BlockSizes, &key)?;
            size.map(|bytes| codec::decode_number("size of a block", &bytes)).transpose()
        })
        .await
    }

    async fn put(&self, blocks: Vec<Block>) -> Result<(), BlockError> {
        self.run(move |engine| {
            let mut batch = WriteBatch::default();
            for block in blocks {
                let key = block.cid.hash_bytes();
                if engine.get(Family::BlockSizes, &key)?.is_some() {
                    continue;
                }
                let size = u64::try_from(block.data.len()).unwrap_or(u64::MAX);
                engine.put(&mut batch, Family::BlockSizes, &key, codec::encode_number(size));
                engine.put(&mut batch, Family::Blocks, key, &block.data);
                if batch.size_in_bytes() >= BATCH_BYTES {
                    engine.write(std::mem::take(&mut batch))?;
                }
            }
            engine.write(batch)
        })
        .await
    }

    async fn delete(&self, multihashes: Vec<Vec<u8>>) -> Result<(), BlockError> {
        self.run(move |engine| {
            for some in multihashes.chunks(BATCH_REMOVALS) {
                let mut batch = WriteBatch::default();
                for key in some {
                    engine.delete(&mut batch, Family::Blocks, key);
                    engine.delete(&mut batch, Family::BlockSizes, key);
                }
                engine.write(batch)?;
            }
            Ok(())
        })
        .await
    }

    async fn list(&self, after: Option<Vec<u8>>, limit: usize) -> Result<Vec<Vec<u8>>, BlockError> {
        self.run(move |engine| {
            let from = after.map(keys::successor).unwrap_or_default();
            let moment = engine.moment();
            let mut rows = moment.rows(Family::BlockSizes, &from, None);
            let mut found = Vec::new();
            while found.len() < limit {
                let Some((key, _size)) = rows.next()? else { break };
                found.push(key);
            }
            Ok(found)
        })
        .await
    }

    async fn used(&self) -> Result<u64, BlockError> {
        self.run(|engine| {
            let names =
                ["rocksdb.live-sst-files-size", "rocksdb.total-blob-file-size", "rocksdb.cur-size-all-mem-tables"];
            names.iter().try_fold(0_u64, |sum, name| Ok(sum.saturating_add(engine.property(Family::Blocks, name)?)))
        })
        .await
    }

    async fn flush(&self) -> Result<(), BlockError> {
        self.run(Engine::flush).await
    }

    async fn put_root(&self, root: Root) -> Result<(), BlockError> {
        self.run(move |engine| {
            let mut batch = WriteBatch::default();
            engine.put(&mut batch, Family::Roots, root.cid.to_bytes(), codec::encode_root(&root));
            engine.write_durably(batch)
        })
        .await
    }

    async fn delete_root(&self, cid: &Cid) -> Result<bool, BlockError> {
        let key = cid.to_bytes();
        self.run(move |engine| {
            let known = engine.get(Family::Roots, &key)?.is_some();
            if known {
                let mut batch = WriteBatch::default();
                engine.delete(&mut batch, Family::Roots, &key);
                engine.write_durably(batch)?;
            }
            Ok(known)
        })
        .await
    }

    async fn root(&self, cid: &Cid) -> Result<Option<Root>, BlockError> {
        let cid = *cid;
        self.run(move |engine| {
            let value = engine.get(Family::Roots, &cid.to_bytes())?;
            value.map(|bytes| codec::decode_root(cid, &bytes)).transpose()
        })
        .await
    }

    async fn roots(&self, after: Option<Cid>, limit: usize) -> Result<Vec<Root>, BlockError> {
        self.run(move |engine| {
            let from = after.map(|cid| keys::successor(cid.to_bytes())).unwrap_or_default();
            let moment = engine.moment();
            let mut rows = moment.rows(Family::Roots, &from, None);
            let mut found = Vec::new();
            while found.len() < limit {
                let Some((key, value)) = rows.next()? else { break };
                let cid = Cid::from_bytes(&key).map_err(|error| codec::damaged("root", error))?;
                found.push(codec::decode_root(cid, &value)?);
            }
            Ok(found)
        })
        .await
    }
}
