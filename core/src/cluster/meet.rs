//! Two clusters that meet become one: same secret, same name, `crdt` mode.
//!
//! Every member looks at the peers it is connected to and that are no members, and asks them to which cluster they
//! belong. The smaller cluster joins the larger: each of its members by itself leaves, with its pins, and joins. The other
//! side has to welcome it first, and then stays where it is for a while, so two peers never swap places.
//!
//! Whoever is still called a member may have gone to another cluster without a word: it was told to, or what was left
//! here was refounded. Such a peer runs under another raft id and never comes back under its old one, and nobody but its
//! former companions may know of its new cluster. So members are asked too, one at a time while there is a quorum. What
//! is left behind without a quorum ([`is_remnant`]) counts as smaller than every cluster that has one.
//!
//! **Invariant:** nobody leaves a cluster on the word of one: most of the members of the other one say the same, as far as
//! it has more (see [`claim`]). A stranger's word counts only if this peer trusts it, and it welcomes nobody else: two
//! clusters become one only with trust on both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cluster_types::{BoxError, Multiaddr, PeerId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::claim::{self, Named};
use crate::consensus::Consensus;
use crate::consensus::log::LogConsensus;
use crate::ports::{StateStore, Transport};
use crate::rpc::{Call, PeerClient, Reply};
use crate::task::{OnExit, TaskGroup};
use crate::trust::{Trust, is_refusal};
use crate::watch;

/// How often a member looks around.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How many strangers are asked in one look, and how many members while there is no quorum: of followers, which are no
/// members either, there may be thousands.
const ASK_AT_MOST: usize = 8;
/// How long a peer may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long who has welcomed others does not leave itself.
const STAY: Duration = Duration::from_secs(120);
/// How long a peer waits for its quorum when others of its cluster have gone, and those that are silent would do.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a peer is not asked whose claim was not confirmed: it costs questions, and may be true in a moment.
const DOUBT: Duration = Duration::from_secs(20);
/// How many peers are remembered as not trusting this one: each is told about once.
const MAX_REFUSALS: usize = 1024;
/// How many addresses of a peer that is to be joined are used.
const MAX_ADDRESSES: usize = 16;

/// A cluster, as one of its members describes it to a stranger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// What identifies it: the raft id of its founder.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// The raft id in it of the peer that says so.
    #[serde(default)]
    pub node_id: u64,
    /// Number of members, without those that have gone to other clusters.
    pub members: u64,
    /// Number of pins.
    pub pins: u64,
    /// Whether it becomes one with others unasked (`crdt` mode).
    pub sociable: bool,
    /// Where the peer that says so is reached.
    pub addresses: Vec<Multiaddr>,
    /// Whether it has lost its quorum to other clusters: see [`is_remnant`].
    #[serde(default)]
    pub remnant: bool,
    /// Its members, without those that have gone to other clusters: told to who asks and says nothing of itself.
    #[serde(default)]
    pub peers: Vec<Named>,
}

impl ClusterInfo {
    /// Whether this cluster is to join `other`: a remnant, then the one with fewer members, then with fewer pins, then
    /// with the lower id.
    pub fn joins(&self, other: &Self) -> bool {
        let kin = self.sociable && other.sociable && self.name == other.name;
        let size = |cluster: &Self| (!cluster.remnant, cluster.members, cluster.pins, cluster.id);
        kin && self.id != other.id && size(self) < size(other)
    }
}

/// Knows about this peer's cluster, and looks out for others.
pub struct Meeting {
    consensus: Arc<LogConsensus>,
    state: Arc<dyn StateStore>,
    transport: Arc<dyn Transport>,
    client: PeerClient,
    /// Which strangers' word counts, and who is welcome.
    trust: Trust,
    /// Strangers that do not trust this peer, as they said.
    refused_by: Mutex<BTreeSet<PeerId>>,
    /// Until when this peer stays where it is.
    stays_until: Mutex<Option<Instant>>,
    /// Members, as the log has them, that were found in other clusters.
    gone: Mutex<BTreeSet<PeerId>>,
    join: watch::Sender<Option<Vec<Multiaddr>>>,
}

impl fmt::Debug for Meeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meeting").finish_non_exhaustive()
    }
}

impl Meeting {
    /// Knows about this peer's cluster. Of strangers, only those that `trust` includes are asked for theirs, and welcome.
    pub fn new(
        consensus: Arc<LogConsensus>,
        state: Arc<dyn StateStore>,
        transport: Arc<dyn Transport>,
        trust: Trust,
    ) -> Arc<Self> {
        let client = PeerClient::new(Arc::clone(&transport));
        Arc::new(Self {
            consensus,
            state,
            transport,
            client,
            trust,
            refused_by: Mutex::default(),
            stays_until: Mutex::new(None),
            gone: Mutex::default(),
            join: watch::Sender::new(None),
        })
    }

