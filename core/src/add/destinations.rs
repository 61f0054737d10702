//! The peers that get the blocks of an upload.
//!
//! Every batch goes to all of them, [`AT_ONCE`] of them at a time to each, and the import waits for a peer only when that
//! peer is [`WINDOW`] batches behind. One that fails to take a batch is out; at the end [`Destinations::complete`]
//! puts spares in its place, which get every block from those that have them.
//!
//! **Invariant:** who is listed by [`Destinations::holders`] has taken every batch that is kept, and after
//! [`Destinations::complete`] every block of the content.
//! **Invariant:** memory is bounded by [`WINDOW`] batches, however many peers there are and however slow one is; a spare
//! costs one batch more and the way down the DAG.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use cluster_types::{Cid, Codec, ErrorClass, PeerId, Pin, ReplicationFactor, WireError};
use futures::future;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cluster::ServiceResult;
use crate::consensus::sequencer::AllocationQuestion;
use crate::ports::Block;
use crate::rpc::PreparedCall;
use crate::unixfs::{links, verify};

/// Batches that wait for, or are under way to, the slowest peer.
pub(crate) const WINDOW: usize = 8;
/// Batches that are under way to one peer: the deadline of each has to do for all of them on a slow connection.
pub(crate) const AT_ONCE: usize = 3;
/// Blocks that are asked for at a time when a spare is filled.
const COPY_BLOCKS: usize = 64;

/// The text that clients know an upload by that nobody takes.
const NOWHERE: &str = "failed to put block on all destinations";

/// The cluster, as an upload sees it.
#[async_trait]
pub(crate) trait AddHost: Send + Sync + 'static {
    /// This peer.
    fn here(&self) -> PeerId;
    /// The members that were heard lately.
    fn alive(&self) -> Vec<PeerId>;
    /// Chooses who holds a pin; empty means every peer.
    fn allocate(&self, question: &AllocationQuestion<'_>) -> ServiceResult<Vec<PeerId>>;
    /// Has a peer's node keep blocks; when it returns, they are kept.
    async fn put(&self, peer: PeerId, parcel: &Parcel) -> ServiceResult<()>;
    /// Blocks of a peer's node: at least the first, and as many of those after it as fit into an answer.
    async fn get(&self, peer: PeerId, cids: &[Cid]) -> ServiceResult<Vec<Block>>;
    /// A pin of the pinset.
    async fn pinned(&self, cid: Cid) -> ServiceResult<Option<Pin>>;
    /// Has a pin ordered as it is.
    async fn pin(&self, pin: Pin) -> ServiceResult<()>;
    /// Has a part of a sharded pin removed; one that is not there is removed already.
    async fn unpin_part(&self, cid: Cid) -> ServiceResult<()>;
}

/// A batch of blocks for several peers: packed once, for the first that is not this one.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    /// The blocks.
    pub(crate) blocks: Vec<Block>,
    /// The call that carries them.
    pub(crate) call: OnceLock<ServiceResult<PreparedCall>>,
}

impl From<Vec<Block>> for Parcel {
    fn from(blocks: Vec<Block>) -> Self {
        Self { blocks, call: OnceLock::new() }
    }
}

/// What has to be where, when an upload is complete.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content<'a> {
    /// Everything below a root.
    Dag(Cid),
    /// These blocks.
    Blocks(&'a [Cid]),
}

/// How many copies are wanted, and where.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// How many copies.
    pub(crate) replication: ReplicationFactor,
    /// Peers the user would like to have it.
    pub(crate) preferred: Vec<PeerId>,
    /// Whether blocks go to this peer only, and others fetch them once it is pinned.
    pub(crate) local: bool,
}

/// The peers that get the blocks.
pub(crate) struct Destinations {
    host: Arc<dyn AddHost>,
    placement: Placement,
    /// Who the pin is for; empty means every peer.
    allocations: Vec<PeerId>,
    /// Who took every batch so far.
    takers: Vec<PeerId>,
    /// How many batches may be under way to each; closed for one that failed.
    turns: HashMap<PeerId, Arc<Semaphore>>,
    failed: Vec<(PeerId, WireError)>,
    puts: JoinSet<Put>,
    /// How many puts are under way of each batch that is not kept yet.
    open: VecDeque<usize>,
    /// Batches that everybody has who is still in.
    kept: u64,
}

/// What became of a batch at one peer.
struct Put {
    batch: u64,
    peer: PeerId,
    result: ServiceResult<()>,
}

impl Destinations {
    /// Chooses peers.
    pub(crate) fn choose(host: Arc<dyn AddHost>, placement: Placement) -> ServiceResult<Self> {
        let here = host.here();
        let mut allocations = host.allocate(&AllocationQuestion {
            replication: placement.replication,
            current: &[],
            preferred: &placement.preferred,
            excluded: &[],
            keep_silent: false,
        })?;
        let replace = placement.local && placement.preferred.is_empty() && !allocations.contains(&here);
        if let Some(last) = allocations.last_mut().filter(|_| replace) {
            *last = here;
        }
        let takers = if placement.local {
            vec![here]
        } else if allocations.is_empty() {
            host.alive()
        } else {
            allocations.clone()
        };
        if takers.is_empty() {
            return Err(WireError::new(ErrorClass::Unavailable, format!("{NOWHERE}: no peer is alive")));
        }
        let turns = takers.iter().map(|taker| (*taker, Arc::new(Semaphore::new(AT_ONCE)))).collect();
        let (failed, puts, open) = (Vec::new(), JoinSet::new(), VecDeque::new());
        Ok(Self { host, placement, allocations, takers, turns, failed, puts, open, kept: 0 })
    }

