//! What a peer claims of its cluster, and whether others of that cluster say the same. Pure.
//!
//! A peer leaves its cluster for a larger one, and whoever knows the secret can say that it belongs to a large one. So
//! those that it names as members are asked, some of them at random: most must belong to the same cluster, find it larger
//! than the asker's, and name the one who claims it as a member.
//!
//! **Invariant:** a cluster that is said to have several members counts only if more than half of those asked say so.
//! **Invariant:** what a peer claims costs at most [`SAMPLE`] questions.

use std::collections::BTreeMap;

use cluster_types::{Multiaddr, PeerId};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::meet::ClusterInfo;

/// How many of the members are asked: of a cluster of hundreds, somebody who holds a third of the names does not get half
/// of these but once in ten.
const SAMPLE: usize = 16;
/// Most members that are named: three times the largest cluster this is made for.
const MAX_NAMED: usize = 1024;
/// Most addresses of each.
const MAX_ADDRESSES: usize = 4;

/// A member, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The peer.
    pub peer: PeerId,
    /// Its addresses, with or without `/p2p`.
    pub addresses: Vec<Multiaddr>,
}

/// Names members.
pub(super) fn name<'a>(members: impl Iterator<Item = (PeerId, &'a [Multiaddr])>) -> Vec<Named> {
    let named = members
        .map(|(peer, addresses)| Named { peer, addresses: addresses.iter().take(MAX_ADDRESSES).cloned().collect() });
    named.take(MAX_NAMED).collect()
}

/// Whom to ask about the cluster that `host` claims to belong to, now that it has named the members (`told`); `here` is
/// the one who asks. Nobody, if it has none but the host; none, if the names are not those of the claim.
pub(super) fn whom_to_ask(
    claim: &ClusterInfo,
    told: ClusterInfo,
    [host, here]: [PeerId; 2],
    chance: u64,
) -> Option<Vec<Named>> {
    if told.id != claim.id {
        return None;
    }
    let mut members: BTreeMap<PeerId, Named> =
        told.peers.into_iter().take(MAX_NAMED).map(|member| (member.peer, member)).collect();
    let enough = usize::try_from(claim.members).is_ok_and(|claimed| members.len() >= claimed.min(MAX_NAMED));
    if members.remove(&host).is_none() || !enough {
        return None;
    }
    members.remove(&here);
    let mut others: Vec<Named> = members.into_values().collect();
    others.shuffle(&mut StdRng::seed_from_u64(chance));
    others.truncate(SAMPLE);
    for member in &mut others {
        member.addresses.truncate(MAX_ADDRESSES);
    }
    Some(others)
}

/// Whether what a member says of its cluster is what `host` claims of it, and reason to leave `own` for it.
pub(super) fn confirms(own: &ClusterInfo, claim: &ClusterInfo, host: PeerId, told: &ClusterInfo) -> bool {
    told.id == claim.id && own.joins(told) && told.peers.iter().any(|member| member.peer == host)
}

/// Whether those that confirm a claim are most of those asked, with the one who claims it.
pub(super) fn is_most(confirmed: usize, asked: usize) -> bool {
    (confirmed + 1) * 2 > asked + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(id: u64, peers: &[PeerId]) -> ClusterInfo {
        ClusterInfo {
            id,
            name: "n".to_owned(),
            node_id: id,
            members: peers.len() as u64,
            pins: 0,
            sociable: true,
            addresses: Vec::new(),
            remnant: false,
            peers: name(peers.iter().map(|peer| (*peer, &[][..]))),
        }
    }

    fn peers(number: usize) -> Vec<PeerId> {
        (0..number).map(|_| PeerId::random()).collect()
    }

    #[test]
    fn who_claims_a_large_cluster_names_as_many_members_and_itself() {
        let (all, here) = (peers(5), PeerId::random());
        let ask = |claim: &ClusterInfo, told: &[PeerId], host| {
            let asked = whom_to_ask(claim, cluster(7, told), [host, here], 1)?;
            let mut asked: Vec<PeerId> = asked.into_iter().map(|member| member.peer).collect();
            asked.sort_unstable();
            Some(asked)
        };
        let sorted = |peers: &[PeerId]| {
            let mut peers = peers.to_vec();
            peers.sort_unstable();
            Some(peers)
        };
        let claim = cluster(7, &all);
        assert_eq!(ask(&claim, &all, all[0]), sorted(&all[1..]));
        assert_eq!(ask(&claim, &all[..4], all[0]), None, "one is missing");
        assert_eq!(ask(&claim, &[all[0], all[1], all[1], all[1], all[1]], all[0]), None, "one name is one member");
        assert_eq!(ask(&claim, &all, PeerId::random()), None, "it is none of them");
        assert_eq!(ask(&cluster(8, &all), &all, all[0]), None, "another cluster");
        let boast = ClusterInfo { members: u64::MAX, ..cluster(7, &all) };
        assert_eq!(ask(&boast, &all, all[0]), None);
        assert_eq!(ask(&cluster(7, &all[..1]), &all[..1], all[0]), Some(Vec::new()), "nobody else could say so");
        let with_asker = [&all[..], &[here]].concat();
        assert_eq!(ask(&cluster(7, &with_asker), &with_asker, all[0]), sorted(&all[1..]), "nobody asks itself");
    }

    #[test]
    fn however_many_are_named_a_claim_costs_few_questions() {
        let many = peers(2 * MAX_NAMED);
        let claim = ClusterInfo { members: MAX_NAMED as u64, ..cluster(7, &[]) };
        let told = ClusterInfo {
            peers: many.iter().map(|peer| Named { peer: *peer, addresses: Vec::new() }).collect(),
            ..cluster(7, &[])
        };
        let ask = |chance| whom_to_ask(&claim, told.clone(), [many[0], PeerId::random()], chance).unwrap();
        assert_eq!(ask(1).len(), SAMPLE);
        assert_ne!(ask(1), ask(2), "nobody knows who is asked");
    }

    #[test]
    fn a_member_confirms_only_what_it_would_say_itself() {
        let (all, own) = (peers(3), cluster(1, &peers(2)));
        let claim = ClusterInfo { members: 100, ..cluster(7, &all) };
        assert!(confirms(&own, &claim, all[0], &cluster(7, &all)));
        assert!(!confirms(&own, &claim, all[0], &cluster(8, &all)), "it belongs to another one");
        assert!(!confirms(&own, &claim, all[0], &cluster(7, &all[..1])), "it is smaller than claimed");
        assert!(!confirms(&own, &claim, all[0], &cluster(7, &peers(3))), "the one who claims it is no member");
        let refuses = ClusterInfo { sociable: false, ..cluster(7, &all) };
        assert!(!confirms(&own, &claim, all[0], &refuses));
    }

    #[test]
    fn most_of_those_asked_confirm() {
        assert!(is_most(0, 0), "there is nobody else");
        assert!(!is_most(0, 1) && is_most(1, 1));
        assert!(!is_most(0, 2) && is_most(1, 2), "two of three");
        assert!(!is_most(7, 16) && is_most(8, 16));
    }
}
