//! Blocks in and out, each checked against its CID on our side.
//!
//! They go in as archives through `dag/import`, which takes blocks of every kind in one request and writes them together.
//! What a node cannot take that way (it reads every block as its codec says; an old one knows no such command) it is given
//! block by block, through `block/put`.

use std::convert::Infallible;

use bytes::Bytes;
use cluster_core::ports::{Block, IpfsError};
use cluster_core::unixfs::{HashFunction, MAX_BLOCK, car};
use cluster_types::{Cid, Codec};
use reqwest::multipart::{Form, Part};
use serde::Deserialize;

use super::KuboConfig;
use super::car::ImportLine;
use super::client::{Call, Client, Failure};
use crate::check_block;

/// The most bytes of blocks in one request.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// The most blocks in one request: part headers and answer lines count, too.
const MAX_BATCH_BLOCKS: usize = 1024;

#[derive(Deserialize)]
struct BlockStat {
    #[serde(rename = "Key")]
    key: Cid,
}

/// Keeps blocks; all of them were confirmed by Kubo when this returns.
pub(super) async fn put(client: &Client, config: &KuboConfig, mut blocks: Vec<Block>) -> Result<(), Failure> {
    for block in &blocks {
        check_block(&block.cid, &block.data)?;
    }
    // Identity CIDs hold their block and need no keeping.
    blocks.retain(|block| block.cid.hash().code() != Codec::IDENTITY);
    for batch in batches(blocks, |_cid| ()) {
        match import_batch(client, config, &batch).await {
            Ok(()) => {}
            Err(Failure::Other(error @ (IpfsError::Unreachable { .. } | IpfsError::Stalled { .. }))) => {
                return Err(error.into());
            }
            Err(failure) => {
                let error = IpfsError::from(failure);
                tracing::debug!(%error, "blocks are not taken as an archive, putting them one by one");
                put_by_kind(client, config, batch).await?;
            }
        }
    }
    Ok(())
}

/// Puts blocks as one archive. It names no roots: what they belong to comes in many of them.
async fn import_batch(client: &Client, config: &KuboConfig, batch: &[Block]) -> Result<(), Failure> {
    let expected = batch.len() as u64;
    let mut pieces = vec![car::write_header(&[])];
    for block in batch {
        let cid = block.cid.to_bytes();
        let mut head = Vec::with_capacity(cid.len() + 8);
        put_varint(&mut head, cid.len() + block.data.len());
        head.extend_from_slice(&cid);
        pieces.extend([head.into(), block.data.clone()]);
    }
    let length = pieces.iter().map(|piece| piece.len() as u64).sum();
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)));
    let form = Form::new().part("file", Part::stream_with_length(body, length).file_name("blocks.car"));
    let call = Call::new("dag/import").with("allow-big-block", true).with("pin-roots", false).with("stats", true);
    client
        .within(call.operation, config.request_timeout, async {
            let mut lines = client.post(&call, Some(form)).await?.lines();
            let mut kept = 0;
            while let Some(line) = lines.next::<ImportLine>().await? {
                kept = line.stats.map_or(kept, |stats| stats.block_count);
            }
            if kept == expected {
                Ok(())
            } else {
                Err(lines.bad(format!("{kept} of {expected} blocks are confirmed")).into())
            }
        })
        .await
}

/// An unsigned LEB128 number.
fn put_varint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

async fn put_by_kind(client: &Client, config: &KuboConfig, mut blocks: Vec<Block>) -> Result<(), Failure> {
    blocks.sort_by_key(|block| kind(&block.cid));
    for batch in batches(blocks, kind) {
        put_batch(client, config, batch).await?;
    }
    Ok(())
}

/// What one `block/put` says of all its blocks: codec, hash function, digest length.
fn kind(cid: &Cid) -> (u64, u64, u8) {
    (cid.codec(), cid.hash().code(), cid.hash().size())
}

