//! Who may take part in raft, beside the members that this peer knows itself. Pure, but for the time handed in.
//!
//! Whoever knows the swarm's secret can send raft messages; only members may. But a member that was away may not know a
//! new leader yet. So it asks those it trusts who the members are: the members it knows, the peers it was told to join,
//! and whom those have vouched for. What a single one says is enough: a hostile *member* could do as much harm by
//! itself. Holders of the secret that are no members are never asked, so they can vouch for nobody.
//!
//! **Invariant:** a vouch counts only while it is from a later membership than the one this peer has, so a removed member
//! cannot be vouched for by who has not heard of it; and only while whoever it goes back to is a member or was named by
//! the operator. So a member that has caught up goes by its own log alone, whatever it was told before.
//! **Invariant:** what is said of another cluster vouches for nobody and removes nobody: a member may have gone there.
//! **Invariant:** memory is bounded by [`MAX_VOUCHES`], and nothing is kept of peers that nobody vouches for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use cluster_types::PeerId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::types::NodeId;

/// How long a vouch counts.
const VOUCHED_FOR: Duration = Duration::from_secs(600);
/// Most members that are believed to be vouched for: three times the largest cluster this is made for.
const MAX_VOUCHES: usize = 1024;
/// How many are asked in a round. With more members than that, each round asks others of them.
const ASKED_A_ROUND: usize = 16;

/// Where in the log a membership was decided: term and index.
pub(super) type Decided = Option<(u64, u64)>;

/// Who the members are, as one peer tells another: the newest membership that it knows to be on a quorum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersTold {
    /// Where in the log it was decided: term and index. Nothing before the peer has joined.
    pub decided: Option<(u64, u64)>,
    /// The members: raft id and peer.
    pub members: Vec<(NodeId, PeerId)>,
    /// The cluster they are members of, by the raft id of its founder, if the peer knows.
    #[serde(default)]
    pub cluster: Option<NodeId>,
}

/// The members as this peer knows them by its own log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Where the newest membership was decided.
    pub(super) decided: Decided,
    /// Its members and those of the newest one that is known to be on a quorum.
    pub(super) members: BTreeMap<NodeId, PeerId>,
    /// Who votes.
    pub(super) voters: BTreeSet<NodeId>,
}

impl Known {
    fn has_peer(&self, peer: PeerId) -> bool {
        self.members.values().any(|member| *member == peer)
    }

    fn voting_peers(&self) -> BTreeSet<PeerId> {
        self.voters.iter().filter_map(|id| self.members.get(id)).copied().collect()
    }
}

/// Whom others vouched for.
#[derive(Debug)]
pub(super) struct Roster {
    own: PeerId,
    own_id: NodeId,
    /// The peers that the operator named to join.
    anchors: BTreeSet<PeerId>,
    vouched: BTreeMap<(PeerId, NodeId), Vouch>,
}

#[derive(Clone, Copy, Debug)]
struct Vouch {
    decided: Decided,
    until: Instant,
    /// The member or named peer that the chain of vouches begins with.
    root: PeerId,
}

/// What the others say of this peer's own membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Members known here that answered.
    pub(super) answered: BTreeSet<PeerId>,
    /// Those of them that know a later membership, without this peer.
    pub(super) disown: BTreeSet<PeerId>,
    /// Those that belong to another cluster by now.
    pub(super) elsewhere: BTreeSet<PeerId>,
}

impl Survey {
    /// Notes that a peer answered as a member of another cluster.
    pub(super) fn note_elsewhere(&mut self, known: &Known, from: PeerId) {
        if known.has_peer(from) {
            self.answered.insert(from);
            self.elsewhere.insert(from);
        }
    }
}

impl Roster {
    pub(super) fn new(own: PeerId, own_id: NodeId, anchors: &[PeerId]) -> Self {
        let anchors = anchors.iter().copied().filter(|peer| *peer != own).collect();
        Self { own, own_id, anchors, vouched: BTreeMap::new() }
    }

    /// The named peers have done their part: from now on they count as what the log says of them.
    pub(super) fn forget_anchors(&mut self) {
        self.anchors.clear();
    }

    fn is_trusted(&self, known: &Known, peer: PeerId) -> bool {
        known.has_peer(peer) || self.anchors.contains(&peer)
    }

