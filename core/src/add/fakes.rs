//! A cluster in memory, as uploads see it: peers that keep blocks until they are told to fail.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{AddParams, AddedOutput, Cid, ErrorClass, PeerId, Pin, ReplicationFactor, WireError};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use super::destinations::{AddHost, Parcel};
use super::sink::BlockSink;
use super::{ImportPlan, import};
use crate::cluster::{AddEvent, ServiceResult};
use crate::consensus::sequencer::AllocationQuestion;
use crate::ports::Block;
use crate::unixfs::links;

/// What a peer of [`MemHost`] has, and when it fails.
#[derive(Debug, Default)]
pub(super) struct MemPeer {
    pub(super) blocks: BTreeMap<Vec<u8>, Bytes>,
    /// Batches it was given.
    pub(super) puts: usize,
    /// It is gone from this batch on.
    pub(super) fails_at: Option<usize>,
    /// It gives no block from this question on.
    pub(super) gives_until: Option<usize>,
    gets: usize,
}

/// Peers in memory; the first is here. They are chosen in their order.
pub(super) struct MemHost {
    pub(super) ids: Vec<PeerId>,
    pub(super) peers: Mutex<BTreeMap<PeerId, MemPeer>>,
    pub(super) pins: Mutex<Vec<Pin>>,
    /// Pins of this number on are refused.
    pub(super) pins_until: Mutex<Option<usize>>,
    /// How many puts of a peer may go on.
    gates: BTreeMap<PeerId, Semaphore>,
}

impl MemHost {
    /// So many peers that do as they are told.
    pub(super) fn new(peers: usize) -> Self {
        let ids: Vec<PeerId> = (0..peers).map(|_| PeerId::random()).collect();
        Self {
            peers: Mutex::new(ids.iter().map(|id| (*id, MemPeer::default())).collect()),
            gates: BTreeMap::new(),
            ids,
            pins: Mutex::default(),
            pins_until: Mutex::default(),
        }
    }

    /// Lets a peer keep blocks only when it is allowed to.
    pub(super) fn with_gate(mut self, number: usize) -> Self {
        self.gates.insert(self.ids[number], Semaphore::new(0));
        self
    }

    /// Lets a peer with a gate keep so many batches more.
    pub(super) fn open_gate(&self, number: usize, batches: usize) {
        self.gates[&self.ids[number]].add_permits(batches);
    }

    pub(super) fn fail_at(&self, number: usize, batch: usize) {
        self.change(number, |peer| peer.fails_at = Some(batch));
    }

    pub(super) fn change<T>(&self, number: usize, change: impl FnOnce(&mut MemPeer) -> T) -> T {
        change(self.peers.lock().get_mut(&self.ids[number]).unwrap())
    }

    pub(super) fn pins(&self) -> Vec<Pin> {
        self.pins.lock().clone()
    }

    /// Whether a peer has everything below a root.
    pub(super) fn has_all(&self, peer: &PeerId, root: Cid) -> bool {
        let peers = self.peers.lock();
        let mut open = vec![root];
        while let Some(cid) = open.pop() {
            let Some(data) = peers[peer].blocks.get(&cid.hash_bytes()) else { return false };
            open.extend(links(&cid, data).unwrap());
        }
        true
    }

    fn gone(peer: PeerId) -> WireError {
        WireError::new(ErrorClass::Unavailable, format!("cannot reach peer {peer}"))
    }
}

#[async_trait]
impl AddHost for MemHost {
    fn here(&self) -> PeerId {
        self.ids[0]
    }

    fn alive(&self) -> Vec<PeerId> {
        self.ids.clone()
    }

