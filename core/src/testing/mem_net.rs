//! A network in memory, for many peers in one process: the double of `Transport` and `Gossip`.
//!
//! Bodies are copied as bytes. Links can be cut, both ways or one way, delayed, and made to break; gossip can be lost
//! and replayed. Chance comes from one seed and time from tokio, so that on one thread with a paused clock the same
//! seed gives the same run.
//!
//! What it keeps of the real network: a peer is reached only when it is connected or its address is known; a cut in
//! both directions is noticed, a cut in one direction is silence; a handler that has begun runs to its end; a peer
//! handles a bounded number of calls of each other peer. A replayed message comes after more than a minute, because
//! the contract rules out an earlier one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{BoxError, Multiaddr, PeerId, Protocol};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Semaphore, broadcast, oneshot};
use tokio::time::{sleep, timeout};

use crate::ports::{
    CallHandler, Gossip, GossipError, GossipMessage, MAX_MESSAGE, Purpose, Topic, Transport, TransportError,
};
use crate::task::{OnExit, TaskGroup};

/// Calls of one peer that another handles at once, of each purpose.
const MAX_CALLS: usize = 64;
/// How many messages a slow gossip receiver may be behind.
const GOSSIP_BACKLOG: usize = 256;
/// How long it takes to notice that nobody can be reached.
const NO_ROUTE_AFTER: Duration = Duration::from_millis(20);
/// A replayed message comes this much later.
const REPLAY_AFTER: Duration = Duration::from_secs(61);

/// Two peers, the lower id first.
type Pair = (PeerId, PeerId);

fn pair(one: PeerId, other: PeerId) -> Pair {
    if one < other { (one, other) } else { (other, one) }
}

/// The network all peers are in.
#[derive(Clone)]
pub struct MemNet {
    world: Arc<World>,
}

struct World {
    state: Mutex<State>,
    tasks: TaskGroup,
}

struct State {
    chance: StdRng,
    peers: BTreeMap<PeerId, Arc<MemPeer>>,
    /// Number of each peer, which makes its address.
    numbers: BTreeMap<PeerId, u64>,
    cut: BTreeSet<(PeerId, PeerId)>,
    /// Pairs that have connected without either remembering the other.
    acquainted: BTreeSet<Pair>,
    delay: Range<Duration>,
    break_rate: f64,
    gossip_loss: f64,
    gossip_replay: f64,
    in_flight: BTreeMap<(PeerId, PeerId, Purpose), Arc<Semaphore>>,
}

impl fmt::Debug for MemNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemNet").field("peers", &self.world.state.lock().peers.len()).finish_non_exhaustive()
    }
}

impl MemNet {
    /// A perfect network without peers.
    pub fn new(seed: u64) -> Self {
        let state = State {
            chance: StdRng::seed_from_u64(seed),
            peers: BTreeMap::new(),
            numbers: BTreeMap::new(),
            cut: BTreeSet::new(),
            acquainted: BTreeSet::new(),
            delay: Duration::ZERO..Duration::ZERO,
            break_rate: 0.0,
            gossip_loss: 0.0,
            gossip_replay: 0.0,
            in_flight: BTreeMap::new(),
        };
        Self { world: Arc::new(World { state: Mutex::new(state), tasks: TaskGroup::new() }) }
    }

    /// The place of `peer` in the network; it is made at the first call.
    pub fn peer(&self, peer: PeerId) -> Arc<MemPeer> {
        let mut state = self.world.state.lock();
        let next_number = state.numbers.len() as u64 + 1;
        state.numbers.entry(peer).or_insert(next_number);
        let world = Arc::downgrade(&self.world);
        Arc::clone(state.peers.entry(peer).or_insert_with(|| Arc::new(MemPeer::new(peer, world))))
    }

