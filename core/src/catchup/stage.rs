//! Stages shards beside the state, and makes the difference to a state that moved meanwhile right again.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::Cid;
use futures::TryStreamExt;
use parking_lot::Mutex;

use super::donor::read;
use super::pull::{Gather, Gathered, Kept};
use super::wire::encode_manifest;
use crate::consensus::digest::SHARDS;
use crate::consensus::operation::encode_pin;
use crate::crdt::manifest::Manifest;
use crate::crdt::manifest::excerpt::Excerpt;
use crate::crdt::packed::Change;
use crate::crdt::{Records, TailEntry, shard, undo};
use crate::ports::{
    ShardState, ShardSum, SnapshotHandle, StagedHead, StagedShard, StateError, StateStore, StateView, TailPlace,
};

/// What is being staged.
#[derive(Debug)]
pub struct Stage<'a, S: ?Sized> {
    state: &'a S,
    manifest: &'a Manifest,
    /// The log index of the manifest.
    index: u64,
    /// The log index the state is at.
    own_index: u64,
    /// What shards of the state were when somebody was told of them, to be given changes to that.
    told: Mutex<BTreeMap<u16, ShardSum>>,
}

impl<'a, S: StateStore + ?Sized> Stage<'a, S> {
    /// Stages what `manifest` says, which is of `index`; the state has applied `own_index`.
    pub fn new(state: &'a S, manifest: &'a Manifest, index: u64, own_index: u64) -> Self {
        Self { state, manifest, index, own_index, told: Mutex::default() }
    }

    /// The shards that are neither here nor staged as the manifest says, and how many differ from the state at all. What
    /// was staged against a state that moved since is made right; what is of no use is dropped.
    pub async fn missing(&self) -> Result<(Vec<u16>, usize), StateError> {
        self.sort_out(false).await
    }

    /// Once everything was there: makes right what the state that moved since has made wrong, from its own tails. After
    /// that [`Stage::verify`] tells whether everything still is there.
    pub async fn settle(&self) -> Result<(), StateError> {
        self.sort_out(true).await.map(drop)
    }

    /// `recall`: look into the tails of shards that are not staged, because they were as the manifest says.
    async fn sort_out(&self, recall: bool) -> Result<(Vec<u16>, usize), StateError> {
        let staged: BTreeMap<u16, StagedHead> = self.state.staged().await?.shards.into_iter().collect();
        let (shards, _applied) = self.state.shards().await?;
        let (mut missing, mut differing) = (Vec::new(), 0);
        for (at, state) in (0_u16..).zip(&shards) {
            let head = staged.get(&at);
            if self.manifest.matches(at, &state.sum) {
                if head.is_some() {
                    self.state.stage_shards(vec![(at, None)]).await?;
                }
                continue;
            }
            differing += 1;
            let sum = match head {
                Some(head) if head.base == state.sum => Some(head.sum),
                Some(head) => self.rebase(at, *head).await?,
                None if recall => self.recall(at).await?,
                None => None,
            };
            if !sum.is_some_and(|sum| self.manifest.matches(at, &sum)) {
                missing.push(at);
            }
        }
        Ok((missing, differing))
    }

    /// Checks that everything is there: with it the state is what the manifest says, root and all.
    pub async fn verify(&self) -> Result<(), StateError> {
        let staged: BTreeMap<u16, StagedHead> = self.state.staged().await?.shards.into_iter().collect();
        let (shards, _applied) = self.state.shards().await?;
        let sum = |(at, state): (u16, &ShardState)| staged.get(&at).map_or(state.sum, |head| head.sum);
        let sums: Vec<ShardSum> = (0_u16..).zip(&shards).map(sum).collect();
        let moved =
            (0_u16..).zip(&shards).any(|(at, state)| staged.get(&at).is_some_and(|head| head.base != state.sum));
        let invalid = |what: String| StateError::InvalidSnapshot { what };
        if moved {
            return Err(invalid("the state has moved since".to_owned()));
        }
        self.manifest.verify(&sums).map_err(|error| invalid(error.to_string()))
    }