    /// Sends a batch on its way; waits while [`WINDOW`] are.
    pub(crate) async fn put(&mut self, blocks: Vec<Block>) -> ServiceResult<()> {
        while let Some(put) = self.puts.try_join_next() {
            self.note(put)?;
        }
        while self.open.len() >= WINDOW {
            self.next().await?;
        }
        let parcel = Arc::new(Parcel::from(blocks));
        let batch = self.kept + self.open.len() as u64;
        for peer in self.takers.iter().copied() {
            let (host, parcel, turns) = (Arc::clone(&self.host), Arc::clone(&parcel), self.turns.get(&peer).cloned());
            self.puts.spawn(async move {
                let turn = match &turns {
                    Some(turns) => turns.acquire().await.ok(),
                    None => None,
                };
                let result = match turn {
                    Some(_turn) => host.put(peer, &parcel).await,
                    None => Err(WireError::new(ErrorClass::Unavailable, "an earlier batch failed")),
                };
                Put { batch, peer, result }
            });
        }
        self.open.push_back(self.takers.len());
        Ok(())
    }

    /// Waits until nothing is under way.
    pub(crate) async fn settle(&mut self) -> ServiceResult<()> {
        while !self.open.is_empty() {
            self.next().await?;
        }
        Ok(())
    }

    /// How many batches everybody has who is still in.
    pub(crate) fn kept(&self) -> u64 {
        self.kept
    }

    /// Who has what is kept.
    pub(crate) fn holders(&self) -> &[PeerId] {
        &self.takers
    }

    /// Who the pin is for: those that have everything, and with a local upload those that will fetch it; empty means every
    /// peer.
    pub(crate) fn allocations(&self) -> &[PeerId] {
        if self.placement.local || self.allocations.is_empty() { &self.allocations } else { &self.takers }
    }

