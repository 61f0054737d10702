//! Which rows the double of the store shows for a scan.

use cluster_types::Cid;

use crate::consensus::digest::order_key;
use crate::ports::{Row, Scan, indexed};

/// Where a row stands among the names.
pub(super) fn name_of(row: &Row) -> Vec<u8> {
    row.pin.as_ref().map(|pin| indexed(&pin.options.name).to_vec()).unwrap_or_default()
}

/// A row for each request of a row's pin.
pub(super) fn by_request(row: &Row) -> impl Iterator<Item = Row> {
    let ids = row.pin.iter().flat_map(|pin| &pin.requests).map(|request| Some(request.id));
    ids.map(|request| Row { request, ..row.clone() })
}

/// Whether a scan shows a row.
pub(super) fn wanted(scan: &Scan, row: &Row) -> bool {
    let resumed = |after: &Option<Cid>| after.is_none_or(|after| order_key(&row.cid) > order_key(&after));
    match scan {
        Scan::All { after } => resumed(after),
        Scan::ByPeer { peer, after } => {
            resumed(after) && row.pin.as_ref().is_some_and(|pin| !pin.is_everywhere() && pin.is_allocated_to(peer))
        }
        Scan::Expiring { until } => row.pin.as_ref().is_some_and(|pin| {
            let expire_at = pin.options.expire_at;
            !expire_at.is_zero() && expire_at <= *until
        }),
        Scan::ByName { after, .. } => {
            let place = |name: &str, cid: &Cid| (indexed(name).to_vec(), order_key(cid));
            row.pin.as_ref().is_some_and(|pin| {
                let here = place(&pin.options.name, &row.cid);
                scan.fits(pin) && after.as_ref().is_none_or(|after| here > place(&after.name, &after.cid))
            })
        }
        Scan::ByMeta { after, .. } => resumed(after) && row.pin.as_ref().is_some_and(|pin| scan.fits(pin)),
        Scan::Requested { .. } => row.pin.as_ref().is_some_and(|pin| {
            let request = row.request.and_then(|id| pin.request(&id));
            request.is_some_and(|request| scan.fits_request(request))
        }),
        Scan::ByStatus { filter, after } => {
            resumed(after) && row.tracked.as_ref().is_some_and(|record| filter.matches(record.status))
        }
    }
}
