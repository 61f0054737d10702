//! Brings a DAG to this node: walks it, asks for what is missing, keeps what comes.
//!
//! Blocks stay when a fetch fails or is dropped, so the next one begins where it stopped. What is here already is
//! walked, not believed: a block being here says nothing about the blocks below it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_core::ports::{BlockError, IpfsError, PinProgress, ProgressSink, Root};
use cluster_core::unixfs::{identity_data, links};
use cluster_types::{Cid, Codec};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::timeout;

use super::bitswap::{Bitswap, Session};
use super::walk::{Below, Step, Walk};

/// Brings DAGs and blocks.
pub(super) struct Fetcher {
    pub(super) bitswap: Arc<Bitswap>,
    pub(super) concurrency: usize,
    pub(super) stall_timeout: Duration,
}

/// A block that is here now.
struct Visited {
    cid: Cid,
    below: Below,
    links: Vec<Cid>,
    /// Bytes that came from elsewhere.
    fetched: u64,
}

/// What a failing block store means for a caller of the node.
pub(super) fn store_failed(cause: BlockError) -> IpfsError {
    IpfsError::Store { cause }
}

impl Fetcher {
    /// Returns when every block of the DAG, to its depth, is here.
    pub(super) async fn fetch_dag(&self, root: Root, progress: &ProgressSink) -> Result<(), IpfsError> {
        let session = self.bitswap.session();
        let mut walk = Walk::new();
        walk.begin(root.cid, root.depth);
        let mut under_way = FuturesUnordered::new();
        let mut done = PinProgress::default();
        loop {
            while under_way.len() < self.concurrency {
                match walk.next() {
                    Some(Step::Visit(cid, below)) => under_way.push(self.visit(&session, cid, below)),
                    Some(Step::Reload(cid)) => {
                        let reloading = timeout(self.stall_timeout, self.reload(&session, cid));
                        walk.reload(reloading.await.map_err(|_elapsed| self.stalled(done.blocks))??);
                    }
                    None => break,
                }
            }
            let visited: Visited = match timeout(self.stall_timeout, under_way.next()).await {
                Ok(Some(visited)) => visited?,
                Ok(None) => return Ok(()),
                Err(_elapsed) => return Err(self.stalled(done.blocks)),
            };
            done.blocks += 1;
            done.bytes += visited.fetched;
            progress.send_replace(done);
            walk.expand(visited.cid, visited.below, visited.links)
                .map_err(|error| IpfsError::Refused { reason: format!("{}: {error}", root.cid) })?;
        }
    }

    /// A block, from here or from elsewhere.
    pub(super) async fn fetch_block(&self, cid: Cid) -> Result<Bytes, IpfsError> {
        if let Some(data) = identity_data(&cid) {
            return Ok(Bytes::copy_from_slice(data));
        }
        if let Some(data) = self.bitswap.kept.get_sound(&cid.hash_bytes()).await.map_err(store_failed)? {
            return Ok(data);
        }
        let session = self.bitswap.session();
        match timeout(self.stall_timeout, self.bitswap.fetch(&session, cid)).await {
            Ok(data) => data.map_err(store_failed),
            Err(_elapsed) => Err(self.stalled(0)),
        }
    }

    fn stalled(&self, blocks: u64) -> IpfsError {
        IpfsError::Stalled { seconds: self.stall_timeout.as_secs(), blocks }
    }

    async fn visit(&self, session: &Session, cid: Cid, below: Below) -> Result<Visited, IpfsError> {
        let visited = |links, fetched| Visited { cid, below, links, fetched };
        let wants_links = below > 0 && cid.codec() != Codec::RAW;
        if identity_data(&cid).is_some() {
            return Ok(visited(if wants_links { links_of(&cid, &[])? } else { Vec::new() }, 0));
        }
        let multihash = cid.hash_bytes();
        let kept = &self.bitswap.kept;
        if kept.touch(&multihash).await.map_err(store_failed)?.is_some() {
            if !wants_links {
                return Ok(visited(Vec::new(), 0));
            }
            if let Some(data) = kept.get_sound(&multihash).await.map_err(store_failed)? {
                return Ok(visited(links_of(&cid, &data)?, 0));
            }
        }
        let data = self.bitswap.fetch(session, cid).await.map_err(store_failed)?;
        Ok(visited(if wants_links { links_of(&cid, &data)? } else { Vec::new() }, data.len() as u64))
    }

    async fn reload(&self, session: &Session, cid: Cid) -> Result<Vec<Cid>, IpfsError> {
        Ok(self.visit(session, cid, Below::MAX).await?.links)
    }
}

fn links_of(cid: &Cid, data: &[u8]) -> Result<Vec<Cid>, IpfsError> {
    links(cid, data).map_err(|error| IpfsError::Refused { reason: error.to_string() })
}
