//! What [`MemState`](super::MemState) keeps of a state that is being gathered.

use std::collections::BTreeMap;

use bytes::Bytes;
use cluster_types::{Cid, Pin, Timestamp};

use super::mem_state::State;
use crate::catchup::decode_manifest;
use crate::consensus::digest::{SHARDS, order_key};
use crate::consensus::operation::{decode_pin, encode_pin};
use crate::crdt::merge::{History, VersionId};
use crate::ports::{
    AnnexRow, LocalEffect, MergedAt, OUTCOME_ROWS, RequestKey, ShardState, StagedOverview, StagedShard, StateError,
    StateView, TrackedTask,
};

/// Kind of the history of a CID.
const HISTORY: u8 = 2;
/// Kind of a merged write.
const MERGED: u8 = 3;

/// A state that is being gathered.
#[derive(Clone, Debug, Default)]
pub(super) struct MemStaging {
    index: u64,
    manifest: Option<Bytes>,
    annex: Vec<AnnexRow>,
    groups: u32,
    annex_is_whole: bool,
    shards: BTreeMap<u16, StagedShard>,
}

impl MemStaging {
    pub(super) fn begin(&mut self, index: u64, manifest: Bytes) {
        let shards = std::mem::take(&mut self.shards);
        *self = Self { index, manifest: Some(manifest), shards, ..Self::default() };
    }

    pub(super) fn add_annex(&mut self, rows: Vec<AnnexRow>, last: bool) {
        self.annex.extend(rows);
        self.groups += 1;
        self.annex_is_whole |= last;
    }

    pub(super) fn put(&mut self, shards: Vec<(u16, Option<StagedShard>)>) {
        for (shard, staged) in shards {
            match staged {
                Some(staged) => drop(self.shards.insert(shard, staged)),
                None => drop(self.shards.remove(&shard)),
            }
        }
    }

    pub(super) fn shard(&self, shard: u16) -> Option<StagedShard> {
        self.shards.get(&shard).cloned()
    }

    pub(super) fn overview(&self) -> StagedOverview {
        StagedOverview {
            manifest: self.manifest.clone(),
            annex: (self.groups, self.annex_is_whole),
            shards: self.shards.iter().map(|(shard, staged)| (*shard, staged.head)).collect(),
        }
    }

    pub(super) fn outcome_row((key, value): (&RequestKey, &Bytes)) -> AnnexRow {
        let key = [&key.window.to_be_bytes()[..], &key.id].concat().into();
        AnnexRow { kind: OUTCOME_ROWS, key, value: value.clone() }
    }

    pub(super) fn history_row((cid, history): &(Cid, History)) -> AnnexRow {
        AnnexRow { kind: HISTORY, key: cid.to_bytes().into(), value: history.encode().into() }
    }

    pub(super) fn merged_row((id, at): (&VersionId, &MergedAt)) -> AnnexRow {
        let value = [at.index.to_be_bytes(), at.time.unix_nanos().to_be_bytes()].concat();
        AnnexRow { kind: MERGED, key: id.as_bytes().to_vec().into(), value: value.into() }
    }

    /// What `state` becomes.
    pub(super) fn installed(&self, state: &State, effect: &LocalEffect) -> Result<State, StateError> {
        let invalid = |what: &str| StateError::InvalidSnapshot { what: what.to_owned() };
        let manifest = self.manifest.as_ref().ok_or_else(|| invalid("nothing is staged"))?;
        let manifest = decode_manifest(manifest).map_err(|error| invalid(&error.to_string()))?;
        if !self.annex_is_whole {
            return Err(invalid("its annex is not whole"));
        }
        let mut next = state.clone();
        next.applied = Some(manifest.applied().clone());
        next.outcomes.clear();
        next.histories.clear();
        next.merged.clear();
        for row in &self.annex {
            take_row(&mut next, row).ok_or_else(|| invalid("annex"))?;
        }
        for shard in 0..SHARDS {
            let before = state.shard(shard)?;
            let staged = self.shards.get(&shard);
            let sum = staged.map_or(before.sum, |staged| staged.head.sum);
            if staged.is_some_and(|staged| staged.head.base != before.sum) || !manifest.matches(shard, &sum) {
                return Err(invalid("a shard is not staged as it should be"));
            }
            for (cid, record) in staged.map(|staged| staged.changes.as_slice()).unwrap_or_default() {
                let after = record.as_ref().map(|record| decode_pin(record)).transpose();
                let after: Option<Pin> = after.map_err(|error| invalid(&error.to_string()))?;
                let order = order_key(cid);
                let before = next.pins.remove(&order);
                let tracked = next.tracker.get(&order).map(|task| task.record.clone());
                match effect(before.as_ref(), after.as_ref(), tracked.as_ref()) {
                    Some(Some(record)) => drop(next.tracker.insert(order.clone(), TrackedTask { cid: *cid, record })),
                    Some(None) => drop(next.tracker.remove(&order)),
                    None => {}
                }
                if let Some(pin) = after {
                    debug_assert_eq!(record.as_deref(), Some(encode_pin(&pin).as_slice()));
                    next.pins.insert(order, pin);
                }
            }
            let meta = manifest.meta(shard);
            if staged.is_some() || meta != before.meta {
                next.tails.retain(|(of, _place), _entry| *of != shard);
                next.shards.insert(shard, ShardState { sum, meta, tail_from: self.index });
            }
        }
        Ok(next)
    }
}

fn take_row(state: &mut State, row: &AnnexRow) -> Option<()> {
    match row.kind {
        OUTCOME_ROWS => {
            let (key, value) = read_outcome(row)?;
            state.outcomes.insert(key, value);
        }
        HISTORY => {
            let cid = Cid::from_bytes(&row.key).ok()?;
            state.histories.insert(order_key(&cid), (cid, History::decode(&row.value).ok()?));
        }
        MERGED => {
            let ([index, time], []) = row.value.as_chunks::<8>() else { return None };
            let at = MergedAt {
                index: u64::from_be_bytes(*index),
                time: Timestamp::from_unix_nanos(i128::from(i64::from_be_bytes(*time))),
            };
            state.merged.insert(VersionId::from_bytes(row.key.as_ref().try_into().ok()?), at);
        }
        _ => return None,
    }
    Some(())
}

fn read_outcome(row: &AnnexRow) -> Option<(RequestKey, Bytes)> {
    let (window, id) = row.key.split_at_checked(8)?;
    let key = RequestKey { window: u64::from_be_bytes(window.try_into().ok()?), id: id.try_into().ok()? };
    (row.kind == OUTCOME_ROWS).then(|| (key, row.value.clone()))
}