    /// Begins to look out for other clusters, if that is wanted.
    pub fn start(self: &Arc<Self>, tasks: &TaskGroup) {
        if !self.consensus.accepts_without_quorum() {
            return;
        }
        let (meeting, stop) = (Arc::clone(self), tasks.stop_token());
        tasks.spawn("meeting", OnExit::StopPeer, async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = meeting.look_around() => {}
            }
            Ok::<(), BoxError>(())
        });
    }

    /// For so long at least, this peer joins no other cluster by itself.
    pub fn stay(&self, time: Duration) {
        let mut stays_until = self.stays_until.lock();
        *stays_until = (*stays_until).max(Some(Instant::now() + time));
    }

    /// Told once: the addresses of a member of the cluster that this peer is to join instead of its own.
    pub fn to_join(&self) -> watch::Receiver<Option<Vec<Multiaddr>>> {
        self.join.subscribe()
    }

    /// Describes this peer's cluster to `stranger`, which is the peer `from`, and says whether it is welcome to join it.
    pub(crate) async fn answer(&self, from: PeerId, stranger: Option<&ClusterInfo>) -> (Option<ClusterInfo>, bool) {
        let Some(mut own) = self.info().await else { return (None, false) };
        if stranger.is_none() {
            own.peers = self.named_members();
        }
        let stranger = stranger.filter(|stranger| self.is_of_another(from, stranger, &own));
        let trusted = stranger.filter(|_| self.trust.includes(&from));
        let suits = trusted.is_some_and(|stranger| stranger.joins(&own)) && self.join.borrow().is_none();
        // Without a quorum nobody could be let in.
        let welcome = suits && self.consensus.read_barrier().await.is_ok();
        if welcome {
            self.stay(STAY);
        }
        (Some(own), welcome)
    }

    /// Whether `peer`, which describes its cluster as `other`, belongs to another cluster than this peer. Notes it if it
    /// is a member here, too.
    fn is_of_another(&self, peer: PeerId, other: &ClusterInfo, own: &ClusterInfo) -> bool {
        let position = self.consensus.position();
        let position = position.borrow();
        let mut ids =
            position.members.iter().filter(|member| member.peer == peer).map(|member| member.node_id).peekable();
        let is_member = ids.peek().is_some();
        // One that lags behind may not have applied yet what gave the cluster its present id.
        let is_other = other.id != own.id && !ids.any(|id| id == other.node_id);
        let mut gone = self.gone.lock();
        if !is_other {
            gone.remove(&peer);
        } else if is_member && gone.insert(peer) {
            tracing::info!(%peer, "a member belongs to another cluster by now");
        }
        is_other
    }

    /// Whether this peer belongs to a cluster.
    pub(crate) async fn has_cluster(&self) -> bool {
        self.consensus.cluster().await.is_some()
    }

    /// This peer's cluster; none while it belongs to none.
    async fn info(&self) -> Option<ClusterInfo> {
        let (id, name) = self.consensus.cluster().await?;
        let alone_for = self.consensus.without_quorum_for();
        let (members, remnant) = {
            let position = self.consensus.position();
            let position = position.borrow();
            let mut gone = self.gone.lock();
            gone.retain(|peer| position.members.iter().any(|member| member.peer == *peer));
            let voters = position.members.iter().filter(|member| member.voter).map(|member| member.peer).collect();
            (position.members.len() - gone.len(), is_remnant(&voters, &gone, alone_for))
        };
        Some(ClusterInfo {
            id,
            name,
            node_id: self.consensus.node_id(),
            members: members as u64,
            pins: self.state.pins(),
            sociable: self.consensus.accepts_without_quorum(),
            addresses: self.transport.own_addresses().into_iter().take(MAX_ADDRESSES).collect(),
            remnant,
            peers: Vec::new(),
        })
    }

    /// The members that have not gone to other clusters.
    fn named_members(&self) -> Vec<Named> {
        let position = self.consensus.position();
        let (position, gone) = (position.borrow(), self.gone.lock());
        let members = position.members.iter().filter(|member| !gone.contains(&member.peer));
        claim::name(members.map(|member| (member.peer, member.addresses.as_slice())))
    }

    async fn look_around(&self) {
        let mut turns = Turns::default();
        let mut doubted: BTreeMap<PeerId, Instant> = BTreeMap::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let stays = self.stays_until.lock().is_some_and(|until| Instant::now() < until);
            if stays {
                continue;
            }
            doubted.retain(|_, at| at.elapsed() < DOUBT);
            let mut asked = self.to_ask(&mut turns);
            asked.retain(|peer| !doubted.contains_key(peer));
            for peer in asked {
                let Some(own) = self.info().await else { break };
                let Some(claim) = self.meet(peer, &own).await else { continue };
                if !self.is_confirmed(peer, &own, &claim).await {
                    tracing::warn!(
                        %peer, members = claim.members,
                        "a peer says that it belongs to a larger cluster of the same name, and most of those it names do not"
                    );
                    doubted.insert(peer, Instant::now());
                    continue;
                }
                tracing::info!(%peer, remnant = own.remnant, "this peer joins another cluster of the same name with its pins");
                self.join.send_replace(Some(claim.addresses));
                return std::future::pending().await;
            }
        }
    }

    /// Some peers that are connected, in turn: strangers, and members that may be strangers by now.
    fn to_ask(&self, turns: &mut Turns) -> Vec<PeerId> {
        let position = self.consensus.position();
        let members: BTreeSet<PeerId> = position.borrow().members.iter().map(|member| member.peer).collect();
        let (members, mut strangers): (Vec<_>, Vec<_>) =
            self.transport.connected().into_iter().partition(|peer| members.contains(peer));
        strangers.retain(|peer| self.trust.includes(peer));
        let of_members = if self.consensus.without_quorum_for().is_some() { ASK_AT_MOST } else { 1 };
        let mut asked = in_turn(strangers, &mut turns.stranger, ASK_AT_MOST);
        asked.extend(in_turn(members, &mut turns.member, of_members));
        asked
    }

    /// Asks a peer; what it says of its cluster, if that is another, larger one and has welcomed this peer.
    async fn meet(&self, peer: PeerId, own: &ClusterInfo) -> Option<ClusterInfo> {
        let call = Call::Meet { cluster: Some(own.clone()) };
        let answer = self.client.ask(peer, &call, ASK_TIMEOUT).await;
        match &answer {
            Ok(_) => self.note_refusal(peer, false),
            Err(error) if is_refusal(error) => self.note_refusal(peer, true),
            // It says nothing of trust.
            Err(_) => {}
        }
        let Ok(Reply::Cluster { cluster: Some(mut other), welcome }) = answer else { return None };
        // A member that has gone to another cluster is no reason to follow it there without trust.
        let invited = welcome && self.trust.includes(&peer);
        let joins = self.is_of_another(peer, &other, own) && invited && own.joins(&other);
        other.addresses.truncate(MAX_ADDRESSES);
        (joins && !other.addresses.is_empty()).then_some(other)
    }

    /// Says once that a peer does not trust this one: their clusters stay apart until it does.
    fn note_refusal(&self, peer: PeerId, refused: bool) {
        let mut refused_by = self.refused_by.lock();
        if !refused {
            refused_by.remove(&peer);
        } else if refused_by.len() < MAX_REFUSALS && refused_by.insert(peer) {
            tracing::warn!(
                %peer,
                "a peer does not trust this one (its consensus.crdt.trusted_peers does not name it): this peer cannot join \
                 its cluster"
            );
        }
    }

    /// Whether most of those that `host` names as members of its cluster say of it what it claims.
    async fn is_confirmed(&self, host: PeerId, own: &ClusterInfo, claim: &ClusterInfo) -> bool {
        let Some(told) = self.describe(host).await else { return false };
        let here = self.transport.local_peer();
        let asked = claim::whom_to_ask(claim, told, [host, here], self.consensus.draw());
        let Some(asked) = asked else { return false };
        let answers = asked.iter().map(|member| async {
            let told = self.describe_at(member).await?;
            claim::confirms(own, claim, host, &told).then_some(())
        });
        let confirmed = futures::future::join_all(answers).await.into_iter().flatten().count();
        claim::is_most(confirmed, asked.len())
    }

    async fn describe(&self, peer: PeerId) -> Option<ClusterInfo> {
        match self.client.ask(peer, &Call::Meet { cluster: None }, ASK_TIMEOUT).await {
            Ok(Reply::Cluster { cluster, .. }) => cluster,
            _ => None,
        }
    }

    /// Asks a member of another cluster, which may not be connected.
    async fn describe_at(&self, member: &Named) -> Option<ClusterInfo> {
        if !self.transport.connected().contains(&member.peer) {
            // At once: an address that swallows everything must not use up the time of those that work.
            let dials = member.addresses.iter().map(|address| {
                let dial = self.transport.dial(address.clone(), ASK_TIMEOUT);
                Box::pin(async move { dial.await.ok().filter(|peer| *peer == member.peer).ok_or(()) })
            });
            if !member.addresses.is_empty() {
                // Whoever could not be dialled does not answer either.
                let _silent = futures::future::select_ok(dials).await;
            }
        }
        self.describe(member.peer).await
    }
}

