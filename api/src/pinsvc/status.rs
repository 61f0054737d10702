//! The four statuses of the specification, and how those of the cluster's peers come to one of them.

use std::str::FromStr;

use cluster_types::{GlobalPinInfo, TrackerStatus};
use serde::Serialize;

/// How a request is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Queued,
    Pinning,
    Pinned,
    Failed,
}

impl FromStr for Status {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "queued" => Ok(Self::Queued),
            "pinning" => Ok(Self::Pinning),
            "pinned" => Ok(Self::Pinned),
            "failed" => Ok(Self::Failed),
            _ => Err(()),
        }
    }
}

impl Status {
    /// As in the original the first that any peer says: failed, queued, pinning, pinned. A peer that does not answer says
    /// nothing of the pin, unless nobody does; what nobody has begun is queued.
    pub(super) fn of(info: &GlobalPinInfo) -> Self {
        use TrackerStatus as S;
        let says = |statuses: &[S]| info.peer_map.values().any(|info| statuses.contains(&info.status));
        if says(&[S::PinError]) {
            Self::Failed
        } else if says(&[S::PinQueued, S::UnexpectedlyUnpinned]) {
            Self::Queued
        } else if says(&[S::Pinning]) {
            Self::Pinning
        } else if says(&[S::Pinned, S::Sharded]) {
            Self::Pinned
        } else if says(&[S::ClusterError]) {
            Self::Failed
        } else {
            Self::Queued
        }
    }
}

/// Why a request failed.
pub(super) fn trouble(info: &GlobalPinInfo) -> Option<String> {
    let failed = Status::of(info) == Status::Failed;
    let mut errors = info.peer_map.values().map(|info| &info.error).filter(|error| failed && !error.is_empty());
    errors.next().cloned()
}
