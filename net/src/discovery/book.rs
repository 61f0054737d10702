//! The address book: which peers are known, who is connected, and who is to be dialled when.
//!
//! Pure: time and chance are handed in. The swarm's actor and the `Transport` port share it behind a lock.
//!
//! **Invariant:** what the local network says, which nobody signs, displaces nothing else, is not written to the
//! peerstore, and has at most [`MAX_STRANGER_DIALS`] strangers dialled at a time.
//! **Invariant:** at most [`MAX_ADDRESSES`] and [`MAX_NEARBY`] addresses a peer; at most [`MAX_STRANGERS`] peers nobody asked to remember
//! and that are not connected.
//! **Invariant:** a remembered peer with an address is connected, being dialled, or has a time of its next dial.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_types::{Multiaddr, PeerId};
use tokio::time::Instant;

use super::address::dialable;

/// How many addresses of one peer are kept.
const MAX_ADDRESSES: usize = 16;
/// How many addresses of one peer are kept that the local network told: one for each of its interfaces.
const MAX_NEARBY: usize = 4;
/// How many peers are kept that nobody asked to remember.
const MAX_STRANGERS: usize = 1_000;
/// How often a peer found on the local network is tried before it is left alone until it is found again.
const TRIES_FOR_FOUND: u32 = 5;
/// How many peers that nobody asked to remember are dialled at a time.
const MAX_STRANGER_DIALS: usize = 16;
/// When to try again if there are more.
const STRANGER_WAIT: Duration = Duration::from_secs(1);
/// Wait after the first failed dial.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How soon the other peers are tried when one is connected.
const HURRY: Duration = Duration::from_secs(1);
/// How often they are all tried soon: a member that comes and goes must not have those dialled without end that are away.
const HURRY_EVERY: Duration = Duration::from_secs(10);
/// The longest wait between two dials.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Known {
    /// The one that worked last comes first.
    addresses: Vec<Multiaddr>,
    /// What the local network told last, the newest at the end.
    nearby: Vec<Multiaddr>,
    remembered: bool,
    /// Nothing is learnt of it until its connection is gone or somebody remembers it again.
    forgotten: bool,
    connected: bool,
    dialling: bool,
    failures: u32,
    /// Tries left for a peer that is not remembered.
    tries_left: u32,
    next_try: Option<Instant>,
}

impl Known {
    fn wanted(&self) -> bool {
        self.remembered || self.tries_left > 0
    }

    fn has_address(&self) -> bool {
        !self.addresses.is_empty() || !self.nearby.is_empty()
    }

    fn all_addresses(&self) -> Vec<Multiaddr> {
        let others = self.nearby.iter().filter(|address| !self.addresses.contains(address));
        self.addresses.iter().chain(others).cloned().collect()
    }

    fn is_stranger(&self) -> bool {
        !self.remembered && !self.connected && !self.dialling
    }
}

/// What is known of other peers.
#[derive(Debug)]
pub(crate) struct AddressBook {
    local: PeerId,
    peers: BTreeMap<PeerId, Known>,
    to_disconnect: BTreeSet<PeerId>,
    revision: u64,
    /// When all that are away were last tried soon.
    hurried: Option<Instant>,
}

impl AddressBook {
    pub(crate) fn new(local: PeerId) -> Self {
        Self { local, peers: BTreeMap::new(), to_disconnect: BTreeSet::new(), revision: 0, hurried: None }
    }

    /// Keeps a peer connected from now on.
    pub(crate) fn remember(&mut self, peer: PeerId, addresses: &[Multiaddr], now: Instant) {
        if peer == self.local {
            return;
        }
        let known = self.peers.entry(peer).or_default();
        known.forgotten = false;
        let was_remembered = std::mem::replace(&mut known.remembered, true);
        let has_new = add_addresses(&mut known.addresses, addresses, &peer);
        if has_new || !was_remembered {
            known.failures = 0;
            known.next_try = (!known.connected).then_some(now);
            self.revision += 1;
        }
        self.to_disconnect.remove(&peer);
    }