    /// Puts spares in the place of those that failed, as far as there are any, and gives them `content`.
    pub(crate) async fn complete(&mut self, content: Content<'_>) -> ServiceResult<()> {
        self.settle().await?;
        while self.missing() > 0 {
            let spares = self.spares(1);
            if spares.is_empty() {
                return self.check_minimum();
            }
            for spare in spares {
                tracing::info!(peer = %spare, "a peer takes the place of one that failed, and gets the blocks of an upload");
                match self.copy(spare, content).await? {
                    Ok(()) => self.takers.push(spare),
                    Err(error) => self.drop_out(spare, error)?,
                }
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> ServiceResult<()> {
        match self.puts.join_next().await {
            Some(put) => self.note(put),
            None => Err(WireError::new(ErrorClass::Unavailable, "the upload was cut off")),
        }
    }

    fn note(&mut self, put: Result<Put, tokio::task::JoinError>) -> ServiceResult<()> {
        let put =
            put.map_err(|error| WireError::new(ErrorClass::Unavailable, format!("cannot put blocks: {error}")))?;
        let place = usize::try_from(put.batch - self.kept).unwrap_or(usize::MAX);
        if let Some(open) = self.open.get_mut(place) {
            *open -= 1;
        }
        while self.open.front() == Some(&0) {
            self.open.pop_front();
            self.kept += 1;
        }
        put.result.or_else(|error| self.drop_out(put.peer, error))
    }

    /// A peer has not everything any more. An error if that leaves nobody, or too few with no spare in sight.
    fn drop_out(&mut self, peer: PeerId, error: WireError) -> ServiceResult<()> {
        if self.failed.iter().all(|(other, _)| *other != peer) {
            tracing::warn!(%peer, %error, "a peer does not take the blocks of an upload any more");
            self.failed.push((peer, error));
        }
        self.takers.retain(|taker| *taker != peer);
        if let Some(turns) = self.turns.get(&peer) {
            turns.close();
        }
        if self.takers.is_empty() {
            return Err(WireError::new(ErrorClass::Unavailable, format!("{NOWHERE}: {}", self.reasons())));
        }
        let missing = self.minimum().saturating_sub(self.takers.len());
        if missing > 0 && self.spares(missing).is_empty() { self.check_minimum() } else { Ok(()) }
    }

    /// The fewest that must have everything.
    fn minimum(&self) -> usize {
        match self.placement.replication {
            ReplicationFactor::Between { min, .. } if !self.placement.local => {
                usize::try_from(min).unwrap_or(usize::MAX)
            }
            ReplicationFactor::Between { .. } | ReplicationFactor::Everywhere => 1,
        }
    }

    /// How many are missing of those that were chosen.
    fn missing(&self) -> usize {
        if self.placement.local { 0 } else { self.allocations.len().saturating_sub(self.takers.len()) }
    }

    fn check_minimum(&self) -> ServiceResult<()> {
        let (minimum, left) = (self.minimum(), self.takers.len());
        if left >= minimum {
            return Ok(());
        }
        let text = format!(
            "failed to put block on enough destinations: {left} of at least {minimum} have the content, and no other peer \
             can take it: {}",
            self.reasons()
        );
        Err(WireError::new(ErrorClass::Unavailable, text))
    }

    fn reasons(&self) -> String {
        let reasons: Vec<_> = self.failed.iter().map(|(peer, error)| format!("{peer}: {error}")).collect();
        reasons.join("; ")
    }

    /// Peers that may take the place of those that failed, if there are at least so many.
    fn spares(&self, at_least: usize) -> Vec<PeerId> {
        let excluded: Vec<PeerId> = self.failed.iter().map(|(peer, _)| *peer).collect();
        let count = |peers: usize| u32::try_from(peers).unwrap_or(u32::MAX);
        let left = self.takers.len();
        let replication = ReplicationFactor::Between {
            min: count(left + at_least),
            max: count(self.allocations.len().max(left + at_least)),
        };
        let chosen = self.host.allocate(&AllocationQuestion {
            replication,
            current: &self.takers,
            preferred: &self.placement.preferred,
            excluded: &excluded,
            keep_silent: true,
        });
        let is_new = |peer: &PeerId| !self.takers.contains(peer) && !excluded.contains(peer);
        chosen.unwrap_or_default().into_iter().filter(is_new).collect()
    }

    /// Gives a peer what others have. The outer error ends the upload, the inner one is the peer's own.
    async fn copy(&mut self, to: PeerId, content: Content<'_>) -> ServiceResult<ServiceResult<()>> {
        let mut way = Way::of(content);
        let mut batch = Vec::new();
        loop {
            let wanted = way.next();
            if wanted.is_empty() && batch.is_empty() {
                return Ok(Ok(()));
            }
            let parcel = Parcel::from(std::mem::take(&mut batch));
            let putting = async { if parcel.blocks.is_empty() { Ok(()) } else { self.host.put(to, &parcel).await } };
            let (put, got) = future::join(putting, self.get(&wanted)).await;
            if let Err(error) = put {
                return Ok(Err(error));
            }
            batch = match got {
                Ok(blocks) => blocks,
                Err((peer, error)) => {
                    // It has not what it took, or is gone.
                    self.drop_out(peer, error)?;
                    Vec::new()
                }
            };
            way.came(wanted, &batch)?;
        }
    }

    /// Blocks of one that has everything; this peer if it has. An error names who failed.
    async fn get(&self, cids: &[Cid]) -> Result<Vec<Block>, (PeerId, WireError)> {
        let here = self.host.here();
        let from = self.takers.iter().find(|taker| **taker == here).or(self.takers.first());
        let Some(from) = from.copied().filter(|_| !cids.is_empty()) else { return Ok(Vec::new()) };
        let blocks = self.host.get(from, cids).await.map_err(|error| (from, error))?;
        let bad = |reason: String| (from, WireError::new(ErrorClass::Unavailable, reason));
        if blocks.is_empty() {
            return Err(bad("it gave no block".to_owned()));
        }
        for (block, cid) in blocks.iter().zip(cids) {
            if block.cid != *cid {
                return Err(bad("it gave another block".to_owned()));
            }
            verify(&block.cid, &block.data).map_err(|error| bad(error.to_string()))?;
        }
        Ok(blocks)
    }
}

/// The blocks of a content, in an order in which their names are known.
struct Way {
    left: Vec<Cid>,
    /// Inner blocks that were gone down from; none when the names are known beforehand.
    seen: Option<HashSet<Vec<u8>>>,
}

impl Way {
    fn of(content: Content<'_>) -> Self {
        match content {
            Content::Dag(root) => Self { left: vec![root], seen: Some(HashSet::new()) },
            Content::Blocks(cids) => Self { left: cids.to_vec(), seen: None },
        }
    }

    /// What to ask for next.
    fn next(&mut self) -> Vec<Cid> {
        self.left.split_off(self.left.len().saturating_sub(COPY_BLOCKS))
    }

    /// Takes note of what came of it, in the order it was asked for.
    fn came(&mut self, wanted: Vec<Cid>, blocks: &[Block]) -> ServiceResult<()> {
        self.left.extend(wanted.into_iter().skip(blocks.len()));
        let Some(seen) = &mut self.seen else { return Ok(()) };
        for block in blocks.iter().filter(|block| block.cid.codec() != Codec::RAW) {
            let below = links(&block.cid, &block.data)
                .map_err(|error| WireError::new(ErrorClass::Malformed, error.to_string()))?;
            if below.is_empty() || !seen.insert(block.cid.to_bytes()) {
                continue;
            }
            // A file of zeros links to one block many times.
            let below: BTreeSet<Cid> = below.into_iter().collect();
            self.left.extend(below.into_iter().filter(|cid| !seen.contains(&cid.to_bytes())));
        }
        Ok(())
    }
}
