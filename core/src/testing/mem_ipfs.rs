//! An IPFS node in memory that keeps the contract of the port, and can be told to lie, hang, fail and cut listings.
//!
//! Nodes of one [`MemIpfsWorld`] fetch blocks from each other. Time is tokio's, so a paused clock works.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{Cid, Codec, GcKey, IpfsId, Multiaddr, PeerId, PinDepth, Protocol, RepoStat};
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::dag;
use crate::ports::{Block, IpfsError, IpfsNode, PinProgress, PinRequest, ProgressSink};

/// How many calls are remembered; older ones are forgotten.
const MAX_CALLS: usize = 100_000;

/// A call of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IpfsCall {
    /// [`IpfsNode::id`].
    Id,
    /// [`IpfsNode::pin`].
    Pin,
    /// [`IpfsNode::unpin`].
    Unpin,
    /// [`IpfsNode::pinned`].
    Pinned,
    /// [`IpfsNode::pins`].
    Pins,
    /// [`IpfsNode::put_blocks`].
    PutBlocks,
    /// [`IpfsNode::block`].
    Block,
    /// [`IpfsNode::import_car`].
    ImportCar,
    /// [`IpfsNode::resolve`].
    Resolve,
    /// [`IpfsNode::repo_stat`].
    RepoStat,
    /// [`IpfsNode::collect_garbage`].
    CollectGarbage,
    /// [`IpfsNode::connect`].
    Connect,
    /// [`IpfsNode::connected`].
    Connected,
}

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IpfsFault {
    /// No answer from the node.
    Unreachable,
    /// The node says no, with this text.
    Refused(String),
    /// The answer makes no sense.
    BadAnswer,
    /// There is no answer until the fault is taken away.
    Hangs,
}

/// How a listing of pins goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingFault {
    /// It ends with an error after so many pins, as the contract wants.
    Breaks(usize),
    /// It ends after so many pins as if it were complete, against the contract.
    EndsSilently(usize),
}

/// Nodes that can fetch from each other.
#[derive(Clone, Debug, Default)]
pub struct MemIpfsWorld {
    nodes: Arc<Mutex<Vec<Weak<MemIpfs>>>>,
    /// Wakes fetches that wait for a block.
    news: Arc<Notify>,
}

/// An IPFS node in memory.
#[derive(Debug)]
pub struct MemIpfs {
    world: MemIpfsWorld,
    id: PeerId,
    stall_time: Duration,
    state: Mutex<State>,
    /// Wakes calls that hang.
    mended: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By multihash.
    blocks: BTreeMap<Vec<u8>, Bytes>,
    pins: BTreeMap<Cid, PinDepth>,
    names: BTreeMap<String, Cid>,
    connected: BTreeSet<String>,
    storage_max: u64,
    finds_everything: bool,
    unfindable: BTreeSet<Cid>,
    /// A fault and how often it still strikes; `None` = until taken away.
    faults: BTreeMap<IpfsCall, (IpfsFault, Option<u32>)>,
    listing_fault: Option<ListingFault>,
    lies: BTreeMap<Cid, Option<PinDepth>>,
    calls: VecDeque<(IpfsCall, Option<Cid>)>,
}

impl MemIpfs {
    /// A node alone in the world, whose fetches stall after `stall_time`.
    pub fn new(stall_time: Duration) -> Arc<Self> {
        Self::in_world(&MemIpfsWorld::default(), stall_time)
    }

    /// A node that fetches from the others in `world`.
    pub fn in_world(world: &MemIpfsWorld, stall_time: Duration) -> Arc<Self> {
        let mut nodes = world.nodes.lock();
        // An identity made of the node's number, so that runs are the same.
        let number = u64::try_from(nodes.len()).expect("a number of nodes fits");
        let id = PeerId::from_bytes(&[&[0, 8][..], &number.to_be_bytes()].concat()).expect("an identity multihash");
        let node = Arc::new(Self {
            world: world.clone(),
            id,
            stall_time,
            state: Mutex::new(State { storage_max: 10_000_000_000, ..State::default() }),
            mended: Notify::new(),
        });
        nodes.push(Arc::downgrade(&node));
        drop(nodes);
        node
    }

    /// Lets every pin succeed at once, blocks or not: for tests that care about pins alone.
    pub fn find_everything(&self) {
        self.state.lock().finds_everything = true;
        self.world.news.notify_waiters();
    }

    /// Lets fetches of `cid` stall, or no longer.
    pub fn set_findable(&self, cid: Cid, findable: bool) {
        let mut state = self.state.lock();
        if findable {
            state.unfindable.remove(&cid);
        } else {
            state.unfindable.insert(cid);
        }
        self.world.news.notify_waiters();
    }

