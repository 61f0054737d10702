//! One RocksDB instance: options, and reads and writes by family.
//!
//! **Invariant:** memory is bounded by the options: one block cache that also holds indexes and filters, in small
//! partitions, and gives way to the write buffers, which have one limit.
//! **Invariant:** opening reads the files' list and at most [`WAL_LIMIT`] of write-ahead log, however many records
//! there are.

use std::path::Path;
use std::sync::Arc;

use cluster_core::ports::StateError;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRawIteratorWithThreadMode, Options, ReadOptions, SnapshotWithThreadMode, WriteBatch, WriteBufferManager,
};

use crate::codec;
use crate::error::{Failed, StoreError};
use crate::flush_mark::FlushMark;
use crate::keys::{self, Family};
use crate::shared_flush::SharedFlush;
use crate::telemetry::StoreTelemetry;

/// The format this release writes.
const FORMAT: u32 = 1;
/// Write-ahead log kept before the oldest buffers are written out: what a start may have to replay.
const WAL_LIMIT: u64 = 64 << 20;
/// Write buffers grow by so much. What counts is what is set aside, and most families get few rows: with the usual
/// pieces of a megabyte they alone would reach the limit of all buffers, and tables would be written out early.
const BUFFER_PIECE: usize = 64 << 10;
/// Files kept open at most.
const OPEN_FILES: i32 = 256;
/// Bits of the filters per key: one in a hundred look-ups of an absent key reads a block in vain.
const FILTER_BITS: f64 = 10.0;
/// Smaller blocks are kept in the tables, larger ones in blob files.
const MIN_BLOB: u64 = 4 << 10;
/// Deletions in a row of table keys that make a table worth compacting: blobs are freed by that only, and scans of
/// queues are slow until then.
const DELETIONS_TO_COMPACT: usize = 256;
/// Families whose rows go where scans begin, and each scan walks over what is left of them.
const QUEUES: [Family; 7] = [
    Family::TrackerDue,
    Family::TrackerStatus,
    Family::ByExpiry,
    Family::OutboxOrder,
    Family::HistoryByIndex,
    Family::MergedByIndex,
    Family::Conflicts,
];

/// How much memory a store may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes of the cache of blocks, indexes and filters, together with the write buffers: the cache gives way to them.
    pub memory: usize,
    /// Bytes of all write buffers together: a part of `memory`.
    pub write_buffers: usize,
}

impl Default for StoreOptions {
    /// 32 MiB, of which write buffers may take 16.
    fn default() -> Self {
        Self { memory: 32 << 20, write_buffers: 16 << 20 }
    }
}

/// A row.
pub(crate) type KeyValue = (Vec<u8>, Vec<u8>);

