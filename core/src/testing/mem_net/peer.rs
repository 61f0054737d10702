//! One peer's place in the network in memory: both ports.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{BoxError, Multiaddr, PeerId, Protocol};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast, oneshot};
use tokio::time::{sleep, timeout};

use super::{Way, World, pair};
use crate::ports::{
    CallHandler, Gossip, GossipError, GossipMessage, MAX_MESSAGE, Purpose, Topic, Transport, TransportError,
};
use crate::task::OnExit;

/// Calls of one peer that another handles at once, of each purpose.
const MAX_CALLS: usize = 64;
/// How many messages a slow gossip receiver may be behind.
const GOSSIP_BACKLOG: usize = 256;
/// How long it takes to notice that nobody can be reached.
const NO_ROUTE_AFTER: Duration = Duration::from_millis(20);
/// A replayed message comes this much later.
const REPLAY_AFTER: Duration = Duration::from_secs(61);
/// A repeated call comes at least this much later.
const REPEAT_AFTER: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
pub(super) struct KnownPeer {
    pub(super) addresses: BTreeSet<Multiaddr>,
    pub(super) remembered: bool,
}

/// One peer's place in a [`MemNet`](super::MemNet).
pub struct MemPeer {
    pub(super) local: PeerId,
    world: Weak<World>,
    handler: Mutex<Option<Arc<dyn CallHandler>>>,
    pub(super) known: Mutex<BTreeMap<PeerId, KnownPeer>>,
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
    pub(super) fn new(local: PeerId, world: Weak<World>) -> Self {
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
        let both_live = state.is_present(self) && state.peers.contains_key(&peer);
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
        if !state.is_present(self) {
            return Err(TransportError::Broken { peer });
        }
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
        let rate = state.repeat_rate;
        if state.happens(rate) {
            let delay = state.delay() + REPEAT_AFTER;
            self.repeat(world, (delay, &target, &handler), purpose, body);
        }
        let (reply, answer) = oneshot::channel();
        let (local, body) = (self.local, Bytes::copy_from_slice(body));
        world.tasks.spawn("handle a call in memory", OnExit::Continue, async move {
            let answer = handler.handle(local, purpose, body).await;
            drop(slot);
            // The caller may be gone.
            let _unheard = reply.send(answer);
            Ok::<(), BoxError>(())
        });
        Ok(Answer::Later(answer, target))
    }

    /// Hands a call to its handler once more, if the peer has not crashed until then.
    fn repeat(
        &self,
        world: &World,
        (delay, target, handler): (Duration, &Arc<Self>, &Arc<dyn CallHandler>),
        purpose: Purpose,
        body: &Bytes,
    ) {
        let (target, handler, weak) = (Arc::clone(target), Arc::clone(handler), self.world.clone());
        let (local, body) = (self.local, Bytes::copy_from_slice(body));
        world.tasks.spawn("handle a call in memory again", OnExit::Continue, async move {
            sleep(delay).await;
            let present = weak.upgrade().is_some_and(|world| world.state.lock().is_present(&target));
            if present {
                drop(handler.handle(local, purpose, body).await);
            }
            Ok::<(), BoxError>(())
        });
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
        let Answer::Later(answer, target) = answer else { return std::future::pending().await };
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
            let alive = state.is_present(&target) && state.is_present(self);
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
    Later(oneshot::Receiver<Bytes>, Arc<MemPeer>),
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
            if !state.is_present(self) {
                return Err(GossipError::Closed);
            }
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
