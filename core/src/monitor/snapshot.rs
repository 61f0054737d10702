//! What was known of the peers at one instant, for a decision that must not change under way.

use std::collections::{BTreeMap, BTreeSet};

use cluster_types::{Metric, PeerId, Timestamp};

/// The usable metrics of one instant: by name, then by peer, the newest of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsSnapshot {
    by_name: BTreeMap<String, BTreeMap<PeerId, Metric>>,
}

impl MetricsSnapshot {
    /// Keeps of `metrics` what is valid and unexpired at `now`; of several for a name and peer, the last.
    pub fn new(metrics: impl IntoIterator<Item = Metric>, now: Timestamp) -> Self {
        Self::of_usable(metrics.into_iter().filter(|metric| metric.is_usable(now)))
    }

    /// Keeps all of `metrics`; of several for a name and peer, the last.
    pub(super) fn of_usable(metrics: impl IntoIterator<Item = Metric>) -> Self {
        let mut by_name: BTreeMap<String, BTreeMap<PeerId, Metric>> = BTreeMap::new();
        for metric in metrics {
            by_name.entry(metric.name.clone()).or_default().insert(metric.peer, metric);
        }
        Self { by_name }
    }

    /// The metric of a peer.
    pub fn get(&self, name: &str, peer: &PeerId) -> Option<&Metric> {
        self.by_name.get(name)?.get(peer)
    }

    /// The peers that have a metric of this name, sorted.
    pub fn peers(&self, name: &str) -> BTreeSet<PeerId> {
        self.by_name.get(name).into_iter().flat_map(BTreeMap::keys).copied().collect()
    }
}
