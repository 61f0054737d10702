//! Who is a member and who votes.
//!
//! A peer asks for a raft id, is added as a learner, catches up, and is made a voter by the leader while the number
//! of voters is below the wanted one. That number is odd: an even one needs more votes without surviving more losses.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cluster_types::{BoxError, ErrorClass, Multiaddr, PeerId, Role, WireError};
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use super::engine::{LogConsensus, StartError};
use super::types::{Node, NodeId};
use crate::rpc::{Call, PeerClient, Reply};
use crate::task::{OnExit, TaskGroup};

/// How long one question to a member may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two rounds of asking every known member.
const ROUND_PAUSE: Duration = Duration::from_millis(250);
/// How often the leader looks whether the voters are as they should be.
const BALANCE_EVERY: Duration = Duration::from_millis(500);
/// A learner that misses at most so many entries has caught up.
const CAUGHT_UP: u64 = 256;
/// How long a hand-over of leadership may take.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Asks members for a raft id.
pub(super) async fn reserve(client: &PeerClient, members: &[PeerId], timeout: Duration) -> Result<NodeId, StartError> {
    let Reply::Index(node_id) = ask_any(client, members, &Call::Reserve, timeout).await? else {
        return Err(StartError::Join { after: timeout, reason: "a member gave another answer".to_owned() });
    };
    Ok(node_id)
}

/// Asks members to be let in, and waits until the membership has arrived here.
pub(super) async fn join(node: &LogConsensus, members: &[PeerId]) -> Result<(), StartError> {
    let timeout = node.settings.join_timeout;
    let call = Call::Join { node_id: node.node_id, addresses: node.own_addresses() };
    ask_any(&node.client, members, &call, timeout).await?;
    let mut position = node.position.clone();
    let entered = position.wait_for(|position| position.members.iter().any(|member| member.node_id == node.node_id));
    match tokio::time::timeout(timeout, entered).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(StartError::Join { after: timeout, reason: "the leader does not send its log".to_owned() }),
    }
}

