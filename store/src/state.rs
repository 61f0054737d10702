//! The pinset on RocksDB: [`StateStore`] and what it shares with the tracker's half.
//!
//! **Invariant:** whoever writes pins or tracker records holds the writer lock, and writes everything that belongs
//! together in one batch.
//! **Invariant:** the counters and the applied position in memory are those of the last batch; they are read from disk
//! at the start, not counted.
//! **Invariant:** while an install replaces the state, pins are read from a frozen copy of it as it was before; whoever
//! reads something else waits.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_core::consensus::digest::{SHARDS, order_key};
use cluster_core::crdt::TailEntry;
use cluster_core::ports::{
    AnnexRow, LocalEffect, MergeView, PAGE_BYTES, ReadFn, RequestKey, Row, Scan, ShardState, SnapshotHandle,
    StateError, StateStore, StateView, TailPlace, TrackerCounts, TrackerRecord, UpdateFn,
};
use cluster_types::{Cid, Pin};
use futures::stream::BoxStream;
use tokio::sync::{Mutex, OwnedRwLockReadGuard, RwLock};

use crate::blocking::{Door, Kind};
use crate::codec::{self, MergeCounts};
use crate::due_floor::DueFloor;
use crate::engine::{Engine, KeyValue, Moment};
use crate::keys::{self, Family};
use crate::merging::{LogPins, read_counts};
use crate::peers::Dictionary;
use crate::scan;
use crate::shared_flush::SharedTurn;
use crate::snapshot::{Frozen, Snapshots, stream_annex};
use crate::stream;
use crate::write;

/// What the door of the state leads to.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) engine: Engine,
    pub(crate) present: Arc<Present>,
    /// Held until the database is closed.
    pub(crate) _keeper: Keeper,
}

/// What a database needs for as long as it is open.
#[derive(Debug)]
#[expect(dead_code, reason = "they are held, not read")]
pub(crate) enum Keeper {
    /// The lock of its folder.
    Lock(std::fs::File),
    /// Its folder, which is that of a frozen state.
    Frozen(Arc<Frozen>),
}

/// What is kept in memory of the last batch.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) figures: parking_lot::RwLock<Figures>,
    pub(crate) dictionary: Dictionary,
    pub(crate) due_floor: DueFloor,
}

/// Counters and position.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) pins: u64,
    pub(crate) counts: TrackerCounts,
    pub(crate) merging: MergeCounts,
    pub(crate) applied: Option<Bytes>,
}

impl Present {
    /// Reads what the last batch wrote.
    pub(crate) fn load(engine: &Engine) -> Result<Self, StateError> {
        let moment = engine.moment();
        let pins = moment.get(Family::Meta, keys::PIN_COUNT)?;
        let counts = moment.get(Family::Meta, keys::TRACKER_COUNTS)?;
        let figures = Figures {
            pins: pins.map_or(Ok(0), |bytes| codec::decode_number("number of pins", &bytes))?,
            counts: counts.map_or(Ok(TrackerCounts::default()), |bytes| codec::decode_counts(&bytes))?,
            merging: read_counts(&moment)?,
            applied: read_applied(&moment)?,
        };
        Ok(Self {
            figures: parking_lot::RwLock::new(figures),
            dictionary: Dictionary::load(&moment)?,
            due_floor: DueFloor::default(),
        })
    }
}

/// The pinset and the tracker's records on RocksDB.
#[derive(Debug)]
pub struct RocksState {
    pub(crate) door: Arc<Door<Database>>,
    pub(crate) present: Arc<Present>,
    /// Held by whoever writes pins or tracker records; fair, so updates happen in the order of the calls.
    pub(crate) writer: Arc<Mutex<()>>,
    /// Held for writing while an install replaces the state, for reading by reads.
    pub(crate) whole: Arc<RwLock<()>>,
    /// The state as it was, while an install replaces it.
    pub(crate) before: parking_lot::RwLock<Option<Arc<Door<Database>>>>,
    pub(crate) snapshots: Arc<Snapshots>,
    /// Who waits for a flush of what was updated.
    pub(crate) flushes: SharedTurn,
}

impl RocksState {
    /// Runs a short read when the state is whole.
    pub(crate) async fn look<R, F>(&self, read: F) -> Result<R, StateError>
    where
        R: Send + 'static,
        F: FnOnce(&Database) -> Result<R, StateError> + Send + 'static,
    {
        let whole = Arc::clone(&self.whole).read_owned().await;
        self.door
            .run(Kind::Ordinary, move |database| {
                let answer = read(database);
                drop(whole);
                answer
            })
            .await
    }

