//! The leader's allocator: the pure rules of [`crate::alloc`] on what the monitor knows.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use cluster_types::{ErrorClass, Metric, PeerId, WireError};

use super::service::Cluster;
use crate::alloc::{AllocationBasis, AllocationRequest, allocate};
use crate::consensus::sequencer::{AllocationQuestion, AllocationSnapshot, Allocator};
use crate::monitor::{MetricsSnapshot, Monitor};
use crate::trust::{Holders, Trust};

/// Allocates by metrics.
pub struct MetricAllocator {
    monitor: Arc<Monitor>,
    allocate_by: Vec<String>,
    holders: Holders,
    trust: Trust,
    here: PeerId,
}

impl fmt::Debug for MetricAllocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricAllocator").field("allocate_by", &self.allocate_by).finish_non_exhaustive()
    }
}

impl MetricAllocator {
    /// Allocates by these metrics, the most important first.
    pub fn new(monitor: Arc<Monitor>, allocate_by: Vec<String>, here: PeerId) -> Self {
        Self { monitor, allocate_by, holders: Holders::All, trust: Trust::Everyone, here }
    }

    /// From now on only `holders` are given pins, by whom this peer trusts.
    #[must_use]
    pub fn limited_to(self, holders: Holders, trust: Trust) -> Self {
        Self { holders, trust, ..self }
    }

    fn may_hold(&self, peer: &PeerId) -> bool {
        self.holders.include(*peer == self.here || self.trust.includes(peer))
    }
}

impl Allocator for MetricAllocator {
    fn snapshot(&self, members: &[PeerId]) -> Box<dyn AllocationSnapshot> {
        let mut names = self.allocate_by.clone();
        names.push(Metric::PING.to_owned());
        Box::new(Snapshot {
            allocate_by: self.allocate_by.clone(),
            eligible: members.iter().filter(|peer| self.may_hold(peer)).copied().collect(),
            metrics: self.monitor.snapshot(&names),
        })
    }
}

struct Snapshot {
    allocate_by: Vec<String>,
    eligible: BTreeSet<PeerId>,
    metrics: MetricsSnapshot,
}

impl AllocationSnapshot for Snapshot {
    fn allocate(&self, question: &AllocationQuestion<'_>) -> Result<Vec<PeerId>, WireError> {
        let request = AllocationRequest {
            replication: question.replication,
            current: question.current.to_vec(),
            preferred: question.preferred.to_vec(),
            excluded: question.excluded.iter().copied().collect(),
            keep_silent: question.keep_silent,
        };
        let basis =
            AllocationBasis { allocate_by: &self.allocate_by, eligible: &self.eligible, metrics: &self.metrics };
        // The original answers 500 here, and programs look at that.
        allocate(&request, basis).map_err(|error| WireError::from_error(ErrorClass::Conflict, &error))
    }
}

impl Cluster {
    /// The members whose ping has not expired.
    pub(super) fn alive_of(&self, members: &[PeerId]) -> Vec<PeerId> {
        let alive: BTreeSet<PeerId> =
            self.parts.monitor.metrics(Metric::PING).into_iter().map(|metric| metric.peer).collect();
        members.iter().filter(|peer| alive.contains(*peer)).copied().collect()
    }
}
