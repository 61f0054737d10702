//! Who the members are, whom they see, and how one leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_types::{
    API_VERSION, ConnectGraph, ErrorClass, GlobalRepoGc, Id, IpfsId, Multiaddr, PeerId, Protocol, RepoGc, RepoStat,
    WireError,
};
use futures::{StreamExt, stream};

use super::service::{Cluster, PEER_TIMEOUT, Standing, from_consensus, from_state};
use super::{Reach, ServiceResult};
use crate::consensus::{Outcome, Request};
use crate::ports::{IpfsError, Scan};
use crate::rpc::{Call, NodeInfo, PeerClient, Reply};
use crate::trust::is_refusal;

/// How many members are asked at a time.
pub(super) const ASKED_AT_ONCE: usize = 64;
/// How many reallocations of a leaving member's pins are ordered at a time.
const VACATED_AT_ONCE: usize = 256;
/// How long the node may take to say something of itself: less than a peer may, so that the peer answers in any case.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long collecting garbage on one peer may take.
const GC_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

impl Cluster {
    pub(super) async fn own_id(&self) -> Id {
        let members: Vec<PeerId> = self.members().into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let others = members.iter().filter(|peer| **peer != self.peer);
        let ipfs = match in_time(self.parts.ipfs.id()).await {
            Ok(ipfs) => ipfs,
            Err(error) => IpfsId { error, ..IpfsId::default() },
        };
        Id {
            id: self.peer,
            addresses: self.parts.transport.own_addresses(),
            cluster_peers_addresses: others.flat_map(|peer| self.addresses_of(peer)).collect(),
            cluster_peers: members,
            version: API_VERSION.to_owned(),
            commit: String::new(),
            rpc_protocol_version: Id::RPC_PROTOCOL.to_owned(),
            error: String::new(),
            ipfs,
            peername: self.parts.settings.peer_name.clone(),
            catching_up: match &self.parts.standing {
                Standing::Member { log, .. } => log.catching_up(),
                Standing::Follower(_) => None,
            },
        }
    }

