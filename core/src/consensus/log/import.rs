//! A pinset from outside becomes the beginning of a cluster.
//!
//! An imported state looks like that of a peer whose log was shortened behind a snapshot: every pin is there *as of
//! entry* [`IMPORT_INDEX`], the membership too, and the log begins behind it. Nothing of it was ever an entry. That was
//! chosen over writing the pins as entries of a new log, which would have to be stored twice, flushed batch by batch and
//! purged soon after, and would leave a tail entry and a remembered outcome for each pin; and over a state without a
//! place in the log, because a peer that joins gets the log alone when it reaches back to its beginning, and would
//! miss the import. As it is, whoever joins gets the snapshot that the first start makes.
//!
//! A cluster of one gets a random raft id, like every founder. Peers that import the same file to found a cluster
//! together must come to the same membership without asking each other, so their ids follow from everything that has to
//! be the same: pinset, cluster name, members, voters. Whoever imported something else, or names other members, has
//! other ids, and belongs to another cluster that never finds a quorum among these.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use cluster_types::{BoxError, Multiaddr, PeerId, Pin};
use openraft::storage::RaftLogStorage;
use rand::RngExt;
use rand::rngs::StdRng;

use super::engine::FOUNDER;
use super::state_machine::AppliedPosition;
use super::types::{LogId, Node, NodeId, StoredMembership, TypeConfig, Vote};
use crate::consensus::digest::{order_key, root, shard_of};
use crate::consensus::operation::normalised;
use crate::crdt::ShardMeta;
use crate::ports::{Changes, LocalEffect, NodeIdRecord, PinChange, ShardState, StateError, StateStore, StateView};

/// The place in the log that an imported state shows. Not 0: that means nothing was applied yet.
pub const IMPORT_INDEX: u64 = 1;
/// Its term; the first leader has a later one.
const IMPORT_TERM: u64 = 1;

/// An imported state cannot become the beginning of a cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FoundError {
    /// This peer is not among the members.
    #[error("the peer that imports is not among the members")]
    Stranger,
    /// The state has a place in a log already.
    #[error("the state belongs to a cluster already")]
    NotFresh,
    /// It cannot be written.
    #[error("the beginning of the log cannot be written")]
    Write(#[source] BoxError),
}

/// Adds pins to a state that is being imported; of several records for one CID the last counts. The state must not have
/// a place in the log yet ([`found`] gives it one).
pub fn import_changes(view: &dyn StateView, pins: Vec<Pin>, effect: &LocalEffect) -> Result<Changes, StateError> {
    let pins: BTreeMap<Vec<u8>, Pin> = pins.into_iter().map(|pin| (order_key(&pin.cid), normalised(pin))).collect();
    let mut shards: BTreeMap<u16, ShardState> = BTreeMap::new();
    let mut changes = Changes::default();
    for pin in pins.into_values() {
        let before = view.pin(&pin.cid)?;
        if before.as_ref() == Some(&pin) {
            continue;
        }
        let shard = shard_of(&pin.cid);
        let state = match shards.entry(shard) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => slot.insert(view.shard(shard)?),
        };
        if let Some(before) = &before {
            state.sum.remove(before);
        }
        state.sum.add(&pin);
        state.meta = ShardMeta { epoch: IMPORT_INDEX, previous: IMPORT_INDEX, since_epoch: 0, since_previous: 0 };
        state.tail_from = IMPORT_INDEX;
        if let Some(record) = effect(before.as_ref(), Some(&pin), view.tracked(&pin.cid)?.as_ref()) {
            changes.tracker.push((pin.cid, record));
        }
        changes.pins.push(PinChange { cid: pin.cid, before, after: Some(pin) });
    }
    changes.shards = shards.into_iter().collect();
    Ok(changes)
}

