//! The facade: every question and wish of a user, answered with what the rooms below it know.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{
    AddParams, AddedOutput, Alert, Bandwidth, Cid, ConnectGraph, ErrorClass, Event, EventPlace, GlobalPinInfo,
    GlobalRepoGc, Id, Metric, PeerId, Pin, PinOptions, PinTypeFilter, PingValue, ReplicationFactor, RepoStat,
    StateReport, StatusFilter, Timestamp, WireError,
};
use futures::StreamExt;
use tokio::sync::mpsc;

use super::meet::Meeting;
use super::untrusted::Untrusted;
use super::{AddEvent, ClusterService, Committed, Listing, NOT_PINNED, Reach, Search, ServiceResult, Window};
use crate::consensus::log::{Finding, LogConsensus};
use crate::consensus::sequencer::Allocator;
use crate::consensus::{Consensus, ConsensusError};
use crate::follower::READ_ONLY;
use crate::monitor::Monitor;
use crate::ports::{Clock, IpfsNode, Scan, StateError, StateStore, Transport};
use crate::rpc::{Call, PeerClient, Reply};
use crate::task::TaskGroup;
use crate::tracker::Tracker;
use crate::trust::Trust;

/// How long one peer may take to answer a question about itself, as in the original.
pub(super) const PEER_TIMEOUT: Duration = Duration::from_secs(15);

/// The name of the alert that says that no quorum is there.
const QUORUM: &str = "quorum";
/// The name of the alerts that say what the digest watch found.
const DIGEST: &str = "digest";

/// How a cluster behaves where a user does not say.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// The peer's name for people.
    pub peer_name: String,
    /// Copies of a pin whose options say 0.
    pub default_replication: ReplicationFactor,
    /// Whether other peers may have garbage collected here.
    pub collects_for_others: bool,
}

/// What a peer is to the ordering of writes.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It takes part.
    Member {
        /// Its part in the ordering.
        log: Arc<LogConsensus>,
        /// What knows of other clusters.
        meeting: Arc<Meeting>,
    },
    /// It reads what others decide, writes nothing, and speaks for itself only. What members may ask of each other, those
    /// it trusts may ask of it.
    Follower(Trust),
}

/// The rooms a cluster consists of.
pub struct ClusterParts {
    /// How to behave.
    pub settings: ClusterSettings,
    /// Agreement.
    pub consensus: Arc<dyn Consensus>,
    /// What this peer is to it.
    pub standing: Standing,
    /// The pinset.
    pub state: Arc<dyn StateStore>,
    /// What makes the node hold what it should.
    pub tracker: Arc<Tracker>,
    /// What is known of the peers.
    pub monitor: Arc<Monitor>,
    /// Who chooses the holders of pins.
    pub allocator: Arc<dyn Allocator>,
    /// The IPFS node.
    pub ipfs: Arc<dyn IpfsNode>,
    /// How other peers are reached.
    pub transport: Arc<dyn Transport>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Where work that outlives its caller runs.
    pub tasks: TaskGroup,
}

impl fmt::Debug for ClusterParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterParts").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A cluster, seen from one of its peers.
#[derive(Clone)]
pub struct Cluster {
    pub(super) peer: PeerId,
    pub(super) client: PeerClient,
    pub(super) parts: Arc<ClusterParts>,
    /// Members that this peer does not trust.
    pub(super) untrusted: Untrusted,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Puts the rooms together.
    pub fn new(parts: ClusterParts) -> Self {
        let peer = parts.transport.local_peer();
        let client = PeerClient::new(Arc::clone(&parts.transport));
        Self { peer, client, parts: Arc::new(parts), untrusted: Untrusted::default() }
    }

