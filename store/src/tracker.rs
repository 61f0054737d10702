//! What the tracker remembers, on RocksDB. `due` and `next_due` read the index by urgency, `by_status` the one by
//! status; nothing here visits records that are not asked for.

use std::sync::Arc;

use async_trait::async_trait;
use cluster_core::ports::{Settled, StateError, StateView, TrackedTask, TrackerCounts, TrackerRecord, TrackerStore};
use cluster_types::{Cid, StatusFilter, Timestamp};

use crate::blocking::Kind;
use crate::engine::Moment;
use crate::keys::{self, Family};
use crate::scan::StatusMerge;
use crate::state::{Database, RocksState, View};
use crate::{codec, write};

/// Bytes of a key of the index by urgency before the order key.
const DUE_HEAD: usize = 9;

#[async_trait]
impl TrackerStore for RocksState {
    async fn tracked(&self, cid: Cid) -> Result<Option<TrackerRecord>, StateError> {
        self.look(move |database| View::latest(database).tracked(&cid)).await
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<TrackedTask>, StateError> {
        self.look(move |database| {
            let mut tasks = Vec::new();
            for priority in [true, false] {
                scan_due(database, priority, Some(now), |moment, key| {
                    if tasks.len() < limit {
                        tasks.push(task(moment, keys::order_part(key, DUE_HEAD, Family::TrackerDue)?)?);
                    }
                    Ok(tasks.len() < limit)
                })?;
            }
            Ok(tasks)
        })
        .await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StateError> {
        self.look(|database| {
            let mut earliest: Option<Timestamp> = None;
            for priority in [true, false] {
                scan_due(database, priority, None, |_moment, key| {
                    let due = keys::due_at(key)?;
                    earliest = Some(earliest.map_or(due, |earliest| earliest.min(due)));
                    Ok(false)
                })?;
            }
            Ok(earliest)
        })
        .await
    }

    async fn settle(&self, settled: Vec<Settled>) -> Result<Vec<bool>, StateError> {
        let writer = Arc::clone(&self.writer).lock_owned().await;
        self.door
            .run(Kind::Ordinary, move |database| {
                let end = write::settled(database, settled);
                drop(writer);
                end
            })
            .await
    }

    async fn by_status(
        &self,
        filter: StatusFilter,
        after: Option<Cid>,
        limit: usize,
    ) -> Result<Vec<TrackedTask>, StateError> {
        self.look(move |database| {
            let moment = database.engine.moment();
            let mut orders = StatusMerge::new(&moment, filter, after.as_ref())?;
            let mut tasks = Vec::new();
            while tasks.len() < limit {
                let Some(order) = orders.next()? else { break };
                tasks.push(task(&moment, &order)?);
            }
            Ok(tasks)
        })
        .await
    }

    fn counts(&self) -> TrackerCounts {
        self.present.figures.read().counts
    }
}

/// The record an index key is about.
fn task(moment: &Moment<'_>, order: &[u8]) -> Result<TrackedTask, StateError> {
    let value = moment.get(Family::Tracker, order)?;
    let value = value.ok_or_else(|| codec::damaged("tracker index", "it names a record that is not there"))?;
    Ok(TrackedTask { cid: keys::cid_of(order)?, record: codec::decode_tracker(&value)? })
}

/// Shows the rows of the queue of one urgency that are due until then, or all, to `visit`, which says whether it wants
/// more.
fn scan_due(
    database: &Database,
    priority: bool,
    until: Option<Timestamp>,
    mut visit: impl FnMut(&Moment<'_>, &[u8]) -> Result<bool, StateError>,
) -> Result<(), StateError> {
    let floor = &database.present.due_floor;
    let scan = floor.begin(priority);
    let moment = database.engine.moment();
    let head = vec![u8::from(!priority)];
    let last = until.map_or_else(|| head.clone(), |until| keys::due(priority, until, &[]));
    let from = if scan.from.is_empty() { head } else { scan.from.clone() };
    let Some(to) = keys::prefix_end(&last).filter(|to| from < *to) else { return Ok(()) };
    let mut rows = moment.rows(Family::TrackerDue, &from, Some(&to));
    let mut row = rows.next()?;
    floor.end(&scan, row.as_ref().map_or(&to, |(key, _empty)| key));
    while let Some((key, _empty)) = row {
        if !visit(&moment, &key)? {
            break;
        }
        row = rows.next()?;
    }
    Ok(())
}
