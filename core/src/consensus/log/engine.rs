//! One raft node of this cluster: started, fed, asked and stopped here.
//!
//! **Invariant:** a write is repeated with the same request id until it is answered or given up, so it takes effect
//! at most once, whatever happens to leaders in between.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::watch;
use async_trait::async_trait;
use cluster_types::{BoxError, CatchUp, ErrorClass, Multiaddr, PeerId, Role, StateReport, WireError};
use openraft::ReadPolicy;
use openraft::error::{ClientWriteError, RaftError};
use openraft::storage::RaftLogStorage;
use parking_lot::{Mutex, RwLock};
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::admission::{self, Admission};
use super::attempts::Attempts;
use super::balance::{self, RegionSource};
use super::bring_along;
use super::catch_up::CatchingUp;
use super::chance::Chance;
use super::deadline::{Deadline, NodeClock};
use super::digests::{self, Ledger};
use super::exchange;
use super::membership;
use super::network::Network;
use super::outbox::{Outbox, OutboxParts};
use super::position;
use super::quorum::{Heard, Unanswered, acknowledged_ago};
use super::receiver::{self, Raft, RaftReceiver};
use super::roster::{MembersTold, Trouble};
use super::settings::{LogSettings, WithoutQuorum, raft_config};
use super::state_machine::{AppliedPosition, EffectAt, StateMachine};
use super::types::{Node, NodeId, TypeConfig};
use crate::broadcast;
use crate::catchup::{Donor, Progress};
use crate::consensus::operation::{Entry, Operation, Proposed};
use crate::consensus::sequencer::{Allocator, EntryLog, Placed, ProposeError, Sequencer};
use crate::consensus::{Consensus, ConsensusError, Outcome, Position, Receipt, Request, RequestIds, report};
use crate::ports::{Clock, Gossip, NodeIdRecord, OutboxCount, StateStore, Transport};
use crate::rpc::{Call, CallServer, PeerClient, Reply};
use crate::task::TaskGroup;

/// How long a single attempt to have a write ordered may take.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Set in the raft id of a peer that founds a cluster: the rest is random, so that a founder that lost its disk never
/// comes back under the old id. Others get theirs from the log, whose indexes never reach this bit.
pub(super) const FOUNDER: NodeId = 1 << 63;
/// The longest a write may be repeated: well inside the time its outcome is remembered.
const MAX_WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a raft node is built from.
pub struct LogParts<LS> {
    /// Where the log is kept.
    pub log: LS,
    /// Where the state is kept.
    pub state: Arc<dyn StateStore>,
    /// What a changed pin means on this peer.
    pub effect_at: EffectAt,
    /// Where this peer's raft id is kept.
    pub record: Arc<dyn NodeIdRecord>,
    /// How other peers are reached.
    pub transport: Arc<dyn Transport>,
    /// How all peers are told of something, and followers what was committed.
    pub gossip: Arc<dyn Gossip>,
    /// What answers other peers.
    pub server: Arc<CallServer>,
    /// Who chooses the holders of pins.
    pub allocator: Arc<dyn Allocator>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from: this node's, if it founds a cluster, and those of requests. Never the same twice.
    pub chance: StdRng,
    /// Members to join; none: found a cluster, or go on with what is on disk.
    pub bootstrap: Vec<PeerId>,
    /// How to behave.
    pub settings: LogSettings,
}

impl<LS> fmt::Debug for LogParts<LS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogParts").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

impl<LS: RaftLogStorage<TypeConfig>> LogParts<LS> {
    /// Whether a peer that was given a raft id founds a cluster nevertheless: nobody has let it in so far, nobody is named
    /// to ask again, and clusters that meet become one.
    async fn founds_instead(&mut self) -> Result<bool, BoxError> {
        let sociable = matches!(self.settings.without_quorum, WithoutQuorum::Accept { .. });
        Ok(sociable && self.bootstrap.is_empty() && self.log.get_log_state().await?.last_log_id.is_none())
    }

