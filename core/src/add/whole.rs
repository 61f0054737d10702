//! Content that each of its holders keeps whole: blocks go to them, then the root is pinned there.
//!
//! **Invariant:** a pin made here lists a peer only if that peer has every block of the content, or if it was asked for that
//! others fetch it (a local upload, a pin for every peer).

use std::sync::Arc;

use async_trait::async_trait;
use cluster_types::{AddParams, AddedOutput, Cid, PeerId, Pin, PinMode, PinOptions, ReplicationFactor};

use super::destinations::{AddHost, Content, Destinations, Placement};
use super::sink::BlockSink;
use crate::cluster::ServiceResult;
use crate::ports::Block;

/// What an upload is to become, whole or in shards.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Options of the pin, with the replication factors set.
    pub(crate) options: PinOptions,
    /// Where blocks go.
    pub(crate) placement: Placement,
    /// Whether anything is pinned.
    pub(crate) pins: bool,
}

impl Wish {
    /// What was asked for, with so many copies.
    pub(crate) fn new(params: &AddParams, replication: ReplicationFactor) -> Self {
        let mut options = params.options.clone();
        (options.replication_factor_min, options.replication_factor_max) = replication.as_pair();
        (options.mode, options.pin_update) = (PinMode::Recursive, None);
        let placement =
            Placement { replication, preferred: params.options.user_allocations.clone(), local: params.local };
        Self { options, placement, pins: !params.no_pin }
    }
}

/// Sends blocks to the peers that will hold the content.
pub(crate) struct WholeSink {
    host: Arc<dyn AddHost>,
    wish: Wish,
    /// Chosen with the first block.
    destinations: Option<Destinations>,
}

impl WholeSink {
    /// A sink that has not taken anything.
    pub(crate) fn new(host: Arc<dyn AddHost>, wish: Wish) -> Self {
        Self { host, wish, destinations: None }
    }

    fn destinations(&mut self) -> ServiceResult<&mut Destinations> {
        let destinations = match self.destinations.take() {
            Some(destinations) => destinations,
            None => Destinations::choose(Arc::clone(&self.host), self.wish.placement.clone())?,
        };
        Ok(self.destinations.insert(destinations))
    }
}

#[async_trait]
impl BlockSink for WholeSink {
    async fn put(&mut self, blocks: Vec<Block>) -> ServiceResult<()> {
        self.destinations()?.put(blocks).await
    }

    fn kept(&self) -> u64 {
        self.destinations.as_ref().map_or(0, Destinations::kept)
    }

    async fn settle(&mut self) -> ServiceResult<()> {
        match &mut self.destinations {
            Some(destinations) => destinations.settle().await,
            None => Ok(()),
        }
    }

    fn allocations(&self) -> Vec<PeerId> {
        self.destinations.as_ref().map(|destinations| destinations.holders().to_vec()).unwrap_or_default()
    }

    async fn finish(&mut self, root: Cid) -> ServiceResult<Vec<AddedOutput>> {
        let (pins, options) = (self.wish.pins, self.wish.options.clone());
        let host = Arc::clone(&self.host);
        let destinations = self.destinations()?;
        if !pins {
            // An archive may hold a part of a DAG only, so nobody can be given what others have.
            destinations.settle().await?;
            return Ok(Vec::new());
        }
        destinations.complete(Content::Dag(root)).await?;
        let mut pin = Pin::new(root, options);
        pin.allocations = destinations.allocations().to_vec();
        host.pin(pin).await?;
        Ok(Vec::new())
    }
}