    /// Lets a call fail from now on.
    pub fn break_call(&self, call: IpfsCall, fault: IpfsFault) {
        self.state.lock().faults.insert(call, (fault, None));
    }

    /// Lets a call fail so many times.
    pub fn break_call_times(&self, call: IpfsCall, fault: IpfsFault, times: u32) {
        self.state.lock().faults.insert(call, (fault, Some(times)));
    }

    /// Takes every fault and lie away; calls that hang go on.
    pub fn mend(&self) {
        let mut state = self.state.lock();
        state.faults.clear();
        state.lies.clear();
        state.listing_fault = None;
        self.mended.notify_waiters();
    }

    /// Lets listings go wrong from now on.
    pub fn break_listings(&self, fault: ListingFault) {
        self.state.lock().listing_fault = Some(fault);
    }

    /// Lets the node say that `cid` is kept in this way, whatever is true.
    pub fn lie_about(&self, cid: Cid, claimed: Option<PinDepth>) {
        self.state.lock().lies.insert(cid, claimed);
    }

    /// Loses a pin, as when somebody unpins behind the cluster's back.
    pub fn forget_pin(&self, cid: &Cid) {
        self.state.lock().pins.remove(cid);
    }

    /// Binds `/ipns/<name>`.
    pub fn publish(&self, name: &str, cid: Cid) {
        self.state.lock().names.insert(name.to_owned(), cid);
    }

    /// Sets the bytes allowed.
    pub fn set_storage_max(&self, bytes: u64) {
        self.state.lock().storage_max = bytes;
    }

    /// What is truly kept.
    pub fn true_pins(&self) -> BTreeMap<Cid, PinDepth> {
        self.state.lock().pins.clone()
    }

    /// Every call so far, with the CID it was about, oldest first.
    pub fn calls(&self) -> Vec<(IpfsCall, Option<Cid>)> {
        self.state.lock().calls.iter().copied().collect()
    }

    /// Notes a call and lets it go wrong as told.
    async fn enter(&self, call: IpfsCall, cid: Option<Cid>) -> Result<(), IpfsError> {
        {
            let mut state = self.state.lock();
            if state.calls.len() == MAX_CALLS {
                state.calls.pop_front();
            }
            state.calls.push_back((call, cid));
        }
        loop {
            let mended = self.mended.notified();
            match self.strike(call) {
                None => return Ok(()),
                Some(IpfsFault::Hangs) => mended.await,
                Some(IpfsFault::Unreachable) => return Err(self.unreachable()),
                Some(IpfsFault::Refused(reason)) => return Err(IpfsError::Refused { reason }),
                Some(IpfsFault::BadAnswer) => return Err(bad_answer()),
            }
        }
    }

    fn strike(&self, call: IpfsCall) -> Option<IpfsFault> {
        let mut state = self.state.lock();
        let (fault, left) = state.faults.get_mut(&call)?;
        let fault = fault.clone();
        if let Some(left) = left {
            *left = left.saturating_sub(1);
            // One that hangs stays until it is mended: being asked again is no second call.
            if *left == 0 && fault != IpfsFault::Hangs {
                state.faults.remove(&call);
            }
        }
        Some(fault)
    }

    fn unreachable(&self) -> IpfsError {
        IpfsError::Unreachable { endpoint: format!("memory/{}", self.id), cause: "told to".into() }
    }

    /// A block, from here or from another node.
    fn find(&self, cid: &Cid) -> Option<Bytes> {
        if cid.hash().code() == Codec::IDENTITY {
            return Some(Bytes::copy_from_slice(cid.hash().digest()));
        }
        let key = cid.hash_bytes();
        if let Some(data) = self.state.lock().blocks.get(&key) {
            return Some(data.clone());
        }
        if self.state.lock().unfindable.contains(cid) {
            return None;
        }
        let others: Vec<Arc<Self>> = self.world.nodes.lock().iter().filter_map(Weak::upgrade).collect();
        let data = others.iter().find_map(|node| node.state.lock().blocks.get(&key).cloned())?;
        self.state.lock().blocks.insert(key, data.clone());
        Some(data)
    }

    /// Waits for a block; an error when nothing was found for the stall time.
    async fn fetch(&self, cid: &Cid, blocks: u64) -> Result<Bytes, IpfsError> {
        let deadline = Instant::now() + self.stall_time;
        loop {
            let news = self.world.news.notified();
            if let Some(data) = self.find(cid) {
                return Ok(data);
            }
            if tokio::time::timeout_at(deadline, news).await.is_err() {
                return Err(IpfsError::Stalled { seconds: self.stall_time.as_secs(), blocks });
            }
        }
    }

