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
use crate::state::{RocksState, View};
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
            let moment = database.engine.moment();
            let mut tasks = Vec::new();
            for priority in [true, false] {
                let from = keys::due(priority, Timestamp::from_unix_nanos(i128::from(i64::MIN)), &[]);
                let to = keys::prefix_end(&keys::due(priority, now, &[]));
                let mut rows = moment.rows(Family::TrackerDue, &from, to.as_deref());
                while tasks.len() < limit {
                    let Some((key, _empty)) = rows.next()? else { break };
                    let order = keys::order_part(&key, DUE_HEAD, Family::TrackerDue)?;
                    tasks.push(task(&moment, order)?);
                }
            }
            Ok(tasks)
        })
        .await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StateError> {
        self.look(|database| {
            let moment = database.engine.moment();
            let mut earliest: Option<Timestamp> = None;
            for priority in [true, false] {
                let head = [u8::from(!priority)];
                let first = moment.rows(Family::TrackerDue, &head, keys::prefix_end(&head).as_deref()).next()?;
                if let Some((key, _empty)) = first {
                    let due = keys::due_at(&key)?;
                    earliest = Some(earliest.map_or(due, |earliest| earliest.min(due)));
                }
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
