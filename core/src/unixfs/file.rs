//! Builds the DAG of a file from its chunks, as they come.
//!
//! The balanced layout: every leaf is equally deep, every node but the last of its level is full. Nodes are finished
//! as soon as they are full, so the builder keeps at most one node's children per level, whatever the file's size.
//!
//! The trickle layout ([`trickle`](super::trickle)): what comes first is found with few steps.

use bytes::Bytes;
use cluster_types::{AddLayout, Codec};

use super::dagpb::{NewLink, encode};
use super::hash::CidBuilder;
use super::trickle::Trickle;
use super::unixfs;
use crate::ports::Block;

/// How files are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileShape {
    /// Whether the chunks are blocks as they are.
    pub raw_leaves: bool,
    /// How the tree grows.
    pub layout: AddLayout,
    /// Children of a full node, at least two. By default 174, which is what fits into 8 KiB, as Kubo has it since 2014.
    pub width: usize,
}

impl Default for FileShape {
    fn default() -> Self {
        Self { raw_leaves: false, layout: AddLayout::Balanced, width: 174 }
    }
}

/// The root of something that was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// Its CID.
    pub cid: cluster_types::Cid,
    /// Bytes of all blocks, a shared block counted as often as it is linked: Kubo's cumulative size.
    pub dag_size: u64,
}

/// A part of the file that has its block.
pub(super) struct Part {
    built: Built,
    file_size: u64,
}

/// Builds one file.
pub struct FileBuilder {
    maker: Maker,
    layout: Layout,
    width: usize,
    size: u64,
}

enum Layout {
    /// Finished parts without a parent; leaves first.
    Balanced(Vec<Vec<Part>>),
    Trickle(Trickle),
}

impl std::fmt::Debug for FileBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileBuilder").field("size", &self.size).finish_non_exhaustive()
    }
}

impl FileBuilder {
    /// For one file.
    pub fn new(cids: CidBuilder, shape: FileShape) -> Self {
        let layout = match shape.layout {
            AddLayout::Balanced => Layout::Balanced(Vec::new()),
            AddLayout::Trickle => Layout::Trickle(Trickle::new(shape.width)),
        };
        Self { maker: Maker { cids, raw_leaves: shape.raw_leaves }, layout, width: shape.width, size: 0 }
    }

    /// Takes the next chunk and appends the blocks that are finished to `blocks`: one leaf, and the nodes that it
    /// filled.
    pub fn push(&mut self, chunk: Bytes, blocks: &mut Vec<Block>) {
        self.size += chunk.len() as u64;
        match &mut self.layout {
            Layout::Balanced(levels) => {
                let leaf = self.maker.leaf(chunk, unixfs::file_leaf, blocks);
                place(levels, leaf, 0, self.width, &self.maker, blocks);
            }
            Layout::Trickle(trickle) => {
                let leaf = self.maker.leaf(chunk, unixfs::raw_leaf, blocks);
                trickle.push(leaf, &mut |parts| self.maker.node(parts, blocks));
            }
        }
    }

    /// The file's bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Finishes the file and appends its last blocks to `blocks`.
    pub fn finish(mut self, blocks: &mut Vec<Block>) -> Built {
        if matches!(&self.layout, Layout::Balanced(levels) if levels.is_empty()) {
            self.push(Bytes::new(), blocks);
        }
        match self.layout {
            Layout::Balanced(levels) => finish_levels(levels, self.width, &self.maker, blocks),
            Layout::Trickle(trickle) => trickle.finish(&mut |parts| self.maker.node(parts, blocks)).built,
        }
    }
}

/// Puts a part on its level, and a full level under a new node.
fn place(levels: &mut Vec<Vec<Part>>, part: Part, level: usize, width: usize, maker: &Maker, blocks: &mut Vec<Block>) {
    let (mut part, mut level) = (part, level);
    loop {
        if levels.len() == level {
            levels.push(Vec::new());
        }
        levels[level].push(part);
        if levels[level].len() < width {
            return;
        }
        let parts = std::mem::take(&mut levels[level]);
        part = maker.node(&parts, blocks);
        level += 1;
    }
}

