//! Scans: rows of one instant, in the order of the listing, without the pinset in memory.

use std::sync::Arc;

use cluster_core::ports::{Row, Scan, StateError, indexed};
use cluster_types::{Cid, Pin, RequestNumber, StatusFilter, TrackerStatus};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::RwLock;

use crate::blocking::Door;
use crate::codec;
use crate::engine::{KeyValue, Moment, Rows};
use crate::keys::{self, Family};
use crate::state::Database;
use crate::stream::{self, Outlet, Stop};

/// Rows in a chunk at most.
const CHUNK_ROWS: usize = 256;
/// Bytes of records after which a chunk is handed over.
const CHUNK_BYTES: usize = 256 << 10;
/// Bytes of a key by peer before the order key.
const PEER_HEAD: usize = 4;
/// Bytes of a key by expiry before the order key.
const EXPIRY_HEAD: usize = 8;
/// Bytes of a key by status before the order key.
const STATUS_HEAD: usize = 2;

/// The rows of `scan`, of the instant of the first of them.
pub(crate) fn stream(
    door: Arc<Door<Database>>,
    whole: Arc<RwLock<()>>,
    scan: Scan,
) -> BoxStream<'static, Result<Row, StateError>> {
    let chunks = stream::from_job(door, whole, move |database: &Database, whole, outlet| {
        let moment = database.engine.moment();
        drop(whole);
        let mut scanner = Scanner { database, moment: &moment, outlet, rows: Vec::new(), bytes: 0 };
        scanner.run(&scan)?;
        scanner.hand_over()
    });
    chunks.map_ok(|rows: Vec<Row>| futures::stream::iter(rows.into_iter().map(Ok))).try_flatten().boxed()
}

struct Scanner<'a> {
    database: &'a Database,
    moment: &'a Moment<'a>,
    outlet: &'a mut Outlet<Vec<Row>>,
    rows: Vec<Row>,
    bytes: usize,
}