/// A RocksDB instance.
pub(crate) struct Engine {
    db: DB,
    /// `None` for a checkpoint, which is not written.
    mark: Option<FlushMark>,
    flushes: SharedFlush,
    telemetry: Arc<StoreTelemetry>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("folder", &self.db.path()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens or makes the database in `folder`.
    pub(crate) fn open(
        folder: &Path,
        families: &[Family],
        options: &StoreOptions,
        telemetry: Arc<StoreTelemetry>,
    ) -> Result<Self, StoreError> {
        refuse_remains(folder)?;
        let cache = Cache::new_lru_cache(options.memory);
        let mut general = general_options(options, &cache);
        general.create_if_missing(true);
        general.create_missing_column_families(true);
        if folder.join("CURRENT").exists() {
            // Opening for good would drop what it cannot replay; a look changes nothing, so that what is left of a
            // damaged database stays as it is for whoever looks into it.
            let look = DB::open_for_read_only(&general_options(options, &cache), folder, false)
                .map_err(|error| StoreError::from_open(folder, error))?;
            drop(FlushMark::open(folder, look.latest_sequence_number())?);
        }
        let descriptors = descriptors(families, options, &cache);
        let db = DB::open_cf_descriptors(&general, folder, descriptors)
            .map_err(|error| StoreError::from_open(folder, error))?;
        let mark = FlushMark::open(folder, db.latest_sequence_number())?;
        let engine = Self { db, mark: Some(mark), flushes: SharedFlush::default(), telemetry };
        engine.check_format(folder)?;
        Ok(engine)
    }

    /// Opens a checkpoint to read it.
    pub(crate) fn open_checkpoint(folder: &Path) -> Result<Self, StateError> {
        // A checkpoint is read once from end to end, by few readers: a small cache does.
        let options = StoreOptions { memory: 4 << 20, write_buffers: 2 << 20 };
        let cache = Cache::new_lru_cache(options.memory);
        let general = general_options(&options, &cache);
        // A snapshot of an older program lacks the families that came later.
        let there = DB::list_cf(&general, folder).failed_to("open a snapshot")?;
        let families: Vec<Family> =
            Family::STATE.into_iter().filter(|family| there.iter().any(|name| name == family.name())).collect();
        let descriptors = descriptors(&families, &options, &cache);
        let db =
            DB::open_cf_descriptors_read_only(&general, folder, descriptors, false).failed_to("open a snapshot")?;
        Ok(Self { db, mark: None, flushes: SharedFlush::default(), telemetry: Arc::default() })
    }

    fn check_format(&self, folder: &Path) -> Result<(), StoreError> {
        let found = self.get(Family::Meta, keys::FORMAT).map_err(|error| StoreError::from_state(folder, error))?;
        let Some(found) = found else {
            let mut batch = WriteBatch::default();
            self.put(&mut batch, Family::Meta, keys::FORMAT, FORMAT.to_be_bytes());
            self.write(batch).map_err(|error| StoreError::from_state(folder, error))?;
            return Ok(());
        };
        match found.try_into().map(u32::from_be_bytes) {
            Ok(FORMAT) => Ok(()),
            Ok(found) if found > FORMAT => Err(StoreError::Newer { folder: folder.to_owned(), found, known: FORMAT }),
            _ => {
                let cause = codec::damaged("format", "it is no known number").into();
                Err(StoreError::Damaged { folder: folder.to_owned(), cause })
            }
        }
    }

    /// One value as it is now.
    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.db.get_cf(&self.handle(family), key).failed_to("read a record")
    }

    /// A view that does not change.
    pub(crate) fn moment(&self) -> Moment<'_> {
        Moment { engine: self, snapshot: self.db.snapshot() }
    }

    /// Adds a value to a batch.
    pub(crate) fn put(&self, batch: &mut WriteBatch, family: Family, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        batch.put_cf(&self.handle(family), key, value);
    }

    /// Adds a removal to a batch.
    pub(crate) fn delete(&self, batch: &mut WriteBatch, family: Family, key: impl AsRef<[u8]>) {
        batch.delete_cf(&self.handle(family), key);
    }

    /// Adds the removal of all keys from `from` to before `to` to a batch.
    pub(crate) fn delete_range(&self, batch: &mut WriteBatch, family: Family, from: &[u8], to: &[u8]) {
        batch.delete_range_cf(&self.handle(family), from, to);
    }

    /// Writes a batch; it survives the process, and a power cut after the next flush.
    pub(crate) fn write(&self, batch: WriteBatch) -> Result<(), StateError> {
        self.db.write(batch).failed_to("write a batch")
    }

    /// Writes a batch that survives a power cut.
    pub(crate) fn write_durably(&self, batch: WriteBatch) -> Result<(), StateError> {
        self.write(batch)?;
        self.flush()
    }

    /// Makes everything written so far survive a power cut. Callers that meet share a flush.
    pub(crate) fn flush(&self) -> Result<(), StateError> {
        self.flushes.share(|| self.flush_now())
    }

    fn flush_now(&self) -> Result<(), StateError> {
        self.telemetry.count_flush();
        // Read before: what is written during the flush may miss it.
        let written = self.db.latest_sequence_number();
        self.db.flush_wal(true).failed_to("flush the write-ahead log")?;
        self.mark.as_ref().map_or(Ok(()), |mark| mark.advance(written))
    }

    /// Makes a checkpoint: first writes out the buffers of all families, then hard-links the tables and copies what
    /// the write-ahead log got meanwhile. So each one costs a table per family with changes.
    pub(crate) fn checkpoint(&self, folder: &Path) -> Result<(), StateError> {
        let checkpoint = Checkpoint::new(&self.db).failed_to("begin a snapshot")?;
        checkpoint.create_checkpoint(folder).failed_to("make a snapshot")
    }

    /// A number that the engine keeps about a family.
    pub(crate) fn property(&self, family: Family, name: &str) -> Result<u64, StateError> {
        let value = self.db.property_int_value_cf(&self.handle(family), name).failed_to("read a property")?;
        Ok(value.unwrap_or(0))
    }

    /// Ends compactions; the database is about to be closed.
    pub(crate) fn stop_background_work(&self) {
        self.db.cancel_all_background_work(true);
    }

    fn handle(&self, family: Family) -> Arc<BoundColumnFamily<'_>> {
        self.db.cf_handle(family.name()).expect("every family of this database was opened with it")
    }
}

