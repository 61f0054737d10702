//! Builds directories and symbolic links.
//!
//! A directory that is larger than [`SHARD_ABOVE`], or has too many entries, is sharded, as in Kubo; any other is one block
//! with its links sorted by name.

use std::collections::BTreeMap;

use cluster_types::{Codec, DirectorySize};

use super::dagpb::{NewLink, encode};
use super::file::Built;
use super::hamt::{self, Fanout};
use super::hash::CidBuilder;
use super::unixfs;
use crate::ports::Block;

/// Bytes above which Kubo shards a directory.
pub const SHARD_ABOVE: usize = 256 * 1024;

/// How directories are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryShape {
    /// The most entries in one block; 0: only the size decides.
    pub max_links: usize,
    /// Children of a node of a sharded directory.
    pub fanout: Fanout,
    /// What is measured by [`SHARD_ABOVE`].
    pub size: DirectorySize,
}

impl Default for DirectoryShape {
    fn default() -> Self {
        Self { max_links: 0, fanout: Fanout::default(), size: DirectorySize::Links }
    }
}

impl DirectoryShape {
    /// Whether one block does not hold `entries`.
    fn shards(&self, entries: &BTreeMap<String, Built>) -> bool {
        let links: usize = entries.iter().map(|(name, entry)| name.len() + entry.cid.to_bytes().len()).sum();
        let size = match self.size {
            // The block has all that, and more.
            DirectorySize::Block if links <= SHARD_ABOVE => plain(entries).len(),
            DirectorySize::Links | DirectorySize::Block => links,
        };
        size > SHARD_ABOVE || (self.max_links > 0 && entries.len() > self.max_links)
    }
}

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
    shape: &DirectoryShape,
    entries: &BTreeMap<String, Built>,
    put: &mut dyn FnMut(Block),
) -> Result<Built, DirectoryError> {
    if shape.shards(entries) {
        return hamt::build(cids, shape.fanout, entries, put);
    }
    let below = entries.values().map(|entry| entry.dag_size).sum();
    Ok(finish(cids, plain(entries), below, put))
}

/// The block of a directory that is not sharded.
fn plain(entries: &BTreeMap<String, Built>) -> Vec<u8> {
    let links = entries.iter().map(|(name, entry)| NewLink { cid: entry.cid, name: name.into(), size: entry.dag_size });
    encode(links, &unixfs::directory())
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

    fn shape(size: DirectorySize) -> DirectoryShape {
        DirectoryShape { size, ..DirectoryShape::default() }
    }

    #[test]
    fn the_empty_directory_has_its_known_name() {
        let mut blocks = Vec::new();
        let built =
            build_directory(cids(), &shape(DirectorySize::Links), &BTreeMap::new(), &mut |block| blocks.push(block))
                .unwrap();
        assert_eq!(built.cid.to_string(), "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn");
        assert_eq!((built.dag_size, blocks.len()), (4, 1));
    }

    #[test]
    fn a_directory_is_sharded_only_above_the_limit() {
        // 34 bytes of CID and 30 of name: 64 bytes an entry, which with what is around them are 72 of the block's. The
        // block has four more.
        let most_links = DirectoryShape { max_links: 70, ..shape(DirectorySize::Links) };
        for (shape, count, sharded) in [
            (shape(DirectorySize::Links), 4096, false),
            (shape(DirectorySize::Links), 4097, true),
            (shape(DirectorySize::Block), 3640, false),
            (shape(DirectorySize::Block), 3641, true),
            (most_links, 70, false),
            (most_links, 71, true),
        ] {
            let mut blocks = 0;
            build_directory(cids(), &shape, &entries(count, 30), &mut |_| blocks += 1).unwrap();
            assert_eq!(blocks > 1, sharded, "{count} {shape:?}");
        }
    }
}
