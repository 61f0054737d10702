//! openraft's network over the [`Transport`] port: one client per target and purpose.
//!
//! Deadlines are ours, not openraft's: its own follow the heartbeat interval, which one slow flush of a busy disk
//! exceeds. A call that could not be sent is reported as unreachable, so that openraft backs off; everything else is
//! repeated at once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use tokio::time::{Instant, sleep};

use super::chance::Chance;
use super::deadline::NodeClock;
use super::message::{RaftCall, RaftMessage, RaftReply};
use super::types::{Node, NodeId, Snapshot, SnapshotContent, TypeConfig, Vote};
use crate::catchup::{AnnexAsk, AnnexSums, Donor, encode_excerpt, encode_manifest, encode_rows, stage};
use crate::ports::{AnnexRow, Purpose, SnapshotHandle, StateError, Transport, TransportError};
use crate::rpc;

/// How long a follower may take to write entries to disk and answer.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a heartbeat may take.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of rows of an annex after which they are sent.
const ANNEX_BYTES: usize = 256 << 10;
/// How long one piece of a snapshot may take.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer to the question may take whether a snapshot is installed.
const WAIT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long that question may fail until the snapshot is offered anew.
const SILENCE: Duration = Duration::from_secs(20);
/// Pause after such a failure.
const RETRY: Duration = Duration::from_millis(500);

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

/// Makes clients for openraft.
#[derive(Clone)]
pub(super) struct Network {
    transport: Arc<dyn Transport>,
    donor: Arc<Donor>,
    chance: Chance,
    clock: NodeClock,
}

impl Network {
    pub(super) fn new(transport: Arc<dyn Transport>, donor: Arc<Donor>, chance: Chance, clock: NodeClock) -> Self {
        Self { transport, donor, chance, clock }
    }

    fn client(&self, to: NodeId, node: &Node, append: Purpose, append_timeout: Duration) -> Client {
        Client {
            to,
            peer: node.peer,
            append,
            append_timeout,
            transport: Arc::clone(&self.transport),
            donor: Arc::clone(&self.donor),
            chance: self.chance.clone(),
            clock: self.clock,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, node: &Node) -> Client {
        self.client(target, node, Purpose::Append, APPEND_TIMEOUT)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &Node) -> Client {
        self.client(target, node, Purpose::Control, HEARTBEAT_TIMEOUT)
    }
}

/// Speaks to one raft node.
pub(super) struct Client {
    to: NodeId,
    peer: cluster_types::PeerId,
    append: Purpose,
    append_timeout: Duration,
    transport: Arc<dyn Transport>,
    donor: Arc<Donor>,
    chance: Chance,
    clock: NodeClock,
}

impl Client {
    async fn call(&self, purpose: Purpose, message: RaftMessage, timeout: Duration) -> Rpc<RaftReply> {
        let call = RaftCall { to: self.to, clock: self.clock.now(), message };
        let body = rpc::encode_raft(&call).map_err(|error| lost(&error))?;
        let answer = self.transport.call(self.peer, purpose, body, timeout).await;
        let answer = answer.map_err(|error| {
            let seen = !matches!(error, TransportError::NotSent { .. });
            if seen { lost(&error) } else { RPCError::Unreachable(Unreachable::new(&error)) }
        })?;
        let reply = rpc::decode_raft_reply(&answer).map_err(|error| lost(&error))?;
        if let RaftReply::Refused(reason) = reply {
            return Err(RPCError::Unreachable(Unreachable::new(&AnyError::error(reason))));
        }
        Ok(reply)
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotContent::Frozen(frozen) = snapshot.snapshot else {
            return Err(StreamingError::from(lost(&AnyError::error("only a frozen state can be offered"))));
        };
        let transfer = self.chance.draw();
        let manifest = stage::manifest_of(&frozen).await.map_err(|error| StreamingError::from(lost(&error)))?;
        // Whoever catches up with it may take shards from it for as long as this runs.
        let index = snapshot.meta.last_log_id.as_ref().map_or(0, |id| id.index());
        let _lent = self.donor.lend(index, Arc::clone(&frozen));
        let sums = sums_of(&frozen).await.map_err(|error| StreamingError::from(lost(&error)))?;
        let offer = |base, manifest| RaftMessage::SnapshotOffer {
            transfer,
            vote,
            meta: snapshot.meta.clone(),
            base,
            manifest,
            annex: sums.encode().into(),
        };
        let mut reply = RaftReply::NeedsManifest;
        if let Some(base) = self.base(index).await? {
            let excerpt = stage::excerpt_of(&frozen, &manifest, base).await;
            let excerpt = encode_excerpt(&excerpt.map_err(|error| StreamingError::from(lost(&error)))?);
            reply = self.call(Purpose::Bulk, offer(Some(base), excerpt), CHUNK_TIMEOUT).await?;
        }
        if matches!(reply, RaftReply::NeedsManifest) {
            reply = self.call(Purpose::Bulk, offer(None, encode_manifest(&manifest)), CHUNK_TIMEOUT).await?;
        }
        match reply {
            RaftReply::Joined => {}
            RaftReply::Lacks(ask) => self.send_annex(transfer, &frozen, &sums, &ask).await?,
            RaftReply::Append(_)
            | RaftReply::Vote(_)
            | RaftReply::TransferLeader(_)
            | RaftReply::Snapshot(_)
            | RaftReply::Continue
            | RaftReply::Base(_)
            | RaftReply::NeedsManifest
            | RaftReply::Refused(_) => return Err(StreamingError::from(misfit())),
        }
        self.wait_installed(transfer).await
    }

