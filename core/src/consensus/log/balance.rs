//! Keeps the voters as they should be, for as long as this peer leads. The rules are in [`voters`](super::voters).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cluster_types::{BoxError, PeerId, Role};
use openraft::ChangeMembers;
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use super::engine::LogConsensus;
use super::membership::in_time;
use super::types::{NodeId, TypeConfig};
use super::voters::{Change, Presence, Seat, next_voters};
use crate::task::{OnExit, TaskGroup};

/// How often the leader looks whether the voters are as they should be.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A learner that misses at most so many entries has caught up.
const CAUGHT_UP: u64 = 256;
/// A member that was not heard of for so long is taken for absent where voters are chosen.
const SILENT_AFTER: Duration = Duration::from_secs(5);
/// How long the same better spread of the voters must be in sight before it is made: metrics come and go.
const SPREAD_AFTER: Duration = Duration::from_secs(60);

/// Tells where peers stand: their `region` tags, as far as they are known now.
pub type RegionSource = Arc<dyn Fn() -> BTreeMap<PeerId, String> + Send + Sync>;

/// What the leader remembers between two looks.
#[derive(Default)]
struct Memory {
    /// Since when members are silent; for this leader, silence begins with its leading.
    silent_since: BTreeMap<NodeId, Instant>,
    /// The last region that each member told. A tag that was not renewed in time has not changed.
    regions: BTreeMap<PeerId, String>,
    /// A better spread, and since when it is in sight.
    spread: Option<(BTreeSet<NodeId>, Instant)>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("silent", &self.silent_since.len()).finish_non_exhaustive()
    }
}

/// Starts looking.
pub(super) fn balance_voters(node: Arc<LogConsensus>, tasks: &TaskGroup) {
    let stop = tasks.stop_token();
    tasks.spawn("voters", OnExit::StopPeer, async move {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut memory = Memory::default();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok::<(), BoxError>(()),
                _ = tick.tick() => look(&node, &mut memory).await,
            }
        }
    });
}

async fn look(node: &LogConsensus, memory: &mut Memory) {
    if node.position.borrow().role != Role::Leader {
        *memory = Memory::default();
        return;
    }
    let metrics = node.raft.metrics().borrow_watched().clone();
    let changed = if metrics.membership_config.membership().get_joint_config().len() > 1 {
        // A former leader left a change half done; no leader finishes it by itself.
        in_time(node.raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::new()), false)).await
    } else {
        memory.regions.extend(node.regions());
        let now = Instant::now();
        let seats = memory.seats(&metrics, node.node_id, node.settings.voter_grace, now);
        let change = next_voters(&seats, node.node_id, node.settings.max_voters);
        let Some(voters) = memory.ripe(change, now) else { return };
        tracing::info!(?voters, "the voters are changed");
        in_time(node.raft.change_membership(voters, true)).await
    };
    if let Err(error) = changed {
        tracing::debug!(%error, "the voters could not be changed now");
    }
}

impl Memory {
    /// The members as the rules want to see them.
    fn seats(
        &mut self,
        metrics: &openraft::RaftMetrics<TypeConfig>,
        leader: NodeId,
        grace: Duration,
        now: Instant,
    ) -> Vec<Seat> {
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let last = metrics.last_log_index.unwrap_or(0);
        let heard = |id: &NodeId| {
            let acknowledged = metrics.heartbeat.as_ref().and_then(|all| all.get(id)).and_then(Option::as_ref);
            *id == leader || acknowledged.is_some_and(|instant| instant.elapsed() < SILENT_AFTER)
        };
        let caught_up = |id: &NodeId| {
            let matched = metrics.replication.as_ref().and_then(|all| all.get(id)).and_then(Option::as_ref);
            matched.is_some_and(|matched| matched.index() + CAUGHT_UP >= last)
        };
        self.silent_since.retain(|id, _| membership.get_node(id).is_some() && !heard(id));
        self.regions.retain(|peer, _| membership.nodes().any(|(_, node)| node.peer == *peer));
        let seat = |(id, node): (&NodeId, &super::types::Node)| {
            let presence = if heard(id) {
                Presence::Heard
            } else if now.duration_since(*self.silent_since.entry(*id).or_insert(now)) < grace {
                Presence::Silent
            } else {
                Presence::Gone
            };
            let region = self.regions.get(&node.peer).cloned();
            Seat { id: *id, voter: voters.contains(id), presence, caught_up: caught_up(id), region }
        };
        membership.nodes().map(seat).collect()
    }

    /// What is to be done now of what was found.
    fn ripe(&mut self, change: Option<Change>, now: Instant) -> Option<BTreeSet<NodeId>> {
        let spread = self.spread.take();
        let change = change?;
        if !change.only_spread {
            return Some(change.voters);
        }
        let since = spread.filter(|(voters, _)| *voters == change.voters).map_or(now, |(_, since)| since);
        if now.duration_since(since) >= SPREAD_AFTER {
            return Some(change.voters);
        }
        self.spread = Some((change.voters, since));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_better_spread_is_made_only_when_it_stays_in_sight() {
        let mut memory = Memory::default();
        let start = Instant::now();
        let spread = |ids: &[NodeId]| Some(Change { voters: ids.iter().copied().collect(), only_spread: true });
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(memory.ripe(spread(&[1, 2]), at(0)), None);
        assert_eq!(memory.ripe(spread(&[1, 2]), at(59)), None);
        assert_eq!(memory.ripe(spread(&[1, 3]), at(60)), None, "another one begins anew");
        assert_eq!(memory.ripe(None, at(90)), None);
        assert_eq!(memory.ripe(spread(&[1, 3]), at(120)), None, "it was out of sight in between");
        assert_eq!(memory.ripe(spread(&[1, 3]), at(180)), Some(BTreeSet::from([1, 3])));
        let urgent = Change { voters: BTreeSet::from([4]), only_spread: false };
        assert_eq!(memory.ripe(Some(urgent), at(181)), Some(BTreeSet::from([4])));
    }
}
