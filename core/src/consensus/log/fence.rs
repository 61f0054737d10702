//! Keeps requests away that come too late: their peer has meanwhile accepted the same without a quorum.
//!
//! A request to the leader that is not answered in time may still be on its way: what was sent into a cut arrives when
//! the cut heals. By then its peer has accepted the write as an eventual one, perhaps later ones on the same pin as
//! well, and they may be merged. Carried out after them it would undo them, and nobody would hear of it.
//!
//! So a request says when it was made, by the clock of its peer, and a merge tells when its writes were accepted, by the
//! same clock: what is older than the newest merged write of its peer is refused. Whoever still waits for the answer
//! accepts the write without a quorum then, behind the others.
//!
//! Kept in memory: a request is on its way no longer than the connection it was sent on, which ends with the process.

use std::collections::BTreeMap;

use cluster_types::{ErrorClass, PeerId, Timestamp, WireError};
use parking_lot::Mutex;

use super::engine::LogConsensus;
use crate::consensus::Request;
use crate::crdt::merge::Eventual;
use crate::rpc::{Call, Reply};

/// Most peers that are remembered; a cluster has a few hundred.
const MAX_PEERS: usize = 4_096;
/// How long, in seconds, a request can be on its way at most: far longer than a silent connection is kept. Older than
/// that by its peer's clock means that this clock was set back, and then nothing can be said.
const LONGEST_WAY: u64 = 600;

/// When the newest merged write of each peer was accepted.
#[derive(Debug, Default)]
pub(super) struct Fence(Mutex<BTreeMap<PeerId, Timestamp>>);

impl Fence {
    /// Notes writes that are merged.
    pub(super) fn merged(&self, writes: &[Eventual]) {
        let mut last = self.0.lock();
        for write in writes {
            if !last.contains_key(&write.author) && last.len() >= MAX_PEERS {
                last.pop_first();
            }
            let known = last.entry(write.author).or_insert(write.time);
            *known = write.time.max(*known);
        }
    }

    /// Whether a request that `peer` made at `made` is older than a write of that peer that was merged.
    pub(super) fn is_overtaken(&self, peer: &PeerId, made: Timestamp) -> bool {
        let last = self.0.lock().get(peer).copied();
        last.is_some_and(|last| made <= last && made.unix_seconds().abs_diff(last.unix_seconds()) <= LONGEST_WAY)
    }
}

impl LogConsensus {
    /// As [`lead`](Self::lead) for another peer; refuses a request that was too long on its way.
    pub async fn lead_for(&self, peer: &PeerId, call: &Call) -> Result<Reply, WireError> {
        if let Call::Submit { request, made, .. } = call {
            if let Request::Merge(writes) = request {
                // From now on, not only once it is applied. Itself it may come late: merging twice is the same as once.
                self.fence.merged(writes);
            } else if self.fence.is_overtaken(peer, *made) {
                return Err(WireError::new(ErrorClass::Unavailable, "a later write of this peer is merged already"));
            }
        }
        self.lead(call).await
    }
}
