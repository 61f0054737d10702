//! The secondary keys of pins and tracker records, as pure functions of the records.
//!
//! **Invariant:** the indexes hold exactly what these functions give for the records, because whoever writes a record
//! writes the difference of the two sets in the same batch.

use std::collections::BTreeSet;

use cluster_core::ports::TrackerRecord;
use cluster_types::{PeerId, Pin, PinType};

use crate::keys::{self, Family};

/// The index keys of a pin. `number` gives the number of a peer.
pub(crate) fn of_pin(pin: &Pin, order: &[u8], mut number: impl FnMut(&PeerId) -> u32) -> BTreeSet<(Family, Vec<u8>)> {
    let mut entries = BTreeSet::new();
    if !pin.is_everywhere() && pin.kind != PinType::Meta {
        for peer in &pin.allocations {
            entries.insert((Family::ByPeer, keys::by_peer(number(peer), order)));
        }
    }
    let expire_at = pin.options.expire_at;
    if !expire_at.is_zero() {
        entries.insert((Family::ByExpiry, keys::by_expiry(expire_at, order)));
    }
    entries.extend(of_search(pin, order));
    for request in &pin.requests {
        for name in [None, Some(request.name.as_str())] {
            let key = keys::request(&keys::requests_of(&request.user, name), request, order);
            entries.insert((Family::ByRequest, key));
        }
    }
    entries
}

/// The keys under which a pin is searched.
pub(crate) fn of_search(pin: &Pin, order: &[u8]) -> BTreeSet<(Family, Vec<u8>)> {
    let options = &pin.options;
    let metadata = options.metadata.iter().map(|(key, value)| (Family::ByMeta, keys::by_meta(key, value, order)));
    let name = (!options.name.is_empty()).then(|| (Family::ByName, keys::by_name(&options.name, order)));
    metadata.chain(name).collect()
}

/// The index keys of a tracker record.
pub(crate) fn of_tracker(record: &TrackerRecord, order: &[u8]) -> BTreeSet<(Family, Vec<u8>)> {
    let mut entries = BTreeSet::from([(Family::TrackerStatus, keys::by_status(record.status, order))]);
    if let Some(due) = record.due {
        entries.insert((Family::TrackerDue, keys::due(record.priority, due, order)));
    }
    entries
}
