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
