//! Where the blocks of an upload go, and how they get there.
//!
//! **Invariant:** a batch holds at most [`MAX_BATCH_BLOCKS`] blocks and [`MAX_BATCH_BYTES`] bytes (or one larger
//! block), and an import waits for a batch to be taken before it makes the next.
//! **Invariant:** what was added is told only after its blocks were taken.

use async_trait::async_trait;
use cluster_types::{AddedOutput, Cid, ErrorClass, PeerId, WireError};
use tokio::sync::mpsc;

use crate::cluster::ServiceResult;
use crate::ports::Block;

/// Bytes of a batch: four chunks of the usual size.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// Blocks of a batch: with many small files, the overhead of a call is shared by this many.
pub const MAX_BATCH_BLOCKS: usize = 64;

/// Takes the blocks of one upload.
#[async_trait]
pub trait BlockSink: Send + Sync {
    /// Keeps blocks; when it returns, they are kept. An error ends the import.
    async fn put(&mut self, blocks: Vec<Block>) -> ServiceResult<()>;

    /// The peers that get the blocks, as far as that is known: asked after every `put`.
    fn allocations(&self) -> Vec<PeerId> {
        Vec::new()
    }

    /// All blocks of `root` were put, and it is what shall be pinned. Returns what is to be told beyond the files and
    /// directories. Called once, at the end; never when the import failed.
    async fn finish(&mut self, root: Cid) -> ServiceResult<Vec<AddedOutput>>;
}

/// Collects blocks into batches, and what is told about them.
pub(super) struct Batch<'a> {
    sink: &'a mut dyn BlockSink,
    outputs: mpsc::Sender<AddedOutput>,
    blocks: Vec<Block>,
    bytes: usize,
    /// What to tell once the blocks are taken.
    waiting: Vec<AddedOutput>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(sink: &'a mut dyn BlockSink, outputs: mpsc::Sender<AddedOutput>) -> Self {
        Self { sink, outputs, blocks: Vec::new(), bytes: 0, waiting: Vec::new() }
    }

    /// Adds a block, and hands over the batch if it is full.
    pub(super) async fn put(&mut self, block: Block) -> ServiceResult<()> {
        if self.blocks.len() == MAX_BATCH_BLOCKS || self.bytes + block.data.len() > MAX_BATCH_BYTES {
            self.flush().await?;
        }
        self.bytes += block.data.len();
        self.blocks.push(block);
        Ok(())
    }

    /// Adds blocks.
    pub(super) async fn put_all(&mut self, blocks: &mut Vec<Block>) -> ServiceResult<()> {
        for block in blocks.drain(..) {
            self.put(block).await?;
        }
        Ok(())
    }

    /// Tells `output` as soon as the blocks so far are taken.
    pub(super) async fn tell(&mut self, output: AddedOutput) -> ServiceResult<()> {
        self.waiting.push(output);
        if self.waiting.len() >= MAX_BATCH_BLOCKS { self.flush().await } else { Ok(()) }
    }

    /// Hands over what is left, and tells the sink the root.
    pub(super) async fn finish(mut self, root: Cid) -> ServiceResult<()> {
        self.flush().await?;
        for output in self.sink.finish(root).await? {
            self.send(output).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> ServiceResult<()> {
        if !self.blocks.is_empty() {
            self.bytes = 0;
            self.sink.put(std::mem::take(&mut self.blocks)).await?;
        }
        let allocations = self.sink.allocations();
        for mut output in std::mem::take(&mut self.waiting) {
            if output.cid.is_some() {
                output.allocations.clone_from(&allocations);
            }
            self.send(output).await?;
        }
        Ok(())
    }

    async fn send(&self, output: AddedOutput) -> ServiceResult<()> {
        let gone =
            |_error| WireError::new(ErrorClass::Unavailable, "nobody waits for the result of the upload any more");
        self.outputs.send(output).await.map_err(gone)
    }
}
