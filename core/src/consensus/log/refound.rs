//! A new cluster out of what one peer of a lost one holds. Pure: what is to be written, and why that is enough.
//!
//! The peer gets the raft id of a founder, which nobody of the old cluster knows, and its log goes on with an entry of a
//! later term that makes it the only member. Messages of the old cluster are for another node, or come from peers that
//! are no members and that no member vouches for; messages of the new one are for raft ids at peers that joined it.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{EntryPayload, Membership};

use super::engine::FOUNDER;
use super::types::{LogEntry, LogId, Node, NodeId, StoredMembership, Vote};

/// What a stopped peer holds of the log.
#[derive(Clone, Debug)]
pub struct Holdings {
    /// Its raft id.
    pub node_id: NodeId,
    /// Its last vote.
    pub vote: Option<Vote>,
    /// Its last entry.
    pub last: Option<LogId>,
    /// The newest membership, whether or not a majority has it.
    pub membership: StoredMembership,
}

impl Holdings {
    /// The other members, and whether each of them votes.
    pub fn others(&self) -> BTreeMap<NodeId, (Node, bool)> {
        let voters: BTreeSet<NodeId> = self.membership.membership().voter_ids().collect();
        let nodes = self.membership.membership().nodes().filter(|(id, _)| **id != self.node_id);
        nodes.map(|(id, node)| (*id, (node.clone(), voters.contains(id)))).collect()
    }

    /// What the peer itself is: `None` when it is no member, or whether it votes.
    pub fn votes(&self) -> Option<bool> {
        let membership = self.membership.membership();
        membership.get_node(&self.node_id).map(|_| membership.voter_ids().any(|id| id == self.node_id))
    }

    /// What makes `own` the founder of a new cluster. `chance` is a fresh random number.
    pub fn refound(&self, own: Node, chance: u64) -> Refounding {
        let node_id = FOUNDER | chance;
        let voted = self.vote.map_or(0, |vote| vote.leader_id.term);
        let wrote = self.last.map_or(0, |last| **last.committed_leader_id());
        let term = voted.max(wrote) + 1;
        let index = self.last.map_or(0, |last| last.index() + 1);
        let nodes = BTreeMap::from([(node_id, own)]);
        let membership = Membership::new(vec![BTreeSet::from([node_id])], nodes)
            .expect("a membership of one voter with its node is consistent");
        let payload = EntryPayload::Membership(membership);
        let entry = openraft::Entry { log_id: LogId::new(term.into(), index), payload };
        // It was elected in this term by the only vote there is.
        Refounding { node_id, vote: Vote::new_committed(term, node_id), entry }
    }
}

/// What is to be written, all of it or nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Refounding {
    /// The new raft id.
    pub node_id: NodeId,
    /// The new vote.
    pub vote: Vote,
    /// The entry after the last one.
    pub entry: LogEntry,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_founder_is_alone_in_a_later_term() {
        let node = |_| Node::default();
        let nodes: BTreeMap<NodeId, Node> = [1, 2, 3].map(|id| (id, node(id))).into();
        let membership = Membership::new(vec![BTreeSet::from([1, 2])], nodes).unwrap();
        let mut holdings = Holdings {
            node_id: 2,
            vote: Some(Vote::new(7, 1)),
            last: Some(LogId::new(6.into(), 41)),
            membership: StoredMembership::new(Some(LogId::new(3.into(), 9)), membership),
        };
        let votes: Vec<(NodeId, bool)> = holdings.others().into_iter().map(|(id, (_, votes))| (id, votes)).collect();
        assert_eq!((votes, holdings.votes()), (vec![(1, true), (3, false)], Some(true)));
        let new = holdings.refound(Node::default(), 5);
        assert_eq!((new.node_id, new.vote), (FOUNDER | 5, Vote::new_committed(8, FOUNDER | 5)));
        assert_eq!(new.entry.log_id, LogId::new(8.into(), 42));
        let EntryPayload::Membership(alone) = &new.entry.payload else { panic!("{:?}", new.entry) };
        assert_eq!(alone.nodes().map(|(id, _)| *id).collect::<Vec<_>>(), [new.node_id]);
        assert_eq!(alone.voter_ids().collect::<Vec<_>>(), [new.node_id]);
        holdings.last = Some(LogId::new(9.into(), 41));
        assert_eq!(holdings.refound(Node::default(), 5).vote, Vote::new_committed(10, FOUNDER | 5));
    }
}
