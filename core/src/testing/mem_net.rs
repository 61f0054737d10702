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

mod peer;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use cluster_types::{Multiaddr, PeerId, Protocol};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Semaphore;

use crate::ports::Purpose;
use crate::task::TaskGroup;

pub use peer::MemPeer;

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
    repeat_rate: f64,
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
            repeat_rate: 0.0,
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

    /// Where a peer is reached that has, or once had, a place in the network.
    pub fn address_of(&self, peer: PeerId) -> Multiaddr {
        self.world.state.lock().address(peer)
    }

    /// Takes a peer away as a crash does: its connections and what it remembered are gone, and [`MemNet::peer`] makes
    /// a new one. Calls it is handling run on, but nobody gets their answers, and what it still sends goes nowhere.
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

    /// How likely a call is handled a second time, a moment later; nobody gets the second answer. The contract of the
    /// transport rules this out; what is above it should not mind.
    pub fn set_repeat_rate(&self, rate: f64) {
        self.world.state.lock().repeat_rate = rate;
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
    /// Whether this is the peer's present place, and not one it had before a crash.
    fn is_present(&self, peer: &MemPeer) -> bool {
        self.peers.get(&peer.local).is_some_and(|present| std::ptr::eq(Arc::as_ptr(present), peer))
    }

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

#[cfg(test)]
mod tests;