    fn allocate(&self, question: &AllocationQuestion<'_>) -> ServiceResult<Vec<PeerId>> {
        let ReplicationFactor::Between { min, max } = question.replication else { return Ok(Vec::new()) };
        let (min, max) = (min as usize, max as usize);
        let mut chosen = question.current.to_vec();
        let others = question.preferred.iter().chain(&self.ids);
        let mut seen: BTreeSet<PeerId> = question.current.iter().chain(question.excluded).copied().collect();
        chosen.extend(others.copied().filter(|peer| seen.insert(*peer)));
        chosen.truncate(max);
        if chosen.len() < min {
            return Err(WireError::new(ErrorClass::Conflict, "not enough peers to allocate CID"));
        }
        Ok(chosen)
    }

    async fn put(&self, peer: PeerId, parcel: &Parcel) -> ServiceResult<()> {
        if let Some(gate) = self.gates.get(&peer) {
            gate.acquire().await.unwrap().forget();
        }
        // As over a network: others go on before the answer is there.
        tokio::task::yield_now().await;
        let mut peers = self.peers.lock();
        let there = peers.get_mut(&peer).unwrap();
        if there.fails_at.is_some_and(|batch| there.puts >= batch) {
            return Err(Self::gone(peer));
        }
        there.puts += 1;
        there.blocks.extend(parcel.blocks.iter().map(|block| (block.cid.hash_bytes(), block.data.clone())));
        Ok(())
    }

    async fn get(&self, peer: PeerId, cids: &[Cid]) -> ServiceResult<Vec<Block>> {
        tokio::task::yield_now().await;
        let mut peers = self.peers.lock();
        let there = peers.get_mut(&peer).unwrap();
        there.gets += 1;
        if there.gives_until.is_some_and(|gets| there.gets > gets) {
            return Err(Self::gone(peer));
        }
        // A part of what was asked for, as when it does not fit into an answer.
        let some = cids.iter().take(3);
        let block = |cid: &Cid| there.blocks.get(&cid.hash_bytes()).map(|data| Block { cid: *cid, data: data.clone() });
        some.map(|cid| block(cid).ok_or_else(|| Self::gone(peer))).collect()
    }

    async fn pinned(&self, cid: Cid) -> ServiceResult<Option<Pin>> {
        Ok(self.pins.lock().iter().find(|pin| pin.cid == cid).cloned())
    }

    async fn pin(&self, pin: Pin) -> ServiceResult<()> {
        let mut pins = self.pins.lock();
        if self.pins_until.lock().is_some_and(|until| pins.len() >= until) {
            return Err(WireError::new(ErrorClass::Unavailable, "no quorum"));
        }
        pins.retain(|other| other.cid != pin.cid);
        pins.push(pin);
        Ok(())
    }

    async fn unpin_part(&self, cid: Cid) -> ServiceResult<()> {
        self.pins.lock().retain(|pin| pin.cid != cid);
        Ok(())
    }
}

/// A file of `bytes` bytes that has no block twice.
pub(super) fn file(bytes: usize) -> Vec<AddEvent> {
    let data: Vec<u8> = (0..bytes as u32 / 4 + 1).flat_map(u32::to_be_bytes).take(bytes).collect();
    let mut events = vec![AddEvent::File { path: "d/f".to_owned() }];
    events.extend(data.chunks(AddEvent::MAX_DATA).map(|data| AddEvent::Data(Bytes::copy_from_slice(data))));
    events.push(AddEvent::EndOfFile);
    events
}

/// Imports `events`; what was told, and how it ended.
pub(super) async fn run(
    sink: &mut dyn BlockSink,
    params: &AddParams,
    events: Vec<AddEvent>,
) -> (Vec<AddedOutput>, ServiceResult<Cid>) {
    let plan = ImportPlan::check(params).unwrap();
    let (send, receive) = mpsc::channel(events.len().max(1));
    events.into_iter().for_each(|event| send.try_send(Ok(event)).unwrap());
    drop(send);
    let (tell, mut told) = mpsc::channel(100_000);
    let end = import(&plan, receive, sink, tell).await;
    (std::iter::from_fn(|| told.try_recv().ok()).collect(), end)
}