    /// Fetches a DAG as deep as wanted.
    async fn fetch_dag(&self, root: Cid, depth: PinDepth, progress: &ProgressSink) -> Result<(), IpfsError> {
        let (mut seen, mut done) = (BTreeSet::new(), PinProgress::default());
        let mut open = vec![(root, 0_i32)];
        while let Some((cid, level)) = open.pop() {
            if !seen.insert(cid.hash_bytes()) {
                continue;
            }
            let data = self.fetch(&cid, done.blocks).await?;
            done = PinProgress { blocks: done.blocks + 1, bytes: done.bytes + size(&data) };
            progress.send_replace(done);
            if depth == PinDepth::RECURSIVE || level < depth.0 {
                open.extend(dag::links(&Block { cid, data }).into_iter().map(|(_name, child)| (child, level + 1)));
            }
        }
        Ok(())
    }

    fn keep(&self, blocks: Vec<Block>) -> Result<(), IpfsError> {
        if let Some(bad) = blocks.iter().find(|block| !dag::matches(&block.cid, &block.data)) {
            return Err(IpfsError::BadBlock { cid: bad.cid, reason: "its hash is another".to_owned() });
        }
        let mut state = self.state.lock();
        state.blocks.extend(blocks.into_iter().map(|block| (block.cid.hash_bytes(), block.data)));
        drop(state);
        self.world.news.notify_waiters();
        Ok(())
    }

    /// The pins as the node tells them, lies included.
    fn told(&self) -> BTreeMap<Cid, PinDepth> {
        let state = self.state.lock();
        let mut told = state.pins.clone();
        for (cid, claimed) in &state.lies {
            match claimed {
                Some(depth) => told.insert(*cid, *depth),
                None => told.remove(cid),
            };
        }
        told
    }
}

fn bad_answer() -> IpfsError {
    IpfsError::BadAnswer { operation: "a call", reason: "told to".to_owned() }
}

fn refused(reason: impl Into<String>) -> IpfsError {
    IpfsError::Refused { reason: reason.into() }
}

fn size(data: &Bytes) -> u64 {
    u64::try_from(data.len()).expect("a length fits")
}

#[async_trait]
impl IpfsNode for MemIpfs {
    async fn id(&self) -> Result<IpfsId, IpfsError> {
        self.enter(IpfsCall::Id, None).await?;
        Ok(IpfsId { id: self.id.to_string(), addresses: Vec::new(), error: String::new() })
    }

    async fn pin(&self, request: PinRequest, progress: ProgressSink) -> Result<(), IpfsError> {
        self.enter(IpfsCall::Pin, Some(request.cid)).await?;
        let waved_through = {
            let state = self.state.lock();
            state.finds_everything && !state.unfindable.contains(&request.cid)
        };
        if !waved_through {
            self.fetch_dag(request.cid, request.depth, &progress).await?;
        }
        // A recursive pin covers a direct one.
        let mut state = self.state.lock();
        let kept = state.pins.entry(request.cid).or_insert(request.depth);
        if *kept != PinDepth::RECURSIVE {
            *kept = request.depth;
        }
        Ok(())
    }

    async fn unpin(&self, cid: Cid) -> Result<(), IpfsError> {
        self.enter(IpfsCall::Unpin, Some(cid)).await?;
        self.state.lock().pins.remove(&cid);
        Ok(())
    }

    async fn pinned(&self, cid: Cid) -> Result<Option<PinDepth>, IpfsError> {
        self.enter(IpfsCall::Pinned, Some(cid)).await?;
        let state = self.state.lock();
        Ok(state.lies.get(&cid).copied().unwrap_or_else(|| state.pins.get(&cid).copied()))
    }