    /// Whether a peer that is told to join was removed from that same cluster. Under a new raft id it is a new member that
    /// has a part of the log already: state, log and what waits in its outbox stay as they are.
    async fn was_removed(&self, client: &PeerClient, peer: PeerId, known: Option<NodeId>) -> Result<bool, BoxError> {
        let Some(node_id) = known.filter(|_| !self.bootstrap.is_empty()) else { return Ok(false) };
        let at = AppliedPosition::decode(self.state.applied().await?.as_ref())?;
        Ok(membership::was_removed(client, &self.bootstrap, (node_id, peer), &at).await)
    }
}

/// One raft node.
pub struct LogConsensus {
    pub(super) node_id: NodeId,
    pub(super) peer: PeerId,
    pub(super) raft: Raft,
    pub(super) settings: LogSettings,
    pub(super) client: PeerClient,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) state: Arc<dyn StateStore>,
    /// What the digest watch knows.
    pub(super) ledger: Arc<Ledger>,
    admission: Arc<Admission>,
    regions: RwLock<Option<RegionSource>>,
    chance: Chance,
    /// What deadlines are told by while this node leads.
    node_clock: NodeClock,
    pub(super) request_ids: RequestIds,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) outbox: Arc<Outbox>,
    /// When this node last heard from a leader.
    pub(super) heard: Heard,
    /// Since when, and under whom, no quorum answers.
    pub(super) unanswered: Mutex<Option<Unanswered>>,
    sequencer: Sequencer,
    pub(super) applied: watch::Receiver<u64>,
    removed: watch::Sender<bool>,
    pub(super) position: watch::Receiver<Position>,
    progress: watch::Receiver<Option<Progress>>,
}

impl fmt::Debug for LogConsensus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogConsensus").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

/// A raft node cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// What is on disk cannot be used, or openraft refused it.
    #[error("the shared log cannot be opened")]
    Log(#[source] BoxError),
    /// No member let this peer in.
    #[error(
        "could not join the cluster within {after:?}: {reason}. Are the --bootstrap addresses right, is the secret the same, and is a majority of the voters up?"
    )]
    Join {
        /// How long was tried.
        after: Duration,
        /// The last answer.
        reason: String,
    },
    /// Every member that was asked says that it does not trust this peer.
    #[error("the cluster does not let this peer in: {reason}")]
    NotTrusted {
        /// What the last one said.
        reason: String,
    },
}