    /// What was staged is to another state of the shard: finds that one in the tail, and stages the difference to the
    /// present one. Returns the sum it has then; `None`, and nothing is staged, when it cannot be found.
    async fn rebase(&self, at: u16, head: StagedHead) -> Result<Option<ShardSum>, StateError> {
        let staged = self.state.staged_shard(at).await?;
        let again = staged.map(|staged| {
            read(
                |look| self.state.read(look),
                move |view| {
                    let Some(mut records) = with_sum(view, at, |sum| *sum == head.base)? else { return Ok(None) };
                    apply(&mut records, &staged.changes);
                    difference(view, at, head.index, &records).map(Some)
                },
            )
        });
        let again = match again {
            Some(again) => again.await?,
            None => None,
        };
        let sum = again.as_ref().map(|staged| staged.head.sum);
        self.state.stage_shards(vec![(at, again)]).await?;
        Ok(sum)
    }

    /// A shard that is not staged, because it was as the manifest says; finds that state of it in the tail.
    async fn recall(&self, at: u16) -> Result<Option<ShardSum>, StateError> {
        let (manifest, index) = (self.manifest.clone(), self.index);
        let found = read(
            |look| self.state.read(look),
            move |view| {
                let Some(records) = with_sum(view, at, |sum| manifest.matches(at, sum))? else { return Ok(None) };
                difference(view, at, index, &records).map(Some)
            },
        );
        let Some(staged) = found.await? else { return Ok(None) };
        let sum = staged.head.sum;
        self.state.stage_shards(vec![(at, Some(staged))]).await?;
        Ok(Some(sum))
    }
}

#[async_trait]
impl<S: StateStore + ?Sized> Gather for Stage<'_, S> {
    async fn base(&self, shard: u16) -> Result<Option<u64>, StateError> {
        let staged = self.state.staged_shard(shard).await?;
        let sum = read(|look| self.state.read(look), move |view| Ok(view.shard(shard)?.sum)).await?;
        self.told.lock().insert(shard, sum);
        Ok(staged.map(|staged| staged.head.index).or((sum.pins > 0).then_some(self.own_index)))
    }

    async fn records(&self, shard: u16) -> Result<Records, StateError> {
        let staged = self.state.staged_shard(shard).await?;
        let look = move |view: &dyn StateView| Ok((shard::records(view, shard)?, view.shard(shard)?.sum));
        let (mut records, sum) = read(|read| self.state.read(read), look).await?;
        self.told.lock().entry(shard).or_insert(sum);
        if let Some(staged) = staged {
            apply(&mut records, &staged.changes);
        }
        Ok(records)
    }

    async fn keep(&self, shard: u16, what: Gathered) -> Result<Kept, StateError> {
        let before = self.state.staged_shard(shard).await?;
        let index = self.index;
        let told = self.told.lock().remove(&shard);
        let staged = match what {
            Gathered::Whole(records) => {
                read(|look| self.state.read(look), move |view| difference(view, shard, index, &records)).await?
            }
            Gathered::Changes(changes) => {
                let bases = [told, before.as_ref().map(|staged| staged.head.base)];
                let mut together: BTreeMap<Cid, Option<Bytes>> =
                    before.map(|staged| staged.changes).unwrap_or_default().into_iter().collect();
                together.extend(changes);
                let staged =
                    read(|look| self.state.read(look), move |view| changed(view, shard, index, together)).await?;
                if bases.into_iter().flatten().any(|base| base != staged.head.base) {
                    return Ok(Kept::Moved);
                }
                staged
            }
        };
        let right = self.manifest.matches(shard, &staged.head.sum);
        if !right {
            return Ok(Kept::Wrong);
        }
        self.state.stage_shards(vec![(shard, Some(staged))]).await?;
        Ok(Kept::Right)
    }
}

/// The manifest of a frozen state.
pub async fn manifest_of(frozen: &Arc<dyn SnapshotHandle>) -> Result<Manifest, StateError> {
    let shards = read(|look| frozen.read(look), |view| (0..SHARDS).map(|shard| view.shard(shard)).collect());
    let shards: Vec<ShardState> = shards.await?;
    let manifest = Manifest::of(frozen.applied(), &shards);
    manifest.map_err(|error| StateError::InvalidSnapshot { what: error.to_string() })
}

