//! Blocks in and out, each checked against its CID on our side.

use bytes::Bytes;
use cluster_core::ports::{Block, IpfsError};
use cluster_core::unixfs::{HashFunction, MAX_BLOCK};
use cluster_types::{Cid, Codec};
use reqwest::multipart::{Form, Part};
use serde::Deserialize;

use super::KuboConfig;
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
pub(super) async fn put(client: &Client, config: &KuboConfig, blocks: Vec<Block>) -> Result<(), Failure> {
    for block in &blocks {
        check_block(&block.cid, &block.data)?;
    }
    for batch in batches(blocks) {
        put_batch(client, config, batch).await?;
    }
    Ok(())
}

/// What one request says of all its blocks: codec, hash function, digest length.
fn kind(cid: &Cid) -> (u64, u64, u8) {
    (cid.codec(), cid.hash().code(), cid.hash().size())
}

/// Cuts blocks into requests: each of one kind, and bounded. Identity CIDs hold their block and need no keeping.
fn batches(mut blocks: Vec<Block>) -> Vec<Vec<Block>> {
    blocks.retain(|block| block.cid.hash().code() != Codec::IDENTITY);
    blocks.sort_by_key(|block| kind(&block.cid));
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
        let batches = batches(blocks);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), vec![8, 1, 1]);
        for batch in &batches {
            assert!(batch.iter().map(|block| block.data.len()).sum::<usize>() <= MAX_BATCH_BYTES);
            assert!(batch.iter().all(|block| kind(&block.cid) == kind(&batch[0].cid)));
        }
    }
}