    /// The members, sorted; for a follower, which is none, everyone who is heard.
    pub(super) fn members(&self) -> Vec<PeerId> {
        if !self.follows() {
            return self.parts.consensus.position().borrow().members.iter().map(|member| member.peer).collect();
        }
        let heard = self.parts.monitor.metrics(Metric::PING).into_iter().map(|metric| metric.peer);
        heard.chain([self.peer]).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether this peer is a follower.
    pub(super) fn follows(&self) -> bool {
        matches!(self.parts.standing, Standing::Follower(_))
    }

    /// An error on a follower.
    pub(super) fn writable(&self) -> ServiceResult<()> {
        if self.follows() { Err(read_only()) } else { Ok(()) }
    }

    /// A follower speaks for itself only.
    fn reach(&self, reach: Reach) -> Reach {
        if self.follows() { Reach::Local } else { reach }
    }

    /// What a peer last said of itself.
    pub(super) fn ping_of(&self, peer: &PeerId) -> PingValue {
        if *peer == self.peer && self.parts.monitor.ping_value(peer).is_none() {
            return PingValue { peer_name: self.parts.settings.peer_name.clone(), ..PingValue::default() };
        }
        self.parts.monitor.ping_value(peer).unwrap_or_default()
    }
}

impl Cluster {
    /// While no quorum is there: in the shape of a metric that was not renewed, since clients know that one.
    fn quorum_alert(&self) -> Option<Alert> {
        let Standing::Member { log, .. } = &self.parts.standing else { return None };
        let silent = log.without_quorum_for()?;
        let now = self.parts.clock.now().unix_nanos();
        let since = now.saturating_sub(i64::try_from(silent.as_nanos()).unwrap_or(i64::MAX));
        let waiting = log.outbox_count().own;
        let metric = Metric {
            name: QUORUM.to_owned(),
            peer: self.peer,
            value: format!("no quorum answers; writes of this peer that wait for it: {waiting}"),
            expire: since,
            valid: false,
            weight: 0,
            partitionable: false,
            received_at: since,
        };
        Some(Alert { metric, triggered_at: Timestamp::from_unix_nanos(since.into()) })
    }
}

/// A finding, in the shape of a metric too.
fn digest_alert(finding: &Finding) -> Alert {
    let since = finding.found_at.unix_nanos();
    let metric = Metric {
        name: DIGEST.to_owned(),
        peer: finding.peer,
        value: finding.to_string(),
        expire: since,
        valid: false,
        weight: 0,
        partitionable: false,
        received_at: since,
    };
    Alert { metric, triggered_at: finding.found_at }
}

fn newest_first(alerts: &mut [Alert]) {
    alerts.sort_by_key(|alert| std::cmp::Reverse(alert.triggered_at));
}

pub(super) fn from_state(error: &StateError) -> WireError {
    WireError::from_error(error.class(), error)
}

pub(super) fn from_consensus(error: &ConsensusError) -> WireError {
    WireError::from_error(error.class(), error)
}

pub(super) fn read_only() -> WireError {
    WireError::new(ErrorClass::Invalid, READ_ONLY)
}

pub(super) fn not_pinned() -> WireError {
    WireError::new(ErrorClass::NotFound, NOT_PINNED)
}

#[async_trait]
impl ClusterService for Cluster {
    async fn id(&self) -> ServiceResult<Id> {
        Ok(self.own_id().await)
    }

    async fn peers(&self) -> ServiceResult<Vec<Id>> {
        Ok(self.all_ids().await)
    }

    async fn add_peer(&self, peer: PeerId) -> ServiceResult<Id> {
        self.writable()?;
        let added = self.parts.consensus.add_peer(peer, Vec::new()).await;
        added.map_err(|error| from_consensus(&error))?;
        let Reply::Id(id) = self.ask(peer, &Call::Id, PEER_TIMEOUT).await? else {
            return Err(PeerClient::misfit(peer));
        };
        Ok(*id)
    }

    async fn remove_peer(&self, peer: PeerId) -> ServiceResult<()> {
        self.writable()?;
        self.vacate_and_remove(peer).await
    }

    async fn resolve(&self, path: &str) -> ServiceResult<Cid> {
        self.resolve_path(path).await
    }

    async fn pin(&self, cid: Cid, options: PinOptions) -> ServiceResult<Committed<Pin>> {
        self.writable()?;
        self.pin_cid(cid, options).await
    }

    async fn pin_path(&self, path: &str, options: PinOptions) -> ServiceResult<Committed<Pin>> {
        self.writable()?;
        let cid = self.resolve_path(path).await?;
        self.pin_cid(cid, options).await
    }

    async fn unpin(&self, cid: Cid) -> ServiceResult<Committed<Pin>> {
        self.writable()?;
        self.unpin_cid(cid).await
    }

    async fn unpin_path(&self, path: &str) -> ServiceResult<Committed<Pin>> {
        self.writable()?;
        let cid = self.resolve_path(path).await?;
        self.unpin_cid(cid).await
    }

    fn allocations(&self, filter: PinTypeFilter, window: Window) -> Listing<Pin> {
        let rows = self.parts.state.scan(Scan::All { after: window.after });
        window.cut(Box::pin(rows.filter_map(move |row| {
            std::future::ready(match row {
                Ok(row) => row.pin.filter(|pin| filter.matches(pin.kind)).map(Ok),
                Err(error) => Some(Err(from_state(&error))),
            })
        })))
    }