    /// Takes a peer away as a crash does: its connections and what it remembered are gone, and [`MemNet::peer`] makes
    /// a new one. Calls it is handling run on, but nobody gets their answers.
    pub fn crash(&self, peer: PeerId) {
        let mut state = self.world.state.lock();
        state.peers.remove(&peer);
        state.acquainted.retain(|(one, other)| *one != peer && *other != peer);
        state.in_flight.retain(|(from, to, _), _| *from != peer && *to != peer);
    }

    /// Cuts the link of two peers, both ways.
    pub fn cut(&self, one: PeerId, other: PeerId) {
        let mut state = self.world.state.lock();
        state.cut.extend([(one, other), (other, one)]);
        state.acquainted.remove(&pair(one, other));
    }

    /// Nothing that `from` sends reaches `to` any more; the other direction works.
    pub fn cut_one_way(&self, from: PeerId, to: PeerId) {
        self.world.state.lock().cut.insert((from, to));
    }

    /// Mends the link of two peers, both ways.
    pub fn heal(&self, one: PeerId, other: PeerId) {
        let mut state = self.world.state.lock();
        state.cut.remove(&(one, other));
        state.cut.remove(&(other, one));
    }

    /// Mends every link.
    pub fn heal_all(&self) {
        self.world.state.lock().cut.clear();
    }

    /// Cuts every link of a peer.
    pub fn isolate(&self, peer: PeerId) {
        let others: Vec<PeerId> = self.world.state.lock().peers.keys().copied().filter(|id| *id != peer).collect();
        for other in others {
            self.cut(peer, other);
        }
    }

    /// Cuts every link between two groups of peers.
    pub fn partition(&self, one_side: &[PeerId], other_side: &[PeerId]) {
        for one in one_side {
            for other in other_side {
                self.cut(*one, *other);
            }
        }
    }

    /// Every message takes a time from this range, one way.
    pub fn set_delay(&self, range: Range<Duration>) {
        self.world.state.lock().delay = range;
    }

    /// How likely a call breaks: before it arrives, or after it was handled.
    pub fn set_break_rate(&self, rate: f64) {
        self.world.state.lock().break_rate = rate;
    }

    /// How likely a gossip message is lost on its way to one peer.
    pub fn set_gossip_loss(&self, rate: f64) {
        self.world.state.lock().gossip_loss = rate;
    }

    /// How likely a gossip message is delivered a second time, more than a minute later.
    pub fn set_gossip_replay(&self, rate: f64) {
        self.world.state.lock().gossip_replay = rate;
    }
}

/// What becomes of a message on its way.
enum Way {
    Open,
    /// Nothing arrives, and nobody is told.
    Silent,
    /// The connection is known to be gone.
    Broken,
}

impl State {
    fn address(&self, peer: PeerId) -> Multiaddr {
        Multiaddr::empty().with(Protocol::Memory(self.numbers.get(&peer).copied().unwrap_or_default()))
    }

    fn way(&self, from: PeerId, to: PeerId) -> Way {
        match (self.cut.contains(&(from, to)), self.cut.contains(&(to, from))) {
            (false, _) => Way::Open,
            (true, false) => Way::Silent,
            (true, true) => Way::Broken,
        }
    }

    fn remembers(&self, peer: PeerId, other: PeerId) -> bool {
        let address = self.address(other);
        self.peers.get(&peer).is_some_and(|peer| {
            peer.known.lock().get(&other).is_some_and(|known| known.remembered && known.addresses.contains(&address))
        })
    }

    fn knows_address(&self, peer: PeerId, other: PeerId) -> bool {
        let address = self.address(other);
        self.peers
            .get(&peer)
            .is_some_and(|peer| peer.known.lock().get(&other).is_some_and(|known| known.addresses.contains(&address)))
    }

    /// Whether two live peers have a connection, or have one again as soon as the link lets them.
    fn linked(&self, one: PeerId, other: PeerId) -> bool {
        one != other
            && self.peers.contains_key(&one)
            && self.peers.contains_key(&other)
            && (self.acquainted.contains(&pair(one, other)) || self.remembers(one, other) || self.remembers(other, one))
    }