    fn pins(&self) -> BoxStream<'static, Result<(Cid, PinDepth), IpfsError>> {
        let node = self.world.nodes.lock().iter().filter_map(Weak::upgrade).find(|node| node.id == self.id);
        Box::pin(async_stream::try_stream! {
            let node = node.ok_or_else(bad_answer)?;
            node.enter(IpfsCall::Pins, None).await?;
            let fault = node.state.lock().listing_fault;
            for (count, pin) in node.told().into_iter().enumerate() {
                match fault {
                    Some(ListingFault::Breaks(after)) if count == after => Err(bad_answer())?,
                    Some(ListingFault::EndsSilently(after)) if count == after => return,
                    _ => yield pin,
                }
            }
            if matches!(fault, Some(ListingFault::Breaks(_))) {
                Err(bad_answer())?;
            }
        })
    }

    async fn put_blocks(&self, blocks: Vec<Block>) -> Result<(), IpfsError> {
        self.enter(IpfsCall::PutBlocks, None).await?;
        self.keep(blocks)
    }

    async fn block(&self, cid: Cid) -> Result<Bytes, IpfsError> {
        self.enter(IpfsCall::Block, Some(cid)).await?;
        self.fetch(&cid, 0).await
    }

    async fn import_car(
        &self,
        mut car: BoxStream<'static, Result<Bytes, std::io::Error>>,
    ) -> Result<Vec<Cid>, IpfsError> {
        self.enter(IpfsCall::ImportCar, None).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = car.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| refused(error.to_string()))?);
        }
        let (roots, blocks) = dag::read_car(&bytes).ok_or_else(|| refused("the archive is malformed"))?;
        self.keep(blocks)?;
        Ok(roots)
    }

    async fn resolve(&self, path: &str) -> Result<Cid, IpfsError> {
        self.enter(IpfsCall::Resolve, None).await?;
        let mut segments = path.strip_prefix('/').unwrap_or_default().split('/').filter(|part| !part.is_empty());
        let unknown = || refused(format!("cannot resolve {path}"));
        let root = match (segments.next(), segments.next()) {
            (Some("ipfs" | "ipld"), Some(cid)) => cid.parse().ok(),
            (Some("ipns"), Some(name)) => self.state.lock().names.get(name).copied(),
            _ => None,
        };
        let mut cid: Cid = root.ok_or_else(unknown)?;
        for segment in segments {
            let data = self.fetch(&cid, 0).await?;
            let links = dag::links(&Block { cid, data });
            cid = links.into_iter().find(|(name, _)| name == segment).ok_or_else(unknown)?.1;
        }
        Ok(cid)
    }

    async fn repo_stat(&self) -> Result<RepoStat, IpfsError> {
        self.enter(IpfsCall::RepoStat, None).await?;
        let state = self.state.lock();
        Ok(RepoStat { repo_size: state.blocks.values().map(size).sum(), storage_max: state.storage_max })
    }

    async fn collect_garbage(&self) -> Result<Vec<GcKey>, IpfsError> {
        self.enter(IpfsCall::CollectGarbage, None).await?;
        let mut state = self.state.lock();
        let mut live = BTreeSet::new();
        let mut open: Vec<(Cid, PinDepth, i32)> = state.pins.iter().map(|(cid, depth)| (*cid, *depth, 0)).collect();
        let mut seen = BTreeSet::new();
        while let Some((cid, depth, level)) = open.pop() {
            live.insert(cid.hash_bytes());
            if !seen.insert((cid, depth.0, level)) || (depth != PinDepth::RECURSIVE && level >= depth.0) {
                continue;
            }
            let Some(data) = state.blocks.get(&cid.hash_bytes()).cloned() else { continue };
            let next = if depth == PinDepth::RECURSIVE { 0 } else { level + 1 };
            open.extend(dag::links(&Block { cid, data }).into_iter().map(|(_name, child)| (child, depth, next)));
        }
        let dead: Vec<Vec<u8>> = state.blocks.keys().filter(|key| !live.contains(*key)).cloned().collect();
        let mut removed = Vec::new();
        for key in dead {
            state.blocks.remove(&key);
            // As Kubo does: the store knows hashes only, so every key is called raw.
            let cid = Cid::from_bytes(&[&[1, 0x55][..], &key].concat()).ok();
            removed.push(GcKey { key: cid, error: String::new() });
        }
        Ok(removed)
    }

    async fn connect(&self, addresses: Vec<Multiaddr>) -> Result<(), IpfsError> {
        self.enter(IpfsCall::Connect, None).await?;
        let mut peers = BTreeSet::new();
        for address in &addresses {
            match address.iter().last() {
                Some(Protocol::P2p(peer)) => peers.insert(peer.to_string()),
                _ => return Err(refused(format!("{address} names no peer"))),
            };
        }
        if peers.is_empty() {
            return Err(refused("there is no address to connect to"));
        }
        self.state.lock().connected.extend(peers);
        Ok(())
    }

    async fn connected(&self) -> Result<Vec<String>, IpfsError> {
        self.enter(IpfsCall::Connected, None).await?;
        Ok(self.state.lock().connected.iter().cloned().collect())
    }
}
