//! Feeds committed entries to [`apply`] and writes what comes out.
//!
//! **Invariant:** records, digests and the applied position of a group of entries are one batch of the store.
//! **Invariant:** an answer goes out after that batch is written, and every entry gets one.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::watch;
use bytes::Bytes;
use cluster_types::Timestamp;
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::digests::{Ledger, NOTE_EVERY};
use super::engine::FOUNDER;
use super::outbox::Outbox;
use super::types::{Answers, LogId, NodeId, Snapshot, SnapshotContent, SnapshotMeta, StoredMembership, TypeConfig};
use crate::broadcast::Feed;
use crate::catchup::{decode_manifest, stage};
use crate::consensus::apply::{Applied, LogClock, apply};
use crate::consensus::operation::Entry;
use crate::ports::{Changes, LocalEffect, SnapshotHandle, StateError, StateStore};

/// How many operations are applied in one batch at most: some 4 MiB of records in memory.
const MAX_OPERATIONS: usize = 4096;

/// Makes the rule for what a changed pin means here, for changes of one log index.
pub type EffectAt = Arc<dyn Fn(u64) -> LocalEffect + Send + Sync>;

/// Where the state is in the log. Kept in the state itself, with every batch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AppliedPosition {
    /// The last entry applied.
    pub last: Option<LogId>,
    /// The last membership applied.
    pub membership: StoredMembership,
    /// The log's clock in nanoseconds since the Unix epoch.
    pub clock: i64,
    /// The log's window; see [`LogClock`].
    #[serde(default)]
    pub window: u64,
    /// See [`LogClock::merges_since`].
    #[serde(default)]
    pub merges_since: u64,
    /// The cluster: the raft id of its founder; 0 before anything was applied.
    #[serde(default)]
    pub cluster: NodeId,
    /// Whether the state is being taken out of a cluster; see [`super::bring_along`].
    #[serde(default)]
    pub leaving: bool,
}

impl AppliedPosition {
    /// Reads what the store kept; nothing, or nothing in it, before the first entry.
    pub fn decode(bytes: Option<&Bytes>) -> Result<Self, StateError> {
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { return Ok(Self::default()) };
        rmp_serde::from_slice(bytes).map_err(|error| StateError::Damaged { what: format!("applied position: {error}") })
    }

    pub(crate) fn encode(&self) -> Result<Bytes, io::Error> {
        rmp_serde::to_vec_named(self).map(Bytes::from).map_err(io::Error::other)
    }

    /// Which cluster the state belongs to: the raft id of the peer that founded it.
    pub fn cluster(&self) -> Option<NodeId> {
        let mut founders = self.membership.membership().nodes().map(|(id, _)| *id).filter(|id| id & FOUNDER != 0);
        if self.cluster == 0 {
            return founders.min();
        }
        // Only who founds a cluster gets such an id; one that this cluster does not have yet has founded it anew.
        Some(founders.find(|id| *id != self.cluster && self.is_alone(*id)).unwrap_or(self.cluster))
    }

    fn is_alone(&self, node_id: NodeId) -> bool {
        self.membership.membership().nodes().all(|(id, _)| *id == node_id)
    }

    /// The index of the last entry applied; 0 when there is none.
    pub fn index(&self) -> u64 {
        self.last.as_ref().map_or(0, |id| id.index())
    }

    /// The log's clock at this place.
    pub(crate) fn log_clock(&self) -> LogClock {
        let time = Timestamp::from_unix_nanos(i128::from(self.clock));
        LogClock { time, window: self.window, merges_since: self.merges_since }
    }

    /// Moves the log's clock.
    pub(crate) fn advance(&mut self, clock: LogClock) {
        (self.clock, self.window, self.merges_since) = (clock.time.unix_nanos(), clock.window, clock.merges_since);
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() }
    }
}

/// The position after a group of entries, their outcomes, and the digests of what each changed.
type Written = (AppliedPosition, Vec<Vec<crate::consensus::Outcome>>, Vec<[u8; 32]>);

