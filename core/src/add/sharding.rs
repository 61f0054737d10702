//! Content that no peer keeps whole: blocks are packed into shards in the order they come, each shard has holders of its
//! own, and a *cluster DAG* lists the shards.
//!
//! A shard is a dag-cbor map of its blocks, `"0"` to `"n"`; one with more than [`MAX_LINKS`] is a map of such maps. Blocks
//! are linked as raw bytes: nodes keep blocks by their hash, so the block is the same, and a node that pins a shard does
//! not go on from there to the blocks of others (Kubo knows no depth but all and nothing). Nothing is pinned before
//! everything is in its place; then shards, cluster DAG and the content's root (a *meta pin*) are pinned in this order, and
//! unpinned again if one of them is refused.
//!
//! **Invariant:** memory is that of [`Destinations`], of the names of one shard's blocks ([`MAX_BLOCKS`] at most), and some
//! hundred bytes for each shard.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use cluster_types::{AddedOutput, Cid, Codec, PeerId, Pin, PinDepth, PinType};

use super::destinations::{AddHost, Content, Destinations, Parcel};
use super::sink::BlockSink;
use super::tree::invalid;
use super::whole::Wish;
use crate::cluster::ServiceResult;
use crate::consensus::apply::check_replacement;
use crate::ports::Block;
use crate::unixfs::{CidBuilder, identity_data, links};

/// The size of shards that nobody chose.
const DEFAULT_SHARD_SIZE: u64 = 100 * 1024 * 1024;
/// Links in one block, as in the original.
const MAX_LINKS: usize = 5984;
/// Blocks of one shard: with many small ones it ends before its size is reached.
const MAX_BLOCKS: usize = 16 * MAX_LINKS;

/// Packs blocks into shards.
pub(crate) struct ShardSink {
    host: Arc<dyn AddHost>,
    wish: Wish,
    limits: Limits,
    open: Option<OpenShard>,
    shards: Vec<Shard>,
    /// Batches taken, and how many of them are kept for certain.
    put: u64,
    kept: u64,
}

/// How much fits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A shard has fewer bytes than this.
    pub(super) bytes: u64,
    /// Links of one block.
    pub(super) links: usize,
    /// Blocks of one shard.
    pub(super) blocks: usize,
}

/// A shard that takes blocks.
struct OpenShard {
    destinations: Destinations,
    links: Vec<Cid>,
    seen: HashSet<Vec<u8>>,
    bytes: u64,
    /// What is not sent yet.
    batch: Vec<Block>,
}

/// A shard that is in its place.
struct Shard {
    cid: Cid,
    depth: PinDepth,
    bytes: u64,
    allocations: Vec<PeerId>,
    holders: Vec<PeerId>,
}

impl ShardSink {
    /// A sink that has not taken anything.
    pub(crate) fn new(host: Arc<dyn AddHost>, mut wish: Wish) -> Self {
        if wish.options.shard_size == 0 {
            wish.options.shard_size = DEFAULT_SHARD_SIZE;
        }
        let limits = Limits { bytes: wish.options.shard_size, links: MAX_LINKS, blocks: MAX_BLOCKS };
        Self::with_limits(host, wish, limits)
    }

    pub(super) fn with_limits(host: Arc<dyn AddHost>, wish: Wish, limits: Limits) -> Self {
        Self { host, wish, limits, open: None, shards: Vec::new(), put: 0, kept: 0 }
    }

    #[cfg(test)]
    pub(super) fn shard_size(&self) -> u64 {
        self.limits.bytes
    }

    /// Puts a block where it belongs.
    async fn take(&mut self, block: Block) -> ServiceResult<()> {
        let size = block.data.len() as u64;
        let Limits { bytes, blocks, .. } = self.limits;
        if size >= bytes {
            return Err(invalid("block doesn't fit in empty shard: shard size too small?"));
        }
        let fits = |open: &OpenShard| open.bytes + size < bytes && open.links.len() < blocks;
        if self.open.as_ref().is_some_and(|open| !open.seen.contains(&block.cid.hash_bytes()) && !fits(open)) {
            self.close().await?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            empty => empty.insert(OpenShard {
                destinations: Destinations::choose(Arc::clone(&self.host), self.wish.placement.clone())?,
                links: Vec::new(),
                seen: HashSet::new(),
                bytes: 0,
                batch: Vec::new(),
            }),
        };
        if open.seen.insert(block.cid.hash_bytes()) {
            open.bytes += size;
            open.links.push(as_raw(&block.cid));
            open.batch.push(block);
        }
        Ok(())
    }

