//! `dag`: IPLD values, whole DAGs and archives of them.

use std::collections::HashSet;

use bytes::Bytes;
use cluster_core::ports::Block;
use cluster_core::unixfs::car::CarReader;
use cluster_core::unixfs::{CidBuilder, MAX_BLOCK, export, identity_data};
use cluster_types::{Cid, Codec, PinDepth};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::Rpc;
use super::block::is_walkable;
use super::call::{Call, Parts, next_file, part, upload_failed};
use super::codec;
use super::path::Blocks;
use super::reply::{self, Answer, Failure};
use crate::check_block;

/// The largest value that is read: JSON is longer than the block it becomes.
const MAX_INPUT: usize = 8 * MAX_BLOCK;
/// Blocks that are told apart.
const MAX_SEEN: usize = 1_000_000;
/// Links that wait while a DAG is walked.
const MAX_WAITING: usize = 512 * 1024;
/// Bytes of an archive's blocks that are kept at once.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// The most roots of all archives of a call.
const MAX_ROOTS: usize = 16 * 1024;

fn codec(call: &Call, option: &str, default: &str) -> Result<u64, Failure> {
    let name = call.text(&[option]).unwrap_or(default);
    codec::by_name(name).ok_or_else(|| Failure::new(format!("unknown multicodec: {name:?}")))
}

fn link(cid: &Cid) -> Value {
    json!({ "/": cid.to_string() })
}

impl Rpc {
    /// `dag put`.
    pub(super) async fn dag_put(&self, mut call: Call) -> Answer {
        let mut parts = call.parts("object data")?;
        let (input, store) = (codec(&call, "input-codec", "dag-json")?, codec(&call, "store-codec", "dag-cbor")?);
        let cids = CidBuilder::new(1, &call.hash(&["hash"])?).map_err(|error| Failure::new(error.to_string()))?;
        let pin = call.flag(&["pin"])?.unwrap_or(false);
        if pin && !is_walkable(store) {
            return Err(Failure::new("the embedded IPFS node cannot pin what it cannot walk: leave out pin"));
        }
        let lease = self.node.kept.lease();
        self.admit().await?;
        let rpc = self.clone();
        let trailers = call.trailers;
        let row = async_stream::try_stream! {
            while next_file(&mut parts).await?.is_some() {
                let data = part(&mut parts, MAX_INPUT).await?.ok_or_else(|| Failure::new("the value is too large"))?;
                let node = codec::decode(input, &data).map_err(Failure::new)?;
                let block = codec::encode(store, &node).map_err(Failure::new)?;
                drop(node);
                call.check_size(block.len())?;
                let cid = cids.cid(store, &block);
                rpc.keep(cid, block.into()).await?;
                if pin {
                    rpc.pin_recursively(cid).await?;
                }
                yield json!({ "Cid": link(&cid) });
            }
            drop(lease);
        };
        reply::row(trailers, row.boxed()).await
    }

    /// `dag get`.
    pub(super) async fn dag_get(&self, mut call: Call) -> Answer {
        let output = codec(&call, "output-codec", "dag-json")?;
        let blocks = self.blocks(call.offline()?);
        let resolved = blocks.resolve(&call.argument("ref").await?).await?;
        let node = match resolved.node {
            Some(node) => node,
            None => {
                let block = blocks.get(resolved.cid).await.map_err(|error| Failure::new(error.to_string()))?;
                codec::decode(resolved.cid.codec(), &block).map_err(Failure::new)?
            }
        };
        let bytes = codec::encode(output, &node).map_err(Failure::new)?;
        reply::content(call.trailers, "text/plain", None, futures::stream::iter([Ok(Bytes::from(bytes))])).await
    }

    /// `dag resolve`.
    pub(super) async fn dag_resolve(&self, mut call: Call) -> Answer {
        let resolved = self.blocks(call.offline()?).resolve(&call.argument("ref").await?).await?;
        Ok(reply::one(&json!({ "Cid": link(&resolved.cid), "RemPath": resolved.inside.join("/") })))
    }

    /// `dag export`.
    pub(super) async fn dag_export(&self, mut call: Call) -> Answer {
        let blocks = self.blocks(call.offline()?);
        let root = blocks.resolve_block(&call.argument("root").await?).await?;
        // Fails before the archive begins.
        blocks.get(root).await.map_err(|error| Failure::new(error.to_string()))?;
        let archive = export::export(blocks.fetch(), root, PinDepth::RECURSIVE).map_err(Failure::from);
        reply::content(call.trailers, "application/vnd.ipld.car", None, archive).await
    }

    /// `dag import`: every root is pinned, unless told otherwise.
    pub(super) async fn dag_import(&self, mut call: Call) -> Answer {
        let mut parts = call.parts("path")?;
        let pin = call.flag(&["pin-roots"])?.unwrap_or(true);
        let stats = call.flag(&["stats"])?.unwrap_or(false);
        let lease = self.node.kept.lease();
        self.admit().await?;
        let rpc = self.clone();
        let row = async_stream::try_stream! {
            let mut imported = Imported::default();
            while next_file(&mut parts).await?.is_some() {
                rpc.import_archive(&mut parts, &mut imported).await.map_err(|failure| failure.under("import failed"))?;
            }
            if pin {
                for root in &imported.roots {
                    let failed = rpc.pin_recursively(*root).await.err();
                    let reason = failed.as_ref().map(Failure::message).unwrap_or_default();
                    yield json!({ "Root": { "Cid": link(root), "PinErrorMsg": reason } });
                }
            }
            if stats {
                yield json!({ "Stats": { "BlockCount": imported.blocks, "BlockBytesCount": imported.bytes } });
            }
            drop(lease);
        };
        reply::row(call.trailers, row.boxed()).await
    }