impl LogConsensus {
    /// Starts the node: goes on with what is on disk, founds a cluster, or joins one.
    #[expect(clippy::too_many_lines, reason = "the parts of a node, one after the other")]
    pub async fn start<LS>(mut parts: LogParts<LS>, tasks: &TaskGroup) -> Result<Arc<Self>, StartError>
    where
        LS: RaftLogStorage<TypeConfig>,
    {
        let fail = |error: BoxError| StartError::Log(error);
        let peer = parts.transport.local_peer();
        let client = PeerClient::new(Arc::clone(&parts.transport));
        let mut known = parts.record.load().await.map_err(fail)?;
        if known.is_some_and(|id| id & FOUNDER == 0) && parts.founds_instead().await.map_err(fail)? {
            tracing::warn!(
                "joining was cut off earlier: this peer founds a cluster of its own until it meets another one"
            );
            known = None;
        }
        if parts.was_removed(&client, peer, known).await.map_err(fail)? {
            tracing::warn!(
                "this peer was removed from its cluster; it joins again, with what it has and what waits here"
            );
            known = None;
        }
        let chance = Chance::new(parts.chance);
        let node_id = match known {
            Some(id) => id,
            None if parts.bootstrap.is_empty() => FOUNDER | chance.draw::<u64>(),
            None => membership::reserve(&client, &parts.bootstrap, parts.settings.join_timeout).await?,
        };
        if known.is_none() {
            parts.record.save(node_id).await.map_err(fail)?;
        }
        let (applied_sender, applied) = watch::channel(0);
        let outbox = Arc::new(Outbox::new(OutboxParts {
            peer,
            state: Arc::clone(&parts.state),
            effect_at: Arc::clone(&parts.effect_at),
            allocator: Arc::clone(&parts.allocator),
            clock: Arc::clone(&parts.clock),
            applied: applied_sender.clone(),
        }));
        bring_along::finish(&parts.state).await.map_err(|error| fail(error.into()))?;
        let (feed, queue) = broadcast::feed();
        let machine =
            StateMachine::open(Arc::clone(&parts.state), Arc::clone(&parts.effect_at), applied_sender.clone()).await;
        let machine = machine.map_err(|error| fail(error.into()))?.with_feed(feed).beneath(Arc::clone(&outbox)).await;
        let ledger = Ledger::new();
        let machine = machine.map_err(|error| fail(error.into()))?.noted_in(Arc::clone(&ledger));
        let config = Arc::new(raft_config(&parts.settings).map_err(|error| fail(error.into()))?);
        let donor = Arc::new(Donor::new(Arc::clone(&parts.state), applied.clone()));
        parts.server.serve_shards(Arc::clone(&donor));
        let node_clock = NodeClock::start();
        let network = Network::new(Arc::clone(&parts.transport), donor, chance.clone(), node_clock);
        let raft = Raft::new(node_id, config, network, parts.log, machine).await.map_err(|error| fail(error.into()))?;
        let catching_up = CatchingUp::new(
            raft.clone(),
            Arc::clone(&parts.state),
            Arc::clone(&parts.transport),
            applied.clone(),
            tasks.clone(),
        );
        let heard = Heard::new();
        let removed = watch::Sender::new(false);
        let who = admission::Own { peer, node_id, state: Arc::clone(&parts.state) };
        let admission = Admission::new(raft.clone(), client.clone(), who, &parts.bootstrap, removed.clone());
        let admission = Arc::new(admission.await.map_err(fail)?);
        let inbox = receiver::Inbox {
            admission: Arc::clone(&admission),
            catching_up: Arc::clone(&catching_up),
            heard: heard.clone(),
        };
        let receiver = RaftReceiver::new(node_id, raft.clone(), inbox);
        parts.server.serve_raft(Arc::new(receiver));
        admission::watch_over(Arc::clone(&admission), tasks);

        let sources = position::Sources {
            raft: raft.clone(),
            applied: applied.clone(),
            removed: removed.subscribe(),
            transport: Arc::clone(&parts.transport),
        };
        let position = position::follow(sources, node_id, peer, tasks);
        broadcast::publish(queue, Arc::clone(&parts.gossip), position.clone(), tasks);
        let lease = parts.settings.election.1;
        let entries = RaftEntries { lease, raft: raft.clone(), applied: applied.clone(), position: position.clone() };
        let entries = Arc::new(entries);
        let clock = Arc::clone(&parts.clock);
        let sequencer = Sequencer::start(entries, Arc::clone(&parts.state), parts.allocator, parts.clock, tasks);
        let node = Arc::new(Self {
            node_id,
            peer,
            raft,
            settings: parts.settings,
            client,
            transport: parts.transport,
            state: parts.state,
            ledger,
            admission,
            regions: RwLock::default(),
            request_ids: RequestIds::new(chance.draw()),
            chance,
            node_clock,
            clock,
            outbox,
            heard,
            unanswered: Mutex::new(None),
            sequencer,
            applied,
            removed,
            position,
            progress: catching_up.progress(),
        });
        balance::balance_voters(Arc::clone(&node), tasks);
        exchange::start(&node, Arc::clone(&parts.gossip), tasks);
        let watched = digests::Parts {
            node: Arc::clone(&node),
            gossip: parts.gossip,
            effect_at: parts.effect_at,
            clock: Arc::clone(&node.clock),
            applied: applied_sender,
        };
        digests::start(watched, tasks);
        match node.enter(&parts.bootstrap).await {
            Ok(()) => Ok(node),
            Err(error) => {
                // Else it would go on as a node that nobody let in, on a state that somebody may want to open again.
                node.stop().await;
                Err(error)
            }
        }
    }

