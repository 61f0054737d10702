//! What was heard of the peers: the newest metric of each name and peer, alerts, suspicion. Pure: time comes in.
//!
//! **Invariant:** memory is bounded, whoever sends: at most [`MAX_PEERS`] peers besides the members, and of each at most
//! [`MAX_NAMES`] names and [`MAX_PEER_BYTES`] bytes. What does not fit is refused; a silent stranger gives way first.
//! **Invariant:** a metric that expires alerts once, and again only after a fresh one.
//! **Invariant:** how long a metric counts is measured by elapsed time; its `expire` is for display. So a jump of the
//! wall clock makes nobody suspect.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use cluster_types::{Alert, Metric, PeerId, PingValue, Timestamp};
use tokio::time::Instant;

use super::MetricsSnapshot;

/// Peers outside the membership that are remembered; followers of a large cluster included.
pub(super) const MAX_PEERS: usize = 2048;
/// Names per peer: a handful of built-in ones and the operator's tags.
pub(super) const MAX_NAMES: usize = 64;
/// Bytes of names and values per peer.
pub(super) const MAX_PEER_BYTES: usize = 64 * 1024;
/// Alerts that are kept; the oldest give way.
pub(super) const MAX_ALERTS: usize = 1000;
/// Addresses of one IPFS node that are believed.
pub(super) const MAX_ADDRESSES: usize = 32;

/// The present: for display, and to measure by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) wall: Timestamp,
    pub(super) instant: Instant,
}

/// What a new metric tells beyond its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// It is the first ping, or the first after silence.
    pub(super) sign_of_life: bool,
    /// The peer's IPFS node is another, or elsewhere.
    pub(super) node_changed: bool,
}

/// There is no room for a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug, Default)]
struct Known {
    newest: BTreeMap<String, Kept>,
    bytes: usize,
    ping: Option<PingValue>,
}

#[derive(Debug)]
struct Kept {
    metric: Metric,
    /// When it expires.
    until: Instant,
    alerted: bool,
}

impl Kept {
    fn new(metric: Metric, now: Now) -> Self {
        let ttl = Timestamp::from_unix_nanos(i128::from(metric.expire)).since(now.wall);
        let until = now.instant.checked_add(ttl).unwrap_or(now.instant);
        Self { metric, until, alerted: false }
    }

    fn is_expired(&self, now: Now) -> bool {
        self.until < now.instant
    }

    fn is_usable(&self, now: Now) -> bool {
        self.metric.valid && !self.is_expired(now)
    }
}

/// Everything that was heard.
#[derive(Debug)]
pub(super) struct Window {
    local: PeerId,
    peers: BTreeMap<PeerId, Known>,
    /// The other members and since when they are known; `None` until the membership is.
    members: Option<BTreeMap<PeerId, Instant>>,
    alerts: VecDeque<Alert>,
}

impl Window {
    pub(super) fn new(local: PeerId) -> Self {
        Self { local, peers: BTreeMap::new(), members: None, alerts: VecDeque::new() }
    }

    /// Takes over the membership, this peer included; an empty one is unknown.
    pub(super) fn set_members(&mut self, members: &BTreeSet<PeerId>, now: Instant) {
        let known = self.members.take().unwrap_or_default();
        let others = members.iter().filter(|peer| **peer != self.local);
        let others = others.map(|peer| (*peer, known.get(peer).copied().unwrap_or(now))).collect();
        self.members = (!members.is_empty()).then_some(others);
    }

    /// Keeps a metric as the newest of its name and peer.
    pub(super) fn record(&mut self, metric: Metric, now: Now) -> Result<News, Full> {
        self.make_room_for(&metric.peer, now)?;
        let known = self.peers.entry(metric.peer).or_default();
        let size = |name: &str, value: &str| name.len() + value.len();
        let replaced = known.newest.get(&metric.name).map(|kept| size(&kept.metric.name, &kept.metric.value));
        let bytes = known.bytes - replaced.unwrap_or(0) + size(&metric.name, &metric.value);
        if bytes > MAX_PEER_BYTES || (replaced.is_none() && known.newest.len() >= MAX_NAMES) {
            return Err(Full);
        }
        known.bytes = bytes;
        let mut news = News::default();
        if metric.name == Metric::PING {
            news = News { sign_of_life: !known.has_usable_ping(now), node_changed: known.learn(&metric.value) };
        }
        known.newest.insert(metric.name.clone(), Kept::new(metric, now));
        Ok(news)
    }

    /// The usable metrics of a name, sorted by peer.
    pub(super) fn metrics(&self, name: &str, now: Now) -> Vec<Metric> {
        let newest = self.peers.values().filter_map(|known| known.newest.get(name));
        newest.filter(|kept| kept.is_usable(now)).map(|kept| kept.metric.clone()).collect()
    }