/// A view of a database at one instant.
pub(crate) struct Moment<'a> {
    engine: &'a Engine,
    snapshot: SnapshotWithThreadMode<'a, DB>,
}

impl Moment<'_> {
    /// One value.
    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.snapshot.get_cf(&self.engine.handle(family), key).failed_to("read a record")
    }

    /// The rows of a family from `from` to before `to`, in order of their keys.
    pub(crate) fn rows(&self, family: Family, from: &[u8], to: Option<&[u8]>) -> Rows<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        let mut rows = self.snapshot.raw_iterator_cf_opt(&self.engine.handle(family), options);
        rows.seek(from);
        Rows { rows, begun: false, backwards: false }
    }

    /// The rows of a family from before `to`, or from the last, backwards.
    pub(crate) fn rows_back(&self, family: Family, to: Option<&[u8]>) -> Rows<'_> {
        let mut options = ReadOptions::default();
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        let mut rows = self.snapshot.raw_iterator_cf_opt(&self.engine.handle(family), options);
        rows.seek_to_last();
        Rows { rows, begun: false, backwards: true }
    }

    /// The last row of a family from `from` to before `to`.
    pub(crate) fn last_before(&self, family: Family, from: &[u8], to: &[u8]) -> Result<Option<KeyValue>, StateError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        let mut rows = self.snapshot.raw_iterator_cf_opt(&self.engine.handle(family), options);
        rows.seek_to_last();
        rows.status().failed_to("read rows")?;
        Ok(rows.item().map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    /// The last row of a family from `from` on.
    pub(crate) fn last(&self, family: Family, from: &[u8]) -> Result<Option<KeyValue>, StateError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        let mut rows = self.snapshot.raw_iterator_cf_opt(&self.engine.handle(family), options);
        rows.seek_to_last();
        rows.status().failed_to("read rows")?;
        Ok(rows.item().map(|(key, value)| (key.to_vec(), value.to_vec())))
    }
}

/// Rows one after the other.
pub(crate) struct Rows<'a> {
    rows: DBRawIteratorWithThreadMode<'a, DB>,
    begun: bool,
    backwards: bool,
}

impl Rows<'_> {
    /// The next row.
    pub(crate) fn next(&mut self) -> Result<Option<KeyValue>, StateError> {
        if self.begun && self.rows.valid() {
            if self.backwards { self.rows.prev() } else { self.rows.next() }
        }
        self.begun = true;
        match self.rows.item() {
            Some((key, value)) => Ok(Some((key.to_vec(), value.to_vec()))),
            None => self.rows.status().failed_to("read rows").map(|()| None),
        }
    }
}

