//! Adding content: what is asked, and what is told while it goes.

use serde::{Deserialize, Serialize};

use crate::cid::Cid;
use crate::peer::PeerId;
use crate::pin::PinOptions;

/// What is uploaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddFormat {
    /// Files and directories.
    #[default]
    UnixFs,
    /// A CAR archive with one root.
    Car,
}

/// The shape of a file's DAG.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddLayout {
    /// All leaves equally deep.
    #[default]
    Balanced,
    /// Good for reading from the start.
    Trickle,
}

/// What the size of a directory is measured by, when it is decided whether one block can hold it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectorySize {
    /// The bytes of names and CIDs, as Kubo has counted since 2014.
    #[default]
    Links,
    /// The bytes of the block.
    Block,
}

/// Choices with a name: who imports the same content by the same profile gets the same CIDs
/// ([IPIP-499](https://specs.ipfs.tech/ipips/ipip-0499/)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnixFsProfile {
    /// `unixfs-v0-2015`: what Kubo and the cluster do unless told otherwise.
    #[default]
    V0From2015,
    /// `unixfs-v1-2025`: version 1, raw leaves, larger chunks and wider nodes.
    V1From2025,
}

impl UnixFsProfile {
    /// Every profile.
    pub const ALL: [Self; 2] = [Self::V0From2015, Self::V1From2025];

    /// Its name in the specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::V0From2015 => "unixfs-v0-2015",
            Self::V1From2025 => "unixfs-v1-2025",
        }
    }

    /// The profile with a name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// What it chooses; everything else as by default.
    pub fn params(self) -> AddParams {
        match self {
            Self::V0From2015 => AddParams::default(),
            Self::V1From2025 => AddParams {
                chunker: "size-1048576".to_owned(),
                raw_leaves: true,
                cid_version: 1,
                max_file_links: 1024,
                directory_size: DirectorySize::Block,
                ..AddParams::default()
            },
        }
    }
}

/// How content is turned into blocks, and what happens to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddParams {
    /// Options of the pin that is made.
    pub options: PinOptions,
    /// What is uploaded.
    pub format: AddFormat,
    /// The shape of a file's DAG.
    pub layout: AddLayout,
    /// `size-N`, `rabin…` or `buzhash`.
    pub chunker: String,
    /// Whether leaves are plain blocks rather than UnixFS nodes.
    pub raw_leaves: bool,
    /// 0 or 1.
    pub cid_version: u32,
    /// Name of the multihash function.
    pub hash: String,
    /// The most children of a node of a file.
    pub max_file_links: usize,
    /// The most entries of a directory in one block; 0: only its size decides.
    pub max_directory_links: usize,
    /// Places of a node of a directory that one block does not hold: a power of two from 8 to 1024.
    pub max_hamt_fanout: usize,
    /// What decides whether one block holds a directory.
    pub directory_size: DirectorySize,
    /// Whether everything is put into one directory.
    pub wrap_with_directory: bool,
    /// Whether blocks go to the asked peer only.
    pub local: bool,
    /// Whether nothing is pinned.
    pub no_pin: bool,
    /// Whether the content is split over peers.
    pub shard: bool,
    /// Whether progress is told.
    pub progress: bool,
    /// Whether answers are streamed rather than collected.
    pub stream_channels: bool,
}

impl Default for AddParams {
    fn default() -> Self {
        Self {
            options: PinOptions::default(),
            format: AddFormat::default(),
            layout: AddLayout::default(),
            chunker: "size-262144".to_owned(),
            raw_leaves: false,
            cid_version: 0,
            hash: "sha2-256".to_owned(),
            max_file_links: 174,
            max_directory_links: 0,
            max_hamt_fanout: 256,
            directory_size: DirectorySize::default(),
            wrap_with_directory: false,
            local: false,
            no_pin: false,
            shard: false,
            progress: false,
            stream_channels: true,
        }
    }
}

/// One thing that was added, or how far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedOutput {
    /// Path, with the top-level name.
    #[serde(default)]
    pub name: String,
    /// Its root; `null` in progress objects.
    #[serde(default)]
    pub cid: Option<Cid>,
    /// Progress: bytes read so far.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Cumulative size of the DAG.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// The peers that got the blocks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allocations: Vec<PeerId>,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}