/// Who was asked last.
#[derive(Debug, Default)]
struct Turns {
    stranger: Option<PeerId>,
    member: Option<PeerId>,
}

/// The next `most` of `peers`, which are sorted, behind the last one of the turn before.
fn in_turn(peers: Vec<PeerId>, last: &mut Option<PeerId>, most: usize) -> Vec<PeerId> {
    let (before, rest): (Vec<_>, Vec<_>) = peers.into_iter().partition(|peer| Some(*peer) <= *last);
    let chosen: Vec<PeerId> = rest.into_iter().chain(before).take(most).collect();
    *last = chosen.last().copied().or(*last);
    chosen
}

/// Whether what is left of a cluster has lost its quorum to others: `voters` are its voters as the log has them, `gone`
/// those members that belong to other clusters by now, and `alone_for` is for how long no quorum has answered. While the
/// voters that have not gone could still be one, they are given [`PATIENCE`].
fn is_remnant(voters: &BTreeSet<PeerId>, gone: &BTreeSet<PeerId>, alone_for: Option<Duration>) -> bool {
    let Some(alone_for) = alone_for else { return false };
    let left = voters.difference(gone).count();
    left * 2 <= voters.len() || (!gone.is_empty() && alone_for >= PATIENCE)
}

/// Which of `peers` belongs to the cluster `id`, or to which other one they belong.
pub async fn same_cluster(transport: &Arc<dyn Transport>, peers: &[PeerId], id: u64) -> Option<bool> {
    let client = PeerClient::new(Arc::clone(transport));
    let mut told = None;
    for peer in peers {
        let answer = client.ask(*peer, &Call::Meet { cluster: None }, ASK_TIMEOUT).await;
        if let Ok(Reply::Cluster { cluster: Some(other), .. }) = answer {
            if other.id == id {
                return Some(true);
            }
            told = Some(false);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(members: u64, pins: u64, id: u64) -> ClusterInfo {
        let (name, addresses) = ("n".to_owned(), Vec::new());
        let (remnant, peers) = (false, Vec::new());
        ClusterInfo { id, name, node_id: id, members, pins, sociable: true, addresses, remnant, peers }
    }

    #[test]
    fn exactly_one_of_two_clusters_joins_the_other() {
        let all: Vec<ClusterInfo> = (1..4)
            .flat_map(|members| (0..3).flat_map(move |pins| (1..4).map(move |id| cluster(members, pins, id))))
            .collect();
        for one in &all {
            for other in &all {
                assert_eq!(one.joins(other) || other.joins(one), one.id != other.id, "{one:?} {other:?}");
                assert!(!(one.joins(other) && other.joins(one)), "{one:?} {other:?}");
            }
        }
        assert!(cluster(1, 9, 9).joins(&cluster(2, 0, 1)));
        assert!(cluster(2, 8, 9).joins(&cluster(2, 9, 1)));
        assert!(cluster(2, 9, 1).joins(&cluster(2, 9, 2)));
    }

    #[test]
    fn a_remnant_joins_even_a_smaller_cluster() {
        let (remnant, small) = (ClusterInfo { remnant: true, ..cluster(9, 9, 9) }, cluster(1, 0, 1));
        assert!(remnant.joins(&small) && !small.joins(&remnant));
    }

    #[test]
    fn who_is_left_without_a_quorum_waits_only_for_those_who_may_come_back() {
        let peers: Vec<PeerId> = (0..4).map(|_| PeerId::random()).collect();
        let remnant = |voters: usize, gone: usize, alone_for: Option<u64>| {
            let set = |number: usize| peers[..number].iter().copied().collect();
            is_remnant(&set(voters), &set(gone), alone_for.map(Duration::from_secs))
        };
        assert!(!remnant(3, 0, Some(1_000_000)), "all of them may come back");
        assert!(!remnant(3, 1, None) && !remnant(3, 1, Some(1)), "the third one may only be slow");
        assert!(remnant(3, 1, Some(30)) && remnant(3, 2, Some(0)) && remnant(2, 1, Some(0)) && remnant(4, 2, Some(0)));
        assert!(!remnant(2, 1, None), "it still has a quorum, as far as it knows");
    }

    #[test]
    fn strangers_by_name_or_mode_stay_apart() {
        let (one, other) = (cluster(1, 1, 1), cluster(2, 2, 2));
        assert!(!one.joins(&ClusterInfo { name: "m".to_owned(), ..other.clone() }));
        assert!(!one.joins(&ClusterInfo { sociable: false, ..other.clone() }));
        assert!(!ClusterInfo { sociable: false, ..one }.joins(&other));
    }
}
