//! Where the blocks of an upload go, and how they get there.
//!
//! **Invariant:** a batch holds at most [`MAX_BATCH_BLOCKS`] blocks and [`MAX_BATCH_BYTES`] bytes (or one larger
//! block), and an import waits for a batch to be taken before it makes the next.
//! **Invariant:** what was added is told only after its blocks are kept, and the root only after it is pinned.

use std::collections::VecDeque;

use async_trait::async_trait;
use cluster_types::{AddedOutput, Cid, ErrorClass, PeerId, WireError};
use tokio::sync::mpsc;

use crate::cluster::ServiceResult;
use crate::ports::Block;

/// Bytes of a batch: four chunks of the usual size.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// Blocks of a batch: with many small files, the overhead of a call is shared by this many.
pub const MAX_BATCH_BLOCKS: usize = 64;
/// What waits to be told; more than this waits for its blocks to be kept.
const MAX_WAITING: usize = 1024;

/// Takes the blocks of one upload.
#[async_trait]
pub trait BlockSink: Send + Sync {
    /// Takes blocks; they are kept when [`BlockSink::kept`] says so. An error ends the import.
    async fn put(&mut self, blocks: Vec<Block>) -> ServiceResult<()>;

    /// How many of the batches put so far, from the first on, are kept. A sink that keeps them in `put` need not count.
    fn kept(&self) -> u64 {
        u64::MAX
    }

    /// Returns when all that was put is kept.
    async fn settle(&mut self) -> ServiceResult<()> {
        Ok(())
    }

    /// The peers that have what is kept, as far as that is known.
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
    /// Batches that were put.
    put: u64,
    /// What to tell, and how many batches must be kept then.
    waiting: VecDeque<(u64, AddedOutput)>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(sink: &'a mut dyn BlockSink, outputs: mpsc::Sender<AddedOutput>) -> Self {
        Self { sink, outputs, blocks: Vec::new(), bytes: 0, put: 0, waiting: VecDeque::new() }
    }

    /// Adds a block, and hands over the batch if it is full.
    pub(super) async fn put(&mut self, block: Block) -> ServiceResult<()> {
        if self.blocks.len() == MAX_BATCH_BLOCKS || self.bytes + block.data.len() > MAX_BATCH_BYTES {
            self.flush().await?;
            self.tell_kept(0).await?;
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

    /// Tells `output` when the blocks so far are kept.
    pub(super) async fn tell(&mut self, output: AddedOutput) -> ServiceResult<()> {
        if self.waiting.len() >= MAX_WAITING {
            self.settle().await?;
        }
        let needed = self.put + u64::from(!self.blocks.is_empty());
        self.waiting.push_back((needed, output));
        Ok(())
    }

    /// Hands over what is left, tells the sink the root, and tells it last.
    pub(super) async fn finish(mut self, root: Cid) -> ServiceResult<()> {
        self.flush().await?;
        self.sink.settle().await?;
        self.tell_kept(1).await?;
        let more = self.sink.finish(root).await?;
        self.tell_kept(0).await?;
        for output in more {
            self.send(output).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> ServiceResult<()> {
        if self.blocks.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        self.put += 1;
        self.sink.put(std::mem::take(&mut self.blocks)).await
    }

    async fn settle(&mut self) -> ServiceResult<()> {
        self.flush().await?;
        self.sink.settle().await?;
        self.tell_kept(0).await
    }

    /// Tells what is kept, but for the last few outputs.
    async fn tell_kept(&mut self, but: usize) -> ServiceResult<()> {
        let kept = self.sink.kept();
        if self.waiting.front().is_none_or(|(needed, _)| *needed > kept) {
            return Ok(());
        }
        let allocations = self.sink.allocations();
        while self.waiting.len() > but
            && let Some((_, mut output)) = self.waiting.pop_front_if(|(needed, _)| *needed <= kept)
        {
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
