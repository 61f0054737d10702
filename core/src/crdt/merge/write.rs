//! A write that was accepted without a quorum, checked.

use std::fmt;
use std::ops::Deref;

use cluster_types::{Cid, ErrorClass, PeerId, Pin, ReplicationFactor, Timestamp};

use super::version::{MAX_SEEN, Seen, Sight, VersionId};
use super::{MAX_WRITE_BYTES, Place};
use crate::consensus::apply::{check_removal, check_replacement};
use crate::consensus::operation::normalised;

/// The most peers a record may be allocated to; a cluster has a few hundred.
const MAX_ALLOCATIONS: usize = 1024;

/// The id of a request, the same in every attempt to have it carried out.
pub type RequestId = [u8; 16];

/// What an eventual write is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wish {
    /// Somebody wants the CID kept: a new pin, other options, or a pin updated from another.
    Pin,
    /// Somebody wants it gone.
    Unpin,
    /// Its time is over.
    Expire,
    /// A repair: other peers shall hold it.
    Reallocate,
    /// A pin of another cluster, brought by a peer that joined.
    Join,
}

impl Wish {
    /// The word in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Unpin => "unpin",
            Self::Expire => "expiry",
            Self::Reallocate => "reallocation",
            Self::Join => "pin of a joined cluster",
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A write makes no sense, whoever made it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid eventual write: {reason}")]
pub struct InvalidWrite {
    reason: String,
}

impl InvalidWrite {
    pub(super) fn new(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string() }
    }

    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }
}

/// What an eventual write says, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The pin it is about.
    pub cid: Cid,
    /// The peer that accepted it.
    pub author: PeerId,
    /// That peer's wall time.
    pub time: Timestamp,
    /// What it is for.
    pub wish: Wish,
    /// The record its author saw, overlay included; `None`: not pinned.
    pub base: Option<Pin>,
    /// What the write makes of it; `None`: not pinned any more.
    pub result: Option<Pin>,
    /// The wishes its author had seen and which it replaces; its index is the base index.
    pub seen: Seen,
    /// The reallocations its author had seen.
    pub repairs: Seen,
    /// The id of the same request as a leader was asked to carry it out, if that leader did not answer: the log may
    /// hold it, or come to hold it. Both together take effect once.
    pub attempt: Option<RequestId>,
}

impl Write {
    /// A write of `author` at `time` who has `sight` of the CID and is shown `base`.
    pub fn by(author: PeerId, time: Timestamp, cid: Cid, base: Option<Pin>, sight: Sight) -> Self {
        let Sight { wishes: seen, repairs } = sight;
        Self { cid, author, time, wish: Wish::Unpin, base, result: None, seen, repairs, attempt: None }
    }

    /// The author wants it kept as `pin`.
    pub fn pin(mut self, mut pin: Pin) -> Self {
        pin.timestamp = self.time;
        (self.wish, self.result) = (Wish::Pin, Some(pin));
        self
    }

    /// The author wants it gone.
    pub fn unpin(mut self) -> Self {
        (self.wish, self.result) = (Wish::Unpin, None);
        self
    }

    /// Its time is over.
    pub fn expire(mut self) -> Self {
        (self.wish, self.result) = (Wish::Expire, None);
        self
    }

    /// Other peers shall hold it.
    pub fn reallocate(mut self, allocations: Vec<PeerId>) -> Self {
        self.wish = Wish::Reallocate;
        self.seen = Seen::default();
        self.result = self.base.clone().map(|base| Pin { allocations, ..base });
        self
    }

    /// A pin that `author` brings from another cluster. Its time of submission and its holders are kept: those that are
    /// members by the time it is merged stay.
    pub fn join(author: PeerId, time: Timestamp, pin: Pin) -> Self {
        let seen = Seen { versions: [VersionId::ABSENT].into(), ..Seen::default() };
        let cid = pin.cid;
        let result = Some(pin);
        Self { cid, author, time, wish: Wish::Join, base: None, result, seen, repairs: Seen::default(), attempt: None }
    }

    /// The same wish was sent to a leader that did not answer.
    pub fn tried_as(mut self, attempt: Option<RequestId>) -> Self {
        self.attempt = attempt;
        self
    }
}

/// An eventual write that makes sense, in canonical form, with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eventual {
    id: VersionId,
    write: Write,
}

impl Deref for Eventual {
    type Target = Write;

    fn deref(&self) -> &Write {
        &self.write
    }
}