impl Scanner<'_> {
    fn run(&mut self, scan: &Scan) -> Result<(), Stop> {
        match scan {
            Scan::All { after } => self.all(after.as_ref()),
            Scan::ByPeer { peer, after } => {
                let number = self.database.present.dictionary.number_in(peer, self.moment)?;
                let Some(number) = number else { return Ok(()) };
                let from = keys::by_peer(number, &keys::resume_after(after.as_ref()));
                let to = keys::prefix_end(&number.to_be_bytes());
                self.index(Family::ByPeer, PEER_HEAD, &from, to.as_deref())
            }
            Scan::Expiring { until } => {
                let to = keys::prefix_end(&keys::by_expiry(*until, &[]));
                self.index(Family::ByExpiry, EXPIRY_HEAD, &[], to.as_deref())
            }
            Scan::ByName { prefix, after } => {
                let start = indexed(prefix);
                let from =
                    after.as_ref().map(|place| keys::by_name(&place.name, &keys::resume_after(Some(&place.cid))));
                let from = from.filter(|from| from.as_slice() > start).unwrap_or_else(|| start.to_vec());
                let to = keys::prefix_end(start);
                self.search(scan, (Family::ByName, 1), &from, to.as_deref())
            }
            Scan::ByMeta { key, value, after } => {
                let from = keys::by_meta(key, value, &keys::resume_after(after.as_ref()));
                let to = keys::prefix_end(&keys::by_meta(key, value, &[]));
                self.search(scan, (Family::ByMeta, 2), &from, to.as_deref())
            }
            Scan::Requested { user, name, before, after } => {
                let head = keys::requests_of(user, name.as_deref());
                // The newest come first.
                let from = before.map(|before| keys::requests_at(&head, before));
                let to = after.map(|after| keys::requests_at(&head, after)).or_else(|| keys::prefix_end(&head));
                self.requests(scan, &head, from.as_deref().unwrap_or(&head), to.as_deref())
            }
            Scan::ByStatus { filter, after } => {
                let mut orders = StatusMerge::new(self.moment, *filter, after.as_ref())?;
                while let Some(order) = orders.next()? {
                    self.look_up(&order)?;
                }
                Ok(())
            }
        }
    }

    /// Pins and tracker records side by side.
    fn all(&mut self, after: Option<&Cid>) -> Result<(), Stop> {
        let from = keys::resume_after(after);
        let mut pins = Head::new(self.moment.rows(Family::Pins, &from, None))?;
        let mut tracked = Head::new(self.moment.rows(Family::Tracker, &from, None))?;
        loop {
            let order = match (pins.key(), tracked.key()) {
                (None, None) => return Ok(()),
                (Some(key), None) | (None, Some(key)) => key.to_vec(),
                (Some(one), Some(other)) => one.min(other).to_vec(),
            };
            let (pin, record) = (pins.take(&order)?, tracked.take(&order)?);
            self.row(&order, pin, record, None)?;
        }
    }

    fn index(&mut self, family: Family, head: usize, from: &[u8], to: Option<&[u8]>) -> Result<(), Stop> {
        let moment = self.moment;
        let mut rows = moment.rows(family, from, to);
        while let Some((key, _empty)) = rows.next()? {
            self.look_up(keys::order_part(&key, head, family)?)?;
        }
        Ok(())
    }

    /// The rows of an index whose keys hold texts, each ended by a NUL, that fit the scan.
    fn search(
        &mut self,
        scan: &Scan,
        (family, nuls): (Family, usize),
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<(), Stop> {
        let moment = self.moment;
        let mut rows = moment.rows(family, from, to);
        while let Some((key, _empty)) = rows.next()? {
            self.outlet.check_reader()?;
            let order = keys::after_nuls(&key, nuls, family)?;
            let Some(bytes) = moment.get(Family::Pins, order)? else { continue };
            if scan.fits(&read_pin(self.database, keys::cid_of(order)?, &bytes)?) {
                self.row(order, Some(bytes), moment.get(Family::Tracker, order)?, None)?;
            }
        }
        Ok(())
    }

    /// The rows of a user's requests that fit the scan.
    fn requests(&mut self, scan: &Scan, head: &[u8], from: &[u8], to: Option<&[u8]>) -> Result<(), Stop> {
        let moment = self.moment;
        let mut rows = moment.rows(Family::ByRequest, from, to);
        while let Some((key, _empty)) = rows.next()? {
            self.outlet.check_reader()?;
            let (id, order) = keys::read_request(&key, head.len())?;
            let Some(bytes) = moment.get(Family::Pins, order)? else { continue };
            let pin = read_pin(self.database, keys::cid_of(order)?, &bytes)?;
            if pin.request(&id).is_some_and(|request| scan.fits_request(request)) {
                self.row(order, Some(bytes), moment.get(Family::Tracker, order)?, Some(id))?;
            }
        }
        Ok(())
    }

    fn look_up(&mut self, order: &[u8]) -> Result<(), Stop> {
        let (pin, record) = (self.moment.get(Family::Pins, order)?, self.moment.get(Family::Tracker, order)?);
        self.row(order, pin, record, None)
    }

    fn row(
        &mut self,
        order: &[u8],
        pin: Option<Vec<u8>>,
        record: Option<Vec<u8>>,
        request: Option<RequestNumber>,
    ) -> Result<(), Stop> {
        self.outlet.check_reader()?;
        let cid = keys::cid_of(order)?;
        self.bytes += order.len() + pin.as_ref().map_or(0, Vec::len) + record.as_ref().map_or(0, Vec::len);
        let pin = pin.map(|bytes| read_pin(self.database, cid, &bytes)).transpose()?;
        let tracked = record.map(|bytes| codec::decode_tracker(&bytes)).transpose()?;
        self.rows.push(Row { cid, pin, tracked, request });
        if self.rows.len() >= CHUNK_ROWS || self.bytes >= CHUNK_BYTES { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> Result<(), Stop> {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() { Ok(()) } else { self.outlet.send(rows) }
    }
}

/// Decodes a pin with the dictionary in memory.
pub(crate) fn read_pin(database: &Database, cid: Cid, bytes: &[u8]) -> Result<Pin, StateError> {
    codec::decode_pin(cid, bytes, |number| database.present.dictionary.peer(number, &database.engine))
}

/// Rows with the next one known.
pub(crate) struct Head<'a> {
    rows: Rows<'a>,
    next: Option<KeyValue>,
}

impl<'a> Head<'a> {
    /// Reads the first row.
    pub(crate) fn new(mut rows: Rows<'a>) -> Result<Self, StateError> {
        let next = rows.next()?;
        Ok(Self { rows, next })
    }

    /// The key of the next row.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.next.as_ref().map(|(key, _value)| key.as_slice())
    }

    /// The value of the next row if it has this key; then goes on.
    pub(crate) fn take(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        if self.key() != Some(key) {
            return Ok(None);
        }
        let taken = self.next.take();
        self.next = self.rows.next()?;
        Ok(taken.map(|(_key, value)| value))
    }
}