/// The state machine of openraft, over any [`StateStore`].
#[derive(Clone)]
pub struct StateMachine {
    state: Arc<dyn StateStore>,
    effect_at: EffectAt,
    position: AppliedPosition,
    applied: watch::Sender<u64>,
    /// What is shown on top of the state.
    outbox: Option<Arc<Outbox>>,
    /// Where digests are noted, and whose gate keeps the state still.
    ledger: Option<Arc<Ledger>>,
    /// Where followers get the entries from.
    feed: Option<Feed>,
}

impl fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMachine").field("position", &self.position).finish_non_exhaustive()
    }
}

impl StateMachine {
    /// Opens the state where it stopped. `applied` tells every index as soon as it is applied.
    pub async fn open(
        state: Arc<dyn StateStore>,
        effect_at: EffectAt,
        applied: watch::Sender<u64>,
    ) -> Result<Self, StateError> {
        let position = AppliedPosition::decode(state.applied().await?.as_ref())?;
        applied.send_replace(position.index());
        Ok(Self { state, effect_at, position, applied, outbox: None, ledger: None, feed: None })
    }

    /// From now on, entries that were applied are offered to `feed`.
    #[must_use]
    pub fn with_feed(self, feed: Feed) -> Self {
        Self { feed: Some(feed), ..self }
    }

    /// The same, with what waits in `outbox` shown on top.
    pub(super) async fn beneath(self, outbox: Arc<Outbox>) -> Result<Self, StateError> {
        // The installation of a snapshot may have been cut off while nothing was shown on top.
        outbox.restore(self.position.index()).await?;
        Ok(Self { outbox: Some(outbox), ..self })
    }

    /// The same, noting its digests.
    pub(super) fn noted_in(self, ledger: Arc<Ledger>) -> Self {
        Self { ledger: Some(ledger), ..self }
    }

    /// Notes the digest at the indexes where every peer does. A failure costs a comparison.
    async fn note(&self, index: u64) {
        if let Some(ledger) = self.ledger.as_ref().filter(|_| index.is_multiple_of(NOTE_EVERY))
            && let Err(error) = ledger.note(self.state.as_ref(), index).await
        {
            tracing::debug!(%error, index, "the digest could not be noted");
        }
    }

    async fn install(&self, index: u64) -> Result<(), StateError> {
        let effect = (self.effect_at)(index);
        let Some(outbox) = &self.outbox else { return self.state.install_staged(effect).await };
        let lowered = outbox.lower().await?;
        self.state.install_staged(effect).await?;
        lowered.raise(index).await?;
        self.applied.send_replace(index);
        drop(lowered);
        Ok(())
    }

    async fn apply_group(&mut self, group: Vec<EntryResponder<TypeConfig>>) -> Result<(), io::Error> {
        let ledger = self.ledger.clone();
        let _still = match &ledger {
            Some(ledger) => Some(ledger.gate.lock().await),
            None => None,
        };
        let mut next = self.position.clone();
        let mut payloads = Vec::with_capacity(group.len());
        let mut responders = Vec::with_capacity(group.len());
        for (entry, responder) in group {
            next.last = Some(entry.log_id);
            let payload = match entry.payload {
                EntryPayload::Normal(payload) => payload,
                EntryPayload::Membership(membership) => {
                    next.membership = StoredMembership::new(Some(entry.log_id), membership);
                    // The founder may leave; its cluster stays what it is, until it is founded anew.
                    next.cluster = next.cluster().unwrap_or(0);
                    Entry::default()
                }
                EntryPayload::Blank => Entry::default(),
            };
            payloads.push((entry.log_id, payload));
            responders.push(responder);
        }
        let index = next.index();
        let closed = match &self.outbox {
            Some(outbox) => Some(outbox.close().await),
            None => None,
        };
        let payloads = Arc::new(payloads);
        let (next, answers, digests) = self.write(next, Arc::clone(&payloads)).await?;
        if let Some(feed) = &self.feed {
            feed.offer(self.position.last, payloads, digests);
        }
        self.applied.send_replace(index);
        drop(closed);
        self.position = next;
        self.note(index).await;
        for (responder, outcomes) in responders.into_iter().zip(answers) {
            if let Some(responder) = responder {
                responder.send(Answers(outcomes));
            }
        }
        Ok(())
    }