    /// Ends the open shard: when this returns, its holders have all of it.
    async fn close(&mut self) -> ServiceResult<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let maps = maps(&open.links, self.limits.links);
        let [root, ..] = maps.as_slice() else { return Ok(()) };
        let (cid, depth) = (root.cid, if maps.len() > 1 { PinDepth(2) } else { PinDepth(1) });
        let mut all: Vec<Cid> = maps.iter().map(|map| map.cid).collect();
        all.append(&mut open.links);
        open.send().await?;
        for map in maps {
            open.destinations.put(vec![map]).await?;
        }
        if self.wish.pins {
            open.destinations.complete(Content::Blocks(&all)).await?;
        } else {
            open.destinations.settle().await?;
        }
        // Content that repeats itself may come to the same shard again: it stays where it is.
        let (allocations, holders) = match self.shards.iter().find(|shard| shard.cid == cid) {
            Some(same) => (same.allocations.clone(), same.holders.clone()),
            None => (open.destinations.allocations().to_vec(), open.destinations.holders().to_vec()),
        };
        self.shards.push(Shard { cid, depth, bytes: open.bytes, allocations, holders });
        Ok(())
    }

    /// Keeps the cluster DAG on this peer; its blocks, the root first.
    async fn keep_cluster_dag(&self) -> ServiceResult<Vec<Cid>> {
        let shards: Vec<Cid> = self.shards.iter().map(|shard| shard.cid).collect();
        let maps = maps(&shards, self.limits.links);
        let cids = maps.iter().map(|map| map.cid).collect();
        for map in maps {
            self.host.put(self.host.here(), &Parcel::from(vec![map])).await?;
        }
        Ok(cids)
    }

    /// The pins of the content, in the order in which they are made.
    fn pins(&self, root: Cid, cluster_dag: &[Cid]) -> Vec<Pin> {
        let name = &self.wish.options.name;
        let mut pins = Vec::new();
        let mut before = None;
        for (number, shard) in self.shards.iter().enumerate() {
            let mut pin = Pin::new(shard.cid, self.wish.options.clone());
            (pin.kind, pin.max_depth, pin.reference) = (PinType::Shard, shard.depth, before);
            pin.options.name = format!("{name}-shard-{number}");
            pin.options.shard_size = shard.bytes;
            pin.allocations.clone_from(&shard.allocations);
            before = Some(shard.cid);
            pins.push(pin);
        }
        // The root comes last: once it is there, so are the others.
        for cid in cluster_dag.iter().rev() {
            let mut pin = Pin::new(*cid, self.wish.options.clone());
            (pin.kind, pin.max_depth, pin.reference) = (PinType::ClusterDag, PinDepth::DIRECT, Some(root));
            (pin.options.replication_factor_min, pin.options.replication_factor_max) = (-1, -1);
            pin.options.name = cluster_dag_name(name);
            pins.push(pin);
        }
        let mut meta = Pin::new(root, self.wish.options.clone());
        (meta.kind, meta.max_depth, meta.reference) = (PinType::Meta, PinDepth::DIRECT, cluster_dag.first().copied());
        pins.push(meta);
        pins
    }

    /// Makes all pins or none; parts of an earlier sharded pin of the same content that are not among these go.
    async fn pin_all(&self, pins: Vec<Pin>) -> ServiceResult<()> {
        let Some(meta) = pins.last() else { return Ok(()) };
        let old = self.host.pinned(meta.cid).await?;
        check_replacement(old.as_ref(), meta)?;
        let old_parts = match old.and_then(|old| old.reference) {
            Some(reference) => parts(self.host.as_ref(), reference).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the shards of the earlier pin stay: its cluster DAG cannot be read");
                Vec::new()
            }),
            None => Vec::new(),
        };
        let cids: HashSet<Cid> = pins.iter().map(|pin| pin.cid).collect();
        let mut made = Vec::new();
        for pin in pins {
            let (cid, is_new) = (pin.cid, self.host.pinned(pin.cid).await?.is_none());
            if let Err(error) = self.host.pin(pin).await {
                self.unpin(made).await;
                return Err(error);
            }
            if is_new {
                made.push(cid);
            }
        }
        self.unpin(old_parts.into_iter().filter(|cid| !cids.contains(cid)).collect()).await;
        Ok(())
    }

    async fn unpin(&self, parts: Vec<Cid>) {
        for cid in parts.into_iter().rev() {
            if let Err(error) = self.host.unpin_part(cid).await {
                tracing::warn!(%cid, %error, "a part of a sharded pin stays in the pinset");
            }
        }
    }
}

impl OpenShard {
    async fn send(&mut self) -> ServiceResult<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.destinations.put(std::mem::take(&mut self.batch)).await
    }
}

#[async_trait]
impl BlockSink for ShardSink {
    async fn put(&mut self, blocks: Vec<Block>) -> ServiceResult<()> {
        for block in blocks {
            // A block that its CID holds need not be kept.
            if identity_data(&block.cid).is_none() {
                self.take(block).await?;
            }
        }
        self.put += 1;
        match &mut self.open {
            Some(open) => open.send().await,
            None => Ok(()),
        }
    }

