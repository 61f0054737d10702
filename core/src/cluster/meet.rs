//! Two clusters that meet become one: same secret, same name, `crdt` mode.
//!
//! Every member looks at the peers it is connected to and that are no members, and asks them to which cluster they
//! belong. The smaller cluster joins the larger: each of its members by itself leaves, with its pins, and joins. The other
//! side has to welcome it first, and then stays where it is for a while, so two peers never swap places.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cluster_types::{BoxError, Multiaddr, PeerId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::consensus::Consensus;
use crate::consensus::log::LogConsensus;
use crate::ports::{StateStore, Transport};
use crate::rpc::{Call, PeerClient, Reply};
use crate::task::{OnExit, TaskGroup};
use crate::watch;

/// How often a member looks around.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How many peers are asked in one look: of followers, which are no members either, there may be thousands.
const ASK_AT_MOST: usize = 8;
/// How long a peer may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long who has welcomed others does not leave itself.
const STAY: Duration = Duration::from_secs(120);
/// How many addresses of a peer that is to be joined are used.
const MAX_ADDRESSES: usize = 16;

/// A cluster, as one of its members describes it to a stranger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// What identifies it: the raft id of its founder.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Number of members.
    pub members: u64,
    /// Number of pins.
    pub pins: u64,
    /// Whether it becomes one with others unasked (`crdt` mode).
    pub sociable: bool,
    /// Where the peer that says so is reached.
    pub addresses: Vec<Multiaddr>,
}

impl ClusterInfo {
    /// Whether this cluster is to join `other`: the one with fewer members, then with fewer pins, then with the lower id.
    pub fn joins(&self, other: &Self) -> bool {
        let kin = self.sociable && other.sociable && self.name == other.name;
        let size = |cluster: &Self| (cluster.members, cluster.pins, cluster.id);
        kin && self.id != other.id && size(self) < size(other)
    }
}

/// Knows about this peer's cluster, and looks out for others.
pub struct Meeting {
    consensus: Arc<LogConsensus>,
    state: Arc<dyn StateStore>,
    transport: Arc<dyn Transport>,
    client: PeerClient,
    /// Until when this peer stays where it is.
    stays_until: Mutex<Option<Instant>>,
    join: watch::Sender<Option<Vec<Multiaddr>>>,
}

impl fmt::Debug for Meeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meeting").finish_non_exhaustive()
    }
}

impl Meeting {
    /// Knows about this peer's cluster.
    pub fn new(consensus: Arc<LogConsensus>, state: Arc<dyn StateStore>, transport: Arc<dyn Transport>) -> Arc<Self> {
        let client = PeerClient::new(Arc::clone(&transport));
        let (stays_until, join) = (Mutex::new(None), watch::Sender::new(None));
        Arc::new(Self { consensus, state, transport, client, stays_until, join })
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

    /// Told once: the addresses of a member of the cluster that this peer is to join instead of its own.
    pub fn to_join(&self) -> watch::Receiver<Option<Vec<Multiaddr>>> {
        self.join.subscribe()
    }

    /// Describes this peer's cluster to `stranger`, and says whether it is welcome to join it.
    pub(super) async fn answer(&self, stranger: Option<&ClusterInfo>) -> (Option<ClusterInfo>, bool) {
        let Some(own) = self.info().await else { return (None, false) };
        let suits = stranger.is_some_and(|stranger| stranger.joins(&own)) && self.join.borrow().is_none();
        // Without a quorum nobody could be let in.
        let welcome = suits && self.consensus.read_barrier().await.is_ok();
        if welcome {
            *self.stays_until.lock() = Some(Instant::now() + STAY);
        }
        (Some(own), welcome)
    }

    /// This peer's cluster; none while it belongs to none.
    async fn info(&self) -> Option<ClusterInfo> {
        let (id, name) = self.consensus.cluster().await?;
        Some(ClusterInfo {
            id,
            name,
            members: self.consensus.position().borrow().members.len() as u64,
            pins: self.state.pins(),
            sociable: self.consensus.accepts_without_quorum(),
            addresses: self.transport.own_addresses().into_iter().take(MAX_ADDRESSES).collect(),
        })
    }

    async fn look_around(&self) {
        let mut after: Option<PeerId> = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let stays = self.stays_until.lock().is_some_and(|until| Instant::now() < until);
            let Some(own) = self.info().await.filter(|_own| !stays) else { continue };
            for stranger in self.strangers(after) {
                after = Some(stranger);
                if let Some(addresses) = self.meet(stranger, &own).await {
                    tracing::info!(
                        peer = %stranger,
                        "another cluster of the same name is larger: this peer joins it with its pins"
                    );
                    self.join.send_replace(Some(addresses));
                    return std::future::pending().await;
                }
            }
        }
    }

    /// Some peers that are connected and no members, in turn.
    fn strangers(&self, after: Option<PeerId>) -> Vec<PeerId> {
        let position = self.consensus.position();
        let members: BTreeSet<PeerId> = position.borrow().members.iter().map(|member| member.peer).collect();
        let strangers: Vec<PeerId> =
            self.transport.connected().into_iter().filter(|peer| !members.contains(peer)).collect();
        let (before, rest): (Vec<_>, Vec<_>) = strangers.into_iter().partition(|peer| Some(*peer) <= after);
        rest.into_iter().chain(before).take(ASK_AT_MOST).collect()
    }

    /// Asks a stranger; where to join, if it is larger and has welcomed this peer.
    async fn meet(&self, stranger: PeerId, own: &ClusterInfo) -> Option<Vec<Multiaddr>> {
        let call = Call::Meet { cluster: Some(own.clone()) };
        let answer = self.client.ask(stranger, &call, ASK_TIMEOUT).await;
        let Ok(Reply::Cluster { cluster: Some(other), welcome: true }) = answer else { return None };
        let addresses: Vec<Multiaddr> = other.addresses.iter().take(MAX_ADDRESSES).cloned().collect();
        (own.joins(&other) && !addresses.is_empty()).then_some(addresses)
    }
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
        ClusterInfo { id, name: "n".to_owned(), members, pins, sociable: true, addresses: Vec::new() }
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
    fn strangers_by_name_or_mode_stay_apart() {
        let (one, other) = (cluster(1, 1, 1), cluster(2, 2, 2));
        assert!(!one.joins(&ClusterInfo { name: "m".to_owned(), ..other.clone() }));
        assert!(!one.joins(&ClusterInfo { sociable: false, ..other.clone() }));
        assert!(!ClusterInfo { sociable: false, ..one }.joins(&other));
    }
}
