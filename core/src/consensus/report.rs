//! Position and digest of one instant, from the state itself.

use cluster_types::StateReport;

use super::log::AppliedPosition;
use super::{ConsensusError, Position, digest};
use crate::ports::StateStore;

/// What a peer at `position` tells of its state.
pub(crate) async fn of(state: &dyn StateStore, position: Position) -> Result<StateReport, ConsensusError> {
    let stopped = |reason: String| ConsensusError::Stopped { reason };
    let (shards, applied) = state.shards().await.map_err(|error| stopped(error.to_string()))?;
    let applied = AppliedPosition::decode(applied.as_ref()).map_err(|error| stopped(error.to_string()))?;
    let root = digest::root(shards.iter().map(|shard| &shard.sum));
    Ok(StateReport {
        applied_index: applied.index(),
        committed_index: position.committed.max(applied.index()),
        term: position.term,
        role: position.role,
        leader: position.leader,
        digest: root.iter().map(|byte| format!("{byte:02x}")).collect(),
        pins: shards.iter().map(|shard| shard.sum.pins).sum(),
        eventual: 0,
    })
}
