//! What is gathered to replace the state: rows of a family of its own, in the same write-ahead log.

use async_trait::async_trait;
use bytes::Bytes;
use cluster_core::ports::{AnnexRow, StagedHead, StagedOverview, StagedShard, Staging, StateError};
use rocksdb::WriteBatch;

use crate::blocking::Kind;
use crate::codec;
use crate::engine::{Engine, Moment};
use crate::keys::{self, Family};
use crate::snapshot::family_of;
use crate::state::{Database, RocksState};

#[async_trait]
impl Staging for RocksState {
    async fn stage(&self, index: u64, manifest: Bytes) -> Result<(), StateError> {
        self.door
            .run(Kind::Ordinary, move |database| {
                let engine = &database.engine;
                let mut batch = WriteBatch::default();
                let end = keys::prefix_end(keys::STAGED_ANNEX).unwrap_or_default();
                engine.delete_range(&mut batch, Family::Staging, keys::STAGED_ANNEX, &end);
                engine.delete(&mut batch, Family::Staging, keys::STAGED_WHOLE);
                engine.put(&mut batch, Family::Staging, keys::STAGED_INDEX, codec::encode_number(index));
                engine.put(&mut batch, Family::Staging, keys::STAGED_MANIFEST, codec::encode_opaque(&manifest));
                engine.write(batch)
            })
            .await
    }

    async fn stage_annex(&self, rows: Vec<AnnexRow>, last: bool) -> Result<(), StateError> {
        for row in &rows {
            family_of(row)?;
        }
        self.door
            .run(Kind::Ordinary, move |database| {
                let engine = &database.engine;
                let group = groups(&engine.moment())?;
                let mut batch = WriteBatch::default();
                engine.put(&mut batch, Family::Staging, keys::staged_group(group), codec::encode_annex(&rows));
                if last {
                    engine.put(&mut batch, Family::Staging, keys::STAGED_WHOLE, []);
                }
                engine.write(batch)
            })
            .await
    }

    async fn stage_shards(&self, shards: Vec<(u16, Option<StagedShard>)>) -> Result<(), StateError> {
        self.door
            .run(Kind::Ordinary, move |database| {
                let engine = &database.engine;
                let mut batch = WriteBatch::default();
                for (shard, staged) in &shards {
                    put(engine, &mut batch, *shard, staged.as_ref());
                }
                engine.write(batch)
            })
            .await
    }

    async fn staged_shard(&self, shard: u16) -> Result<Option<StagedShard>, StateError> {
        self.door.run(Kind::Ordinary, move |database| read_shard(&database.engine, shard)).await
    }

    async fn staged(&self) -> Result<StagedOverview, StateError> {
        self.door.run(Kind::Ordinary, |database| overview(&database.engine.moment())).await
    }

    async fn unstage(&self) -> Result<(), StateError> {
        self.door
            .run(Kind::Ordinary, |database| {
                let mut batch = WriteBatch::default();
                drop_all(database, &mut batch);
                database.engine.write(batch)
            })
            .await
    }
}

/// Adds the removal of everything that is staged to a batch.
pub(crate) fn drop_all(database: &Database, batch: &mut WriteBatch) {
    database.engine.delete_range(batch, Family::Staging, &[], &[u8::MAX]);
}

/// What there is.
pub(crate) fn overview(moment: &Moment<'_>) -> Result<StagedOverview, StateError> {
    let manifest = moment.get(Family::Staging, keys::STAGED_MANIFEST)?;
    let manifest = manifest.map(|bytes| codec::decode_opaque("staged manifest", &bytes)).transpose()?;
    let whole = moment.get(Family::Staging, keys::STAGED_WHOLE)?.is_some();
    Ok(StagedOverview { manifest, annex: (groups(moment)?, whole), shards: heads(moment)? })
}

/// The staged shards.
fn heads(moment: &Moment<'_>) -> Result<Vec<(u16, StagedHead)>, StateError> {
    let end = keys::prefix_end(keys::STAGED_HEADS);
    let mut rows = moment.rows(Family::Staging, keys::STAGED_HEADS, end.as_deref());
    let mut heads = Vec::new();
    while let Some((key, value)) = rows.next()? {
        heads.push((keys::staged_of(&key)?, codec::decode_staged(&value)?));
    }
    Ok(heads)
}

/// How many groups of the annex there are.
fn groups(moment: &Moment<'_>) -> Result<u32, StateError> {
    let end = keys::prefix_end(keys::STAGED_ANNEX).unwrap_or_default();
    let Some((key, _value)) = moment.last_before(Family::Staging, keys::STAGED_ANNEX, &end)? else { return Ok(0) };
    let group = key.get(1..).and_then(|group| group.try_into().ok()).map(u32::from_be_bytes);
    group.map(|group| group.saturating_add(1)).ok_or_else(|| codec::damaged("staged annex", "a key"))
}

fn put(engine: &Engine, batch: &mut WriteBatch, shard: u16, staged: Option<&StagedShard>) {
    let [head, changes] = [keys::STAGED_HEADS, keys::STAGED_CHANGES].map(|prefix| keys::staged(prefix, shard));
    let Some(staged) = staged else {
        engine.delete(batch, Family::Staging, head);
        engine.delete(batch, Family::Staging, changes);
        return;
    };
    let change =
        |(cid, pin): &(_, Option<Bytes>)| codec::encode_change(cid, pin.as_ref().map(|pin| pin.to_vec()), None);
    let encoded = codec::encode_changes(staged.changes.iter().map(change).collect());
    engine.put(batch, Family::Staging, head, codec::encode_staged(&staged.head));
    engine.put(batch, Family::Staging, changes, encoded);
}

fn read_shard(engine: &Engine, shard: u16) -> Result<Option<StagedShard>, StateError> {
    let Some(head) = engine.get(Family::Staging, &keys::staged(keys::STAGED_HEADS, shard))? else { return Ok(None) };
    let changes = read_changes(engine, shard)?.into_iter();
    let changes = changes.map(|change| (change.cid, change.pin.map(Bytes::from))).collect();
    Ok(Some(StagedShard { head: codec::decode_staged(&head)?, changes }))
}

/// How a staged shard differs from the state's.
pub(crate) fn read_changes(engine: &Engine, shard: u16) -> Result<Vec<codec::InstallChange>, StateError> {
    let value = engine.get(Family::Staging, &keys::staged(keys::STAGED_CHANGES, shard))?;
    codec::decode_changes(&value.ok_or_else(|| codec::damaged("staged shard", "its changes are gone"))?)
}