    /// Lets go of a peer and of its addresses; a connection to it is to be closed.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        let Some(known) = self.peers.remove(peer) else { return };
        if known.connected || known.dialling {
            self.to_disconnect.insert(*peer);
            let (connected, dialling) = (known.connected, known.dialling);
            let rest = Known { forgotten: true, connected, dialling, ..Known::default() };
            self.peers.insert(*peer, rest);
        }
        self.revision += 1;
    }

    /// Adds addresses a connected peer gives of itself, or where it answered.
    pub(crate) fn learn(&mut self, peer: PeerId, addresses: &[Multiaddr], now: Instant) {
        if peer == self.local || self.is_forgotten(&peer) || !self.make_room(&peer) {
            return;
        }
        let known = self.peers.entry(peer).or_default();
        if add_addresses(&mut known.addresses, addresses, &peer) && known.remembered {
            if !known.connected && !known.dialling {
                known.next_try = Some(now);
            }
            self.revision += 1;
        }
    }

    /// Adds a peer found on the local network, and has it dialled a few times.
    pub(crate) fn found(&mut self, peer: PeerId, addresses: &[Multiaddr], now: Instant) {
        if peer == self.local || self.is_forgotten(&peer) || !self.make_room(&peer) {
            return;
        }
        let known = self.peers.entry(peer).or_default();
        let mut has_new = false;
        for address in addresses.iter().filter_map(|address| dialable(address, &peer)) {
            has_new |= !known.nearby.contains(&address) && !known.addresses.contains(&address);
            known.nearby.retain(|other| *other != address);
            known.nearby.push(address);
        }
        let extra = known.nearby.len().saturating_sub(MAX_NEARBY);
        known.nearby.drain(..extra);
        if known.connected || known.dialling {
            return;
        }
        if !known.remembered {
            known.tries_left = TRIES_FOR_FOUND;
        }
        if has_new || !known.remembered {
            known.next_try = Some(now);
        }
    }

    /// A connection is up; `address` is where this peer dialled, if it was this peer that did.
    ///
    /// Where one remembered peer can be reached, others may be that could not before: they are tried soon, however long
    /// they have been away.
    pub(crate) fn connected(&mut self, peer: PeerId, address: Option<&Multiaddr>, now: Instant, jitter: f64) {
        let is_connected = self.peers.get(&peer).is_some_and(|known| known.connected);
        let has_hurried = self.hurried.is_some_and(|last| now.saturating_duration_since(last) < HURRY_EVERY);
        if self.is_remembered(&peer) && !is_connected && !has_hurried {
            self.hurried = Some(now);
            let soon = now + HURRY.mul_f64(jitter.clamp(0.0, 1.0));
            for known in self.peers.values_mut().filter(|known| known.remembered) {
                known.next_try = known.next_try.map(|at| at.min(soon));
            }
        }
        let known = self.peers.entry(peer).or_default();
        known.connected = true;
        known.dialling = false;
        known.failures = 0;
        known.tries_left = 0;
        known.next_try = None;
        if let Some(worked) = address.and_then(|address| dialable(address, &peer))
            && known.addresses.first() != Some(&worked)
            && !known.forgotten
        {
            known.addresses.retain(|address| *address != worked);
            known.addresses.insert(0, worked);
            known.addresses.truncate(MAX_ADDRESSES);
            self.revision += u64::from(known.remembered);
        }
    }

    /// The last connection to a peer is gone.
    pub(crate) fn disconnected(&mut self, peer: &PeerId, now: Instant, jitter: f64) {
        self.to_disconnect.remove(peer);
        let Some(known) = self.peers.get_mut(peer) else { return };
        known.connected = false;
        if known.remembered {
            known.next_try = Some(now + wait_after(0, jitter));
        } else if !known.has_address() || !self.make_room(peer) {
            self.peers.remove(peer);
        }
    }

    /// A dial is under way.
    pub(crate) fn dialling(&mut self, peer: &PeerId) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.dialling = true;
            known.next_try = None;
        }
    }

    /// A dial failed.
    pub(crate) fn dial_failed(&mut self, peer: &PeerId, now: Instant, jitter: f64) {
        let Some(known) = self.peers.get_mut(peer) else { return };
        known.dialling = false;
        if known.connected {
            return;
        }
        self.to_disconnect.remove(peer);
        known.tries_left = known.tries_left.saturating_sub(1);
        known.next_try = known.wanted().then(|| now + wait_after(known.failures, jitter));
        known.failures = known.failures.saturating_add(1);
        if known.is_stranger() && !known.has_address() {
            self.peers.remove(peer);
        }
    }

    /// Whom to dial now. Those returned count as being dialled.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut due = Vec::new();
        let mut strangers = self.peers.values().filter(|known| !known.remembered && known.dialling).count();
        for (peer, known) in &mut self.peers {
            if known.next_try.is_none_or(|at| at > now) {
                continue;
            }
            known.next_try = None;
            if known.connected || known.dialling || !known.has_address() {
                continue;
            }
            if !known.remembered {
                if strangers == MAX_STRANGER_DIALS {
                    known.next_try = Some(now + STRANGER_WAIT);
                    continue;
                }
                strangers += 1;
            }
            known.dialling = true;
            due.push((*peer, known.all_addresses()));
        }
        due
    }

    /// When [`AddressBook::take_due`] has something to say.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.peers.values().filter_map(|known| known.next_try).min()
    }

    /// Peers whose connections are to be closed. One that is still being dialled follows when it is connected.
    pub(crate) fn take_to_disconnect(&mut self) -> Vec<PeerId> {
        let peers = &self.peers;
        let is_connected = |peer: &PeerId| peers.get(peer).is_some_and(|known| known.connected);
        self.to_disconnect.extract_if(.., is_connected).collect()
    }

    /// Known addresses of a peer, the one that worked last first.
    pub(crate) fn addresses_of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.peers.get(peer).map(Known::all_addresses).unwrap_or_default()
    }

    fn is_forgotten(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|known| known.forgotten)
    }

    /// Whether somebody asked to remember a peer.
    pub(crate) fn is_remembered(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|known| known.remembered)
    }

    /// The connected peers, sorted.
    pub(crate) fn connected_peers(&self) -> Vec<PeerId> {
        self.peers.iter().filter(|(_, known)| known.connected).map(|(peer, _)| *peer).collect()
    }

    /// The remembered peers and their addresses.
    pub(crate) fn remembered(&self) -> impl Iterator<Item = (PeerId, &[Multiaddr])> {
        self.peers.iter().filter(|(_, known)| known.remembered).map(|(peer, known)| (*peer, known.addresses.as_slice()))
    }

    /// Grows whenever what [`AddressBook::remembered`] returns changes.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether there is room for one more stranger; an older one may have to go.
    fn make_room(&mut self, newcomer: &PeerId) -> bool {
        if self.peers.get(newcomer).is_some_and(|known| !known.is_stranger()) {
            return true;
        }
        let mut strangers =
            self.peers.iter().filter(|(peer, known)| known.is_stranger() && *peer != newcomer).map(|(peer, _)| *peer);
        let Some(first) = strangers.next() else { return true };
        // Counting costs a walk over a bounded table; it happens once per identify exchange or lost connection.
        if strangers.count() + 2 > MAX_STRANGERS {
            self.peers.remove(&first);
        }
        true
    }
}

/// Adds what is new and usable; says whether there was any. When there is no room, an address goes that is not offered
/// any more; the first, which worked last, never does.
fn add_addresses(kept: &mut Vec<Multiaddr>, offered: &[Multiaddr], peer: &PeerId) -> bool {
    let offered: Vec<_> =
        offered.iter().take(4 * MAX_ADDRESSES).filter_map(|address| dialable(address, peer)).collect();
    let mut added = false;
    for address in &offered {
        if kept.contains(address) {
            continue;
        }
        if kept.len() == MAX_ADDRESSES {
            let Some(stale) = kept[1..].iter().rposition(|known| !offered.contains(known)) else { break };
            kept.remove(stale + 1);
        }
        kept.push(address.clone());
        added = true;
    }
    added
}

/// How long to wait before the next dial; `jitter` is in 0..1.
fn wait_after(failures: u32, jitter: f64) -> Duration {
    let longest = FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT);
    longest.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
