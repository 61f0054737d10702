//! `block`: single blocks.

use bytes::Bytes;
use cluster_core::ports::{Block, IpfsNode};
use cluster_core::unixfs::{CidBuilder, HashFunction, MAX_BLOCK};
use cluster_types::{Cid, Codec};
use futures::StreamExt;
use serde_json::json;

use super::Rpc;
use super::call::{Call, next_file, part};
use super::codec;
use super::reply::{self, Answer, Failure};

/// The largest block that is taken even with `allow-big-block`.
const MAX_BIG_BLOCK: usize = 16 * 1024 * 1024;
const TOO_BIG: &str = "produced block is over 2MiB: big blocks can't be exchanged with other peers. consider using UnixFS \
    for automatic chunking of bigger files, or pass --allow-big-block to override";

impl Call {
    /// Refuses a block that no other node would take, unless it was asked for.
    pub(super) fn check_size(&self, size: usize) -> Result<(), Failure> {
        let big = self.flag(&["allow-big-block"])?.unwrap_or(false);
        if size <= MAX_BLOCK || (big && size <= MAX_BIG_BLOCK) { Ok(()) } else { Err(Failure::new(TOO_BIG)) }
    }

    /// What an option that names a hash function chooses.
    pub(super) fn hash(&self, names: &[&str]) -> Result<String, Failure> {
        let name = self.text(names).unwrap_or("sha2-256");
        match HashFunction::by_name(&name.to_ascii_lowercase()) {
            Some(_) => Ok(name.to_owned()),
            None => Err(Failure::new(format!("unrecognized multihash function: {name}"))),
        }
    }
}

impl Rpc {
    /// `block get`.
    pub(super) async fn block_get(&self, mut call: Call) -> Answer {
        let blocks = self.blocks(call.offline()?);
        let cid = blocks.resolve_block(&call.argument("cid").await?).await?;
        let data = blocks.get(cid).await.map_err(|error| Failure::new(error.to_string()))?;
        let bytes = futures::stream::iter([Ok::<Bytes, Failure>(data)]);
        reply::content(call.trailers, "application/vnd.ipld.raw", None, bytes).await
    }

    /// `block stat`.
    pub(super) async fn block_stat(&self, mut call: Call) -> Answer {
        let blocks = self.blocks(call.offline()?);
        let cid = blocks.resolve_block(&call.argument("cid").await?).await?;
        let data = blocks.get(cid).await.map_err(|error| Failure::new(error.to_string()))?;
        Ok(reply::one(&json!({ "Key": cid.to_string(), "Size": data.len() })))
    }

    /// `block put`.
    pub(super) async fn block_put(&self, mut call: Call) -> Answer {
        let mut parts = call.parts("data")?;
        let hash = call.hash(&["mhtype"])?;
        if call.number(&["mhlen"])?.is_some_and(|length| length != -1) {
            return Err(Failure::new("the embedded IPFS node does not cut hashes: leave out mhlen"));
        }
        let (version, name) = match (call.text(&["format", "f"]), call.text(&["cid-codec"]).unwrap_or("raw")) {
            (None, name) => (1, name),
            (Some("v0"), _) => (0, "dag-pb"),
            (Some(name), _) => (1, name),
        };
        let codec = codec::by_name(name).ok_or_else(|| Failure::new(format!("unrecognized codec: {name}")))?;
        let cids = CidBuilder::new(version, &hash).map_err(|error| Failure::new(error.to_string()))?;
        let pin = call.flag(&["pin"])?.unwrap_or(false);
        let lease = self.node.kept.lease();
        self.admit().await?;
        let rpc = self.clone();
        let trailers = call.trailers;
        let row = async_stream::try_stream! {
            while next_file(&mut parts).await?.is_some() {
                let data = part(&mut parts, MAX_BIG_BLOCK).await?.ok_or_else(|| Failure::new(TOO_BIG))?;
                call.check_size(data.len())?;
                let (cid, size) = (cids.cid(codec, &data), data.len());
                rpc.keep(cid, data).await?;
                if pin {
                    rpc.pin_recursively(cid).await?;
                }
                yield json!({ "Key": cid.to_string(), "Size": size });
            }
            drop(lease);
        };
        reply::row(trailers, row.boxed()).await
    }

    /// Keeps a block that was made here.
    pub(super) async fn keep(&self, cid: Cid, data: Bytes) -> Result<(), Failure> {
        if data.len() <= MAX_BLOCK {
            return Ok(self.node.put_blocks(vec![Block { cid, data }]).await?);
        }
        // Asked for in so many words: kept, though nobody will take it over bitswap.
        Ok(self.node.keep_imported(vec![Block { cid, data }]).await?)
    }

    /// `block rm`: what nothing pins.
    pub(super) async fn block_rm(&self, mut call: Call) -> Answer {
        let (force, quiet) =
            (call.flag(&["force", "f"])?.unwrap_or(false), call.flag(&["quiet", "q"])?.unwrap_or(false));
        let mut cids = Vec::new();
        for argument in call.arguments("cid").await? {
            cids.push(super::path::parse(&argument)?.0);
        }
        let rpc = self.clone();
        let row = async_stream::try_stream! {
            for cid in cids {
                match rpc.remove(cid, force).await {
                    Ok(()) if quiet => {}
                    Ok(()) => yield json!({ "Hash": cid.to_string() }),
                    Err(failure) => yield json!({ "Hash": cid.to_string(), "Error": failure.message() }),
                }
            }
        };
        reply::row(call.trailers, row.boxed()).await
    }

    async fn remove(&self, cid: Cid, force: bool) -> Result<(), Failure> {
        let kept = &self.node.kept;
        let _one_at_a_time = self.node.collecting.lock().await;
        let multihash = cid.hash_bytes();
        if kept.store().size(&multihash).await?.is_none() {
            return if force { Ok(()) } else { Err(Failure::new(format!("ipld: could not find {cid}"))) };
        }
        if let Some(how) = self.how_pinned(&[cid]).await?.remove(&multihash) {
            return Err(Failure::new(format!("pinned: {how}")));
        }
        Ok(kept.store().delete(vec![multihash]).await?)
    }
}

/// Whether a codec's blocks can be walked, so that a pin can protect what they link to.
pub(super) fn is_walkable(codec: u64) -> bool {
    matches!(codec, Codec::RAW | Codec::DAG_PB | Codec::DAG_CBOR)
}