/// What it takes to found a cluster on an imported state.
pub struct Founding<LS> {
    /// The imported state, without a place in the log.
    pub state: Arc<dyn StateStore>,
    /// A log that nothing was written to.
    pub log: LS,
    /// Where this peer's raft id is kept.
    pub record: Arc<dyn NodeIdRecord>,
    /// This peer.
    pub own: PeerId,
    /// All members, this peer included, and where they are reached.
    pub members: BTreeMap<PeerId, Vec<Multiaddr>>,
    /// Most peers that vote.
    pub max_voters: usize,
    /// The name of the cluster.
    pub cluster_name: String,
    /// Where the raft id of a cluster of one comes from.
    pub chance: StdRng,
}

impl<LS> fmt::Debug for Founding<LS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Founding").field("members", &self.members).finish_non_exhaustive()
    }
}

/// Makes the imported state the beginning of a cluster of `members`: gives it its place in the log, and this peer its
/// raft id. When it is cut off, what is there must be thrown away.
pub async fn found<LS>(mut founding: Founding<LS>) -> Result<(), FoundError>
where
    LS: RaftLogStorage<TypeConfig>,
{
    let write = |error: BoxError| FoundError::Write(error);
    if !founding.members.contains_key(&founding.own) {
        return Err(FoundError::Stranger);
    }
    let (shards, applied) = founding.state.shards().await.map_err(|error| write(error.into()))?;
    if applied.is_some() {
        return Err(FoundError::NotFresh);
    }
    let digest = root(shards.iter().map(|shard| &shard.sum));
    let ids = founding.node_ids(&digest);
    let own = ids[&founding.own];
    let place = LogId::new(IMPORT_TERM.into(), IMPORT_INDEX);
    let voters: BTreeSet<NodeId> = founding.voters().map(|peer| ids[peer]).collect();
    let nodes: BTreeMap<NodeId, Node> = founding
        .members
        .iter()
        .map(|(peer, addresses)| (ids[peer], Node { peer: *peer, addresses: addresses.clone() }))
        .collect();
    let membership = openraft::Membership::new(vec![voters], nodes).map_err(|error| write(error.to_string().into()))?;
    let position = AppliedPosition {
        last: Some(place),
        membership: StoredMembership::new(Some(place), membership),
        ..AppliedPosition::default()
    };
    let applied = Some(position.encode().map_err(|error| write(error.into()))?);
    founding.log.save_vote(&Vote::new(IMPORT_TERM, own)).await.map_err(|error| write(error.into()))?;
    founding.log.purge(place).await.map_err(|error| write(error.into()))?;
    founding.record.save(own).await.map_err(write)?;
    let update = founding.state.update(Box::new(move |_view| Ok(Changes { applied, ..Changes::default() })));
    update.await.map_err(|error| write(error.into()))
}

impl<LS> Founding<LS> {
    /// Who votes at first: an odd number, at most as many as may; the lowest ids.
    fn voters(&self) -> impl Iterator<Item = &PeerId> {
        let most = self.members.len().min(self.max_voters.max(1));
        self.members.keys().take(if most.is_multiple_of(2) { most - 1 } else { most })
    }

    /// The raft ids of the members.
    fn node_ids(&mut self, digest: &[u8; 32]) -> BTreeMap<PeerId, NodeId> {
        if self.members.len() == 1 {
            return BTreeMap::from([(self.own, FOUNDER | self.chance.random::<u64>())]);
        }
        let mut common = blake3::Hasher::new_derive_key("ipfs-cluster import: raft ids of the founders");
        let mut part = |bytes: &[u8]| {
            common.update(&(bytes.len() as u64).to_be_bytes());
            common.update(bytes);
        };
        part(self.cluster_name.as_bytes());
        part(digest);
        part(&(self.voters().count() as u64).to_be_bytes());
        for peer in self.members.keys() {
            part(&peer.to_bytes());
        }
        let id = |peer: &PeerId| {
            let mut hasher = common.clone();
            hasher.update(&peer.to_bytes());
            let mut id = [0; 8];
            hasher.finalize_xof().fill(&mut id);
            FOUNDER | u64::from_be_bytes(id)
        };
        self.members.keys().map(|peer| (*peer, id(peer))).collect()
    }
}
