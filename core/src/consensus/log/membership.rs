//! Who is a member: joining, removal, hand-over of leadership.
//!
//! A peer asks for a raft id, is added as a learner, catches up, and is made a voter by the leader when a seat is free
//! (see [`balance`](super::balance)).

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_types::{ErrorClass, Multiaddr, PeerId, Role, WireError};
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use super::admission::decided;
use super::engine::{LogConsensus, StartError};
use super::state_machine::AppliedPosition;
use super::types::{Node, NodeId};
use crate::rpc::{Call, PeerClient, Reply};
use crate::trust::{is_refusal, refusal};

/// How long one question to a member may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two rounds of asking every known member.
const ROUND_PAUSE: Duration = Duration::from_millis(250);
/// How long a change of the membership may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most addresses of a member, and most bytes of each: they are written with every batch.
const MAX_ADDRESSES: usize = 16;
const MAX_ADDRESS_BYTES: usize = 256;
/// How often a removed peer is told so.
const FAREWELLS: usize = 3;
/// How long a hand-over of leadership may take.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether the peers to join say that `own`, by its raft id, is a member no longer of the cluster that its state (`at`)
/// belongs to. A raft id is never given out twice, so it will not be one again.
pub(super) async fn was_removed(
    client: &PeerClient,
    members: &[PeerId],
    own: (NodeId, PeerId),
    at: &AppliedPosition,
) -> bool {
    let known = decided(&at.membership);
    for member in members {
        let Ok(Reply::Members(told)) = client.ask(*member, &Call::Members, ASK_TIMEOUT).await else { continue };
        let same = told.cluster.is_some() && told.cluster == at.cluster();
        if same && told.decided > known {
            return !told.members.contains(&own);
        }
    }
    false
}

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
    loop {
        let entered =
            position.wait_for(|position| position.members.iter().any(|member| member.node_id == node.node_id));
        match tokio::time::timeout(timeout, entered).await {
            Ok(Ok(_)) => return Ok(()),
            // The beginning of the log is gone, and the state comes by shards: that takes as long as it is large.
            Err(_) if node.progress().borrow().is_some() => {}
            _ => {
                let reason = "the leader does not send its log".to_owned();
                return Err(StartError::Join { after: timeout, reason });
            }
        }
    }
}

async fn ask_any(client: &PeerClient, members: &[PeerId], call: &Call, timeout: Duration) -> Result<Reply, StartError> {
    let started = Instant::now();
    loop {
        let mut reason = "no address was given".to_owned();
        let mut refusals = 0;
        for member in members {
            match client.ask(*member, call, ASK_TIMEOUT).await {
                Ok(reply) => return Ok(reply),
                Err(error) => {
                    refusals += usize::from(is_refusal(&error));
                    reason = error.message;
                }
            }
        }
        if refusals > 0 && refusals == members.len() {
            return Err(StartError::NotTrusted { reason });
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
    if addresses.len() > MAX_ADDRESSES || addresses.iter().any(|address| address.len() > MAX_ADDRESS_BYTES) {
        let limit = format!("a member may have {MAX_ADDRESSES} addresses of {MAX_ADDRESS_BYTES} bytes each");
        return Err(WireError::new(ErrorClass::Invalid, limit));
    }
    if let Some(member) = position.members.iter().find(|member| member.node_id == node_id) {
        return if member.peer == peer {
            Ok(())
        } else {
            Err(WireError::new(ErrorClass::Invalid, "this raft id belongs to another peer"))
        };
    }
    if !node.trusts(&peer) {
        return Err(refusal(&peer));
    }
    if node_id > position.committed {
        return Err(WireError::new(ErrorClass::Invalid, "this raft id was never given out; ask for one first"));
    }
    for old in position.members.iter().filter(|member| member.peer == peer) {
        remove_node(node, old.node_id, old.voter).await?;
    }
    in_time(node.raft.add_learner(node_id, Node { peer, addresses }, false)).await
}

/// A change of the membership, with a deadline: without a quorum it would wait for ever.
pub(super) async fn in_time<T, E: std::fmt::Display>(
    change: impl Future<Output = Result<T, E>>,
) -> Result<(), WireError> {
    match tokio::time::timeout(CHANGE_TIMEOUT, change).await {
        Ok(Ok(_)) => Ok(()),
        // Its first half may have been written: asking again finishes it.
        Ok(Err(error)) => Err(WireError::new(ErrorClass::Unknown, error.to_string())),
        Err(_) => Err(WireError::new(ErrorClass::Unknown, "the change of the membership found no quorum in time")),
    }
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
    bid_farewell(node, member).await;
    Ok(())
}

/// Tells a removed peer: through the log it may never hear of it. The connection is kept for that long.
async fn bid_farewell(node: &LogConsensus, member: &crate::consensus::Member) {
    for _ in 0..FAREWELLS {
        node.transport.remember(member.peer, member.addresses.clone());
        let call = Call::Removed { node_id: member.node_id };
        match node.client.ask(member.peer, &call, Duration::from_secs(1)).await {
            Ok(_) => break,
            Err(error) => tracing::debug!(peer = %member.peer, %error, "the removed peer could not be told"),
        }
    }
    node.transport.forget(member.peer);
}

async fn remove_node(node: &LogConsensus, node_id: NodeId, voter: bool) -> Result<(), WireError> {
    let ids = BTreeSet::from([node_id]);
    let change = if voter { ChangeMembers::RemoveVoters(ids) } else { ChangeMembers::RemoveNodes(ids) };
    in_time(node.raft.change_membership(change, false)).await
}

async fn promote(node: &LogConsensus, ids: BTreeSet<NodeId>) -> Result<(), WireError> {
    in_time(node.raft.change_membership(ChangeMembers::AddVoterIds(ids), true)).await
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
