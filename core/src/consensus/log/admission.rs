//! Whose raft messages are taken, and what a member does that hears of its cluster no more.
//!
//! The rules are in [`roster`](super::roster); this is the shell around them: it asks, and remembers the answers.
//!
//! **Invariant:** strangers cost the members at most one round of questions in [`ROUND_PAUSE`], however many they are.
//! **Invariant:** nobody waits for a round but the message that began it: others are refused and come again.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster_types::{BoxError, PeerId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::bring_along;
use super::message::RaftMessage;
use super::quorum::acknowledged_ago;
use super::receiver::Raft;
use super::roster::{Known, MembersTold, Roster, Survey, Trouble, trouble};
use super::types::{NodeId, StoredMembership, Vote};
use crate::ports::StateStore;
use crate::rpc::{Call, PeerClient, Reply};
use crate::task::{OnExit, TaskGroup};
use crate::watch;

/// Pause between the beginnings of two rounds of questions.
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// How long a member may take to say who the members are: it only looks.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// A member that heard no leader for so long asks whether it still is one: five of the longest elections, at least.
const SILENCE: Duration = Duration::from_secs(10);
/// Pause between two such looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often a trouble that stays is logged again.
const REMIND_EVERY: Duration = Duration::from_secs(600);
/// Most strangers that are named.
const MAX_STRANGERS: usize = 8;

/// Who this peer is.
pub(super) struct Own {
    pub(super) peer: PeerId,
    pub(super) node_id: NodeId,
    /// Says to which cluster it belongs.
    pub(super) state: Arc<dyn StateStore>,
}

