//! Adding content: an upload becomes blocks, and what is told about them.
//!
//! [`import`] knows nothing of peers, pins or shards: blocks and the root go to a [`BlockSink`], which is where
//! `local`, `no_pin`, `shard` and the pin options take effect.
//!
//! **Invariant:** memory does not grow with the content: a chunk, a batch, a path of nodes per open file, the
//! entries of the directories (bounded in `tree`), and at the end the blocks of one directory at a time.
//! **Invariant:** the CIDs are those of `ipfs add` with the same options.

mod car;
mod destinations;
mod files;
pub mod multipart;
mod sharding;
mod sink;
mod tree;
mod whole;

use cluster_types::{AddFormat, AddParams, AddedOutput, Cid, WireError};
use tokio::sync::mpsc;

pub(crate) use destinations::{AddHost, Parcel};
pub(crate) use sharding::{ShardSink, parts};
pub use sink::{BlockSink, MAX_BATCH_BLOCKS, MAX_BATCH_BYTES};
pub use tree::{MAX_DEPTH, MAX_ENTRIES, MAX_NAME, MAX_NAMES, MAX_PATH};
pub(crate) use whole::{WholeSink, Wish};

use crate::cluster::{AddEvent, ServiceResult};
use crate::unixfs::CidBuilder;
use crate::unixfs::chunker::Chunking;
use crate::unixfs::directory::DirectoryShape;
use crate::unixfs::file::FileShape;
use crate::unixfs::hamt::Fanout;
use sink::Batch;
use tree::invalid;

/// Children of a file's node: with the longest CIDs, a block of half a megabyte.
const MAX_FILE_LINKS: usize = 4096;
/// An upload without a file or directory in it.
const NOTHING: &str = "the upload holds no file";
/// The upload's events ended inside a file.
const CUT: &str = "the upload ended in the middle of a file";
/// Events that no upload consists of.
const DISORDER: &str = "the parts of the upload are out of order";

/// What an import needs to know, checked.
#[derive(Clone, Copy, Debug)]
pub struct ImportPlan {
    format: AddFormat,
    cids: CidBuilder,
    chunking: Chunking,
    files: FileShape,
    directories: DirectoryShape,
    wrap: bool,
    progress: bool,
}

impl ImportPlan {
    /// Checks what a user asked for; an error is to be shown before anything is streamed.
    pub fn check(params: &AddParams) -> ServiceResult<Self> {
        let refuse = |error: &dyn std::error::Error| -> WireError { invalid(error.to_string()) };
        if params.format == AddFormat::Car && params.wrap_with_directory {
            return Err(invalid("cannot wrap a CAR file upload"));
        }
        if !(2..=MAX_FILE_LINKS).contains(&params.max_file_links) {
            return Err(invalid(format!("max-file-links must be between 2 and {MAX_FILE_LINKS}")));
        }
        let fanout = Fanout::new(params.max_hamt_fanout as u64)
            .ok_or_else(|| invalid("max-hamt-fanout must be a power of two between 8 and 1024"))?;
        Ok(Self {
            format: params.format,
            cids: CidBuilder::new(params.cid_version, &params.hash).map_err(|error| refuse(&error))?,
            chunking: Chunking::parse(&params.chunker).map_err(|error| refuse(&error))?,
            files: FileShape { raw_leaves: params.raw_leaves, layout: params.layout, width: params.max_file_links },
            directories: DirectoryShape { max_links: params.max_directory_links, fanout, size: params.directory_size },
            wrap: params.wrap_with_directory,
            progress: params.progress,
        })
    }
}

/// Imports an upload; returns the root that was given to [`BlockSink::finish`].
///
/// What was added goes to `outputs` in order: files and symlinks as they come, the directories of each top-level
/// entry when it is over (children before parents), what the sink adds at the very end. Nobody reading `outputs` any
/// more ends the import with an error, as does an error in `events`; the sink is not finished then.
pub async fn import(
    plan: &ImportPlan,
    mut events: mpsc::Receiver<ServiceResult<AddEvent>>,
    sink: &mut dyn BlockSink,
    outputs: mpsc::Sender<AddedOutput>,
) -> ServiceResult<Cid> {
    let mut batch = Batch::new(sink, outputs);
    let root = match plan.format {
        AddFormat::UnixFs => files::import(plan, &mut events, &mut batch).await?,
        AddFormat::Car => car::import(&mut events, &mut batch).await?,
    };
    batch.finish(root).await?;
    Ok(root)
}

#[cfg(test)]
mod destinations_tests;
#[cfg(test)]
mod fakes;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod sharding_tests;
#[cfg(test)]
mod tests;