    fn search(&self, search: Search, filter: PinTypeFilter, window: Window) -> Listing<Pin> {
        self.found(search, filter, window)
    }

    async fn allocation(&self, cid: Cid) -> ServiceResult<Pin> {
        let pin = self.parts.state.pin(cid).await.map_err(|error| from_state(&error))?;
        pin.ok_or_else(not_pinned)
    }

    async fn car(&self, cid: Cid) -> ServiceResult<Listing<Bytes>> {
        let pin = self.allocation(cid).await?;
        Ok(self.car_of(&pin))
    }

    fn statuses(&self, filter: StatusFilter, reach: Reach, window: Window) -> Listing<GlobalPinInfo> {
        self.list_statuses(filter, self.reach(reach), window)
    }

    async fn status(&self, cid: Cid, reach: Reach) -> ServiceResult<GlobalPinInfo> {
        self.status_of(cid, self.reach(reach)).await
    }

    fn recover_all(&self, reach: Reach) -> Listing<GlobalPinInfo> {
        self.recover_everything(self.reach(reach))
    }

    async fn recover(&self, cid: Cid, reach: Reach) -> ServiceResult<GlobalPinInfo> {
        self.recover_one(cid, self.reach(reach)).await
    }

    async fn add(
        &self,
        params: AddParams,
        events: mpsc::Receiver<ServiceResult<AddEvent>>,
    ) -> ServiceResult<Listing<AddedOutput>> {
        self.writable()?;
        self.add_content(params, events)
    }

    async fn metric_names(&self) -> ServiceResult<Vec<String>> {
        Ok(self.parts.monitor.metric_names())
    }

    async fn metrics(&self, name: &str) -> ServiceResult<Vec<Metric>> {
        Ok(self.parts.monitor.metrics(name))
    }

    async fn alerts(&self) -> ServiceResult<Vec<Alert>> {
        let mut alerts: Vec<Alert> = self.quorum_alert().into_iter().collect();
        if let Standing::Member { log, .. } = &self.parts.standing {
            alerts.extend(log.findings().iter().map(digest_alert));
            alerts.extend(self.untrusted.alerts());
        }
        alerts.extend(self.parts.monitor.alerts());
        newest_first(&mut alerts);
        Ok(alerts)
    }

    async fn connect_graph(&self) -> ServiceResult<ConnectGraph> {
        Ok(self.graph().await)
    }

    fn bandwidth(&self) -> Option<BTreeMap<String, Bandwidth>> {
        self.parts.transport.bandwidth()
    }

    async fn repo_stat(&self) -> ServiceResult<RepoStat> {
        Ok(self.repo_stats().await)
    }

    async fn collect_garbage(&self, reach: Reach) -> ServiceResult<GlobalRepoGc> {
        self.collect(self.reach(reach)).await
    }

    fn events(&self, before: Option<EventPlace>, limit: usize) -> Listing<Event> {
        self.list_events(before, limit)
    }

    async fn state(&self) -> ServiceResult<StateReport> {
        self.parts.consensus.report().await.map_err(|error| from_consensus(&error))
    }

    fn has_quorum(&self) -> bool {
        match &self.parts.standing {
            Standing::Member { log, .. } => log.without_quorum_for().is_none(),
            // It has no part in one, and nobody waits for its word.
            Standing::Follower(_) => true,
        }
    }

    fn applied_index(&self) -> u64 {
        self.parts.consensus.position().borrow().applied
    }

    fn trouble(&self) -> Option<String> {
        match &self.parts.standing {
            Standing::Member { log, .. } => log.trouble().map(|trouble| trouble.to_string()),
            Standing::Follower(_) => None,
        }
    }

    async fn read_barrier(&self) -> ServiceResult<()> {
        self.parts.consensus.read_barrier().await.map_err(|error| from_consensus(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_told_newest_first() {
        let metric = Metric {
            name: QUORUM.to_owned(),
            peer: PeerId::random(),
            value: String::new(),
            expire: 0,
            valid: false,
            weight: 0,
            partitionable: false,
            received_at: 0,
        };
        let alert = |at| Alert { metric: metric.clone(), triggered_at: Timestamp::from_unix_seconds(at) };
        let mut alerts = [2, 3, 1].map(alert);
        newest_first(&mut alerts);
        assert_eq!(alerts.map(|alert| alert.triggered_at.unix_seconds()), [3, 2, 1]);
    }
}
