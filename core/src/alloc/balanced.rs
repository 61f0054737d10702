//! Orders peers so that copies spread: over groups first, then by weight.
//!
//! A tree follows the list of metric names. At each level, peers whose metric is partitionable (tags) and has the same
//! value form one partition; every other peer is its own. Partitions are sorted by their weight, then by the weight of
//! everything below, then by value, then by peer; peers are then taken round robin, with a cursor at every level.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use cluster_types::PeerId;

use crate::monitor::MetricsSnapshot;

/// One level of the tree: its partitions in order, and whose turn it is.
#[derive(Debug)]
struct Level {
    partitions: Vec<Partition>,
    turn: usize,
}

/// Peers that are alike at one level.
#[derive(Debug)]
struct Partition {
    value: String,
    first_peer: PeerId,
    weight: i64,
    aggregated: i64,
    below: Below,
}

#[derive(Debug)]
enum Below {
    Level(Level),
    Peers(VecDeque<PeerId>),
}

/// All of `peers` in the order in which they should be used; those without a metric of some name come not at all.
pub(super) fn order(peers: &[PeerId], names: &[&str], metrics: &MetricsSnapshot) -> Vec<PeerId> {
    let Some(mut root) = Level::build(peers, names, metrics) else {
        return Vec::new();
    };
    std::iter::from_fn(|| root.next()).collect()
}

impl Level {
    /// The tree over `peers`; `None` when no name is left.
    fn build(peers: &[PeerId], names: &[&str], metrics: &MetricsSnapshot) -> Option<Self> {
        let (name, deeper) = names.split_first()?;
        // Keyed by value and, where peers do not form groups, by peer.
        let mut groups: BTreeMap<(String, Option<PeerId>), (i64, Vec<PeerId>)> = BTreeMap::new();
        for peer in peers {
            let Some(metric) = metrics.get(name, peer) else { continue };
            let alone = (!metric.partitionable).then_some(*peer);
            let (weight, members) = groups.entry((metric.value.clone(), alone)).or_default();
            *weight = weight.saturating_add(metric.weight);
            members.push(*peer);
        }
        let mut partitions: Vec<Partition> = groups
            .into_iter()
            .filter_map(|((value, _alone), (weight, mut members))| {
                members.sort_unstable();
                let first_peer = *members.first()?;
                let below = match Self::build(&members, deeper, metrics) {
                    Some(level) => Below::Level(level),
                    None => Below::Peers(members.into()),
                };
                let aggregated = weight.saturating_add(below.aggregated());
                Some(Partition { value, first_peer, weight, aggregated, below })
            })
            .collect();
        partitions.sort_by(|left, right| left.sort_key().cmp(&right.sort_key()));
        Some(Self { partitions, turn: 0 })
    }

    /// Takes the next peer: from the partition whose turn it is, or from the first after it that still has one.
    fn next(&mut self) -> Option<PeerId> {
        let count = self.partitions.len();
        for step in 0..count {
            let place = (self.turn + step) % count;
            if let Some(peer) = self.partitions[place].below.next() {
                self.turn = (place + 1) % count;
                return Some(peer);
            }
        }
        None
    }
}

impl Partition {
    fn sort_key(&self) -> (Reverse<i64>, Reverse<i64>, &str, PeerId) {
        (Reverse(self.weight), Reverse(self.aggregated), &self.value, self.first_peer)
    }
}

impl Below {
    fn next(&mut self) -> Option<PeerId> {
        match self {
            Self::Level(level) => level.next(),
            Self::Peers(peers) => peers.pop_front(),
        }
    }

    fn aggregated(&self) -> i64 {
        match self {
            Self::Level(level) => {
                level.partitions.iter().fold(0, |sum: i64, partition| sum.saturating_add(partition.aggregated))
            }
            Self::Peers(_) => 0,
        }
    }
}
