//! Where this peer is, told from openraft's metrics.

use std::sync::Arc;

use crate::watch;
use cluster_types::{BoxError, PeerId, Role};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;

use super::receiver::Raft;
use super::types::{NodeId, TypeConfig};
use crate::consensus::{Member, Position};
use crate::ports::Transport;
use crate::task::{OnExit, TaskGroup};

/// What a position is told from.
pub(super) struct Sources {
    /// The node itself.
    pub(super) raft: Raft,
    /// Every index as soon as it is applied.
    pub(super) applied: watch::Receiver<u64>,
    /// Whether the leader said that this node was removed.
    pub(super) removed: watch::Receiver<bool>,
    /// What keeps the members connected.
    pub(super) transport: Arc<dyn Transport>,
}

/// Follows openraft's metrics for as long as the node runs, and stays connected to every member.
pub(super) fn follow(sources: Sources, node_id: NodeId, peer: PeerId, tasks: &TaskGroup) -> watch::Receiver<Position> {
    let Sources { raft, mut applied, mut removed, transport } = sources;
    let mut metrics = raft.metrics();
    let (sender, receiver) = watch::channel(Position::default());
    let stop = tasks.stop_token();
    tasks.spawn("position", OnExit::StopPeer, async move {
        loop {
            let now = metrics.borrow_watched().clone();
            if let Err(fatal) = &now.running_state {
                let stopping = stop.is_cancelled();
                return if stopping { Ok(()) } else { Err::<(), BoxError>(fatal.to_string().into()) };
            }
            let was_member = {
                let before = sender.borrow();
                before.removed || before.members.iter().any(|member| member.node_id == node_id)
            };
            let mut next = translate(&now, node_id, *applied.borrow_and_update(), was_member);
            next.removed |= *removed.borrow_and_update();
            keep_in_touch(&sender.borrow(), &next, peer, transport.as_ref());
            sender.send_if_modified(|current| {
                let changed = *current != next;
                *current = next;
                changed
            });
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                changed = metrics.changed() => if changed.is_err() { return Ok(()) },
                changed = applied.changed() => if changed.is_err() { return Ok(()) },
                changed = removed.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    });
    receiver
}

fn translate(metrics: &openraft::RaftMetrics<TypeConfig>, node_id: NodeId, applied: u64, was_member: bool) -> Position {
    let membership = metrics.membership_config.membership();
    let voters = membership.voter_ids().collect::<std::collections::BTreeSet<_>>();
    let mut members: Vec<Member> = membership
        .nodes()
        .map(|(id, node)| Member {
            peer: node.peer,
            node_id: *id,
            voter: voters.contains(id),
            addresses: node.addresses.clone(),
        })
        .collect();
    members.sort_by_key(|member| member.peer);
    let leader = metrics.current_leader.and_then(|leader| membership.get_node(&leader)).map(|node| node.peer);
    // A removal that is not on a quorum yet may still be taken back by another leader.
    let committed = metrics.committed_membership_config.membership();
    let here = members.iter().any(|member| member.node_id == node_id) || committed.get_node(&node_id).is_some();
    Position {
        applied,
        committed: metrics.local_committed.as_ref().map_or(0, |id| id.index()),
        term: metrics.current_term,
        role: match metrics.state {
            ServerState::Leader => Role::Leader,
            ServerState::Follower | ServerState::Candidate => Role::Voter,
            ServerState::Learner | ServerState::Shutdown => Role::Learner,
        },
        leader,
        removed: was_member && !here,
        members,
    }
}

/// Stays connected to new members, and no longer to those that are gone.
fn keep_in_touch(before: &Position, now: &Position, own: PeerId, transport: &dyn Transport) {
    for member in now.members.iter().filter(|member| member.peer != own) {
        if !before.members.contains(member) {
            transport.remember(member.peer, member.addresses.clone());
        }
    }
    for gone in before.members.iter().filter(|member| member.peer != own) {
        if !now.members.iter().any(|member| member.peer == gone.peer) {
            transport.forget(gone.peer);
        }
    }
}