impl Eventual {
    /// Checks a write and names it. The same content has the same name everywhere.
    pub fn new(mut write: Write) -> Result<Self, InvalidWrite> {
        write.time = Timestamp::from_unix_nanos(i128::from(write.time.unix_nanos()));
        write.base = write.base.map(normalised);
        write.result = write.result.map(normalised);
        check(&write)?;
        let bytes = super::codec::encode_write(&write);
        if bytes.len() > MAX_WRITE_BYTES {
            let reason = format_args!("{} bytes are too many, at most {MAX_WRITE_BYTES}", bytes.len());
            return Err(InvalidWrite::new(reason));
        }
        Ok(Self { id: VersionId::of_write(&bytes), write })
    }

    /// Its name: the hash of its content.
    pub fn id(&self) -> VersionId {
        self.id
    }

    /// Where it comes in a set: by time, then by name.
    pub(super) fn order(&self) -> (Timestamp, VersionId) {
        (self.write.time, self.id)
    }

    /// The same write by an author who had seen these wishes, too.
    pub(super) fn having_seen(&self, wishes: impl IntoIterator<Item = VersionId>) -> Self {
        let mut write = self.clone();
        write.write.seen.versions.extend(wishes);
        write
    }

    /// Whether it does anything when merged at `place`: an expiry does nothing before its time.
    pub(super) fn takes_effect(&self, place: Place) -> bool {
        let due = |pin: &Pin| pin.options.expire_at <= place.clamped(self.write.time);
        self.write.wish != Wish::Expire || self.write.base.as_ref().is_some_and(due)
    }

    /// The writes that must not take effect any more once this one has.
    pub(super) fn covers(&self) -> Vec<VersionId> {
        let seen = self.write.seen.versions.iter().chain(&self.write.repairs.versions);
        std::iter::once(self.id).chain(seen.copied().filter(|id| *id != VersionId::ABSENT)).collect()
    }
}

fn check(write: &Write) -> Result<(), InvalidWrite> {
    let refuse = |reason: &str| Err(InvalidWrite::new(reason));
    let seen = [&write.seen, &write.repairs];
    if seen.iter().any(|seen| seen.versions.len() > MAX_SEEN || seen.attempts.len() > MAX_SEEN) {
        return refuse("too many writes on this pin are waiting for the quorum");
    }
    for pin in write.base.iter().chain(&write.result) {
        check_record(pin, write)?;
    }
    match (write.wish, &write.base, &write.result) {
        (Wish::Pin, base, Some(result)) => {
            check_replacement(base.as_ref(), result).map_err(|why| InvalidWrite::new(why.message))
        }
        (Wish::Unpin, Some(base), None) => check_removal(Some(base)).map_err(|why| InvalidWrite::new(why.message)),
        (Wish::Expire, Some(base), None) if !base.options.expire_at.is_zero() => Ok(()),
        (Wish::Reallocate, Some(base), Some(result)) => {
            let same = VersionId::of_wish(base) == VersionId::of_wish(result);
            if same && write.seen == Seen::default() {
                Ok(())
            } else {
                refuse("a reallocation changes more than allocations")
            }
        }
        (Wish::Join, None, Some(_)) => {
            let Seen { index, versions, attempts } = &write.seen;
            let fresh = *index == 0 && versions.iter().all(|id| *id == VersionId::ABSENT) && attempts.is_empty();
            if fresh && write.repairs == Seen::default() && write.attempt.is_none() {
                Ok(())
            } else {
                refuse("a pin of another cluster claims to know this one")
            }
        }
        (Wish::Pin | Wish::Unpin | Wish::Expire | Wish::Reallocate | Wish::Join, _, _) => {
            refuse("base and result do not go with what it is for")
        }
    }
}

fn check_record(pin: &Pin, write: &Write) -> Result<(), InvalidWrite> {
    if pin.cid != write.cid {
        return Err(InvalidWrite::new("a record of another CID"));
    }
    if pin.allocations.len() > MAX_ALLOCATIONS {
        return Err(InvalidWrite::new(format_args!("{} allocations are too many", pin.allocations.len())));
    }
    let (min, max) = (pin.options.replication_factor_min, pin.options.replication_factor_max);
    // An imported pin may leave it open.
    if (min, max) == (0, 0) {
        return Ok(());
    }
    ReplicationFactor::checked(min, max).map(drop).map_err(InvalidWrite::new)
}