    fn kept(&self) -> u64 {
        self.kept
    }

    async fn settle(&mut self) -> ServiceResult<()> {
        if let Some(open) = &mut self.open {
            open.destinations.settle().await?;
        }
        self.kept = self.put;
        Ok(())
    }

    /// Who has the shard that is being filled, or was last.
    fn allocations(&self) -> Vec<PeerId> {
        match (&self.open, self.shards.last()) {
            (Some(open), _) => open.destinations.holders().to_vec(),
            (None, Some(shard)) => shard.holders.clone(),
            (None, None) => Vec::new(),
        }
    }

    async fn finish(&mut self, root: Cid) -> ServiceResult<Vec<AddedOutput>> {
        self.close().await?;
        if self.shards.is_empty() {
            return Err(invalid("nothing to put into shards: the content is in its CID"));
        }
        let cluster_dag = self.keep_cluster_dag().await?;
        if self.wish.pins {
            self.pin_all(self.pins(root, &cluster_dag)).await?;
        }
        let mut outputs: Vec<AddedOutput> = Vec::with_capacity(self.shards.len() + 1);
        for (number, shard) in self.shards.iter().enumerate() {
            let (name, allocations) = (format!("shard-{number}"), shard.holders.clone());
            outputs.push(AddedOutput { name, cid: Some(shard.cid), bytes: 0, size: shard.bytes, allocations });
        }
        outputs.push(AddedOutput {
            name: cluster_dag_name(&self.wish.options.name),
            cid: cluster_dag.first().copied(),
            size: self.shards.iter().map(|shard| shard.bytes).sum(),
            ..AddedOutput::default()
        });
        Ok(outputs)
    }
}

fn cluster_dag_name(name: &str) -> String {
    format!("{name}-clusterDAG")
}

/// The parts of a sharded pin in the order in which they were pinned: shards, then the blocks of the cluster DAG. Those that
/// are in the pinset no more are left out.
pub(crate) async fn parts(host: &dyn AddHost, cluster_dag: Cid) -> ServiceResult<Vec<Cid>> {
    let (mut shards, mut lists, mut open) = (Vec::new(), Vec::new(), vec![cluster_dag]);
    while let Some(list) = open.pop() {
        lists.push(list);
        for block in host.get(host.here(), &[list]).await? {
            let listed = links(&list, &block.data).map_err(|error| invalid(error.to_string()))?;
            for cid in listed {
                match host.pinned(cid).await?.map(|pin| pin.kind) {
                    Some(PinType::Shard) => shards.push(cid),
                    // One more level; never from there to another list, so this ends.
                    Some(PinType::ClusterDag) if list == cluster_dag => open.push(cid),
                    Some(PinType::ClusterDag | PinType::Data | PinType::Meta) | None => {}
                }
            }
        }
    }
    lists.reverse();
    shards.append(&mut lists);
    Ok(shards)
}

/// The same block, as bytes without links.
fn as_raw(cid: &Cid) -> Cid {
    Cid::new_v1(Codec::RAW, *cid.hash())
}

/// `"0"` to `"n"` to links, as blocks, the root first.
fn maps(links: &[Cid], max_links: usize) -> Vec<Block> {
    if links.len() <= max_links {
        return vec![map(links)];
    }
    let leaves: Vec<Block> = links.chunks(max_links).map(map).collect();
    let cids: Vec<Cid> = leaves.iter().map(|leaf| leaf.cid).collect();
    [vec![map(&cids)], leaves].concat()
}

/// A canonical dag-cbor map: shorter keys come first, so numbers are in their order.
pub(super) fn map(links: &[Cid]) -> Block {
    let mut data = Vec::new();
    head(&mut data, 5, links.len());
    for (number, link) in links.iter().enumerate() {
        let key = number.to_string();
        head(&mut data, 3, key.len());
        data.extend_from_slice(key.as_bytes());
        let link = link.to_bytes();
        data.extend_from_slice(&[0xd8, 42]);
        head(&mut data, 2, link.len() + 1);
        data.push(0);
        data.extend_from_slice(&link);
    }
    let builder = CidBuilder::new(1, "sha2-256").expect("a hash function that is known");
    Block { cid: builder.cid(Codec::DAG_CBOR, &data), data: data.into() }
}

/// The head of a CBOR item whose number has at most 32 bits.
fn head(out: &mut Vec<u8>, kind: u8, number: usize) {
    let kind = kind << 5;
    match u32::try_from(number).unwrap_or(u32::MAX) {
        small @ 0..24 => out.push(kind | small as u8),
        small @ 24..256 => out.extend_from_slice(&[kind | 24, small as u8]),
        medium @ 256..65_536 => {
            out.push(kind | 25);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        large => {
            out.push(kind | 26);
            out.extend_from_slice(&large.to_be_bytes());
        }
    }
}