    /// Becomes a member, if this node is not one yet.
    async fn enter(&self, bootstrap: &[PeerId]) -> Result<(), StartError> {
        let fail = |error: BoxError| StartError::Log(error);
        let started = self.raft.is_initialized().await.map_err(|error| fail(error.into()))?;
        // Asked of raft itself: the position follows its metrics, which lag behind at the start.
        let own = self.node_id;
        let member = self
            .raft
            .with_raft_state(move |state| state.membership_state.effective().membership().get_node(&own).is_some());
        if member.await.map_err(|error| fail(error.into()))? {
            return self.check_bootstrap(bootstrap);
        }
        if !bootstrap.is_empty() {
            return membership::join(self, bootstrap).await;
        }
        if self.node_id & FOUNDER == 0 {
            let reason = "joining was cut off earlier; start once more with --bootstrap".to_owned();
            return Err(StartError::Join { after: Duration::ZERO, reason });
        }
        if started {
            return Ok(());
        }
        let node = Node { peer: self.peer, addresses: self.transport.own_addresses() };
        let founded = self.raft.initialize(BTreeMap::from([(self.node_id, node)])).await;
        founded.map_err(|error| fail(error.into()))
    }

    /// A member was told to join a cluster: that of its own, or another one?
    fn check_bootstrap(&self, bootstrap: &[PeerId]) -> Result<(), StartError> {
        let members = &self.position.borrow().members;
        if bootstrap.is_empty() || bootstrap.iter().any(|peer| members.iter().any(|member| member.peer == *peer)) {
            return Ok(());
        }
        if members.len() == 1 {
            let reason =
                "this peer founded a cluster of its own earlier; to join another one, move its state folder away";
            return Err(StartError::Join { after: Duration::ZERO, reason: reason.to_owned() });
        }
        tracing::warn!(
            "none of the --bootstrap peers is a member that this peer knows; they are asked who the members are now"
        );
        Ok(())
    }

    /// Spreads the voters over the regions that `source` tells.
    pub fn spread_voters(&self, source: RegionSource) {
        *self.regions.write() = Some(source);
    }

    pub(super) fn regions(&self) -> BTreeMap<PeerId, String> {
        let source = self.regions.read().clone();
        source.map(|source| source()).unwrap_or_default()
    }

    /// A number that nobody can foresee.
    pub(crate) fn draw(&self) -> u64 {
        self.chance.draw()
    }

    /// Whether a peer may do what members may: it is one, or members vouch for it.
    pub fn is_member(&self, peer: &PeerId) -> bool {
        let known = self.position.borrow().members.iter().any(|member| member.peer == *peer);
        known || self.admission.is_member(*peer)
    }

    /// Who the members are, by the newest membership that is known here to be on a quorum.
    pub async fn members_told(&self) -> MembersTold {
        self.admission.members().await
    }

    /// What keeps this peer from following its cluster, if somebody must come.
    pub fn trouble(&self) -> Option<Trouble> {
        self.admission.trouble()
    }

    pub(super) fn own_addresses(&self) -> Vec<Multiaddr> {
        self.transport.own_addresses()
    }

    /// Has a request ordered by this peer, which must lead, unless it is too late for it. For calls of other peers.
    pub async fn propose_here(
        &self,
        id: [u8; 16],
        request: Request,
        until: Option<Deadline>,
    ) -> Result<Placed, ProposeError> {
        if until.is_some_and(|until| until.term != self.position.borrow().term) {
            return Err(ProposeError::NotLeader);
        }
        let until = until.and_then(|until| self.node_clock.moment(until));
        tokio::time::timeout(ATTEMPT_TIMEOUT, self.sequencer.propose(id, request, until))
            .await
            .unwrap_or(Err(ProposeError::Unknown))
    }

    /// The index up to which must be applied to see all that was acknowledged. This peer must lead.
    pub async fn read_index_here(&self) -> Result<u64, ProposeError> {
        read_index(&self.raft).await
    }

    /// A raft id that was never used and never will be again. This peer must lead.
    pub async fn reserve_here(&self) -> Result<NodeId, ProposeError> {
        let proposed = Proposed { id: self.chance.draw(), operation: Operation::Reserve };
        let entry = Entry { time: cluster_types::Timestamp::ZERO, operations: vec![proposed] };
        let (_term, index, _outcomes) = append(&self.raft, entry).await?;
        Ok(index)
    }