/// Records without the file that names the present state of the database: making a new one would delete them. A
/// write-ahead log is begun only after that file was written, so it is never what a cut first start leaves behind.
fn refuse_remains(folder: &Path) -> Result<(), StoreError> {
    if !folder.exists() || folder.join("CURRENT").exists() {
        return Ok(());
    }
    let entries = folder.read_dir().map_err(|error| StoreError::io("list", folder, error))?;
    let has_records = |path: &Path| {
        let extension = path.extension().unwrap_or_default();
        extension == "sst" || extension == "blob" || extension == "log"
    };
    if entries.filter_map(Result::ok).any(|entry| has_records(&entry.path())) {
        let cause = codec::damaged("database", "the file CURRENT is gone").into();
        return Err(StoreError::Damaged { folder: folder.to_owned(), cause });
    }
    Ok(())
}

fn general_options(options: &StoreOptions, cache: &Cache) -> Options {
    let mut general = Options::default();
    let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(options.write_buffers, false, cache.clone());
    general.set_write_buffer_manager(&buffers);
    general.set_max_total_wal_size(WAL_LIMIT);
    general.set_max_open_files(OPEN_FILES);
    general.set_max_background_jobs(2);
    general.set_bytes_per_sync(1 << 20);
    general.set_keep_log_file_num(2);
    general.set_max_log_file_size(1 << 20);
    general.set_stats_dump_period_sec(0);
    general.set_stats_persist_period_sec(0);
    general
}

fn descriptors(families: &[Family], options: &StoreOptions, cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    families
        .iter()
        .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(*family, cache, options)))
        .collect()
}

fn family_options(family: Family, cache: &Cache, options: &StoreOptions) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_metadata_block_size(4 << 10);
    table.set_block_size(16 << 10);
    let looked_up =
        matches!(family, Family::Pins | Family::Tracker | Family::Outcomes | Family::History | Family::Merged);
    if looked_up || family == Family::BlockSizes {
        table.set_bloom_filter(FILTER_BITS, false);
        table.set_partition_filters(true);
    }
    let mut own = Options::default();
    own.set_write_buffer_size(options.write_buffers / 4);
    own.set_arena_block_size(BUFFER_PIECE);
    if looked_up {
        // Most look-ups of a write are for what is not there.
        own.set_memtable_whole_key_filtering(true);
        own.set_memtable_prefix_bloom_ratio(0.05);
    }
    own.set_block_based_table_factory(&table);
    // Entries of the log live for minutes, blocks are mostly compressed content already.
    let plain = matches!(family, Family::RaftLog | Family::RaftMeta | Family::Blocks);
    own.set_compression_type(if plain { DBCompressionType::None } else { DBCompressionType::Lz4 });
    if family == Family::Blocks {
        own.set_enable_blob_files(true);
        own.set_min_blob_size(MIN_BLOB);
        own.set_blob_compression_type(DBCompressionType::None);
        own.set_enable_blob_gc(true);
        own.set_blob_gc_age_cutoff(1.0);
        own.set_blob_gc_force_threshold(0.5);
    }
    if QUEUES.contains(&family) || family == Family::Blocks {
        own.add_compact_on_deletion_collector_factory(2 * DELETIONS_TO_COMPACT, DELETIONS_TO_COMPACT, 0.5);
    }
    own
}

#[cfg(test)]
mod tests {
    use rocksdb::WaitForCompactOptions;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn families_that_are_queues_are_rid_of_what_went_through_them() {
        let folder = TempDir::new().unwrap();
        let options = StoreOptions::default();
        let engine = Engine::open(&folder.path().join("db"), &Family::STATE, &options, Arc::default()).unwrap();
        for family in QUEUES {
            let rows = 0..8 * u32::try_from(DELETIONS_TO_COMPACT).unwrap();
            for goes in [false, true] {
                let mut batch = WriteBatch::default();
                for row in rows.clone() {
                    if goes {
                        engine.delete(&mut batch, family, row.to_be_bytes());
                    } else {
                        engine.put(&mut batch, family, row.to_be_bytes(), []);
                    }
                }
                engine.write(batch).unwrap();
                engine.db.flush_cf(&engine.handle(family)).unwrap();
            }
            engine.db.wait_for_compact(&WaitForCompactOptions::default()).unwrap();
            let left = engine.property(family, "rocksdb.live-sst-files-size").unwrap();
            assert_eq!(left, 0, "{family:?} keeps tables of nothing but removals");
        }
    }
}
