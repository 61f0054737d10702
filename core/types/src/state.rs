//! Where a peer is in the shared log (`GET /state`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::peer::PeerId;

/// What a peer is in the ordering of writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Orders the writes.
    Leader,
    /// Votes and holds the log.
    Voter,
    /// Holds the log, without a vote.
    #[default]
    Learner,
    /// Reads what the others decided.
    Follower,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Voter => "voter",
            Self::Learner => "learner",
            Self::Follower => "follower",
        })
    }
}

/// Where a peer is in the shared log, and a digest of what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReport {
    /// Index of the last log entry that was carried out here.
    pub applied_index: u64,
    /// Index of the last log entry known to be on a quorum.
    pub committed_index: u64,
    /// Term of the ordering.
    pub term: u64,
    /// What this peer is.
    pub role: Role,
    /// The leader, if one is known.
    pub leader: Option<PeerId>,
    /// Digest of the pinset in hex; equal on any two peers with the same applied index.
    pub digest: String,
    /// Number of pins.
    pub pins: u64,
    /// Own writes not yet merged.
    pub eventual: u64,
}