    /// Asks the leader, wherever it is, until it answers or `timeout` is over. Says as well whether an earlier attempt
    /// may have been carried out.
    pub(super) async fn ask_leader(&self, call: &Call, timeout: Duration) -> Result<(Reply, bool), ConsensusError> {
        let mut attempts = Attempts::new(timeout);
        loop {
            let answer = match self.leader() {
                None => Err(WireError::new(ErrorClass::Unavailable, "no leader is known")),
                Some(leader) if leader == self.peer => self.lead_within(call, attempts.next_timeout()).await,
                Some(leader) => match self.dated(call, attempts.deadline()) {
                    Some(call) => self.ask_while_it_leads(leader, &call, attempts.next_timeout()).await,
                    None => Err(WireError::new(ErrorClass::Unavailable, "the leader was not heard yet")),
                },
            };
            match answer {
                Ok(reply) => return Ok((reply, attempts.uncertain)),
                Err(error) => attempts.failed(&error)?,
            }
            attempts.pause(self.position.clone()).await?;
        }
    }

    /// A call with the moment after which it must not be carried out any more, by the leader's clock.
    fn dated<'a>(&self, call: &'a Call, deadline: Instant) -> Option<Cow<'a, Call>> {
        let Call::Submit { id, request, .. } = call else { return Some(Cow::Borrowed(call)) };
        let until = Some(self.heard.deadline(deadline)?);
        Some(Cow::Owned(Call::Submit { id: *id, request: request.clone(), until }))
    }

    /// Asks a leader, and waits for its answer no longer than until another one leads: it may be cut off.
    async fn ask_while_it_leads(&self, leader: PeerId, call: &Call, limit: Duration) -> Result<Reply, WireError> {
        let mut position = self.position.clone();
        tokio::select! {
            biased;
            answer = self.client.ask(leader, call, limit) => answer,
            _ = position.wait_for(|now| now.leader.is_some_and(|now| now != leader)) => {
                Err(WireError::new(ErrorClass::Unknown, "another peer leads now"))
            }
        }
    }

    /// The leader, if it was heard of lately.
    pub(super) fn leader(&self) -> Option<PeerId> {
        let leader = self.position.borrow().leader?;
        let silent = self.heard.ago() > self.settings.election.1 + self.settings.heartbeat;
        (leader == self.peer || !silent).then_some(leader)
    }

    /// As [`Self::lead`] for calls of this peer. A leader that nobody hears waits for its followers until it is
    /// deposed; whoever asked waits no longer than another peer would.
    async fn lead_within(&self, call: &Call, limit: Duration) -> Result<Reply, WireError> {
        if !matches!(call, Call::Submit { .. } | Call::ReadIndex) {
            return self.lead(call).await;
        }
        let late = |_late| WireError::new(ErrorClass::Unknown, "no quorum has answered this leader yet");
        tokio::time::timeout(limit, self.lead(call)).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    /// Answers what only a leader can.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the policy names every call; these are the leader's")]
    pub async fn lead(&self, call: &Call) -> Result<Reply, WireError> {
        let done = match call {
            Call::Submit { id, request, until } => self
                .propose_here(*id, request.clone(), *until)
                .await
                .map(|Placed { term, index, outcome }| Reply::Receipt { term, index, outcome }),
            Call::ReadIndex => self.read_index_here().await.map(Reply::Index),
            Call::Reserve => self.reserve_here().await.map(Reply::Index),
            Call::RemovePeer { peer } => return membership::remove_here(self, *peer).await.map(|()| Reply::Done),
            _ => return Err(WireError::new(ErrorClass::Invalid, "this is not a question for the leader")),
        };
        done.map_err(|error| to_wire(&error))
    }

    /// Waits until an index is applied here.
    pub(super) async fn wait_applied(&self, index: u64, timeout: Duration) -> Result<(), ConsensusError> {
        let mut applied = self.applied.clone();
        let reached = tokio::time::timeout(timeout, applied.wait_for(|applied| *applied >= index)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ConsensusError::OutcomeUnknown { after: timeout }),
        }
    }

    /// Every index as soon as it is applied here.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// How far this node has come, while it catches up with the others by shards.
    pub fn progress(&self) -> watch::Receiver<Option<Progress>> {
        self.progress.clone()
    }

    /// The same as a user sees it now.
    pub fn catching_up(&self) -> Option<CatchUp> {
        let now = Instant::now();
        self.progress.borrow().map(|progress| progress.report(now))
    }

    /// A member says that this node was removed. It is believed if it leads as far as is known here, since a removed
    /// node may never hear of its removal through the log.
    pub fn told_removed(&self, from: PeerId, node_id: NodeId) {
        if node_id == self.node_id && self.position.borrow().leader == Some(from) {
            self.removed.send_replace(true);
        }
    }

    /// Stops the node: nothing is accepted any more, everything accepted is on disk.
    pub async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(error = %error, "raft did not stop cleanly");
        }
    }
}

