//! Whose word counts.

use std::collections::BTreeSet;

use cluster_types::PeerId;

/// Whose word a follower takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Everyone who knows the secret.
    Everyone,
    /// These.
    Only(BTreeSet<PeerId>),
}

impl Trust {
    /// Whether a peer's word counts.
    pub fn includes(&self, peer: &PeerId) -> bool {
        match self {
            Self::Everyone => true,
            Self::Only(peers) => peers.contains(peer),
        }
    }
}