/// Cuts blocks into requests: each of one kind, and bounded.
fn batches<K: PartialEq>(blocks: Vec<Block>, kind: impl Fn(&Cid) -> K) -> Vec<Vec<Block>> {
    let mut batches: Vec<Vec<Block>> = Vec::new();
    let mut bytes = 0;
    for block in blocks {
        let size = block.data.len();
        match batches.last_mut() {
            Some(batch)
                if batch.len() < MAX_BATCH_BLOCKS
                    && bytes + size <= MAX_BATCH_BYTES
                    && batch.last().is_some_and(|last| kind(&last.cid) == kind(&block.cid)) =>
            {
                bytes += size;
                batch.push(block);
            }
            _ => {
                bytes = size;
                batches.push(vec![block]);
            }
        }
    }
    batches
}

async fn put_batch(client: &Client, config: &KuboConfig, batch: Vec<Block>) -> Result<(), Failure> {
    let Some(first) = batch.first() else { return Ok(()) };
    let (codec, hash, length) = kind(&first.cid);
    let unknown = || IpfsError::BadBlock { cid: first.cid, reason: format!("hash function {hash:#x} is unknown") };
    let call = Call::new("block/put")
        .with("allow-big-block", true)
        .with("cid-codec", codec_name(codec))
        .with("mhlen", length)
        .with("mhtype", HashFunction::by_code(hash).ok_or_else(unknown)?.name())
        .with("pin", false);
    let mut missing: Vec<Vec<u8>> = batch.iter().map(|block| block.cid.hash_bytes()).collect();
    missing.sort_unstable();
    missing.dedup();
    let mut form = Form::new();
    for block in batch {
        let length = block.data.len() as u64;
        form = form.part("file", Part::stream_with_length(block.data, length).file_name("block"));
    }
    client
        .within(call.operation, config.request_timeout, async {
            let mut lines = client.post(&call, Some(form)).await?.lines();
            while let Some(stat) = lines.next::<BlockStat>().await? {
                if let Ok(place) = missing.binary_search(&stat.key.hash_bytes()) {
                    missing.remove(place);
                }
            }
            match missing.len() {
                0 => Ok(()),
                some => Err(lines.bad(format!("{some} of the blocks are not confirmed")).into()),
            }
        })
        .await
}

/// A block, fetched if need be.
pub(super) async fn get(client: &Client, config: &KuboConfig, cid: Cid) -> Result<Bytes, Failure> {
    if cid.hash().code() == Codec::IDENTITY {
        return Ok(Bytes::copy_from_slice(cid.hash().digest()));
    }
    let call = Call::new("block/get").with("arg", cid);
    let data = client
        .within(call.operation, config.request_timeout, async {
            client.post(&call, None).await?.whole(MAX_BLOCK).await
        })
        .await?;
    check_block(&cid, &data)?;
    Ok(data)
}

/// The name of a codec for Kubo, which also takes numbers.
fn codec_name(codec: u64) -> String {
    match codec {
        Codec::RAW => "raw".to_owned(),
        Codec::DAG_PB => "dag-pb".to_owned(),
        Codec::DAG_CBOR => "dag-cbor".to_owned(),
        other => format!("{other:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use multihash_codetable::{Code, MultihashDigest};

    use super::*;

    fn raw(data: Vec<u8>) -> Block {
        Block { cid: Cid::new_v1(Codec::RAW, Code::Sha2_256.digest(&data)), data: data.into() }
    }

    #[test]
    fn requests_are_bounded_and_of_one_kind() {
        let mut blocks: Vec<Block> = (0..9_u8).map(|n| raw(vec![n; 1024 * 1024])).collect();
        let data = b"node".to_vec();
        blocks.insert(3, Block { cid: Cid::new_v0(Code::Sha2_256.digest(&data)).unwrap(), data: data.into() });
        assert_eq!(batches(blocks.clone(), |_cid| ()).iter().map(Vec::len).collect::<Vec<_>>(), vec![8, 2]);
        blocks.sort_by_key(|block| kind(&block.cid));
        let batches = batches(blocks, kind);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), vec![8, 1, 1]);
        for batch in &batches {
            assert!(batch.iter().map(|block| block.data.len()).sum::<usize>() <= MAX_BATCH_BYTES);
            assert!(batch.iter().all(|block| kind(&block.cid) == kind(&batch[0].cid)));
        }
    }
}