    fn connected(&self, one: PeerId, other: PeerId) -> bool {
        let cut = self.cut.contains(&(one, other)) || self.cut.contains(&(other, one));
        self.linked(one, other) && !cut
    }

    fn delay(&mut self) -> Duration {
        if self.delay.is_empty() { self.delay.start } else { self.chance.random_range(self.delay.clone()) }
    }

    fn happens(&mut self, rate: f64) -> bool {
        rate > 0.0 && self.chance.random_bool(rate.clamp(0.0, 1.0))
    }

    /// Everyone a message of `from` gets to, passed on from peer to peer.
    fn reached(&self, from: PeerId) -> Vec<PeerId> {
        let mut reached = BTreeSet::from([from]);
        let mut next = vec![from];
        while let Some(sender) = next.pop() {
            for receiver in self.peers.keys() {
                let open = matches!(self.way(sender, *receiver), Way::Open) && self.linked(sender, *receiver);
                if open && reached.insert(*receiver) {
                    next.push(*receiver);
                }
            }
        }
        reached.remove(&from);
        reached.into_iter().collect()
    }
}

#[derive(Debug, Default)]
struct KnownPeer {
    addresses: BTreeSet<Multiaddr>,
    remembered: bool,
}

/// One peer's place in a [`MemNet`].
pub struct MemPeer {
    local: PeerId,
    world: Weak<World>,
    handler: Mutex<Option<Arc<dyn CallHandler>>>,
    known: Mutex<BTreeMap<PeerId, KnownPeer>>,
    metrics: broadcast::Sender<GossipMessage>,
    log: broadcast::Sender<GossipMessage>,
}

impl fmt::Debug for MemPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemPeer").field("local", &self.local).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoRoute(&'static str);

impl MemPeer {
    fn new(local: PeerId, world: Weak<World>) -> Self {
        Self {
            local,
            world,
            handler: Mutex::new(None),
            known: Mutex::new(BTreeMap::new()),
            metrics: broadcast::Sender::new(GOSSIP_BACKLOG),
            log: broadcast::Sender::new(GOSSIP_BACKLOG),
        }
    }

    fn listeners(&self, topic: Topic) -> &broadcast::Sender<GossipMessage> {
        match topic {
            Topic::Metrics => &self.metrics,
            Topic::Log => &self.log,
        }
    }

    fn not_sent(peer: PeerId, why: &'static str) -> TransportError {
        TransportError::NotSent { peer, cause: Box::new(NoRoute(why)) }
    }

