//! A peer leaves its cluster for another one and brings its pins along.
//!
//! Three steps, each of which may be cut off and begun again: every pin that is shown becomes a write in the outbox;
//! everything that belongs to the old cluster is dropped in one batch, by the store ([`leaving`] is the position it
//! writes); what else waits is dropped, since it speaks of the old cluster's log and what it came to is shown, and the
//! pins are noted as not in the log any more ([`finish`]). From then on the peer is like one whose writes wait for a
//! quorum: it shows and keeps what it has, and the writes are merged once it is a member of some cluster.
//!
//! **Invariant:** a pin is in the old cluster's state or in the outbox, at every moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use cluster_types::{BoxError, Cid, PeerId};
use futures::TryStreamExt;

use super::state_machine::AppliedPosition;
use super::types::NodeId;
use crate::crdt::merge::{Eventual, Wish, Write};
use crate::ports::{Changes, OutboxChange, Row, Scan, StateError, StateStore, StateView, Waiting};

/// Pins that are written in one batch.
const BATCH: usize = 512;
/// Every so many pins their number is logged.
const REPORT_EVERY: u64 = 100_000;

/// Which cluster the state belongs to, by the raft id of its founder.
pub async fn cluster_of(state: &dyn StateStore) -> Result<Option<NodeId>, StateError> {
    Ok(AppliedPosition::decode(state.applied().await?.as_ref())?.cluster())
}

/// Makes every pin that is shown a write in the outbox; returns their number. All members of the old cluster write the
/// same, so what several of them bring counts once.
pub async fn pack(state: &Arc<dyn StateStore>) -> Result<u64, StateError> {
    let position = AppliedPosition::decode(state.applied().await?.as_ref())?;
    let members = position.membership.membership().nodes().map(|(_, node)| node.peer).min();
    let Some(author) = members else { return Ok(0) };
    let mut packed = 0;
    each_batch(state, |cids| {
        packed += cids.len() as u64;
        report("packing pins to bring along", packed);
        Box::new(move |view| {
            let mut changes = Changes::default();
            for cid in cids {
                pack_one(view, author, cid, &mut changes)?;
            }
            Ok(changes)
        })
    })
    .await?;
    state.flush().await?;
    Ok(packed)
}

fn pack_one(view: &dyn StateView, author: PeerId, cid: Cid, changes: &mut Changes) -> Result<(), StateError> {
    let Some(pin) = view.shown(&cid)? else { return Ok(()) };
    let write = match Eventual::new(Write::join(author, pin.timestamp, pin)) {
        Ok(write) => write,
        Err(invalid) => return Err(StateError::Damaged { what: format!("pin {cid}: {invalid}") }),
    };
    let known = view.waiting(&cid)?.iter().any(|waiting| waiting.write.id() == write.id());
    if !known {
        changes.outbox.push(OutboxChange::Put { write: Box::new(write), own: true });
    }
    Ok(())
}

/// What waited for the old cluster's quorum goes, and what was brought along earlier and is not shown any more: what
/// all that came to is shown, and packed.
async fn drop_what_waited(state: &Arc<dyn StateStore>) -> Result<(), StateError> {
    let mut after = 0;
    loop {
        let page = state.outbox(after, BATCH).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.number;
        let drop = move |view: &dyn StateView| {
            let mut outbox = Vec::new();
            for Waiting { write, .. } in page {
                if write.wish != Wish::Join || view.shown(&write.cid)? != write.result {
                    outbox.push(OutboxChange::Remove { cid: write.cid, id: write.id() });
                }
            }
            Ok(Changes { outbox, ..Changes::default() })
        };
        state.update(Box::new(drop)).await?;
    }
}

/// The position of a state that belongs to no cluster, while its pins are still to be noted as not in the log.
pub fn leaving() -> Result<Bytes, BoxError> {
    let position = AppliedPosition { leaving: true, ..AppliedPosition::default() };
    position.encode().map_err(Into::into)
}

/// Finishes leaving, if it was begun: afterwards the log has nothing, and what is shown waits.
pub(super) async fn finish(state: &Arc<dyn StateStore>) -> Result<(), StateError> {
    if !AppliedPosition::decode(state.applied().await?.as_ref())?.leaving {
        return Ok(());
    }
    drop_what_waited(state).await?;
    let mut noted = 0;
    each_batch(state, |cids| {
        noted += cids.len() as u64;
        report("noting pins that are brought along", noted);
        Box::new(move |_view| {
            let committed = cids.into_iter().map(|cid| (cid, Some(None))).collect();
            Ok(Changes { committed, ..Changes::default() })
        })
    })
    .await?;
    state
        .update(Box::new(|_view| {
            let applied = AppliedPosition::default().encode();
            let applied = applied.map_err(|error| StateError::Damaged { what: error.to_string() })?;
            Ok(Changes { applied: Some(applied), ..Changes::default() })
        }))
        .await?;
    state.flush().await
}

/// Goes through all pins that are shown.
async fn each_batch(
    state: &Arc<dyn StateStore>,
    mut update: impl FnMut(BTreeSet<Cid>) -> crate::ports::UpdateFn,
) -> Result<(), StateError> {
    let mut after = None;
    loop {
        let rows = state.scan(Scan::All { after });
        let rows: Vec<Row> = futures::StreamExt::take(rows, BATCH).try_collect().await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = Some(last.cid);
        let cids = rows.into_iter().filter(|row| row.pin.is_some()).map(|row| row.cid).collect();
        state.update(update(cids)).await?;
    }
}

fn report(what: &str, pins: u64) {
    if pins > 0 && pins.is_multiple_of(REPORT_EVERY) {
        tracing::info!(pins, "{what}");
    }
}