    /// The log index that the receiver's state is of, if it has one and a snapshot of `index` is not older.
    async fn base(&self, index: u64) -> Result<Option<u64>, StreamingError<TypeConfig>> {
        let RaftReply::Base(base) = self.call(Purpose::Bulk, RaftMessage::SnapshotBase, CHUNK_TIMEOUT).await? else {
            return Err(StreamingError::from(misfit()));
        };
        Ok(base.filter(|base| *base <= index))
    }

    /// Sends what is asked for of an annex.
    async fn send_annex(
        &self,
        transfer: u64,
        frozen: &Arc<dyn SnapshotHandle>,
        sums: &AnnexSums,
        ask: &AnnexAsk,
    ) -> Result<(), StreamingError<TypeConfig>> {
        let (mut groups, mut sequence) = (frozen.annex(), 0);
        let (mut rows, mut bytes) = (Vec::<AnnexRow>::new(), 0);
        loop {
            let group = groups.try_next().await.map_err(|error| StreamingError::from(lost(&error)))?;
            let at_end = group.is_none();
            for row in group.into_iter().flatten().filter(|row| ask.wants(sums.group_of(row))) {
                bytes += row.key.len() + row.value.len();
                rows.push(row);
            }
            if bytes >= ANNEX_BYTES || (at_end && !rows.is_empty()) {
                self.send_rows(transfer, sequence, &std::mem::take(&mut rows)).await?;
                (sequence, bytes) = (sequence + 1, 0);
            }
            if at_end {
                return self.send_rows(transfer, sequence, &[]).await;
            }
        }
    }

    async fn send_rows(
        &self,
        transfer: u64,
        sequence: u64,
        rows: &[AnnexRow],
    ) -> Result<(), StreamingError<TypeConfig>> {
        let message = RaftMessage::SnapshotAnnex { transfer, sequence, rows: encode_rows(rows) };
        self.call(Purpose::Bulk, message, CHUNK_TIMEOUT).await?;
        Ok(())
    }

    /// Waits until the snapshot is installed. Meanwhile a question may be lost; a receiver that is silent for longer, or
    /// does not know of it any more, gets it anew.
    async fn wait_installed(&self, transfer: u64) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut heard = Instant::now();
        loop {
            match self.call(Purpose::Bulk, RaftMessage::SnapshotWait { transfer }, WAIT_TIMEOUT).await {
                Ok(RaftReply::Snapshot(response)) => return Ok(response),
                Ok(RaftReply::Continue) => heard = Instant::now(),
                Ok(_) => return Err(StreamingError::from(misfit())),
                Err(RPCError::Network(_)) if heard.elapsed() < SILENCE => sleep(RETRY).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = SnapshotContent;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let RaftReply::Append(response) =
            self.call(self.append, RaftMessage::Append(request), self.append_timeout).await?
        else {
            return Err(misfit());
        };
        Ok(response)
    }

    async fn vote(&mut self, request: VoteRequest<TypeConfig>, option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        let RaftReply::Vote(response) =
            self.call(Purpose::Control, RaftMessage::Vote(request), option.hard_ttl()).await?
        else {
            return Err(misfit());
        };
        Ok(response)
    }

    async fn pre_vote(&mut self, request: VoteRequest<TypeConfig>, option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        let RaftReply::Vote(response) =
            self.call(Purpose::Control, RaftMessage::PreVote(request), option.hard_ttl()).await?
        else {
            return Err(misfit());
        };
        Ok(response)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let RaftReply::TransferLeader(response) =
            self.call(Purpose::Control, RaftMessage::TransferLeader(request), option.hard_ttl()).await?
        else {
            return Err(misfit());
        };
        Ok(response)
    }
}

/// The sums of a frozen state's annex, as they travel.
async fn sums_of(frozen: &Arc<dyn SnapshotHandle>) -> Result<AnnexSums, StateError> {
    let mut sums = AnnexSums::default();
    let mut groups = frozen.annex();
    while let Some(rows) = groups.try_next().await? {
        rows.iter().for_each(|row| sums.add(row));
    }
    Ok(sums.coarse())
}

fn lost(error: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}

fn misfit() -> RPCError<TypeConfig> {
    lost(&AnyError::error("the answer is to another question"))
}
