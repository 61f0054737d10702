//! An IPFS node whose calls are counted.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{Cid, GcKey, IpfsId, Multiaddr, PinDepth, RepoStat};
use futures::stream::BoxStream;

use super::CoreTelemetry;
use crate::ports::{Block, IpfsError, IpfsNode, PinRequest, ProgressSink};

/// Counts what is asked of a node: at its door, so that what the tracker pins, what is added here and what other peers send
/// are all counted, and once.
pub struct CountedNode {
    node: Arc<dyn IpfsNode>,
    counts: CoreTelemetry,
}

impl CountedNode {
    /// `node`, counted in `counts`.
    pub fn new(node: Arc<dyn IpfsNode>, counts: CoreTelemetry) -> Self {
        Self { node, counts }
    }
}

impl fmt::Debug for CountedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountedNode").field("counts", &self.counts).finish_non_exhaustive()
    }
}

#[async_trait]
impl IpfsNode for CountedNode {
    async fn id(&self) -> Result<IpfsId, IpfsError> {
        self.node.id().await
    }

    async fn pin(&self, request: PinRequest, progress: ProgressSink) -> Result<(), IpfsError> {
        self.counts.pin_adds.count();
        let pinned = self.node.pin(request, progress).await;
        if pinned.is_err() {
            self.counts.pin_add_errors.count();
        }
        pinned
    }

    async fn unpin(&self, cid: Cid) -> Result<(), IpfsError> {
        self.node.unpin(cid).await
    }

    async fn pinned(&self, cid: Cid) -> Result<Option<PinDepth>, IpfsError> {
        self.node.pinned(cid).await
    }

    fn pins(&self) -> BoxStream<'static, Result<(Cid, PinDepth), IpfsError>> {
        self.node.pins()
    }

    async fn put_blocks(&self, blocks: Vec<Block>) -> Result<(), IpfsError> {
        let (number, bytes) = (blocks.len() as u64, blocks.iter().map(|block| block.data.len() as u64).sum());
        self.counts.block_puts.count();
        let kept = self.node.put_blocks(blocks).await;
        match &kept {
            Ok(()) => {
                self.counts.blocks_added.add(number);
                self.counts.blocks_added_size.add(bytes);
            }
            Err(_) => self.counts.block_put_errors.count(),
        }
        kept
    }

    async fn block(&self, cid: Cid) -> Result<Bytes, IpfsError> {
        self.node.block(cid).await
    }

    async fn import_car(&self, car: BoxStream<'static, Result<Bytes, std::io::Error>>) -> Result<Vec<Cid>, IpfsError> {
        self.node.import_car(car).await
    }

    async fn resolve(&self, path: &str) -> Result<Cid, IpfsError> {
        self.node.resolve(path).await
    }

    async fn repo_stat(&self) -> Result<RepoStat, IpfsError> {
        self.node.repo_stat().await
    }

    async fn collect_garbage(&self) -> Result<Vec<GcKey>, IpfsError> {
        self.node.collect_garbage().await
    }

    async fn connect(&self, addresses: Vec<Multiaddr>) -> Result<(), IpfsError> {
        self.node.connect(addresses).await
    }

    async fn connected(&self) -> Result<Vec<String>, IpfsError> {
        self.node.connected().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ports::PinProgress;
    use crate::telemetry::Tally;
    use crate::testing::dag;
    use crate::testing::mem_ipfs::MemIpfs;
    use crate::watch;

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_and_what_fails_is_counted() {
        let counts = CoreTelemetry::default();
        let node = CountedNode::new(MemIpfs::new(Duration::from_secs(10)), counts.clone());
        let (sound, lie) = (dag::leaf("sound"), Block { cid: dag::leaf("a").cid, data: Bytes::from_static(b"b") });
        let bytes = sound.data.len() as u64;
        node.put_blocks(vec![sound.clone(), dag::leaf("")]).await.unwrap();
        assert!(node.put_blocks(vec![lie.clone()]).await.is_err());
        let pin = |cid| {
            let request = PinRequest { cid, depth: PinDepth::RECURSIVE, origins: Vec::new(), update_from: None };
            node.pin(request, watch::Sender::new(PinProgress::default()))
        };
        pin(sound.cid).await.unwrap();
        assert!(pin(lie.cid).await.is_err(), "nobody has it");
        let told = [&counts.block_puts, &counts.block_put_errors, &counts.blocks_added, &counts.blocks_added_size];
        assert_eq!(told.map(Tally::total), [2, 1, 2, bytes]);
        assert_eq!((counts.pin_adds.total(), counts.pin_add_errors.total()), (2, 1));
    }
}
