//! Adding content: blocks go to the peers that will hold it, then it is pinned there.

use std::sync::Arc;
use std::time::Duration;

use async_stream::try_stream;
use async_trait::async_trait;
use cluster_types::{AddParams, AddedOutput, Cid, ErrorClass, PeerId, Pin, WireError};
use tokio::sync::{mpsc, oneshot};

use super::service::{Cluster, PEER_TIMEOUT, from_state};
use super::{AddEvent, Listing, ServiceResult};
use crate::add::{AddHost, BlockSink, ImportPlan, Parcel, ShardSink, WholeSink, Wish, import};
use crate::consensus::Request;
use crate::consensus::sequencer::{AllocationQuestion, Allocator};
use crate::ports::Block;
use crate::rpc::{Call, PeerClient, Reply, WireBlock};
use crate::task::OnExit;

/// What was added may be this far ahead of whoever reads it.
const OUTPUTS: usize = 256;
/// How long a peer may take to keep one batch of blocks, or to give one.
const BLOCKS_TIMEOUT: Duration = Duration::from_secs(4 * PEER_TIMEOUT.as_secs());
/// An answer of blocks ends behind the block that reaches this size: with the largest block it is still a message.
const MAX_ANSWER_BYTES: usize = 2 * 1024 * 1024;

impl Cluster {
    pub(super) fn add_content(
        &self,
        params: AddParams,
        events: mpsc::Receiver<ServiceResult<AddEvent>>,
    ) -> ServiceResult<Listing<AddedOutput>> {
        let plan = ImportPlan::check(&params)?;
        let replication = params
            .options
            .replication(self.parts.settings.default_replication)
            .map_err(|error| WireError::from_error(ErrorClass::Invalid, &error))?;
        let (outputs, mut added) = mpsc::channel(OUTPUTS);
        let (ended, end) = oneshot::channel();
        let (host, wish): (Arc<dyn AddHost>, _) = (Arc::new(self.clone()), Wish::new(&params, replication));
        let mut sink: Box<dyn BlockSink> =
            if params.shard { Box::new(ShardSink::new(host, wish)) } else { Box::new(WholeSink::new(host, wish)) };
        self.parts.tasks.spawn("add", OnExit::Continue, async move {
            // Whoever asked may be gone: then nobody needs the result.
            drop(ended.send(import(&plan, events, sink.as_mut(), outputs).await));
            Ok::<(), WireError>(())
        });
        Ok(Box::pin(try_stream! {
            while let Some(output) = added.recv().await {
                yield output;
            }
            end.await.map_err(|_| WireError::new(ErrorClass::Unavailable, "the import was cut off"))??;
        }))
    }

    /// Blocks of this peer's node, for another peer: the first of those asked for, as many as fit into an answer.
    pub(super) async fn give_blocks(&self, cids: &[Cid]) -> ServiceResult<Vec<Block>> {
        let (mut blocks, mut bytes) = (Vec::new(), 0);
        for cid in cids {
            let data = self.parts.ipfs.block(*cid).await;
            let data = data.map_err(|error| WireError::from_error(error.class(), &error))?;
            bytes += data.len();
            blocks.push(Block { cid: *cid, data });
            if bytes >= MAX_ANSWER_BYTES {
                break;
            }
        }
        Ok(blocks)
    }

    pub(super) fn allocator(&self) -> Arc<dyn Allocator> {
        Arc::clone(&self.parts.allocator)
    }
}

#[async_trait]
impl AddHost for Cluster {
    fn here(&self) -> PeerId {
        self.peer
    }

    fn alive(&self) -> Vec<PeerId> {
        self.alive_of(&self.members())
    }

    fn allocate(&self, question: &AllocationQuestion<'_>) -> ServiceResult<Vec<PeerId>> {
        self.allocator().snapshot(&self.members()).allocate(question)
    }

    async fn put(&self, peer: PeerId, parcel: &Parcel) -> ServiceResult<()> {
        if peer == self.peer {
            let kept = self.parts.ipfs.put_blocks(parcel.blocks.clone()).await;
            return kept.map_err(|error| WireError::from_error(error.class(), &error));
        }
        let prepare = || {
            let blocks = parcel.blocks.iter().map(WireBlock::from).collect();
            PeerClient::prepare(&Call::PutBlocks { blocks })
        };
        let call = parcel.call.get_or_init(prepare).as_ref().map_err(WireError::clone)?;
        self.client.ask_prepared(peer, call, BLOCKS_TIMEOUT).await.map(drop)
    }

    async fn get(&self, peer: PeerId, cids: &[Cid]) -> ServiceResult<Vec<Block>> {
        if peer == self.peer {
            return self.give_blocks(cids).await;
        }
        let call = Call::Blocks { cids: cids.to_vec() };
        let Reply::Blocks(blocks) = self.client.ask(peer, &call, BLOCKS_TIMEOUT).await? else {
            return Err(PeerClient::misfit(peer));
        };
        blocks.iter().map(Block::try_from).collect()
    }

    async fn pinned(&self, cid: Cid) -> ServiceResult<Option<Pin>> {
        self.parts.state.pin(cid).await.map_err(|error| from_state(&error))
    }

    async fn pin(&self, pin: Pin) -> ServiceResult<()> {
        self.submit_pin(pin).await.map(drop)
    }

    async fn unpin_part(&self, cid: Cid) -> ServiceResult<()> {
        match self.submit(Request::UnpinPart { cid }).await {
            Err(error) if error.class == ErrorClass::NotFound => Ok(()),
            other => other.map(drop),
        }
    }
}