    /// Connects to the callee: how long its call takes to arrive, and whether the connection breaks on the way.
    fn set_off(&self, world: &World, peer: PeerId) -> Result<(Duration, bool), &'static str> {
        let mut state = world.state.lock();
        let both_live = state.peers.contains_key(&self.local) && state.peers.contains_key(&peer);
        if !both_live || !(state.linked(self.local, peer) || state.knows_address(self.local, peer)) {
            return Err("no address leads to the peer");
        }
        if matches!(state.way(self.local, peer), Way::Broken) {
            return Err("the link is cut");
        }
        state.acquainted.insert(pair(self.local, peer));
        let rate = state.break_rate / 2.0;
        Ok((state.delay(), state.happens(rate)))
    }

    /// Hands a call that arrives to the handler of its peer.
    fn arrive(&self, world: &World, peer: PeerId, purpose: Purpose, body: &Bytes) -> Result<Answer, TransportError> {
        let mut state = world.state.lock();
        match state.way(self.local, peer) {
            Way::Open => {}
            Way::Silent => return Ok(Answer::Never),
            Way::Broken => return Err(TransportError::Broken { peer }),
        }
        let target = state.peers.get(&peer).cloned().ok_or(TransportError::Broken { peer })?;
        let slots = state.in_flight.entry((self.local, peer, purpose));
        let slots = slots.or_insert_with(|| Arc::new(Semaphore::new(MAX_CALLS)));
        let slot = Arc::clone(slots).try_acquire_owned();
        let handler = target.handler.lock().clone();
        let (Some(handler), Ok(slot)) = (handler, slot) else { return Err(TransportError::Overloaded { peer }) };
        let (reply, answer) = oneshot::channel();
        let (local, body) = (self.local, Bytes::copy_from_slice(body));
        world.tasks.spawn("handle a call in memory", OnExit::Continue, async move {
            let answer = handler.handle(local, purpose, body).await;
            drop(slot);
            // The caller may be gone.
            let _unheard = reply.send(answer);
            Ok::<(), BoxError>(())
        });
        Ok(Answer::Later(answer))
    }

    /// Brings a call to its peer; the answer comes through the channel, or never.
    async fn send(&self, world: &World, peer: PeerId, purpose: Purpose, body: Bytes) -> Result<Answer, TransportError> {
        match self.set_off(world, peer) {
            Ok((delay, breaks)) => {
                sleep(delay).await;
                if breaks { Err(TransportError::Broken { peer }) } else { self.arrive(world, peer, purpose, &body) }
            }
            Err(why) => {
                sleep(NO_ROUTE_AFTER).await;
                Err(Self::not_sent(peer, why))
            }
        }
    }

    /// Waits for the answer and brings it back.
    async fn receive(&self, world: &World, peer: PeerId, answer: Answer) -> Result<Bytes, TransportError> {
        let Answer::Later(answer) = answer else { return std::future::pending().await };
        // No answer: the handler panicked.
        let body = answer.await.map_err(|_| TransportError::Broken { peer })?;
        let (delay, breaks) = {
            let mut state = world.state.lock();
            let rate = state.break_rate / 2.0;
            (state.delay(), state.happens(rate))
        };
        sleep(delay).await;
        let way = {
            let state = world.state.lock();
            let alive = state.peers.contains_key(&peer) && state.peers.contains_key(&self.local);
            if alive { state.way(peer, self.local) } else { Way::Broken }
        };
        match way {
            Way::Open if !breaks && body.len() <= MAX_MESSAGE => Ok(Bytes::copy_from_slice(&body)),
            Way::Open | Way::Broken => Err(TransportError::Broken { peer }),
            Way::Silent => std::future::pending().await,
        }
    }
}

enum Answer {
    Later(oneshot::Receiver<Bytes>),
    Never,
}

#[async_trait]
impl Transport for MemPeer {
    fn local_peer(&self) -> PeerId {
        self.local
    }

    async fn call(
        &self,
        peer: PeerId,
        purpose: Purpose,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, TransportError> {
        if body.len() > MAX_MESSAGE {
            return Err(TransportError::TooLarge { size: body.len() });
        }
        if peer == self.local {
            return Err(Self::not_sent(peer, "a peer does not call itself"));
        }
        let Some(world) = self.world.upgrade() else { return Err(Self::not_sent(peer, "the network is gone")) };
        let work = async {
            let answer = self.send(&world, peer, purpose, body).await?;
            self.receive(&world, peer, answer).await
        };
        timeout(limit, work).await.unwrap_or(Err(TransportError::Timeout { peer, after: limit }))
    }

    fn serve(&self, handler: Arc<dyn CallHandler>) {
        *self.handler.lock() = Some(handler);
    }

    async fn dial(&self, address: Multiaddr, limit: Duration) -> Result<PeerId, TransportError> {
        let unreachable = |why| TransportError::Unreachable { address: address.clone(), cause: Box::new(NoRoute(why)) };
        let Some(world) = self.world.upgrade() else { return Err(unreachable("the network is gone")) };
        let mut bare = address.clone();
        let named = match bare.iter().last() {
            Some(Protocol::P2p(peer)) => {
                bare.pop();
                Some(peer)
            }
            _ => None,
        };
        let delay = world.state.lock().delay();
        let arrived = timeout(limit, sleep(delay)).await.is_ok();
        let mut state = world.state.lock();
        let found = state.numbers.keys().copied().find(|peer| state.address(*peer) == bare);
        let answers = found.filter(|peer| {
            let cut = state.cut.contains(&(self.local, *peer)) || state.cut.contains(&(*peer, self.local));
            arrived && !cut && *peer != self.local && state.peers.contains_key(peer)
        });
        let peer = answers.ok_or_else(|| unreachable("nobody answers at this address"))?;
        if named.is_some_and(|named| named != peer) {
            return Err(unreachable("another peer answers at this address"));
        }
        state.acquainted.insert(pair(self.local, peer));
        self.known.lock().entry(peer).or_default().addresses.insert(bare);
        Ok(peer)
    }

    fn remember(&self, peer: PeerId, addresses: Vec<Multiaddr>) {
        if peer == self.local {
            return;
        }
        let mut known = self.known.lock();
        let known = known.entry(peer).or_default();
        known.remembered = true;
        known.addresses.extend(addresses.into_iter().map(|mut address| {
            if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
                address.pop();
            }
            address
        }));
    }

