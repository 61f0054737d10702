//! Adding content: blocks go to the peers that will hold it, then the root is pinned there.
//!
//! **Invariant:** a pin made here lists a peer only if that peer took every block of the upload, or if the peer is to
//! fetch them from those that did.

use std::sync::Arc;

use async_stream::try_stream;
use async_trait::async_trait;
use cluster_types::{AddParams, AddedOutput, Cid, ErrorClass, PeerId, Pin, PinMode, ReplicationFactor, WireError};
use futures::future;
use tokio::sync::{mpsc, oneshot};

use super::service::{Cluster, PEER_TIMEOUT};
use super::{AddEvent, Listing, ServiceResult};
use crate::add::{BlockSink, ImportPlan, import};
use crate::consensus::sequencer::{AllocationQuestion, Allocator};
use crate::ports::Block;
use crate::rpc::{Call, WireBlock};
use crate::task::OnExit;

/// What was added may be this far ahead of whoever reads it.
const OUTPUTS: usize = 256;
/// How long a peer may take to keep one batch of blocks.
const PUT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(4 * PEER_TIMEOUT.as_secs());

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
        let mut sink =
            ClusterSink { cluster: self.clone(), params, replication, allocations: Vec::new(), takers: None };
        self.parts.tasks.spawn("add", OnExit::Continue, async move {
            // Whoever asked may be gone: then nobody needs the result.
            drop(ended.send(import(&plan, events, &mut sink, outputs).await));
            Ok::<(), WireError>(())
        });
        Ok(Box::pin(try_stream! {
            while let Some(output) = added.recv().await {
                yield output;
            }
            end.await.map_err(|_| WireError::new(ErrorClass::Unavailable, "the import was cut off"))??;
        }))
    }
}

/// Sends blocks to the peers that will hold the content.
struct ClusterSink {
    cluster: Cluster,
    params: AddParams,
    replication: ReplicationFactor,
    /// Who shall hold the pin; empty means every peer.
    allocations: Vec<PeerId>,
    /// Who took every block so far; chosen with the first one.
    takers: Option<Vec<PeerId>>,
}

impl ClusterSink {
    fn choose(&mut self) -> ServiceResult<Vec<PeerId>> {
        let members = self.cluster.members();
        let snapshot = self.cluster.allocator().snapshot(&members);
        let options = &self.params.options;
        let question = AllocationQuestion {
            replication: self.replication,
            current: &[],
            preferred: &options.user_allocations,
            excluded: &[],
            keep_silent: false,
        };
        self.allocations = snapshot.allocate(&question)?;
        let own = self.cluster.peer;
        let replace = self.params.local && options.user_allocations.is_empty() && !self.allocations.contains(&own);
        if let Some(last) = self.allocations.last_mut().filter(|_| replace) {
            *last = own;
        }
        Ok(if self.params.local {
            vec![own]
        } else if self.allocations.is_empty() {
            self.cluster.alive(&members)
        } else {
            self.allocations.clone()
        })
    }

    async fn put_on(&self, peer: PeerId, blocks: &[Block]) -> ServiceResult<()> {
        if peer == self.cluster.peer {
            let kept = self.cluster.parts.ipfs.put_blocks(blocks.to_vec()).await;
            return kept.map_err(|error| WireError::from_error(error.class(), &error));
        }
        let call = Call::PutBlocks { blocks: blocks.iter().map(WireBlock::from).collect() };
        self.cluster.client.ask(peer, &call, PUT_TIMEOUT).await.map(drop)
    }
}

#[async_trait]
impl BlockSink for ClusterSink {
    async fn put(&mut self, blocks: Vec<Block>) -> ServiceResult<()> {
        let takers = match self.takers.take() {
            Some(takers) => takers,
            None => self.choose()?,
        };
        let puts = takers.iter().map(|peer| self.put_on(*peer, &blocks));
        let results = future::join_all(puts).await;
        let mut left = Vec::with_capacity(takers.len());
        for (peer, result) in takers.into_iter().zip(results) {
            match result {
                Ok(()) => left.push(peer),
                Err(error) => tracing::warn!(%peer, %error, "a peer does not take the blocks of an upload any more"),
            }
        }
        if left.is_empty() {
            return Err(WireError::new(ErrorClass::Unavailable, "failed to put block on all destinations"));
        }
        self.takers = Some(left);
        Ok(())
    }

    fn allocations(&self) -> Vec<PeerId> {
        self.takers.clone().unwrap_or_default()
    }

    async fn finish(&mut self, root: Cid) -> ServiceResult<Vec<AddedOutput>> {
        if self.params.no_pin {
            return Ok(Vec::new());
        }
        let mut options = self.params.options.clone();
        (options.replication_factor_min, options.replication_factor_max) = self.replication.as_pair();
        options.mode = PinMode::Recursive;
        options.pin_update = None;
        let mut pin = Pin::new(root, options);
        let takers = self.takers.clone().unwrap_or_default();
        let whole = self.params.local || self.allocations.iter().all(|peer| takers.contains(peer));
        if whole {
            pin.allocations = self.allocations.clone();
        } else {
            // Somebody dropped out: the leader chooses anew, those that have the blocks first.
            pin.options.user_allocations = takers;
        }
        self.cluster.submit_pin(pin).await.map(|_committed| Vec::new())
    }
}

impl Cluster {
    pub(super) fn allocator(&self) -> Arc<dyn Allocator> {
        Arc::clone(&self.parts.allocator)
    }
}