/// Who may take part, and what is known of it.
pub(super) struct Admission {
    node_id: NodeId,
    state: Arc<dyn StateStore>,
    raft: Raft,
    client: PeerClient,
    roster: Mutex<Roster>,
    /// What was known before openraft reported anything.
    at_start: Known,
    settled_in: AtomicBool,
    /// The round that is under way, and when the last one began.
    round: tokio::sync::Mutex<Round>,
    /// When a leader was heard last.
    heard: Mutex<Instant>,
    /// Who claimed to lead lately and is not known.
    strangers: Mutex<BTreeSet<PeerId>>,
    trouble: Mutex<Option<Trouble>>,
    /// When it was last logged that nobody answers.
    complained: Mutex<Option<Instant>>,
    removed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Round {
    number: usize,
    began: Option<Instant>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl Admission {
    /// `anchors` are the peers to join. `removed` is set when others say so.
    pub(super) async fn new(
        raft: Raft,
        client: PeerClient,
        Own { peer, node_id, state }: Own,
        anchors: &[PeerId],
        removed: watch::Sender<bool>,
    ) -> Result<Self, BoxError> {
        let at_start = raft.with_raft_state(|state| {
            let membership = &state.membership_state;
            known(membership.effective(), membership.committed())
        });
        Ok(Self {
            node_id,
            state,
            client,
            roster: Mutex::new(Roster::new(peer, node_id, anchors)),
            at_start: at_start.await?,
            settled_in: AtomicBool::new(false),
            round: tokio::sync::Mutex::default(),
            heard: Mutex::new(Instant::now()),
            strangers: Mutex::default(),
            trouble: Mutex::default(),
            complained: Mutex::default(),
            removed,
            raft,
        })
    }

    /// Whether a message may be handed to raft; an error says why not.
    pub(super) async fn admit(&self, from: PeerId, message: &RaftMessage) -> Result<(), String> {
        let id = sender_of(message);
        let by_own_log = self.is_quickly_admitted(from, id);
        if by_own_log || self.is_admitted(from, id) || self.ask_about(from, id).await {
            if is_of_leader(message) {
                if by_own_log {
                    self.settle_in();
                }
                *self.heard.lock() = Instant::now();
            }
            return Ok(());
        }
        if is_of_leader(message) {
            let mut strangers = self.strangers.lock();
            if strangers.len() < MAX_STRANGERS {
                strangers.insert(from);
            }
        }
        tracing::debug!(peer = %from, node_id = id, "a raft message of a peer that is not a member is refused");
        Err(format!("peer {from} is not a member of this cluster, as far as is known here"))
    }

    /// Whether a peer may do what members may.
    pub(super) fn is_member(&self, peer: PeerId) -> bool {
        self.is_admitted(peer, None)
    }

    /// Who the members are, by the newest membership that is known to be on a quorum.
    pub(super) async fn members(&self) -> MembersTold {
        let cluster = self.cluster().await;
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        let committed = now.committed_membership_config.as_ref();
        let decided = decided(committed);
        let members = committed.membership().nodes().map(|(id, node)| (*id, node.peer)).collect();
        if decided.is_some() { MembersTold { decided, members, cluster } } else { MembersTold::default() }
    }

    /// Which cluster this peer belongs to; none as long as nothing was applied.
    async fn cluster(&self) -> Option<NodeId> {
        match bring_along::cluster_of(self.state.as_ref()).await {
            Ok(cluster) => cluster,
            Err(error) => {
                tracing::warn!(%error, "it cannot be read to which cluster this peer belongs");
                None
            }
        }
    }

    /// What keeps this peer from following its cluster.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().clone()
    }

    /// Once this peer is a member and its leader one that it knows by its own log, the peers it was told to join have
    /// done their part.
    fn settle_in(&self) {
        if self.settled_in.load(Ordering::Relaxed) {
            return;
        }
        if self.known().members.contains_key(&self.node_id) {
            self.roster.lock().forget_anchors();
            self.settled_in.store(true, Ordering::Relaxed);
        }
    }

    /// The everyday case, for every message: a member as the log has it.
    fn is_quickly_admitted(&self, from: PeerId, id: Option<NodeId>) -> bool {
        let Some(id) = id else { return false };
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        now.membership_config.membership().get_node(&id).is_some_and(|node| node.peer == from)
    }

    fn is_admitted(&self, from: PeerId, id: Option<NodeId>) -> bool {
        self.roster.lock().admits(&self.known(), from, id, Instant::now())
    }

    fn known(&self) -> Known {
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        let known = known(&now.membership_config, &now.committed_membership_config);
        if known.decided.is_some() { known } else { self.at_start.clone() }
    }

    /// Asks who the members are, until somebody vouches for `from`; not when that is being asked or was a moment ago.
    async fn ask_about(&self, from: PeerId, id: Option<NodeId>) -> bool {
        let Ok(mut round) = self.round.try_lock() else { return false };
        if round.began.is_some_and(|began| began.elapsed() < ROUND_PAUSE) {
            return false;
        }
        self.ask(&mut round, || self.is_admitted(from, id)).await;
        self.is_admitted(from, id)
    }

    /// One round of questions; it ends early when `enough`.
    async fn ask(&self, round: &mut Round, enough: impl Fn() -> bool) -> Survey {
        round.began = Some(Instant::now());
        round.number = round.number.wrapping_add(1);
        let known = self.known();
        let cluster = self.cluster().await;
        let asked = self.roster.lock().to_ask(&known, round.number, Instant::now());
        let mut survey = Survey::default();
        let mut answers: FuturesUnordered<_> = asked
            .into_iter()
            .map(|peer| async move { (peer, self.client.ask(peer, &Call::Members, ASK_TIMEOUT).await) })
            .collect();
        while let Some((peer, answer)) = answers.next().await {
            match answer {
                Ok(Reply::Members(told)) => {
                    let mut roster = self.roster.lock();
                    if roster.is_elsewhere(&told, cluster) {
                        survey.note_elsewhere(&known, peer);
                        continue;
                    }
                    roster.note(&mut survey, &known, peer, &told);
                    roster.hear(&known, peer, &told, Instant::now());
                }
                Ok(_) => tracing::debug!(%peer, "a peer gave an answer to another question"),
                Err(error) => tracing::debug!(%peer, %error, "a peer could not be asked who the members are"),
            }
            if enough() {
                break;
            }
        }
        survey
    }

    /// What a member does that hears no leader: asks what became of it and of the others.
    async fn look(&self) {
        let (leads, leader) = {
            let metrics = self.raft.metrics();
            let now = metrics.borrow_watched();
            let leader = now.current_leader;
            let node = leader.and_then(|id| now.membership_config.membership().get_node(&id).map(|node| node.peer));
            (leader == Some(self.node_id), node)
        };
        // Cut off, it goes on calling itself the leader; those that removed it do not even tell it of their term.
        let leads = leads && acknowledged_ago(&self.raft) < SILENCE;
        let known = self.known();
        let silent = self.heard.lock().elapsed() >= SILENCE;
        if leads || !silent || !known.members.contains_key(&self.node_id) {
            *self.complained.lock() = None;
            self.settle(None);
            return;
        }
        let survey = self.ask(&mut *self.round.lock().await, || false).await;
        if self.roster.lock().is_removed(&known, &survey, leader) {
            tracing::warn!(by = ?survey.disown, "this peer was removed while it was away, the other members say");
            self.removed.send_replace(true);
            return;
        }
        if survey.answered.is_empty() && known.members.len() > 1 {
            self.complain(known.members.len() - 1);
        }
        let strangers = std::mem::take(&mut *self.strangers.lock());
        let found = trouble(&known, &survey, &strangers);
        let before = self.trouble();
        // Strangers come at their own pace; who answered again is no reason to forget them, but a heard leader is.
        match (found, before) {
            (None, Some(stays @ Trouble::Stranded { .. })) if survey.answered.is_empty() => self.settle(Some(stays)),
            (found, _) => self.settle(found),
        }
    }

    fn settle(&self, found: Option<Trouble>) {
        let before = std::mem::replace(&mut *self.trouble.lock(), found.clone());
        match (&before, &found) {
            (_, Some(trouble)) if before.as_ref() != Some(trouble) => report(trouble),
            (Some(_), None) => tracing::info!("this peer follows its cluster again"),
            _ => {}
        }
    }

    /// Says that nobody answers, now and then.
    fn complain(&self, members: usize) {
        let mut complained = self.complained.lock();
        if complained.is_none_or(|at| at.elapsed() >= REMIND_EVERY) {
            *complained = Some(Instant::now());
            tracing::warn!(members, "no leader is heard, and none of the other members answers");
        }
    }

    fn remind(&self) {
        if let Some(trouble) = self.trouble() {
            report(&trouble);
        }
    }
}

/// Looks after a member for as long as it runs.
pub(super) fn watch_over(admission: Arc<Admission>, tasks: &TaskGroup) {
    let stop = tasks.stop_token();
    tasks.spawn("admission", OnExit::StopPeer, async move {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reminded = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok::<(), BoxError>(()),
                _ = looks.tick() => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = admission.look() => {}
            }
            if reminded.elapsed() >= REMIND_EVERY {
                admission.remind();
                reminded = Instant::now();
            }
        }
    });
}