    /// Where pins are read, and what keeps an install from beginning meanwhile.
    async fn readable(&self) -> (Arc<Door<Database>>, OwnedRwLockReadGuard<()>) {
        if let Ok(whole) = Arc::clone(&self.whole).try_read_owned() {
            return (Arc::clone(&self.door), whole);
        }
        // Whoever replaces the state has put what it was there before.
        let before = self.before.read().clone();
        match before {
            Some(before) => (before, Arc::new(RwLock::new(())).read_owned().await),
            None => (Arc::clone(&self.door), Arc::clone(&self.whole).read_owned().await),
        }
    }

    /// Runs a short read of pins, when need be of the state that is being replaced.
    async fn look_at_pins<R, F>(&self, read: F) -> Result<R, StateError>
    where
        R: Send + 'static,
        F: FnOnce(&Database) -> Result<R, StateError> + Send + 'static,
    {
        let (door, whole) = self.readable().await;
        door.run(Kind::Ordinary, move |database| {
            let answer = read(database);
            drop(whole);
            answer
        })
        .await
    }
}

#[async_trait]
impl StateStore for RocksState {
    async fn update(&self, update: UpdateFn) -> Result<(), StateError> {
        let writer = Arc::clone(&self.writer).lock_owned().await;
        self.door
            .run(Kind::Urgent, move |database| {
                let changes = update(&View::latest(database))?;
                let end = write::changes(database, changes);
                drop(writer);
                end
            })
            .await
    }

    async fn read(&self, read: ReadFn) -> Result<(), StateError> {
        self.look_at_pins(move |database| read(&View::frozen(database)?)).await
    }

    async fn applied(&self) -> Result<Option<Bytes>, StateError> {
        let (door, _whole) = self.readable().await;
        door.call(|database| Ok(database.present.figures.read().applied.clone()))
    }

    async fn pin(&self, cid: Cid) -> Result<Option<Pin>, StateError> {
        self.look_at_pins(move |database| View::latest(database).shown(&cid)).await
    }

    fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Row, StateError>> {
        let before = self.before.read().clone();
        match before {
            Some(before) => scan::stream(before, Arc::default(), scan),
            None => scan::stream(Arc::clone(&self.door), Arc::clone(&self.whole), scan),
        }
    }

    async fn shards(&self) -> Result<(Vec<ShardState>, Option<Bytes>), StateError> {
        self.look_at_pins(|database| {
            let moment = database.engine.moment();
            Ok((read_shards(&moment)?, read_applied(&moment)?))
        })
        .await
    }

    fn pins(&self) -> u64 {
        self.present.figures.read().pins
    }

    fn annex(&self) -> BoxStream<'static, Result<Vec<AnnexRow>, StateError>> {
        stream::from_job(Arc::clone(&self.door), Arc::clone(&self.whole), |database: &Database, whole, outlet| {
            let moment = database.engine.moment();
            drop(whole);
            stream_annex(&moment, outlet)
        })
    }

    async fn make_snapshot(&self) -> Result<Arc<dyn SnapshotHandle>, StateError> {
        self.snapshots.make(&self.door).await
    }

    async fn current_snapshot(&self) -> Result<Option<Arc<dyn SnapshotHandle>>, StateError> {
        Ok(self.snapshots.current().await)
    }

    async fn install_staged(&self, effect: LocalEffect) -> Result<(), StateError> {
        crate::install::install(self, effect).await
    }
}

/// The state as a function sees it.
pub(crate) struct View<'a> {
    engine: &'a Engine,
    dictionary: &'a Dictionary,
    moment: Option<Moment<'a>>,
    /// What is counted at that moment.
    pub(crate) counts: MergeCounts,
}

impl<'a> View<'a> {
    /// As it is at each question: for the writer, whom nobody disturbs, and for one question.
    pub(crate) fn latest(database: &'a Database) -> Self {
        Self {
            engine: &database.engine,
            dictionary: &database.present.dictionary,
            moment: None,
            counts: database.present.figures.read().merging,
        }
    }

    /// As it is now, whatever is written meanwhile.
    fn frozen(database: &'a Database) -> Result<Self, StateError> {
        Self::of(&database.engine, &database.present.dictionary)
    }

