//! Builds directories and symbolic links.
//!
//! A directory whose names and CIDs together exceed [`SHARD_ABOVE`] bytes is sharded, as in Kubo; any other is one
//! block with its links sorted by name.

use std::collections::BTreeMap;

use cluster_types::Codec;

use super::dagpb::{NewLink, encode};
use super::file::Built;
use super::hamt;
use super::hash::CidBuilder;
use super::unixfs;
use crate::ports::Block;

/// Bytes of names and CIDs above which Kubo shards a directory.
pub const SHARD_ABOVE: usize = 256 * 1024;

/// No directory can be made of these entries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// Two names have the same 64-bit hash, which the format has no place for.
    #[error("directory entries {first:?} and {second:?} have the same hash")]
    Collision {
        /// One name.
        first: String,
        /// Another.
        second: String,
    },
}

/// Builds a directory and hands over its blocks, the root last.
pub fn build_directory(
    cids: CidBuilder,
    entries: &BTreeMap<String, Built>,
    put: &mut dyn FnMut(Block),
) -> Result<Built, DirectoryError> {
    let estimate: usize = entries.iter().map(|(name, entry)| name.len() + entry.cid.to_bytes().len()).sum();
    if estimate > SHARD_ABOVE {
        return hamt::build(cids, entries, put);
    }
    let links = entries.iter().map(|(name, entry)| NewLink { cid: entry.cid, name: name.into(), size: entry.dag_size });
    let below = entries.values().map(|entry| entry.dag_size).sum();
    Ok(finish(cids, encode(links, &unixfs::directory()), below, put))
}

/// Builds a symbolic link and hands over its block.
pub fn build_symlink(cids: CidBuilder, target: &str, put: &mut dyn FnMut(Block)) -> Built {
    finish(cids, encode([], &unixfs::symlink(target)), 0, put)
}

/// Names a dag-pb block and hands it over.
pub(super) fn finish(cids: CidBuilder, data: Vec<u8>, below: u64, put: &mut dyn FnMut(Block)) -> Built {
    let cid = cids.cid(Codec::DAG_PB, &data);
    let built = Built { cid, dag_size: below.saturating_add(data.len() as u64) };
    put(Block { cid, data: data.into() });
    built
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cids() -> CidBuilder {
        CidBuilder::new(0, "sha2-256").unwrap()
    }

    fn entries(count: usize, name_length: usize) -> BTreeMap<String, Built> {
        let cid = cids().cid(Codec::DAG_PB, b"entry");
        (0..count).map(|number| (format!("{number:0name_length$}"), Built { cid, dag_size: 5 })).collect()
    }

    #[test]
    fn the_empty_directory_has_its_known_name() {
        let mut blocks = Vec::new();
        let built = build_directory(cids(), &BTreeMap::new(), &mut |block| blocks.push(block)).unwrap();
        assert_eq!(built.cid.to_string(), "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn");
        assert_eq!((built.dag_size, blocks.len()), (4, 1));
    }

    #[test]
    fn a_directory_is_sharded_only_above_the_limit() {
        // 34 bytes of CID and 30 of name: 64 bytes an entry.
        for (count, sharded) in [(4096, false), (4097, true)] {
            let mut blocks = 0;
            build_directory(cids(), &entries(count, 30), &mut |_| blocks += 1).unwrap();
            assert_eq!(blocks > 1, sharded, "{count}");
        }
    }
}