fn report(trouble: &Trouble) {
    let peers: Vec<String> = trouble.peers().iter().map(|peer| peer.to_base58()).collect();
    tracing::error!(%trouble, ?peers, "this peer cannot follow its cluster");
}

fn known(effective: &StoredMembership, committed: &StoredMembership) -> Known {
    let nodes =
        |stored: &StoredMembership| stored.membership().nodes().map(|(id, node)| (*id, node.peer)).collect::<Vec<_>>();
    Known {
        decided: decided(effective),
        // A removal that is not on a quorum yet may still be taken back.
        members: nodes(committed).into_iter().chain(nodes(effective)).collect(),
        voters: effective.membership().voter_ids().collect(),
    }
}

/// Where in the log a membership was decided.
pub(super) fn decided(stored: &StoredMembership) -> Option<(u64, u64)> {
    stored.log_id().as_ref().map(|id| (**id.committed_leader_id(), id.index()))
}

/// Which node a message says it is of.
fn sender_of(message: &RaftMessage) -> Option<NodeId> {
    let of = |vote: &Vote| Some(vote.leader_id.voted_for);
    match message {
        RaftMessage::Append(request) => of(&request.vote),
        RaftMessage::Vote(request) | RaftMessage::PreVote(request) => of(&request.vote),
        RaftMessage::TransferLeader(request) => of(request.from_leader()),
        RaftMessage::SnapshotOffer { vote, .. } => of(vote),
        RaftMessage::SnapshotBase | RaftMessage::SnapshotAnnex { .. } | RaftMessage::SnapshotWait { .. } => None,
    }
}

/// Whether only a leader sends such a message.
fn is_of_leader(message: &RaftMessage) -> bool {
    !matches!(message, RaftMessage::Vote(_) | RaftMessage::PreVote(_))
}
