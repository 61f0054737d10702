//! How one pin is doing on this peer, from what is known of it. Pure.

use cluster_types::{Pin, PinInfoShort, PinType, Timestamp, TrackerStatus};

use super::HoldRule;
use super::plan::{JobKind, kind_of};
use crate::ports::TrackerRecord;

/// What an `unexpectedly_unpinned` item says; clients compare it.
const LOST: &str = "the item should be pinned but it is not";

/// A job that is under way, as far as a status shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// What it does.
    pub kind: JobKind,
    /// When it began.
    pub since: Timestamp,
}

/// How a pin is doing. `waiting_for` says why nothing is started at present. The peer's name and its IPFS node are left
/// empty; the caller knows them.
pub fn pin_info(
    hold: &HoldRule,
    pin: Option<&Pin>,
    tracked: Option<&TrackerRecord>,
    under_way: Option<UnderWay>,
    waiting_for: Option<&str>,
) -> PinInfoShort {
    let own_time = pin.map_or(Timestamp::ZERO, |pin| pin.timestamp);
    let remote = pin.is_some_and(|pin| pin.kind != PinType::Meta && !hold.holds(pin));
    let plain = |status| PinInfoShort { status, timestamp: own_time, ..PinInfoShort::default() };
    let Some(record) = tracked else {
        return plain(match pin {
            None => TrackerStatus::Unpinned,
            Some(pin) if pin.kind == PinType::Meta => TrackerStatus::Sharded,
            Some(_) if remote => TrackerStatus::Remote,
            Some(_) => return lost(plain(TrackerStatus::UnexpectedlyUnpinned)),
        });
    };
    if record.status == TrackerStatus::Pinned && pin.is_some() && !remote {
        return plain(TrackerStatus::Pinned);
    }
    // What others hold is remote, however far its removal here is; only a failure shows.
    if remote && kind_of(record) == JobKind::Unpin {
        return PinInfoShort { error: record.error.clone(), ..plain(TrackerStatus::Remote) };
    }
    let mut info = PinInfoShort {
        status: record.status,
        timestamp: record.changed,
        error: record.error.clone(),
        attempt_count: record.attempts,
        priority_pin: record.priority,
        ..PinInfoShort::default()
    };
    if let Some(job) = under_way.filter(|job| job.kind == kind_of(record)) {
        info.status = match job.kind {
            JobKind::Pin => TrackerStatus::Pinning,
            JobKind::Unpin => TrackerStatus::Unpinning,
        };
        info.timestamp = job.since;
        info.attempt_count = record.attempts.saturating_add(1);
        info.error.clear();
    } else if info.status == TrackerStatus::UnexpectedlyUnpinned {
        info = lost(info);
    } else if info.error.is_empty() {
        info.error = waiting_for.unwrap_or_default().to_owned();
    }
    info
}

/// Says of a pin that the node should keep that it does not. A reason that is known stays.
pub(super) fn lost(info: PinInfoShort) -> PinInfoShort {
    let error = if info.error.is_empty() { LOST.to_owned() } else { info.error };
    PinInfoShort { status: TrackerStatus::UnexpectedlyUnpinned, error, ..info }
}

#[cfg(test)]
mod tests {
    use cluster_types::PeerId;

    use super::*;
    use crate::tracker::fakes::{cid, pin_on, record};

    #[test]
    fn without_a_record_the_pin_tells_the_status() {
        use TrackerStatus as S;
        let (me, other) = (PeerId::random(), PeerId::random());
        let status = |pin: Option<&Pin>| pin_info(&HoldRule::allocated_to(me), pin, None, None, None).status;
        assert_eq!(status(None), S::Unpinned);
        assert_eq!(status(Some(&pin_on(cid(1), &[other]))), S::Remote);
        assert_eq!(status(Some(&pin_on(cid(1), &[me]))), S::UnexpectedlyUnpinned);
        let meta = Pin { kind: PinType::Meta, ..pin_on(cid(1), &[]) };
        assert_eq!(status(Some(&meta)), S::Sharded);
    }

    #[test]
    fn what_is_unexpectedly_unpinned_says_so() {
        let me = PeerId::random();
        let pin = pin_on(cid(1), &[me]);
        let hold = HoldRule::allocated_to(me);
        let found = record(1, TrackerStatus::UnexpectedlyUnpinned, None);
        assert_eq!(pin_info(&hold, Some(&pin), None, None, None).error, LOST);
        assert_eq!(pin_info(&hold, Some(&pin), Some(&found), None, Some("no node")).error, LOST);
        let failed = TrackerRecord { error: "no".to_owned(), ..found };
        assert_eq!(pin_info(&hold, Some(&pin), Some(&failed), None, None).error, "no");
    }

    #[test]
    fn a_running_job_shows_as_such_and_counts_as_an_attempt() {
        let me = PeerId::random();
        let pin = pin_on(cid(1), &[me]);
        let failed = TrackerRecord { attempts: 2, error: "no".to_owned(), ..record(1, TrackerStatus::PinError, None) };
        let idle = pin_info(&HoldRule::allocated_to(me), Some(&pin), Some(&failed), None, Some("paused"));
        assert_eq!((idle.status, idle.attempt_count, idle.error.as_str()), (TrackerStatus::PinError, 2, "no"));
        let job = UnderWay { kind: JobKind::Pin, since: Timestamp::from_unix_seconds(9) };
        let busy = pin_info(&HoldRule::allocated_to(me), Some(&pin), Some(&failed), Some(job), None);
        assert_eq!((busy.status, busy.attempt_count, busy.error.as_str()), (TrackerStatus::Pinning, 3, ""));
        assert_eq!(busy.timestamp, job.since);
    }

    #[test]
    fn a_waiting_pin_says_what_it_waits_for() {
        let me = PeerId::random();
        let queued = record(1, TrackerStatus::PinQueued, None);
        let info =
            pin_info(&HoldRule::allocated_to(me), Some(&pin_on(cid(1), &[me])), Some(&queued), None, Some("no node"));
        assert_eq!((info.status, info.error.as_str()), (TrackerStatus::PinQueued, "no node"));
    }

    #[test]
    fn what_others_hold_is_remote_while_it_is_dropped_here() {
        let (me, other) = (PeerId::random(), PeerId::random());
        let failed = TrackerRecord { error: "no".to_owned(), ..record(1, TrackerStatus::UnpinError, None) };
        let info = pin_info(&HoldRule::allocated_to(me), Some(&pin_on(cid(1), &[other])), Some(&failed), None, None);
        assert_eq!((info.status, info.error.as_str()), (TrackerStatus::Remote, "no"));
        let gone = pin_info(&HoldRule::allocated_to(me), None, Some(&failed), None, None);
        assert_eq!(gone.status, TrackerStatus::UnpinError);
    }
}