    async fn import_archive(&self, parts: &mut Parts, imported: &mut Imported) -> Result<(), Failure> {
        let mut reader = CarReader::new();
        let refused = |error: cluster_core::unixfs::car::CarError| Failure::new(error.to_string());
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(piece) = parts.next_data().await.map_err(upload_failed)? {
            reader.push(&piece);
            while let Some(block) = reader.next_block().map_err(refused)? {
                check_block(&block.cid, &block.data)?;
                imported.blocks += 1;
                imported.bytes += block.data.len();
                if identity_data(&block.cid).is_some() {
                    continue;
                }
                bytes += block.data.len() + 64;
                batch.push(block);
                if bytes >= BATCH_BYTES {
                    bytes = 0;
                    self.admit().await?;
                    self.keep_all(std::mem::take(&mut batch)).await?;
                }
            }
        }
        reader.finish().map_err(refused)?;
        self.keep_all(batch).await?;
        for root in reader.roots().unwrap_or_default() {
            if !imported.roots.contains(root) {
                imported.roots.push(*root);
            }
            if imported.roots.len() > MAX_ROOTS {
                return Err(Failure::new("the archives have too many roots"));
            }
        }
        Ok(())
    }

    async fn keep_all(&self, blocks: Vec<Block>) -> Result<(), Failure> {
        Ok(self.node.keep_imported(blocks).await?)
    }

    /// `dag stat`: how large DAGs are, and what they share.
    pub(super) async fn dag_stat(&self, mut call: Call) -> Answer {
        let progress = call.flag(&["progress", "p"])?.unwrap_or(true);
        let blocks = self.blocks(call.offline()?);
        let mut roots = Vec::new();
        for path in call.arguments("root").await? {
            let resolved = blocks.resolve(&path).await?;
            if !resolved.inside.is_empty() {
                return Err(Failure::new("cannot return size for anything other than a DAG with a root CID"));
            }
            roots.push(resolved.cid);
        }
        let row = async_stream::try_stream! {
            let mut summary = Summary::default();
            for root in roots {
                let mut walk = std::pin::pin!(sizes(&blocks, root));
                summary.dags.push((root, 0, 0));
                while let Some((cid, size)) = walk.try_next().await? {
                    summary.count(cid, size)?;
                    if progress {
                        yield summary.shown(false);
                    }
                }
            }
            yield summary.shown(true);
        };
        reply::row(call.trailers, row.boxed()).await
    }
}

#[derive(Default)]
struct Imported {
    roots: Vec<Cid>,
    blocks: u64,
    bytes: usize,
}

#[derive(Default)]
struct Summary {
    seen: HashSet<Cid>,
    total: u64,
    with_copies: u64,
    /// Root, bytes, blocks.
    dags: Vec<(Cid, u64, u64)>,
}

impl Summary {
    fn count(&mut self, cid: Cid, size: u64) -> Result<(), Failure> {
        if let Some((_, bytes, blocks)) = self.dags.last_mut() {
            *bytes += size;
            *blocks += 1;
        }
        self.with_copies += size;
        if self.seen.insert(cid) {
            self.total += size;
        }
        if self.seen.len() > MAX_SEEN {
            return Err(Failure::new("the DAGs have too many blocks to be counted"));
        }
        Ok(())
    }

    fn shown(&self, last: bool) -> Value {
        let dags: Vec<Value> = self
            .dags
            .iter()
            .map(|(root, bytes, blocks)| json!({ "Cid": root.to_string(), "Size": bytes, "NumBlocks": blocks }))
            .collect();
        let mut shown = json!({ "TotalSize": self.total, "DagStats": dags });
        if last {
            let ratio = if self.total == 0 { 0.0 } else { self.with_copies as f64 / self.total as f64 };
            shown["UniqueBlocks"] = self.seen.len().into();
            shown["Ratio"] = ratio.into();
            if self.with_copies > self.total {
                shown["SharedSize"] = (self.with_copies - self.total).into();
            }
        }
        shown
    }
}

/// The blocks of a DAG, each once, and their sizes.
fn sizes(blocks: &Blocks, root: Cid) -> impl futures::Stream<Item = Result<(Cid, u64), Failure>> + Send + '_ {
    async_stream::try_stream! {
        let mut seen = HashSet::from([root]);
        let mut waiting = vec![root];
        while let Some(cid) = waiting.pop() {
            let block = blocks.get(cid).await.map_err(|error| Failure::new(error.to_string()).under("error traversing DAG"))?;
            let links = if cid.codec() == Codec::RAW { Vec::new() } else { blocks.named_links(cid).await? };
            waiting.extend(links.into_iter().rev().map(|(_, below)| below).filter(|below| seen.insert(*below)));
            if waiting.len() > MAX_WAITING || seen.len() > MAX_SEEN {
                Err(Failure::new("the DAG has too many blocks to be counted"))?;
            }
            yield (cid, block.len() as u64);
        }
    }
}