/// The order keys of the tracker records in some statuses, merged into the order of the listing.
pub(crate) struct StatusMerge<'a> {
    sources: Vec<Head<'a>>,
    /// Bytes of the sources' keys before the order key.
    head: usize,
}

impl<'a> StatusMerge<'a> {
    /// Begins after a CID.
    pub(crate) fn new(moment: &'a Moment<'a>, filter: StatusFilter, after: Option<&Cid>) -> Result<Self, StateError> {
        let resume = keys::resume_after(after);
        if filter == StatusFilter::ALL {
            return Ok(Self { sources: vec![Head::new(moment.rows(Family::Tracker, &resume, None))?], head: 0 });
        }
        let mut sources = Vec::new();
        for status in TrackerStatus::ALL.into_iter().chain([TrackerStatus::Undefined]) {
            if filter.matches(status) {
                let from = keys::by_status(status, &resume);
                let to = keys::prefix_end(&keys::by_status(status, &[]));
                sources.push(Head::new(moment.rows(Family::TrackerStatus, &from, to.as_deref()))?);
            }
        }
        Ok(Self { sources, head: STATUS_HEAD })
    }

    /// The next order key.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, StateError> {
        let head = self.head;
        let first = self.sources.iter_mut().filter(|source| source.key().is_some());
        let Some(first) = first.min_by(|one, other| tail(one, head).cmp(&tail(other, head))) else { return Ok(None) };
        let key = first.key().map(<[u8]>::to_vec).unwrap_or_default();
        first.take(&key)?;
        Ok(Some(keys::order_part(&key, head, Family::TrackerStatus)?.to_vec()))
    }
}

fn tail<'a>(source: &'a Head<'_>, head: usize) -> Option<&'a [u8]> {
    source.key().and_then(|key| key.get(head..))
}

#[cfg(test)]
mod tests {
    use cluster_core::consensus::digest::order_key;
    use cluster_core::testing::suite::pinset;
    use rocksdb::WriteBatch;
    use tempfile::TempDir;

    use super::*;
    use crate::blocking::Kind;
    use crate::engine::StoreOptions;
    use crate::peers::Assigner;
    use crate::{Store, index};

    /// Between the write of a batch and the showing of its numbers.
    #[tokio::test]
    async fn a_new_peers_pins_are_listed_as_soon_as_they_are_written() {
        let folder = TempDir::new().unwrap();
        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        let state = store.state();
        let written = state.door.run(Kind::Urgent, |Database { engine, present, .. }| {
            let (pin, mut peers) = (pinset::pin_on(7, &[3]), Assigner::new(&present.dictionary));
            let order = order_key(&pin.cid);
            let mut batch = WriteBatch::default();
            for (family, key) in index::of_pin(&pin, &order, |peer| peers.number(peer)) {
                engine.put(&mut batch, family, key, []);
            }
            engine.put(&mut batch, Family::Pins, &order, codec::encode_pin(&pin, |peer| peers.number(peer)));
            peers.write(engine, &mut batch);
            engine.write(batch)
        });
        written.await.unwrap();
        let by_peer = |number| Scan::ByPeer { peer: pinset::peer(number), after: None };
        assert_eq!(pinset::cids(state.as_ref(), by_peer(3)).await, [pinset::cid(7)]);
        assert!(pinset::cids(state.as_ref(), by_peer(4)).await.is_empty());
    }
}