impl LogConsensus {
    /// The members.
    pub(super) fn member_peers(&self) -> Vec<PeerId> {
        self.position.borrow().members.iter().map(|member| member.peer).collect()
    }

    /// Whether writes are accepted when no quorum answers.
    pub fn accepts_without_quorum(&self) -> bool {
        matches!(self.settings.without_quorum, WithoutQuorum::Accept { .. })
    }

    /// Whether this peer trusts another one, or is it.
    pub fn trusts(&self, peer: &PeerId) -> bool {
        *peer == self.peer || self.settings.trust.includes(peer)
    }

    /// This peer's raft id.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Which cluster this peer belongs to, by the raft id of its founder, and its name; none before it is a member.
    pub async fn cluster(&self) -> Option<(NodeId, String)> {
        let applied = self.state.applied().await.ok()?;
        let id = AppliedPosition::decode(applied.as_ref()).ok()?.cluster()?;
        self.is_member(&self.peer).then(|| (id, self.settings.cluster_name.clone()))
    }

    /// How many writes wait for a quorum.
    pub fn outbox_count(&self) -> OutboxCount {
        self.state.waiting_count()
    }
}

#[async_trait]
impl Consensus for LogConsensus {
    async fn submit(&self, request: Request) -> Result<Receipt, ConsensusError> {
        let request = self.stamped(request);
        let timeout = self.settings.write_timeout.min(MAX_WRITE_TIMEOUT);
        match self.settings.without_quorum {
            WithoutQuorum::Accept { after } if self.is_member(&self.peer) => {
                self.order_or_accept(request, after.min(timeout)).await
            }
            WithoutQuorum::Accept { .. } | WithoutQuorum::Refuse => self.order(request, timeout).await,
        }
    }

    async fn read_barrier(&self) -> Result<(), ConsensusError> {
        let timeout = self.settings.write_timeout;
        let unread = |reason: String| ConsensusError::NoQuorum { reason };
        let reply = match self.ask_leader(&Call::ReadIndex, timeout).await {
            // A read that nobody answered changed nothing.
            Err(ConsensusError::OutcomeUnknown { after }) => Err(unread(format!("no answer within {after:?}"))),
            other => other,
        };
        let Reply::Index(index) = reply?.0 else {
            return Err(unread("the leader gave another answer".to_owned()));
        };
        let applied = self.wait_applied(index, timeout).await;
        applied.map_err(|_late| unread(format!("this peer is behind the leader by more than {timeout:?}")))
    }

    fn position(&self) -> watch::Receiver<Position> {
        self.position.clone()
    }

    fn alone_for(&self) -> Option<Duration> {
        // A write that took too long does not count: the quorum may have answered the next one.
        let accepts = matches!(self.settings.without_quorum, WithoutQuorum::Accept { .. });
        accepts.then(|| self.silent_for()).flatten()
    }