    fn forget(&self, peer: PeerId) {
        self.known.lock().remove(&peer);
        if let Some(world) = self.world.upgrade() {
            world.state.lock().acquainted.remove(&pair(self.local, peer));
        }
    }

    fn connected(&self) -> Vec<PeerId> {
        let Some(world) = self.world.upgrade() else { return Vec::new() };
        let state = world.state.lock();
        state.peers.keys().copied().filter(|peer| state.connected(self.local, *peer)).collect()
    }

    fn addresses_of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let mut addresses = self.known.lock().get(peer).map(|known| known.addresses.clone()).unwrap_or_default();
        if let Some(world) = self.world.upgrade() {
            let state = world.state.lock();
            if state.connected(self.local, *peer) {
                addresses.insert(state.address(*peer));
            }
        }
        addresses.into_iter().collect()
    }

    fn own_addresses(&self) -> Vec<Multiaddr> {
        let Some(world) = self.world.upgrade() else { return Vec::new() };
        let address = world.state.lock().address(self.local);
        vec![address.with(Protocol::P2p(self.local))]
    }
}

#[async_trait]
impl Gossip for MemPeer {
    async fn publish(&self, topic: Topic, data: Bytes) -> Result<(), GossipError> {
        if data.len() > Topic::MAX_MESSAGE {
            return Err(GossipError::TooLarge { size: data.len() });
        }
        let Some(world) = self.world.upgrade() else { return Err(GossipError::Closed) };
        let mut deliveries = Vec::new();
        {
            let mut state = world.state.lock();
            let (loss, replay) = (state.gossip_loss, state.gossip_replay);
            for peer in state.reached(self.local) {
                let Some(target) = state.peers.get(&peer).cloned() else { continue };
                if !state.happens(loss) {
                    deliveries.push((Arc::clone(&target), state.delay()));
                }
                if state.happens(replay) {
                    deliveries.push((target, REPLAY_AFTER + state.delay()));
                }
            }
        }
        for (target, delay) in deliveries {
            let message = GossipMessage { from: self.local, data: Bytes::copy_from_slice(&data) };
            if delay.is_zero() {
                // Nobody may be listening.
                let _unheard = target.listeners(topic).send(message);
                continue;
            }
            world.tasks.spawn("deliver gossip in memory", OnExit::Continue, async move {
                sleep(delay).await;
                let _unheard = target.listeners(topic).send(message);
                Ok::<(), BoxError>(())
            });
        }
        Ok(())
    }

    fn subscribe(&self, topic: Topic) -> broadcast::Receiver<GossipMessage> {
        self.listeners(topic).subscribe()
    }
}

#[cfg(test)]
#[path = "mem_net_tests.rs"]
mod tests;
