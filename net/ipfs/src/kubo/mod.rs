//! An [`IpfsNode`] that is a Kubo daemon, spoken to over its RPC.
//!
//! The calls and the error texts are those of ipfs-cluster v1.1.6, so what an operator sees in Kubo's log and in
//! statuses stays the same. What differs is trust: an answer counts only when it is complete (see `answer`), and
//! everything in it is bounded.
//!
//! Deadlines: `request_timeout` for questions and for silence within a listing or an upload; `pin_timeout` without
//! progress for a fetch; `unpin_timeout` and `repogc_timeout` for those two.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_core::ports::{Block, IpfsError, IpfsNode, PinRequest, ProgressSink};
use cluster_core::watch;
use cluster_types::{Cid, ErrorChain, GcKey, IpfsId, Multiaddr, PinDepth, RepoStat};
use futures::stream::BoxStream;

mod answer;
mod blocks;
mod breaker;
mod car;
mod client;
mod endpoint;
mod pins;
mod repo;

use client::Client;
use endpoint::Endpoint;
pub use endpoint::{is_node_address, parse_node_address};

/// Where Kubo is and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KuboConfig {
    /// Its RPC: `/ip4/…/tcp/…`, `/dns/…/tcp/…`, each with `/http` or `/https` if wanted, or `/unix/…`
    /// (from text: [`parse_node_address`]).
    pub endpoint: Multiaddr,
    /// For the answer to a question.
    pub request_timeout: Duration,
    /// For a pin that makes no progress.
    pub pin_timeout: Duration,
    /// For an unpin.
    pub unpin_timeout: Duration,
    /// For a garbage collection.
    pub repogc_timeout: Duration,
    /// Refuses every unpin.
    pub unpin_disable: bool,
}

impl KuboConfig {
    /// The default timeouts, for the node at `endpoint`.
    pub fn new(endpoint: Multiaddr) -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            endpoint,
            request_timeout: 5 * MINUTE,
            pin_timeout: 2 * MINUTE,
            unpin_timeout: 3 * 60 * MINUTE,
            repogc_timeout: 24 * 60 * MINUTE,
            unpin_disable: false,
        }
    }
}

/// A Kubo daemon.
#[derive(Debug)]
pub struct Kubo {
    client: Client,
    config: KuboConfig,
    /// How often what it holds was changed.
    changes: watch::Sender<u64>,
}

impl Kubo {
    /// Prepares to speak to a Kubo; nothing is sent yet.
    pub fn new(config: KuboConfig) -> Result<Arc<Self>, IpfsError> {
        let unusable = |reason: String| IpfsError::Refused { reason };
        let endpoint = Endpoint::parse(&config.endpoint).map_err(|error| unusable(error.to_string()))?;
        let client = Client::new(&endpoint, &config.endpoint.to_string())
            .map_err(|error| unusable(format!("cannot use {}: {}", config.endpoint, ErrorChain(&error))))?;
        Ok(Arc::new(Self { client, config, changes: watch::Sender::new(0) }))
    }

    /// How often pins came or went and blocks were put, by this side.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

#[async_trait]
impl IpfsNode for Kubo {
    async fn id(&self) -> Result<IpfsId, IpfsError> {
        Ok(repo::id(&self.client, &self.config).await?)
    }

    async fn pin(&self, request: PinRequest, progress: ProgressSink) -> Result<(), IpfsError> {
        pins::pin(&self.client, &self.config, request, progress).await?;
        self.changed();
        Ok(())
    }

    async fn unpin(&self, cid: Cid) -> Result<(), IpfsError> {
        pins::unpin(&self.client, &self.config, cid).await?;
        self.changed();
        Ok(())
    }

    async fn pinned(&self, cid: Cid) -> Result<Option<PinDepth>, IpfsError> {
        Ok(pins::pinned(&self.client, &self.config, cid).await?)
    }

    fn pins(&self) -> BoxStream<'static, Result<(Cid, PinDepth), IpfsError>> {
        Box::pin(pins::list(self.client.clone(), self.config.request_timeout))
    }

    async fn put_blocks(&self, blocks: Vec<Block>) -> Result<(), IpfsError> {
        blocks::put(&self.client, &self.config, blocks).await?;
        self.changed();
        Ok(())
    }

    async fn block(&self, cid: Cid) -> Result<Bytes, IpfsError> {
        Ok(blocks::get(&self.client, &self.config, cid).await?)
    }

    async fn import_car(&self, car: BoxStream<'static, Result<Bytes, std::io::Error>>) -> Result<Vec<Cid>, IpfsError> {
        Ok(car::import(&self.client, &self.config, car).await?)
    }

    async fn resolve(&self, path: &str) -> Result<Cid, IpfsError> {
        Ok(repo::resolve(&self.client, &self.config, path).await?)
    }

    async fn repo_stat(&self) -> Result<RepoStat, IpfsError> {
        Ok(repo::stat(&self.client, &self.config).await?)
    }

    async fn collect_garbage(&self) -> Result<Vec<GcKey>, IpfsError> {
        Ok(repo::collect_garbage(&self.client, &self.config).await?)
    }

    async fn connect(&self, addresses: Vec<Multiaddr>) -> Result<(), IpfsError> {
        Ok(repo::connect(&self.client, &self.config, &addresses).await?)
    }

    async fn connected(&self) -> Result<Vec<String>, IpfsError> {
        Ok(repo::connected(&self.client, &self.config).await?)
    }
}