/// What somebody lacks of the manifest of a frozen state who stands at the log index `base`: the shards that changed
/// since, and those of which that is not known here.
pub(crate) async fn excerpt_of(
    frozen: &Arc<dyn SnapshotHandle>,
    manifest: &Manifest,
    base: u64,
) -> Result<Excerpt, StateError> {
    let changed = read(
        |look| frozen.read(look),
        move |view| {
            let mut changed = Vec::new();
            for shard in 0..SHARDS {
                let known = view.shard(shard)?.covers(base);
                if !known || !view.tail(shard, TailPlace::after(base), 1)?.is_empty() {
                    changed.push(shard);
                }
            }
            Ok(changed)
        },
    );
    Ok(Excerpt::of(manifest, &changed.await?))
}

/// Stages everything of a frozen state of this peer or of another one in the same process.
pub async fn stage_from<S: StateStore + ?Sized>(
    state: &S,
    frozen: &Arc<dyn SnapshotHandle>,
    index: u64,
) -> Result<(), StateError> {
    let manifest = manifest_of(frozen).await?;
    state.unstage().await?;
    state.stage(index, encode_manifest(&manifest)).await?;
    let mut groups = frozen.annex();
    while let Some(rows) = groups.try_next().await? {
        state.stage_annex(rows, false).await?;
    }
    state.stage_annex(Vec::new(), true).await?;
    let stage = Stage::new(state, &manifest, index, 0);
    for at in stage.missing().await?.0 {
        let records = read(|look| frozen.read(look), move |view| shard::records(view, at)).await?;
        stage.keep(at, Gathered::Whole(records)).await?;
    }
    stage.verify().await
}

fn apply(records: &mut Records, changes: &[Change]) {
    for (cid, record) in changes {
        match record {
            Some(record) => records.insert(*cid, record.clone()),
            None => records.remove(cid),
        };
    }
}

/// The state's shard turned into `records`.
fn difference(view: &dyn StateView, at: u16, index: u64, records: &Records) -> Result<StagedShard, StateError> {
    let present = shard::records(view, at)?;
    let mut together: BTreeMap<Cid, Option<Bytes>> =
        records.iter().map(|(cid, record)| (*cid, Some(record.clone()))).collect();
    for cid in present.keys() {
        together.entry(*cid).or_insert(None);
    }
    changed(view, at, index, together)
}

/// The state's shard with some records as they are to be.
fn changed(
    view: &dyn StateView,
    at: u16,
    index: u64,
    together: BTreeMap<Cid, Option<Bytes>>,
) -> Result<StagedShard, StateError> {
    let base = view.shard(at)?.sum;
    let (mut sum, mut changes) = (base, Vec::new());
    for (cid, after) in together {
        let before = view.pin(&cid)?.map(|pin| Bytes::from(encode_pin(&pin)));
        if before == after {
            continue;
        }
        if let Some(before) = &before {
            sum.remove_record(before);
        }
        if let Some(after) = &after {
            sum.add_record(after);
        }
        changes.push((cid, after));
    }
    changes.sort_by_cached_key(|(cid, _)| cid.to_bytes());
    Ok(StagedShard { head: StagedHead { index, sum, base }, changes })
}

/// The newest state of a shard, as far back as its tail reaches, whose sum is as wanted.
fn with_sum(view: &dyn StateView, at: u16, wanted: impl Fn(&ShardSum) -> bool) -> Result<Option<Records>, StateError> {
    let state = view.shard(at)?;
    let mut records = shard::records(view, at)?;
    let mut sum = state.sum;
    let tail = shard::tail_after(view, at, state.oldest())?;
    for entries in tail.chunk_by(|one, other| one.index == other.index).rev() {
        if wanted(&sum) {
            return Ok(Some(records));
        }
        step_back(&mut records, &mut sum, entries);
    }
    Ok(wanted(&sum).then_some(records))
}

/// Undoes one log entry.
fn step_back(records: &mut Records, sum: &mut ShardSum, entries: &[TailEntry]) {
    let Some(first) = entries.first() else { return };
    for entry in entries {
        if let Some(now) = records.get(&entry.cid) {
            sum.remove_record(now);
        }
        if let Some(before) = &entry.before {
            sum.add_record(before);
        }
    }
    undo(records, entries, first.index.saturating_sub(1));
}

#[cfg(test)]
#[path = "stage_tests.rs"]
mod tests;