    /// Every name that was heard, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.peers.values().flat_map(|known| known.newest.keys()).collect();
        names.into_iter().cloned().collect()
    }

    /// The usable metrics of some names.
    pub(super) fn snapshot(&self, names: &[String], now: Now) -> MetricsSnapshot {
        let newest = self.peers.values().flat_map(|known| names.iter().filter_map(|name| known.newest.get(name)));
        MetricsSnapshot::of_usable(newest.filter(|kept| kept.is_usable(now)).map(|kept| kept.metric.clone()))
    }

    /// What a peer last said of itself, also when it is silent by now.
    pub(super) fn ping_value(&self, peer: &PeerId) -> Option<PingValue> {
        self.peers.get(peer)?.ping.clone()
    }

    /// The IPFS nodes of the other members that are alive; of all peers while the membership is unknown.
    pub(super) fn nodes(&self, now: Now) -> BTreeMap<PeerId, PingValue> {
        let others = self.peers.iter().filter(|(peer, _)| **peer != self.local && self.concerns_us(peer));
        others
            .filter(|(_, known)| known.has_usable_ping(now))
            .filter_map(|(peer, known)| Some((*peer, known.ping.clone()?)))
            .collect()
    }

    /// Notices what has expired; returns the new alerts.
    pub(super) fn check(&mut self, now: Now) -> Vec<Alert> {
        let mut fresh = Vec::new();
        let (local, members) = (self.local, self.members.as_ref());
        for (peer, known) in &mut self.peers {
            if !concerns_us(local, members, peer) {
                continue;
            }
            for kept in known.newest.values_mut().filter(|kept| !kept.alerted && kept.is_expired(now)) {
                kept.alerted = true;
                fresh.push(Alert { metric: kept.metric.clone(), triggered_at: now.wall });
            }
        }
        for alert in &fresh {
            self.alerts.push_front(alert.clone());
        }
        self.alerts.truncate(MAX_ALERTS);
        fresh
    }

    /// Alerts, newest first.
    pub(super) fn alerts(&self) -> Vec<Alert> {
        self.alerts.iter().cloned().collect()
    }

    /// The other members whose ping has expired, or that were not heard within `patience` of becoming known. While the
    /// membership is unknown, every peer that was once heard stands for it.
    pub(super) fn suspects(&self, now: Now, patience: Duration) -> BTreeSet<PeerId> {
        let Some(members) = &self.members else {
            let others = self.peers.iter().filter(|(peer, _)| **peer != self.local);
            return others.filter(|(_, known)| known.has_expired_ping(now)).map(|(peer, _)| *peer).collect();
        };
        let silent = |(peer, since): &(&PeerId, &Instant)| match self.peers.get(*peer) {
            Some(known) if known.newest.contains_key(Metric::PING) => known.has_expired_ping(now),
            _ => now.instant.duration_since(**since) >= patience,
        };
        members.iter().filter(silent).map(|(peer, _)| *peer).collect()
    }

    fn concerns_us(&self, peer: &PeerId) -> bool {
        concerns_us(self.local, self.members.as_ref(), peer)
    }

    fn is_member(&self, peer: &PeerId) -> bool {
        *peer == self.local || self.members.as_ref().is_some_and(|members| members.contains_key(peer))
    }

    fn make_room_for(&mut self, peer: &PeerId, now: Now) -> Result<(), Full> {
        if self.peers.contains_key(peer) || self.peers.len() < MAX_PEERS {
            return Ok(());
        }
        let silent_stranger = self.peers.iter().find(|(peer, known)| !self.is_member(peer) && !known.is_alive(now));
        match silent_stranger.map(|(stranger, _)| *stranger) {
            Some(stranger) => {
                self.peers.remove(&stranger);
                Ok(())
            }
            // Members always fit: there are few, and the cluster chose them.
            None if self.is_member(peer) => Ok(()),
            None => Err(Full),
        }
    }
}

fn concerns_us(local: PeerId, members: Option<&BTreeMap<PeerId, Instant>>, peer: &PeerId) -> bool {
    *peer == local || members.is_none_or(|members| members.contains_key(peer))
}

impl Known {
    fn is_alive(&self, now: Now) -> bool {
        self.newest.values().any(|kept| kept.is_usable(now))
    }

    fn has_usable_ping(&self, now: Now) -> bool {
        self.newest.get(Metric::PING).is_some_and(|kept| kept.is_usable(now))
    }

    fn has_expired_ping(&self, now: Now) -> bool {
        self.newest.get(Metric::PING).is_some_and(|kept| !kept.is_usable(now))
    }

    /// Takes over what a ping says, and tells whether the node changed; a ping that cannot be read, or that has lost its
    /// node, leaves what was known of it.
    fn learn(&mut self, value: &str) -> bool {
        let Ok(mut told) = serde_json::from_str::<PingValue>(value) else { return false };
        told.ipfs_addresses.truncate(MAX_ADDRESSES);
        let known = self.ping.take().unwrap_or_default();
        let known_node = (known.ipfs_id, known.ipfs_addresses);
        if told.ipfs_id.is_empty() {
            (told.ipfs_id, told.ipfs_addresses) = known_node.clone();
        }
        let changed = told.ipfs_id != known_node.0 || told.ipfs_addresses != known_node.1;
        self.ping = Some(told);
        changed
    }
}

#[cfg(test)]
mod tests;
