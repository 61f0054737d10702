//! Answers the calls of other peers with what this peer knows and may do.

use std::sync::Arc;

use async_trait::async_trait;
use cluster_types::{ErrorClass, PeerId, Role, StatusFilter, WireError};

use super::service::{Cluster, Standing, read_only};
use crate::consensus::log::{LogConsensus, join_here};
use crate::ports::Block;
use crate::rpc::{Call, PeerService, Reply, WireBlock};

#[async_trait]
impl PeerService for Cluster {
    async fn answer(&self, from: PeerId, call: Call) -> Result<Reply, WireError> {
        self.answer_call(from, call).await
    }

    fn is_member(&self, peer: &PeerId) -> bool {
        match &self.parts.standing {
            Standing::Member { log, .. } => log.is_member(peer),
            Standing::Follower(trust) => trust.includes(peer),
        }
    }

    fn trusts(&self, peer: &PeerId) -> bool {
        match &self.parts.standing {
            Standing::Member { log, .. } => log.trusts(peer),
            // Who may ask what members may is said above, and there is nothing to let anybody into.
            Standing::Follower(_) => true,
        }
    }
}

impl Cluster {
    /// Answers one call of `from`, which may be this peer itself.
    pub(super) async fn answer_call(&self, from: PeerId, call: Call) -> Result<Reply, WireError> {
        match call {
            Call::Id => Ok(Reply::Id(Box::new(self.own_id().await))),
            Call::Members => Ok(Reply::Members(self.log()?.members_told().await)),
            Call::Submit { .. } | Call::ReadIndex | Call::RemovePeer { .. } => self.log()?.lead(&call).await,
            Call::Reserve => self.lead_or_pass_on(call).await,
            Call::Join { node_id, ref addresses } => {
                if self.leads() {
                    join_here(self.log()?, from, node_id, addresses.clone()).await.map(|()| Reply::Done)
                } else {
                    self.pass_on_join(from, node_id, addresses.clone()).await
                }
            }
            Call::JoinFor { peer, node_id, addresses } => {
                join_here(self.log()?, peer, node_id, addresses).await.map(|()| Reply::Done)
            }
            Call::Removed { node_id } => {
                self.log()?.told_removed(from, node_id);
                Ok(Reply::Done)
            }
            Call::Status { cid } => self.local_status(cid).await.map(|info| Reply::Status(Box::new(info))),
            Call::Statuses { cids } => self.local_statuses(cids).await.map(Reply::Page),
            Call::StatusPage { filter, after, limit } => {
                self.local_page(StatusFilter::from_bits(filter), after, limit).await.map(Reply::Page)
            }
            Call::Recover { cid } => self.recover_here(cid).await.map(|info| Reply::Status(Box::new(info))),
            Call::RecoverPage { after, limit } => self.recover_page(after, limit).await.map(Reply::Page),
            Call::PutBlocks { blocks } => self.keep_blocks(blocks).await.map(|()| Reply::Done),
            Call::Blocks { cids } => {
                let blocks = self.give_blocks(&cids).await?;
                Ok(Reply::Blocks(blocks.iter().map(WireBlock::from).collect()))
            }
            Call::CollectGarbage if from != self.peer && !self.parts.settings.collects_for_others => {
                Err(WireError::new(ErrorClass::Invalid, "this peer collects garbage only when its own user asks"))
            }
            Call::CollectGarbage => Ok(Reply::Garbage(self.collect_here().await)),
            Call::Node => Ok(Reply::Node(self.node_info().await)),
            Call::RepoStat => self.repo_stat_here().await.map(Reply::RepoStat),
            Call::Meet { cluster } => {
                let (cluster, welcome) = match &self.parts.standing {
                    Standing::Member { meeting, .. } => meeting.answer(from, cluster.as_ref()).await,
                    // It belongs to none that could be joined.
                    Standing::Follower(_) => (None, false),
                };
                Ok(Reply::Cluster { cluster, welcome })
            }
            Call::Gather { .. } => {
                let member = match &self.parts.standing {
                    Standing::Member { meeting, .. } => meeting.has_cluster().await,
                    Standing::Follower(_) => false,
                };
                Ok(Reply::Gathered { waits: false, member })
            }
            Call::Outbox { after } => self.log()?.outbox_page(after).await,
            Call::Noted { index } => self.log()?.noted(index).map(|manifest| Reply::Manifest { index, manifest }),
            // They are answered by the donor, before anything gets here.
            Call::Shards(_) | Call::Manifest { .. } => {
                Err(WireError::new(ErrorClass::Unavailable, "this peer does not serve shards yet"))
            }
        }
    }

    /// This peer's part in the ordering, if it has one.
    fn log(&self) -> Result<&Arc<LogConsensus>, WireError> {
        match &self.parts.standing {
            Standing::Member { log, .. } => Ok(log),
            Standing::Follower(_) => Err(read_only()),
        }
    }

    fn leads(&self) -> bool {
        self.parts.consensus.position().borrow().role == Role::Leader
    }

    fn leader(&self) -> Result<PeerId, WireError> {
        let leader = self.parts.consensus.position().borrow().leader;
        leader.ok_or_else(|| {
            WireError::new(ErrorClass::Unavailable, "no leader is known; is a majority of the voters up?")
        })
    }

    /// A peer that joins may ask any member; the leader decides.
    async fn lead_or_pass_on(&self, call: Call) -> Result<Reply, WireError> {
        if self.leads() {
            self.log()?.lead(&call).await
        } else {
            self.client.ask(self.leader()?, &call, super::service::PEER_TIMEOUT).await
        }
    }

    async fn pass_on_join(
        &self,
        peer: PeerId,
        node_id: u64,
        addresses: Vec<cluster_types::Multiaddr>,
    ) -> Result<Reply, WireError> {
        let call = Call::JoinFor { peer, node_id, addresses };
        self.client.ask(self.leader()?, &call, super::service::PEER_TIMEOUT).await
    }

    async fn keep_blocks(&self, blocks: Vec<WireBlock>) -> Result<(), WireError> {
        let blocks: Vec<Block> = blocks.iter().map(Block::try_from).collect::<Result<_, _>>()?;
        self.parts.ipfs.put_blocks(blocks).await.map_err(|error| WireError::from_error(error.class(), &error))
    }
}
