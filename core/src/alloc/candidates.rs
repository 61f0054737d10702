//! Who may hold a pin at all, and on what grounds.

use std::collections::BTreeSet;
use std::fmt;

use cluster_types::{Metric, PeerId};

use super::{AllocationBasis, AllocationRequest};

/// Peers that may hold a pin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidates {
    /// Those that hold it now, in the stored order.
    pub(super) current: Vec<PeerId>,
    /// Those the user prefers.
    pub(super) preferred: Vec<PeerId>,
    /// The rest.
    pub(super) others: Vec<PeerId>,
}

/// How a peer stands in an allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Holds the pin now and is well, or is kept whatever is known of it.
    Current,
    /// Could hold it, and the user prefers it.
    Preferred,
    /// Could hold it.
    Other,
    /// Must not be used: excluded by the request.
    Excluded,
    /// Must not be used: no member, or ruled out by trust.
    NotEligible,
    /// Cannot be judged: no usable metric of this name.
    NoMetric(String),
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => f.write_str("current"),
            Self::Preferred => f.write_str("preferred"),
            Self::Other => f.write_str("candidate"),
            Self::Excluded => f.write_str("excluded"),
            Self::NotEligible => f.write_str("not eligible"),
            Self::NoMetric(name) => write!(f, "no valid {name}"),
        }
    }
}

/// The names that count: those configured, or the ping when there are none.
pub(super) fn names(allocate_by: &[String]) -> Vec<&str> {
    if allocate_by.is_empty() {
        return vec![Metric::PING];
    }
    allocate_by.iter().map(String::as_str).collect()
}

/// How `peer` stands.
pub(super) fn standing(peer: &PeerId, request: &AllocationRequest, basis: AllocationBasis<'_>) -> Standing {
    if request.excluded.contains(peer) {
        return Standing::Excluded;
    }
    if !basis.eligible.contains(peer) {
        return Standing::NotEligible;
    }
    let holds = request.current.contains(peer);
    if holds && request.keep_silent {
        return Standing::Current;
    }
    let mut names = names(basis.allocate_by);
    if request.keep_silent {
        // Another metric may outlive the ping by which a peer counts as silent.
        names.push(Metric::PING);
    }
    if let Some(missing) = names.iter().find(|name| basis.metrics.get(name, peer).is_none()) {
        return Standing::NoMetric((*missing).to_owned());
    }
    if holds {
        Standing::Current
    } else if request.preferred.contains(peer) {
        Standing::Preferred
    } else {
        Standing::Other
    }
}

/// Sorts every peer that may hold the pin into its list.
pub(super) fn classify(request: &AllocationRequest, basis: AllocationBasis<'_>) -> Candidates {
    let mut found = Candidates::default();
    let mut seen = BTreeSet::new();
    for peer in request.current.iter().chain(basis.eligible) {
        if !seen.insert(*peer) {
            continue;
        }
        match standing(peer, request, basis) {
            Standing::Current => found.current.push(*peer),
            Standing::Preferred => found.preferred.push(*peer),
            Standing::Other => found.others.push(*peer),
            Standing::Excluded | Standing::NotEligible | Standing::NoMetric(_) => {}
        }
    }
    found
}