    async fn report(&self) -> Result<StateReport, ConsensusError> {
        let position = self.position.borrow().clone();
        let report = report::of(self.state.as_ref(), position).await?;
        Ok(StateReport { eventual: self.outbox_count().own, ..report })
    }

    async fn add_peer(&self, peer: PeerId, _addresses: Vec<Multiaddr>) -> Result<(), ConsensusError> {
        let member = self.position.borrow().members.iter().any(|member| member.peer == peer);
        // In such a cluster of the original nobody is added: whoever is heard takes part.
        if member || self.accepts_without_quorum() {
            return Ok(());
        }
        Err(ConsensusError::Membership {
            reason: format!("peer {peer} joins by itself: start it with --bootstrap and the address of a member"),
            class: ErrorClass::Invalid,
        })
    }

    async fn remove_peer(&self, peer: PeerId) -> Result<(), ConsensusError> {
        self.ask_leader(&Call::RemovePeer { peer }, self.settings.join_timeout).await.map(drop)
    }

    async fn hand_over(&self) {
        membership::hand_over(self).await;
    }
}

/// The raft log as the sequencer sees it.
struct RaftEntries {
    /// A leader that no quorum acknowledged for so long leads nobody.
    lease: Duration,
    raft: Raft,
    applied: watch::Receiver<u64>,
    position: watch::Receiver<Position>,
}

#[async_trait]
impl EntryLog for RaftEntries {
    fn members(&self) -> Vec<PeerId> {
        self.position.borrow().members.iter().map(|member| member.peer).collect::<BTreeSet<_>>().into_iter().collect()
    }

    async fn append(&self, entry: Entry) -> Result<(u64, u64, Vec<Outcome>), ProposeError> {
        append(&self.raft, entry).await
    }

    fn term(&self) -> Option<u64> {
        // Without a quorum an entry would only grow the log, and whoever asked for it would not know what became of it.
        if acknowledged_ago(&self.raft) >= self.lease {
            return None;
        }
        let position = self.position.borrow();
        (position.role == Role::Leader).then_some(position.term)
    }

    async fn confirm(&self) -> Result<(), ProposeError> {
        let index = read_index(&self.raft).await?;
        let mut applied = self.applied.clone();
        let reached = tokio::time::timeout(ATTEMPT_TIMEOUT, applied.wait_for(|applied| *applied >= index)).await;
        if matches!(reached, Ok(Ok(_))) { Ok(()) } else { Err(ProposeError::NotLeader) }
    }
}

/// The index up to which must be applied to see all that was acknowledged, confirmed by a quorum.
async fn read_index(raft: &Raft) -> Result<u64, ProposeError> {
    match tokio::time::timeout(ATTEMPT_TIMEOUT, raft.get_read_log_id(ReadPolicy::ReadIndex)).await {
        Ok(Ok((id, _applied))) => Ok(id.index()),
        Ok(Err(RaftError::Fatal(fatal))) => Err(ProposeError::Stopped(fatal.to_string())),
        Ok(Err(RaftError::APIError(_))) | Err(_) => Err(ProposeError::NotLeader),
    }
}

async fn append(raft: &Raft, entry: Entry) -> Result<(u64, u64, Vec<Outcome>), ProposeError> {
    match raft.client_write(entry).await {
        Ok(written) => {
            let id = written.log_id;
            Ok((**id.committed_leader_id(), id.index(), written.data.0))
        }
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(ProposeError::NotLeader),
        Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => Err(ProposeError::Unknown),
        Err(RaftError::APIError(other)) => Err(ProposeError::Stopped(other.to_string())),
        Err(RaftError::Fatal(fatal)) => Err(ProposeError::Stopped(fatal.to_string())),
    }
}

/// A leader's refusal as it travels.
fn to_wire(error: &ProposeError) -> WireError {
    let class = match error {
        ProposeError::NotLeader | ProposeError::Overloaded | ProposeError::Late => ErrorClass::Unavailable,
        ProposeError::Unknown => ErrorClass::Unknown,
        // The peer is on its way out; another one will lead.
        ProposeError::Stopped(_) => ErrorClass::Unknown,
    };
    WireError::from_error(class, error)
}