    /// As `engine` is now.
    pub(crate) fn of(engine: &'a Engine, dictionary: &'a Dictionary) -> Result<Self, StateError> {
        let moment = engine.moment();
        let counts = read_counts(&moment)?;
        Ok(Self { engine, dictionary, moment: Some(moment), counts })
    }

    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        match &self.moment {
            Some(moment) => moment.get(family, key),
            None => self.engine.get(family, key),
        }
    }

    pub(crate) fn decode_pin(&self, cid: Cid, bytes: &[u8]) -> Result<Pin, StateError> {
        codec::decode_pin(cid, bytes, |number| self.dictionary.peer(number, self.engine))
    }
}

impl View<'_> {
    /// Reads rows of one instant.
    pub(crate) fn with_moment<R>(&self, read: impl FnOnce(&Moment<'_>) -> R) -> R {
        match &self.moment {
            Some(moment) => read(moment),
            None => read(&self.engine.moment()),
        }
    }
}

/// The first rows that `next` gives, as the port bounds a page.
pub(crate) fn page(
    limit: usize,
    mut next: impl FnMut() -> Result<Option<KeyValue>, StateError>,
) -> Result<Vec<KeyValue>, StateError> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    while page.len() < limit {
        let Some((key, value)) = next()? else { break };
        bytes += value.len();
        if bytes > PAGE_BYTES && !page.is_empty() {
            break;
        }
        page.push((key, value));
    }
    Ok(page)
}

impl StateView for View<'_> {
    fn pin(&self, cid: &Cid) -> Result<Option<Pin>, StateError> {
        self.committed(cid)?.map_or_else(|| self.shown(cid), Ok)
    }

    fn shard(&self, shard: u16) -> Result<ShardState, StateError> {
        let value = self.get(Family::Shards, &keys::shard(shard))?;
        value.map_or(Ok(ShardState::default()), |bytes| codec::decode_shard(&bytes))
    }

    fn shard_pins(&self, shard: u16, after: Option<&Cid>, limit: usize) -> Result<Vec<Pin>, StateError> {
        let from = after.map_or_else(|| keys::shard(shard).to_vec(), |cid| keys::successor(order_key(cid)));
        let to = keys::prefix_end(&keys::shard(shard));
        let rows = self.with_moment(|moment| {
            let mut pins = LogPins::new(moment, &from, to.as_deref())?;
            page(limit, || pins.next())
        })?;
        let pin = |(key, value): KeyValue| self.decode_pin(keys::cid_of(&key)?, &value);
        rows.into_iter().map(pin).collect()
    }

    fn tail(&self, shard: u16, after: TailPlace, limit: usize) -> Result<Vec<(TailPlace, TailEntry)>, StateError> {
        let from = keys::successor(keys::tail(shard, after).to_vec());
        let to = keys::prefix_end(&keys::shard(shard));
        let rows = self.with_moment(|moment| {
            let mut rows = moment.rows(Family::ShardTail, &from, to.as_deref());
            page(limit, || rows.next())
        })?;
        let entry = |(key, value): KeyValue| Ok((keys::read_tail(&key)?.1, codec::decode_tail(&value)?));
        rows.into_iter().map(entry).collect()
    }

    fn outcome(&self, key: &RequestKey) -> Result<Option<Bytes>, StateError> {
        let value = self.get(Family::Outcomes, &keys::outcome(key))?;
        value.map(|bytes| codec::decode_opaque("outcome", &bytes)).transpose()
    }

    fn tracked(&self, cid: &Cid) -> Result<Option<TrackerRecord>, StateError> {
        let value = self.get(Family::Tracker, &order_key(cid))?;
        value.map(|bytes| codec::decode_tracker(&bytes)).transpose()
    }
}

/// The sums and epochs of all shards, by shard.
pub(crate) fn read_shards(moment: &Moment<'_>) -> Result<Vec<ShardState>, StateError> {
    let mut states = vec![ShardState::default(); usize::from(SHARDS)];
    let mut rows = moment.rows(Family::Shards, &[], None);
    while let Some((key, value)) = rows.next()? {
        let shard = key.as_slice().try_into().map(u16::from_be_bytes).ok();
        let place = shard.and_then(|shard| states.get_mut(usize::from(shard)));
        *place.ok_or_else(|| codec::damaged("shard", "its key is no shard"))? = codec::decode_shard(&value)?;
    }
    Ok(states)
}

/// The applied position.
pub(crate) fn read_applied(moment: &Moment<'_>) -> Result<Option<Bytes>, StateError> {
    let value = moment.get(Family::Meta, keys::APPLIED)?;
    value.map(|bytes| codec::decode_opaque("applied position", &bytes)).transpose()
}