    fn addresses_of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let known = by_name_if_possible(self.parts.transport.addresses_of(peer));
        known.into_iter().map(|address| address.with(Protocol::P2p(*peer))).collect()
    }

    /// The members that answer, then those that do not.
    pub(super) async fn all_ids(&self) -> Vec<Id> {
        let asked = self.ask_members(&Call::Id).await;
        let (mut answered, mut silent) = (Vec::new(), Vec::new());
        for (peer, answer) in asked {
            match answer {
                Ok(Reply::Id(id)) => answered.push(*id),
                Ok(_) => silent.push(Id::unreachable(peer, PeerClient::misfit(peer).message)),
                Err(error) => silent.push(Id::unreachable(peer, error.message)),
            }
        }
        answered.extend(silent);
        answered
    }

    /// Asks every member, this one included, and lists the answers by peer.
    pub(super) async fn ask_members(&self, call: &Call) -> BTreeMap<PeerId, Result<Reply, WireError>> {
        stream::iter(self.members())
            .map(|peer| async move { (peer, self.ask_connected(peer, call).await) })
            .buffer_unordered(ASKED_AT_ONCE)
            .collect()
            .await
    }

    /// Asks one member, which may be this one.
    pub(super) async fn ask(&self, peer: PeerId, call: &Call, timeout: Duration) -> Result<Reply, WireError> {
        if peer == self.peer {
            let answer = tokio::time::timeout(timeout, self.answer_call(self.peer, call.clone())).await;
            answer.unwrap_or_else(|_| {
                Err(WireError::new(ErrorClass::Unavailable, format!("no answer within {} s", timeout.as_secs())))
            })
        } else {
            self.client.ask(peer, call, timeout).await
        }
    }

    /// Asks one member how something is, if it can be reached: one that is not connected is being dialled all the time, and
    /// whoever asks about many should not wait for that.
    pub(super) async fn ask_connected(&self, peer: PeerId, call: &Call) -> Result<Reply, WireError> {
        if is_in_reach(&self.peer, &peer, &self.parts.transport.connected()) {
            return self.ask(peer, call, PEER_TIMEOUT).await;
        }
        Err(WireError::new(ErrorClass::Unavailable, format!("peer {peer} is not reachable: it is not connected")))
    }

    pub(super) async fn repo_stat_here(&self) -> ServiceResult<RepoStat> {
        self.parts.ipfs.repo_stat().await.map_err(|error| WireError::from_error(error.class(), &error))
    }

    /// How full the nodes of the members are together. Those that do not say are left out.
    pub(super) async fn repo_stats(&self) -> RepoStat {
        let stats = self.ask_members(&Call::RepoStat).await.into_iter().filter_map(|(peer, answer)| match answer {
            Ok(Reply::RepoStat(stat)) => Some(stat),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%peer, %error, "a sum of repositories lacks that of a peer");
                None
            }
        });
        stats.fold(RepoStat::default(), |sum, stat| RepoStat {
            repo_size: sum.repo_size.saturating_add(stat.repo_size),
            storage_max: sum.storage_max.saturating_add(stat.storage_max),
        })
    }

    pub(super) async fn node_info(&self) -> NodeInfo {
        let ipfs_peers = in_time(self.parts.ipfs.connected()).await.unwrap_or_else(|error| {
            tracing::debug!(error, "the graph lacks the links of the IPFS node");
            Vec::new()
        });
        NodeInfo { peers: self.parts.transport.connected(), ipfs_peers }
    }

    pub(super) async fn graph(&self) -> ConnectGraph {
        let members: BTreeSet<PeerId> = self.members().into_iter().collect();
        let mut graph = ConnectGraph {
            cluster_id: self.peer,
            id_to_peername: BTreeMap::new(),
            ipfs_links: BTreeMap::new(),
            cluster_links: BTreeMap::new(),
            cluster_trust_links: BTreeMap::new(),
            cluster_to_ipfs: BTreeMap::new(),
        };
        for (peer, answer) in self.ask_members(&Call::Node).await {
            let id = peer.to_base58();
            let ping = self.ping_of(&peer);
            let info = match answer {
                Ok(Reply::Node(info)) => info,
                Ok(_) | Err(_) => NodeInfo { peers: Vec::new(), ipfs_peers: Vec::new() },
            };
            let links =
                info.peers.iter().filter(|other| members.contains(*other)).map(|peer| peer.to_base58()).collect();
            graph.id_to_peername.insert(id.clone(), ping.peer_name);
            graph.cluster_links.insert(id.clone(), links);
            graph.cluster_trust_links.insert(id.clone(), self.trusts_peer(&peer));
            if !ping.ipfs_id.is_empty() {
                graph.ipfs_links.insert(ping.ipfs_id.clone(), info.ipfs_peers);
                graph.cluster_to_ipfs.insert(id, ping.ipfs_id);
            }
        }
        graph
    }

    /// Whether this peer trusts another one, or is it.
    fn trusts_peer(&self, peer: &PeerId) -> bool {
        match &self.parts.standing {
            Standing::Member { log, .. } => log.trusts(peer),
            Standing::Follower(trust) => *peer == self.peer || trust.includes(peer),
        }
    }

    /// Moves a member's pins to others, then removes it.
    pub(super) async fn vacate_and_remove(&self, peer: PeerId) -> ServiceResult<()> {
        if self.members().contains(&peer) && self.members().len() > 1 {
            self.vacate(peer).await?;
        }
        self.parts.consensus.remove_peer(peer).await.map_err(|error| from_consensus(&error))?;
        if peer == self.peer {
            return Ok(());
        }
        // Until its removal it was as good as others: what it was given meanwhile is moved as well.
        self.parts.consensus.read_barrier().await.map_err(|error| from_consensus(&error))?;
        self.vacate(peer).await
    }

    /// Allocates every pin of a member anew, without it. A pin for which there is no other place stays where it is.
    async fn vacate(&self, peer: PeerId) -> ServiceResult<()> {
        let rows = self.parts.state.scan(Scan::ByPeer { peer, after: None });
        let mut moves = rows
            .map(|row| async move {
                let cid = row.map_err(|error| from_state(&error))?.cid;
                let request = Request::Reallocate { cid, exclude: vec![peer] };
                let receipt = self.parts.consensus.submit(request).await.map_err(|error| from_consensus(&error))?;
                if let Outcome::Refused(error) = receipt.outcome {
                    tracing::warn!(%cid, %error, "no other place for a pin of the leaving peer");
                }
                Ok::<(), WireError>(())
            })
            .buffer_unordered(VACATED_AT_ONCE);
        while let Some(moved) = moves.next().await {
            moved?;
        }
        Ok(())
    }

    pub(super) async fn collect_here(&self) -> RepoGc {
        let (keys, error) = match self.parts.ipfs.collect_garbage().await {
            Ok(keys) => (keys, String::new()),
            Err(error) => (Vec::new(), cluster_types::ErrorChain(&error).to_string()),
        };
        RepoGc { peer: self.peer, peername: self.parts.settings.peer_name.clone(), keys, error }
    }

    fn not_collected(&self, peer: PeerId, error: WireError) -> RepoGc {
        RepoGc { peer, peername: self.ping_of(&peer).peer_name, keys: Vec::new(), error: error.message }
    }

    /// Collects garbage peer by peer, so that the cluster never does nothing else.
    pub(super) async fn collect(&self, reach: Reach) -> ServiceResult<GlobalRepoGc> {
        let peers = match reach {
            Reach::Local => vec![self.peer],
            Reach::Cluster => self.members(),
        };
        let mut all = GlobalRepoGc::default();
        for peer in peers {
            let done = match self.ask(peer, &Call::CollectGarbage, GC_TIMEOUT).await {
                Ok(Reply::Garbage(done)) => done,
                Ok(_) => self.not_collected(peer, PeerClient::misfit(peer)),
                Err(error) if is_refusal(&error) => continue,
                Err(error) => self.not_collected(peer, error),
            };
            all.peer_map.insert(peer.to_base58(), done);
        }
        Ok(all)
    }
}

