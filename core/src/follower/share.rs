//! What a follower holds after its filter was changed.

use cluster_types::Cid;
use futures::TryStreamExt;

use crate::consensus::log::{AppliedPosition, EffectAt};
use crate::ports::{Changes, Scan, StateError, StateStore, StateView};

/// Pins that are looked at in one step.
const PAGE: usize = 1_024;

/// Goes through all pins, page by page, and writes for each what it means on this peer now. Returns how many there are.
/// Cut off, it may be begun again.
pub async fn hold_again(state: &dyn StateStore, effect_at: &EffectAt) -> Result<u64, StateError> {
    let index = AppliedPosition::decode(state.applied().await?.as_ref())?.index();
    let (mut after, mut seen) = (None, 0);
    loop {
        let page = page(state, after).await?;
        let Some(last) = page.last() else { return Ok(seen) };
        (after, seen) = (Some(*last), seen + page.len() as u64);
        let effect = effect_at(index);
        let update = move |view: &dyn StateView| {
            let mut changes = Changes::default();
            for cid in page {
                let Some(pin) = view.pin(&cid)? else { continue };
                let tracked = view.tracked(&cid)?;
                if let Some(record) = effect(Some(&pin), Some(&pin), tracked.as_ref()) {
                    changes.tracker.push((cid, record));
                }
            }
            Ok(changes)
        };
        state.update(Box::new(update)).await?;
    }
}

async fn page(state: &dyn StateStore, after: Option<Cid>) -> Result<Vec<Cid>, StateError> {
    let mut rows = state.scan(Scan::All { after });
    let mut cids = Vec::new();
    while let Some(row) = rows.try_next().await? {
        cids.push(row.cid);
        if cids.len() == PAGE {
            break;
        }
    }
    Ok(cids)
}