/// Puts the last nodes over what is on the levels.
fn finish_levels(mut levels: Vec<Vec<Part>>, width: usize, maker: &Maker, blocks: &mut Vec<Block>) -> Built {
    let mut level = 0;
    loop {
        let parts = std::mem::take(&mut levels[level]);
        let top = level + 1 == levels.len();
        match parts.as_slice() {
            [] => {}
            [root] if top => return root.built,
            _ => {
                let node = maker.node(&parts, blocks);
                place(&mut levels, node, level + 1, width, maker, blocks);
            }
        }
        level += 1;
    }
}

/// Makes the blocks of a file.
struct Maker {
    cids: CidBuilder,
    raw_leaves: bool,
}

impl Maker {
    fn leaf(&self, chunk: Bytes, message: fn(&[u8]) -> Vec<u8>, blocks: &mut Vec<Block>) -> Part {
        let file_size = chunk.len() as u64;
        let (codec, data) = match self.raw_leaves {
            true => (Codec::RAW, chunk),
            false => (Codec::DAG_PB, encode([], &message(&chunk)).into()),
        };
        let block = Block { cid: self.cids.cid(codec, &data), data };
        let built = Built { cid: block.cid, dag_size: block.data.len() as u64 };
        blocks.push(block);
        Part { built, file_size }
    }

    fn node(&self, parts: &[Part], blocks: &mut Vec<Block>) -> Part {
        let links =
            parts.iter().map(|part| NewLink { cid: part.built.cid, name: "".into(), size: part.built.dag_size });
        let data: Bytes = encode(links, &unixfs::file_node(parts.iter().map(|part| part.file_size))).into();
        let cid = self.cids.cid(Codec::DAG_PB, &data);
        let below: u64 = parts.iter().map(|part| part.built.dag_size).sum();
        let built = Built { cid, dag_size: data.len() as u64 + below };
        blocks.push(Block { cid, data });
        Part { built, file_size: parts.iter().map(|part| part.file_size).sum() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unixfs::{dagpb, links};

    fn build(version: u32, raw_leaves: bool, chunks: usize, chunk: &[u8]) -> (Built, Vec<Block>) {
        let shape = FileShape { raw_leaves, ..FileShape::default() };
        let mut builder = FileBuilder::new(CidBuilder::new(version, "sha2-256").unwrap(), shape);
        let mut blocks = Vec::new();
        for _ in 0..chunks {
            builder.push(Bytes::copy_from_slice(chunk), &mut blocks);
        }
        let built = builder.finish(&mut blocks);
        (built, blocks)
    }

    #[test]
    fn small_files_have_the_names_everybody_knows() {
        for (version, raw, text, name) in [
            (0, false, "", "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"),
            (0, false, "hello world\n", "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"),
            (1, true, "", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
            (0, true, "", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
            (1, false, "", "bafybeif7ztnhq65lumvvtr4ekcwd2ifwgm3awq4zfr3srh462rwyinlb4y"),
        ] {
            let (built, blocks) = build(version, raw, 1, text.as_bytes());
            assert_eq!(built.cid.to_string(), name);
            assert_eq!((blocks.len(), blocks[0].data.len() as u64), (1, built.dag_size));
        }
        assert_eq!(build(0, false, 0, b""), build(0, false, 1, b""));
    }

    #[test]
    fn a_level_grows_only_when_the_one_below_is_full() {
        for (chunks, blocks_made, depth) in [
            (2, 3, 2),
            (174, 175, 2),
            (175, 178, 3),
            (174 * 174, 174 * 174 + 175, 3),
            (174 * 174 + 1, 174 * 174 + 1 + 175 + 1 + 2, 4),
        ] {
            let (built, blocks) = build(1, true, chunks, b"x");
            assert_eq!(blocks.len(), blocks_made, "{chunks}");
            let mut cid = built.cid;
            let mut seen = 1;
            while let Some(next) =
                links(&cid, &blocks.iter().find(|block| block.cid == cid).unwrap().data).unwrap().last()
            {
                cid = *next;
                seen += 1;
            }
            assert_eq!(seen, depth, "{chunks}");
            let data: u64 = blocks.iter().map(|block| block.data.len() as u64).sum();
            assert_eq!(built.dag_size, data, "{chunks}");
        }
    }

    #[test]
    fn a_node_says_how_many_bytes_are_below_each_link() {
        let (_, blocks) = build(0, false, 3, b"four");
        let data = dagpb::data(&blocks.last().unwrap().data).unwrap();
        let message = unixfs::Message::read(data).unwrap();
        assert_eq!((message.block_sizes.as_slice(), message.file_size), (&[4, 4, 4][..], Some(12)));
    }
}