/// What the node answers, or in words why it does not. A node that hangs must not look like a peer that hangs.
pub(super) async fn in_time<T>(call: impl Future<Output = Result<T, IpfsError>>) -> Result<T, String> {
    match tokio::time::timeout(NODE_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| cluster_types::ErrorChain(&error).to_string()),
        Err(_) => Err(format!("the IPFS node does not answer within {} s", NODE_TIMEOUT.as_secs())),
    }
}

/// Only the addresses with a name, where there are any: they outlive the others.
fn by_name_if_possible(mut addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let is_name = |address: &Multiaddr| {
        matches!(
            address.iter().next(),
            Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_))
        )
    };
    if addresses.iter().any(is_name) {
        addresses.retain(is_name);
    }
    addresses
}

fn is_in_reach(here: &PeerId, peer: &PeerId, connected: &[PeerId]) -> bool {
    peer == here || connected.contains(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_connected_is_out_of_reach_but_for_oneself() {
        let [here, near, far] = [(); 3].map(|()| PeerId::random());
        assert!(is_in_reach(&here, &here, &[]));
        assert!(is_in_reach(&here, &near, &[near]));
        assert!(!is_in_reach(&here, &far, &[near]));
    }

    #[test]
    fn of_a_peer_with_names_only_the_names_are_told() {
        let all: Vec<Multiaddr> =
            ["/ip4/10.0.0.1/tcp/9096", "/dns4/a.example/tcp/9096"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(by_name_if_possible(all.clone()), all[1..]);
        assert_eq!(by_name_if_possible(all[..1].to_vec()), all[..1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_hangs_is_an_error_in_time() {
        let answer = tokio::time::timeout(PEER_TIMEOUT, in_time(std::future::pending::<Result<(), _>>())).await;
        assert_eq!(answer.unwrap(), Err("the IPFS node does not answer within 5 s".to_owned()));
        assert_eq!(in_time(async { Ok(7) }).await, Ok(7));
    }
}