    fn counts(&self, vouch: &Vouch, known: &Known, now: Instant) -> bool {
        vouch.until > now && vouch.decided > known.decided && self.is_trusted(known, vouch.root)
    }

    /// The vouch that counts for a peer under any id.
    fn vouch_for(&self, known: &Known, peer: PeerId, now: Instant) -> Option<&Vouch> {
        let mut all = self.vouched.range((peer, 0)..=(peer, NodeId::MAX)).map(|(_, vouch)| vouch);
        all.find(|vouch| self.counts(vouch, known, now))
    }

    /// Whether a raft message of `peer` may be taken, which says it is node `id` (`None`: it does not say).
    pub(super) fn admits(&self, known: &Known, peer: PeerId, id: Option<NodeId>, now: Instant) -> bool {
        match id {
            Some(id) if known.members.get(&id) == Some(&peer) => return true,
            None if known.has_peer(peer) => return true,
            Some(_) | None => {}
        }
        // Who has joined nothing yet has no other word to go by than the operator's.
        if known.decided.is_none() && self.anchors.contains(&peer) {
            return true;
        }
        match id {
            Some(id) => self.vouched.get(&(peer, id)).is_some_and(|vouch| self.counts(vouch, known, now)),
            None => self.vouch_for(known, peer, now).is_some(),
        }
    }

    /// Whom to ask in a round: voters before others.
    pub(super) fn to_ask(&self, known: &Known, round: usize, now: Instant) -> Vec<PeerId> {
        let voters = known.voting_peers();
        let vouched =
            self.vouched.iter().filter(|(_, vouch)| self.counts(vouch, known, now)).map(|((peer, _), _)| *peer);
        let others: BTreeSet<PeerId> = known.members.values().copied().chain(vouched).collect();
        let first = voters.union(&self.anchors).copied();
        let then: Vec<PeerId> =
            others.into_iter().filter(|peer| !voters.contains(peer) && !self.anchors.contains(peer)).collect();
        let mut asked: Vec<PeerId> = first.filter(|peer| *peer != self.own).take(ASKED_A_ROUND - 1).collect();
        let room = ASKED_A_ROUND - asked.len();
        let turn = round.wrapping_mul(room) % then.len().max(1);
        let turned = then[turn..].iter().chain(&then[..turn]).copied();
        asked.extend(turned.filter(|peer| *peer != self.own).take(room));
        asked
    }

    /// Takes over what a peer says that was asked. What is not worth believing changes nothing.
    pub(super) fn hear(&mut self, known: &Known, from: PeerId, told: &MembersTold, now: Instant) {
        let mut vouched = std::mem::take(&mut self.vouched);
        vouched.retain(|_, vouch| self.counts(vouch, known, now));
        self.vouched = vouched;
        let directly = self.is_trusted(known, from);
        let root = if directly { Some(from) } else { self.vouch_for(known, from, now).map(|vouch| vouch.root) };
        let Some(root) = root.filter(|_| told.decided > known.decided) else { return };
        for (id, peer) in &told.members {
            // Who was vouched for may vouch for others, not for itself: it would never be forgotten.
            if *peer == self.own || (*peer == from && !directly) {
                continue;
            }
            let vouch = Vouch { decided: told.decided, until: now + VOUCHED_FOR, root };
            let key = (*peer, *id);
            let newer = self.vouched.get(&key).map(|before| before.decided <= vouch.decided);
            if newer.unwrap_or(self.vouched.len() < MAX_VOUCHES) {
                self.vouched.insert(key, vouch);
            }
        }
    }

    /// Whether an answer is about another cluster than this peer's, which is `own`. One that names this peer by its raft
    /// id is not: the cluster was founded anew, and this peer has yet to apply that.
    pub(super) fn is_elsewhere(&self, told: &MembersTold, own: Option<NodeId>) -> bool {
        let names_this = told.members.contains(&(self.own_id, self.own));
        !names_this && told.cluster.zip(own).is_some_and(|(told, own)| told != own)
    }

