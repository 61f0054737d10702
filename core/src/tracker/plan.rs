//! What to do about one record. Pure.

use cluster_types::{Cid, Pin, TrackerStatus};

use super::HoldRule;
use crate::ports::{PinRequest, TrackerRecord};

/// The queue a record stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// The node shall hold it.
    Pin,
    /// The node shall drop it.
    Unpin,
}

/// What the node is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Fetch and keep.
    Pin(Box<PinRequest>),
    /// Keep no longer.
    Unpin,
    /// Nothing; the record is not due again.
    Nothing,
}

/// The queue of a record.
pub(super) fn kind_of(record: &TrackerRecord) -> JobKind {
    use TrackerStatus as S;
    if matches!(record.status, S::UnpinQueued | S::Unpinning | S::UnpinError) { JobKind::Unpin } else { JobKind::Pin }
}

/// What a due record asks for, given the pin as it stands now.
pub(super) fn action(hold: &HoldRule, cid: Cid, pin: Option<&Pin>, record: &TrackerRecord) -> Action {
    match pin.filter(|pin| hold.holds(pin)) {
        Some(_) if record.status == TrackerStatus::Pinned => Action::Nothing,
        Some(pin) => Action::Pin(Box::new(PinRequest {
            cid,
            depth: pin.max_depth,
            origins: pin.options.origins.clone(),
            update_from: pin.options.pin_update,
        })),
        None => Action::Unpin,
    }
}

#[cfg(test)]
mod tests {
    use cluster_types::PeerId;

    use super::*;
    use crate::tracker::fakes::{cid, pin_on, record};

    #[test]
    fn the_pin_decides_and_not_the_record() {
        let (me, other) = (PeerId::random(), PeerId::random());
        let hold = HoldRule::allocated_to(me);
        let queued = record(1, TrackerStatus::PinQueued, None);
        let here = pin_on(cid(1), &[me]);
        assert!(matches!(action(&hold, cid(1), Some(&here), &queued), Action::Pin(request) if request.cid == cid(1)));
        assert_eq!(action(&hold, cid(1), Some(&pin_on(cid(1), &[other])), &queued), Action::Unpin);
        assert_eq!(action(&hold, cid(1), None, &queued), Action::Unpin);
        let pinned = record(1, TrackerStatus::Pinned, None);
        assert_eq!(action(&hold, cid(1), Some(&here), &pinned), Action::Nothing);
    }
}