async fn ask_any(client: &PeerClient, members: &[PeerId], call: &Call, timeout: Duration) -> Result<Reply, StartError> {
    let started = Instant::now();
    loop {
        let mut reason = "no address was given".to_owned();
        for member in members {
            match client.ask(*member, call, ASK_TIMEOUT).await {
                Ok(reply) => return Ok(reply),
                Err(error) => reason = error.message,
            }
        }
        if started.elapsed() >= timeout {
            return Err(StartError::Join { after: timeout, reason });
        }
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

/// Adds a peer as a learner. This peer must lead. An older raft id of the same peer is removed: its disk is gone.
pub async fn join_here(
    node: &LogConsensus,
    peer: PeerId,
    node_id: NodeId,
    addresses: Vec<Multiaddr>,
) -> Result<(), WireError> {
    let position = node.position.borrow().clone();
    if position.role != Role::Leader {
        return Err(WireError::new(ErrorClass::Unavailable, "this peer does not lead"));
    }
    if let Some(member) = position.members.iter().find(|member| member.node_id == node_id) {
        return if member.peer == peer {
            Ok(())
        } else {
            Err(WireError::new(ErrorClass::Invalid, "this raft id belongs to another peer"))
        };
    }
    for old in position.members.iter().filter(|member| member.peer == peer) {
        remove_node(node, old.node_id, old.voter).await?;
    }
    let added = node.raft.add_learner(node_id, Node { peer, addresses }, false).await;
    added.map(drop).map_err(|error| WireError::new(ErrorClass::Unavailable, error.to_string()))
}

/// Removes a member. This peer must lead; when it is to go itself, it hands over first.
pub(super) async fn remove_here(node: &LogConsensus, peer: PeerId) -> Result<(), WireError> {
    let position = node.position.borrow().clone();
    if position.role != Role::Leader {
        return Err(WireError::new(ErrorClass::Unavailable, "this peer does not lead"));
    }
    let Some(member) = position.members.iter().find(|member| member.peer == peer) else { return Ok(()) };
    if position.members.len() == 1 {
        return Err(WireError::new(ErrorClass::Conflict, "cannot remove ourselves from a 1-peer cluster"));
    }
    if peer == node.peer {
        let others = position.members.iter().any(|member| member.voter && member.peer != peer);
        if !others {
            let heir = position.members.iter().find(|member| member.peer != peer).map(|member| member.node_id);
            promote(node, heir.into_iter().collect()).await?;
        }
        hand_over(node).await;
        return Err(WireError::new(ErrorClass::Unavailable, "leadership was handed over, ask the new leader"));
    }
    remove_node(node, member.node_id, member.voter).await?;
    let told = node.client.ask(peer, &Call::Removed { node_id: member.node_id }, Duration::from_secs(1)).await;
    if let Err(error) = told {
        tracing::debug!(%peer, %error, "the removed peer could not be told");
    }
    Ok(())
}

async fn remove_node(node: &LogConsensus, node_id: NodeId, voter: bool) -> Result<(), WireError> {
    let ids = BTreeSet::from([node_id]);
    let change = if voter { ChangeMembers::RemoveVoters(ids) } else { ChangeMembers::RemoveNodes(ids) };
    let changed = node.raft.change_membership(change, false).await;
    changed.map(drop).map_err(|error| WireError::new(ErrorClass::Unavailable, error.to_string()))
}

async fn promote(node: &LogConsensus, ids: BTreeSet<NodeId>) -> Result<(), WireError> {
    let changed = node.raft.change_membership(ChangeMembers::AddVoterIds(ids), true).await;
    changed.map(drop).map_err(|error| WireError::new(ErrorClass::Unavailable, error.to_string()))
}

/// Gives leadership to the voter that has most of the log, and waits until it is gone.
pub(super) async fn hand_over(node: &LogConsensus) {
    let metrics = node.raft.metrics().borrow_watched().clone();
    let Some(replication) = &metrics.replication else { return };
    let voters: BTreeSet<NodeId> = metrics.membership_config.membership().voter_ids().collect();
    let heir = replication
        .iter()
        .filter(|(id, _)| **id != node.node_id && voters.contains(id))
        .max_by_key(|(_, matched)| matched.as_ref().map(|id| id.index()))
        .map(|(id, _)| *id);
    let Some(heir) = heir else { return };
    if let Err(error) = node.raft.trigger().transfer_leader(heir).await {
        tracing::warn!(%error, "leadership could not be handed over");
        return;
    }
    let mut position = node.position.clone();
    let gone = position.wait_for(|position| position.role != Role::Leader && position.leader.is_some());
    if tokio::time::timeout(HAND_OVER_TIMEOUT, gone).await.is_err() {
        tracing::warn!("no other voter took over leadership in time");
    }
}

/// Keeps the number of voters right for as long as this peer leads.
pub(super) fn balance_voters(node: Arc<LogConsensus>, tasks: &TaskGroup) {
    let stop = tasks.stop_token();
    tasks.spawn("voters", OnExit::Continue, async move {
        let mut tick = tokio::time::interval(BALANCE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok::<(), BoxError>(()),
                _ = tick.tick() => balance_once(&node).await,
            }
        }
    });
}

async fn balance_once(node: &LogConsensus) {
    if node.position.borrow().role != Role::Leader {
        return;
    }
    let metrics = node.raft.metrics().borrow_watched().clone();
    let Some(replication) = &metrics.replication else { return };
    let last = metrics.last_log_index.unwrap_or(0);
    let voters: BTreeSet<NodeId> = metrics.membership_config.membership().voter_ids().collect();
    let learners = metrics.membership_config.membership().learner_ids();
    let ready: Vec<NodeId> = learners
        .filter(|id| {
            let matched = replication.get(id).and_then(|matched| matched.as_ref()).map(|id| id.index());
            matched.is_some_and(|matched| matched + CAUGHT_UP >= last)
        })
        .collect();
    let changed = match next_voters(&voters, &ready, node.node_id, node.settings.max_voters) {
        None => return,
        Some(VoterChange::Add(ids)) => promote(node, ids).await,
        Some(VoterChange::Demote(id)) => node
            .raft
            .change_membership(ChangeMembers::RemoveVoters(BTreeSet::from([id])), true)
            .await
            .map(drop)
            .map_err(|error| WireError::new(ErrorClass::Unavailable, error.to_string())),
    };
    if let Err(error) = changed {
        tracing::debug!(%error, "the voters could not be changed now");
    }
}

/// A change of the voters.
#[derive(Clone, Debug, PartialEq, Eq)]
enum VoterChange {
    Add(BTreeSet<NodeId>),
    Demote(NodeId),
}

/// Whom to make a voter or a voter no longer, so that their number is odd and at most `max`.
fn next_voters(voters: &BTreeSet<NodeId>, ready: &[NodeId], leader: NodeId, max: usize) -> Option<VoterChange> {
    let odd = |number: usize| if number.is_multiple_of(2) { number.saturating_sub(1) } else { number };
    let target = odd((voters.len() + ready.len()).min(max.max(1)));
    if target > voters.len() {
        let missing = target - voters.len();
        return Some(VoterChange::Add(ready.iter().copied().take(missing).collect()));
    }
    if voters.len() > target {
        return voters.iter().copied().filter(|id| *id != leader).max().map(VoterChange::Demote);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(list: &[NodeId]) -> BTreeSet<NodeId> {
        list.iter().copied().collect()
    }

    #[test]
    fn the_number_of_voters_is_odd_and_bounded() {
        assert_eq!(next_voters(&ids(&[1]), &[5], 1, 5), None);
        assert_eq!(next_voters(&ids(&[1]), &[5, 9], 1, 5), Some(VoterChange::Add(ids(&[5, 9]))));
        assert_eq!(next_voters(&ids(&[1, 5, 9]), &[12], 1, 5), None);
        assert_eq!(next_voters(&ids(&[1, 5, 9]), &[12, 13, 14], 1, 5), Some(VoterChange::Add(ids(&[12, 13]))));
        assert_eq!(next_voters(&ids(&[1, 5, 9]), &[12, 13, 14], 1, 3), None);
        assert_eq!(next_voters(&ids(&[1, 5]), &[], 1, 5), Some(VoterChange::Demote(5)));
        assert_eq!(next_voters(&ids(&[1, 5, 9, 12]), &[], 12, 5), Some(VoterChange::Demote(9)));
        assert_eq!(next_voters(&ids(&[1, 5]), &[9], 5, 5), Some(VoterChange::Add(ids(&[9]))));
    }
}
