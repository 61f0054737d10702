//! Which peers hold a pin.
//!
//! [`allocate`] is a pure function of a request, the peers that may be used, and one snapshot of their metrics; the
//! same input gives the same answer on every machine. [`explain()`] shows the same decision as a table.
//!
//! **Invariant:** a new holder is always eligible, not excluded, and has a usable metric of every name asked for.

mod balanced;
mod candidates;
mod explain;

use std::collections::BTreeSet;

use cluster_types::{ErrorClass, PeerId, ReplicationFactor};

use crate::monitor::MetricsSnapshot;
use candidates::Candidates;

pub use candidates::Standing;
pub use explain::{Explanation, ExplanationRow, explain};

/// What is to be allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationRequest {
    /// How many copies are wanted.
    pub replication: ReplicationFactor,
    /// Who holds it by the present state; empty for a new pin and for one that was everywhere.
    pub current: Vec<PeerId>,
    /// Peers the user would like to have it, before others.
    pub preferred: Vec<PeerId>,
    /// Peers that must not hold it.
    pub excluded: BTreeSet<PeerId>,
    /// Whether a holder counts as current whatever is known of it. For repair, which names the peers that are gone in
    /// `excluded`: a holder that is only silent for a moment, or full, keeps its copy, and nobody who is silent gets one.
    pub keep_silent: bool,
}

/// By what peers are chosen.
#[derive(Clone, Copy, Debug)]
pub struct AllocationBasis<'a> {
    /// Names of metrics, the most important first. With none, whoever is alive counts as equal.
    pub allocate_by: &'a [String],
    /// The peers that may be used at all.
    pub eligible: &'a BTreeSet<PeerId>,
    /// What is known of them.
    pub metrics: &'a MetricsSnapshot,
}

/// A pin cannot be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocationError {
    /// Too few peers are alive and allowed. Clients compare the text.
    #[error(
        "not enough peers to allocate CID. Needed at least: {needed}. Wanted at most: {wanted}. \
         Available candidates: {available}. See logs for more info."
    )]
    NotEnoughPeers {
        /// How many are missing to the minimum.
        needed: usize,
        /// How many are missing to the maximum.
        wanted: usize,
        /// How many could be added.
        available: usize,
    },
}

impl AllocationError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotEnoughPeers { .. } => ErrorClass::Unavailable,
        }
    }
}

/// Decides who holds a pin; empty means every peer.
///
/// Holders that are enough stay as they are, those that are down included, so that a short absence moves nothing; only
/// excluded ones are dropped. When new ones are needed, those that are down are dropped as well, unless the request
/// says to keep them.
pub fn allocate(request: &AllocationRequest, basis: AllocationBasis<'_>) -> Result<Vec<PeerId>, AllocationError> {
    let ReplicationFactor::Between { min, max } = request.replication else {
        return Ok(Vec::new());
    };
    let (min, max) = (saturating_usize(min), saturating_usize(max));
    let Candidates { mut current, preferred, others } = candidates::classify(request, basis);
    if current.len() > max {
        current.truncate(max);
        return Ok(current);
    }
    if current.len() >= min {
        return Ok(kept(request));
    }
    let (needed, wanted) = (min - current.len(), max - current.len());
    let available = preferred.len() + others.len();
    if available < needed {
        return Err(AllocationError::NotEnoughPeers { needed, wanted, available });
    }
    let names = candidates::names(basis.allocate_by);
    let ordered = balanced::order(&preferred, &names, basis.metrics).into_iter().chain(balanced::order(
        &others,
        &names,
        basis.metrics,
    ));
    current.extend(ordered.take(wanted));
    Ok(current)
}

/// The stored holders without the excluded ones, each once.
fn kept(request: &AllocationRequest) -> Vec<PeerId> {
    let mut seen = BTreeSet::new();
    request.current.iter().filter(|peer| !request.excluded.contains(*peer) && seen.insert(**peer)).copied().collect()
}

fn saturating_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