    /// Notes in `survey` what an answer says of this peer itself.
    pub(super) fn note(&self, survey: &mut Survey, known: &Known, from: PeerId, told: &MembersTold) {
        if !known.has_peer(from) {
            return;
        }
        survey.answered.insert(from);
        let here = told.members.iter().any(|(id, _peer)| *id == self.own_id);
        if told.decided > known.decided && !here {
            survey.disown.insert(from);
        } else {
            survey.disown.remove(&from);
        }
    }

    /// Whether this peer was removed, by what others say: its leader, or most of the other voters.
    pub(super) fn is_removed(&self, known: &Known, survey: &Survey, leader: Option<PeerId>) -> bool {
        let was_member = known.members.get(&self.own_id) == Some(&self.own);
        let mut voters = known.voting_peers();
        voters.remove(&self.own);
        let disowning = voters.intersection(&survey.disown).count();
        let by_leader = leader.is_some_and(|leader| survey.disown.contains(&leader));
        was_member && (by_leader || disowning > voters.len() / 2)
    }
}

/// Why this peer cannot follow its cluster, and somebody must come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody it knows answers, while others speak to it as to a member.
    Stranded {
        /// How many members it knows.
        known: usize,
        /// Some of those that speak to it.
        strangers: Vec<PeerId>,
    },
    /// Members say that it is none any more, but too few to be sure; or they belong to another cluster by now.
    Disowned {
        /// Who says so.
        by: Vec<PeerId>,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `/health` shows it to everybody, so it names nobody; the log does.
        const ANEW: &str = "save what it shows with `state export` if writes wait in it, move its state folder away and \
                            start it with --bootstrap <swarm address of a member>";
        match self {
            Self::Stranded { known, .. } => write!(
                f,
                "this peer was away while its cluster changed: of the {known} other members that it knows none answers, \
                 and those that speak to it as members it does not know. If they are members, start this peer once with \
                 --bootstrap <swarm address of one of them>; otherwise {ANEW}"
            ),
            Self::Disowned { by } => write!(
                f,
                "{} of the members that this peer knows say that it is a member no longer, and most of the voters it \
                 knows do not answer. If it was removed, or the cluster was recovered without it, {ANEW}",
                by.len()
            ),
        }
    }
}

impl Trouble {
    /// Whom it is about.
    pub fn peers(&self) -> &[PeerId] {
        match self {
            Self::Stranded { strangers, .. } => strangers,
            Self::Disowned { by } => by,
        }
    }
}