    /// Checks that what was staged still is the whole difference to the state, which may have applied entries since;
    /// returns the position it leads to.
    async fn settle_staged(&self, index: u64) -> Result<AppliedPosition, StateError> {
        let invalid = |what: &str| StateError::InvalidSnapshot { what: what.to_owned() };
        let manifest = self.state.staged().await?.manifest.ok_or_else(|| invalid("nothing is staged"))?;
        let manifest = decode_manifest(&manifest).map_err(|error| invalid(&error.to_string()))?;
        let stage = stage::Stage::new(self.state.as_ref(), &manifest, index, self.position.index());
        stage.settle().await?;
        stage.verify().await?;
        AppliedPosition::decode(Some(manifest.applied()))
    }

    /// Applies payloads, each with its place, and moves the position to `next`, in one batch.
    async fn write(&self, mut next: AppliedPosition, payloads: Arc<Vec<(LogId, Entry)>>) -> Result<Written, io::Error> {
        let effect = (self.effect_at)(next.index());
        let done = Arc::new(Mutex::new(None));
        let result = Arc::clone(&done);
        let update = move |view: &dyn crate::ports::StateView| -> Result<Changes, StateError> {
            let entries = payloads.iter().map(|(id, entry)| (id.index(), entry));
            let Applied { mut changes, answers, digests, clock } = apply(view, next.log_clock(), entries, &effect)?;
            next.advance(clock);
            changes.applied = Some(next.encode().map_err(|error| StateError::Damaged { what: error.to_string() })?);
            *result.lock() = Some((next, answers, digests));
            Ok(changes)
        };
        self.state.update(Box::new(update)).await.map_err(io::Error::other)?;
        let written = done.lock().take();
        written.ok_or_else(|| io::Error::other("the store did not carry out the update"))
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotContent;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.position.last, self.position.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut group = Vec::new();
        let mut operations = 0;
        while let Some(item) = entries.try_next().await? {
            operations += operations_in(&item);
            let noted = item.0.log_id.index().is_multiple_of(NOTE_EVERY);
            group.push(item);
            if operations >= MAX_OPERATIONS || noted {
                operations = 0;
                self.apply_group(std::mem::take(&mut group)).await?;
            }
        }
        if group.is_empty() { Ok(()) } else { self.apply_group(group).await }
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotContent) -> Result<(), io::Error> {
        let index = meta.last_log_id.as_ref().map_or(0, |id| id.index());
        let ledger = self.ledger.clone();
        let _still = match &ledger {
            Some(ledger) => Some(ledger.gate.lock().await),
            None => None,
        };
        let position = match snapshot {
            // One of this process: raft never sends them, tests do.
            SnapshotContent::Frozen(frozen) => {
                stage::stage_from(self.state.as_ref(), &frozen, index).await.map_err(io::Error::other)?;
                AppliedPosition::decode(Some(&frozen.applied())).map_err(io::Error::other)?
            }
            SnapshotContent::Staged => self.settle_staged(index).await.map_err(io::Error::other)?,
        };
        if position.last != meta.last_log_id {
            return Err(io::Error::other("the snapshot's content is not at the place its description says"));
        }
        self.install(position.index()).await.map_err(io::Error::other)?;
        self.applied.send_replace(position.index());
        self.position = position;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let current = self.state.current_snapshot().await.map_err(io::Error::other)?;
        current.map(describe).transpose()
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotContent;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        describe(self.state.make_snapshot().await.map_err(io::Error::other)?)
    }
}

/// A frozen state as openraft wants it: its place in the log is read from the state itself.
fn describe(handle: Arc<dyn SnapshotHandle>) -> Result<Snapshot, io::Error> {
    let position = AppliedPosition::decode(Some(&handle.applied())).map_err(io::Error::other)?;
    Ok(Snapshot { meta: position.meta(), snapshot: SnapshotContent::Frozen(handle) })
}

fn operations_in((entry, _): &EntryResponder<TypeConfig>) -> usize {
    match &entry.payload {
        EntryPayload::Normal(payload) => payload.operations.len().max(1),
        EntryPayload::Membership(_) | EntryPayload::Blank => 1,
    }
}