/// What is wrong, if anything is. `strangers` claim to be members lately.
pub(super) fn trouble(known: &Known, survey: &Survey, strangers: &BTreeSet<PeerId>) -> Option<Trouble> {
    if !survey.disown.is_empty() || !survey.elsewhere.is_empty() {
        return Some(Trouble::Disowned { by: survey.disown.union(&survey.elsewhere).copied().collect() });
    }
    let alone = survey.answered.is_empty() && known.members.len() > 1;
    (alone && !strangers.is_empty())
        .then(|| Trouble::Stranded { known: known.members.len() - 1, strangers: strangers.iter().copied().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN_ID: NodeId = 9;

    struct World {
        peers: Vec<PeerId>,
        roster: Roster,
        known: Known,
        now: Instant,
    }

    impl World {
        /// Peer 0 is this one, a learner; it knows 1 to 3, which vote.
        fn new() -> Self {
            let peers: Vec<PeerId> = (0..8).map(|_| PeerId::random()).collect();
            let members = BTreeMap::from([(OWN_ID, peers[0]), (1, peers[1]), (2, peers[2]), (3, peers[3])]);
            let known = Known { decided: Some((2, 50)), members, voters: BTreeSet::from([1, 2, 3]) };
            Self { roster: Roster::new(peers[0], OWN_ID, &[]), peers, known, now: Instant::now() }
        }

        fn told(&self, decided: (u64, u64), members: &[(NodeId, usize)]) -> MembersTold {
            let members = members.iter().map(|(id, place)| (*id, self.peers[*place])).collect();
            MembersTold { decided: Some(decided), members, cluster: None }
        }

        fn hear(&mut self, from: usize, decided: (u64, u64), members: &[(NodeId, usize)]) {
            let told = self.told(decided, members);
            self.roster.hear(&self.known, self.peers[from], &told, self.now);
        }

        fn admits(&self, peer: usize, id: NodeId) -> bool {
            self.roster.admits(&self.known, self.peers[peer], Some(id), self.now)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn members_are_admitted_under_their_own_ids_only() {
        let world = World::new();
        assert!(world.admits(1, 1) && world.admits(3, 3));
        assert!(!world.admits(1, 2), "a member does not speak for another");
        assert!(!world.admits(4, 1) && !world.admits(4, 60));
        assert!(world.roster.admits(&world.known, world.peers[2], None, world.now));
        assert!(!world.roster.admits(&world.known, world.peers[4], None, world.now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_is_admitted_when_a_member_that_knows_more_vouches_for_it() {
        let mut world = World::new();
        world.hear(1, (2, 50), &[(1, 1), (60, 4)]);
        assert!(!world.admits(4, 60), "who knows no more vouches for nobody");
        world.hear(5, (9, 900), &[(1, 1), (60, 4)]);
        assert!(!world.admits(4, 60), "a stranger vouches for nobody");
        world.hear(1, (2, 70), &[(1, 1), (60, 4)]);
        assert!(world.admits(4, 60) && !world.admits(4, 61) && !world.admits(5, 60));
        world.now += VOUCHED_FOR;
        assert!(!world.admits(4, 60), "a vouch ends");
        world.hear(1, (2, 70), &[(1, 1), (60, 4)]);
        world.known.decided = Some((2, 70));
        assert!(!world.admits(4, 60), "who has caught up goes by its own log");
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_vouched_for_vouches_for_others_and_not_for_itself() {
        let mut world = World::new();
        world.hear(1, (2, 70), &[(60, 4)]);
        world.hear(4, (3, 90), &[(60, 4), (80, 5)]);
        assert!(world.admits(5, 80));
        world.now += VOUCHED_FOR - Duration::from_secs(1);
        world.hear(4, (3, 90), &[(60, 4), (80, 5)]);
        world.now += Duration::from_secs(2);
        assert!(!world.admits(4, 60), "its own word must not keep it");
        assert!(world.admits(5, 80));
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_has_caught_up_forgets_what_former_members_and_named_peers_said() {
        let mut world = World::new();
        world.roster = Roster::new(world.peers[0], OWN_ID, &[world.peers[7]]);
        let never = (u64::MAX, u64::MAX);
        world.hear(1, never, &[(60, 4)]);
        world.hear(4, never, &[(60, 4), (61, 5), (1, 1)]);
        world.hear(7, never, &[(70, 6)]);
        assert!(world.admits(4, 60) && world.admits(5, 61) && world.admits(6, 70));
        world.roster.forget_anchors();
        assert!(!world.admits(6, 70));
        world.known.members.remove(&1);
        world.known.decided = Some((3, 80));
        assert!(!world.admits(4, 60) && !world.admits(5, 61) && !world.admits(1, 1));
        world.hear(5, never, &[(60, 4)]);
        assert!(!world.admits(4, 60), "they do not keep each other");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_joins_trusts_whom_it_was_told_to_join() {
        let mut world = World::new();
        world.known = Known::default();
        assert!(!world.admits(1, 1), "a founder trusts nobody");
        world.roster = Roster::new(world.peers[0], OWN_ID, &[world.peers[1]]);
        assert!(world.admits(1, 1) && !world.admits(2, 2));
        assert_eq!(world.roster.to_ask(&world.known, 0, world.now), [world.peers[1]]);
        world.hear(2, (1, 5), &[(2, 2)]);
        assert!(!world.admits(2, 2));
        world.hear(1, (0, 0), &[(1, 1), (2, 2)]);
        assert!(world.admits(2, 2), "the membership a founder writes first counts as well");
    }

    #[tokio::test(start_paused = true)]
    async fn memory_and_rounds_are_bounded() {
        let mut world = World::new();
        let many: Vec<(NodeId, PeerId)> = (0..3000).map(|id| (100 + id, world.peers[4])).collect();
        let told = MembersTold { decided: Some((3, 80)), members: many, cluster: None };
        world.roster.hear(&world.known, world.peers[1], &told, world.now);
        assert_eq!(world.roster.vouched.len(), MAX_VOUCHES);

        let mut world = World::new();
        let learners: Vec<PeerId> = (0..100).map(|_| PeerId::random()).collect();
        world.known.members.extend((100..).zip(learners.iter().copied()));
        let mut asked = BTreeSet::new();
        for round in 0..20 {
            let now = world.roster.to_ask(&world.known, round, world.now);
            assert_eq!(now.iter().collect::<BTreeSet<_>>().len(), ASKED_A_ROUND);
            assert!(world.peers[1..4].iter().all(|voter| now.contains(voter)) && !now.contains(&world.peers[0]));
            asked.extend(now);
        }
        assert!(learners.iter().all(|learner| asked.contains(learner)), "everybody is asked in turn");
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_is_believed_of_most_voters_or_of_the_leader() {
        let world = World::new();
        type Answer<'a> = (usize, (u64, u64), &'a [(NodeId, usize)]);
        let verdict = |answers: &[Answer<'_>], leader: Option<usize>| {
            let mut survey = Survey::default();
            for (from, decided, members) in answers {
                world.roster.note(&mut survey, &world.known, world.peers[*from], &world.told(*decided, members));
            }
            let leader = leader.map(|leader| world.peers[leader]);
            let removed = world.roster.is_removed(&world.known, &survey, leader);
            (removed, trouble(&world.known, &survey, &BTreeSet::new()).is_some())
        };
        let (without, with): (&[_], &[_]) = (&[(1, 1), (2, 2), (3, 3)], &[(1, 1), (OWN_ID, 0)]);
        assert_eq!(verdict(&[(1, (2, 60), without), (2, (3, 90), without)], None), (true, true));
        assert_eq!(verdict(&[(1, (2, 60), without)], None), (false, true));
        assert_eq!(verdict(&[(1, (2, 60), without)], Some(1)), (true, true));
        assert_eq!(verdict(&[(1, (2, 60), without)], Some(2)), (false, true));
        assert_eq!(verdict(&[(1, (2, 60), with), (2, (2, 60), with)], None), (false, false));
        let behind = verdict(&[(1, (1, 40), without), (2, (2, 50), without), (3, (2, 50), without)], None);
        assert_eq!(behind, (false, false), "they are behind, not this peer");
        let strangers = verdict(&[(4, (7, 99), without), (5, (7, 99), without), (6, (7, 99), without)], Some(4));
        assert_eq!(strangers, (false, false));
    }

    #[tokio::test(start_paused = true)]
    async fn members_that_went_to_another_cluster_remove_nobody_and_are_named() {
        let world = World::new();
        let told = MembersTold { cluster: Some(5), ..world.told((9, 900), &[(1, 1)]) };
        let elsewhere = |own: Option<NodeId>| world.roster.is_elsewhere(&told, own);
        assert!(elsewhere(Some(4)) && !elsewhere(Some(5)) && !elsewhere(None));
        let ahead = MembersTold { cluster: Some(5), ..world.told((9, 900), &[(1, 1), (OWN_ID, 0)]) };
        assert!(!world.roster.is_elsewhere(&ahead, Some(4)), "it is this peer that lags behind");
        let mut survey = Survey::default();
        for peer in [1, 2, 3, 4] {
            survey.note_elsewhere(&world.known, world.peers[peer]);
        }
        assert_eq!(survey.elsewhere.len(), 3, "strangers may belong to whatever they like");
        assert!(!world.roster.is_removed(&world.known, &survey, Some(world.peers[1])));
        let found = trouble(&world.known, &survey, &BTreeSet::new()).unwrap();
        assert_eq!(found.peers().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_whose_members_are_all_gone_says_what_to_do() {
        let world = World::new();
        let strangers = BTreeSet::from([world.peers[4]]);
        let mut survey = Survey::default();
        let stranded = trouble(&world.known, &survey, &strangers).unwrap();
        let text = stranded.to_string();
        assert!(text.contains("of the 3 other members") && text.contains("--bootstrap"), "{text}");
        assert_eq!(stranded.peers(), [world.peers[4]]);
        assert_eq!(trouble(&world.known, &survey, &BTreeSet::new()), None, "silence alone is no reason");
        survey.answered.insert(world.peers[1]);
        assert_eq!(trouble(&world.known, &survey, &strangers), None);
    }
}
