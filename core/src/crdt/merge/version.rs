//! Names of versions, and what the author of a write had seen of them.

use std::collections::BTreeSet;
use std::fmt;

use cluster_types::Pin;

use super::write::{Eventual, RequestId, Wish};
use crate::consensus::operation::{encode_pin, normalised};

/// How many versions of a CID a write can have seen beyond the log. An author who has seen more without a quorum is
/// refused; a user who changes his mind about one pin 256 times during one cut can wait for its end.
pub const MAX_SEEN: usize = 256;

/// What kind of thing is hashed, so that no two kinds ever have the same name.
#[derive(Clone, Copy)]
enum Hashed {
    Wish = 1,
    Record = 2,
    Write = 3,
}

/// Names a version of a pin: an eventual write, or a record in the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId([u8; 32]);

impl VersionId {
    /// A CID that is not in the pinset.
    pub const ABSENT: Self = Self([0; 32]);

    /// From its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What somebody wished for: a record without its allocations, which are the cluster's business.
    pub fn of_wish(pin: &Pin) -> Self {
        Self::hash(Hashed::Wish, &wish_bytes(pin))
    }

    /// A whole record.
    pub(super) fn of_record(pin: &Pin) -> Self {
        Self::hash(Hashed::Record, &encode_pin(pin))
    }

    /// An eventual write in its encoded form.
    pub(super) fn of_write(encoded: &[u8]) -> Self {
        Self::hash(Hashed::Write, encoded)
    }

    fn hash(kind: Hashed, bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[kind as u8]);
        hasher.update(bytes);
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the log made of a request that it carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarriedOut {
    /// A removal.
    Removal,
    /// This wish stood there: the first bytes of its name, enough to tell the few wishes for one CID apart. Every request
    /// of the last minutes is remembered with them.
    Wish([u8; 4]),
}

impl CarriedOut {
    /// The first bytes of the name of a record's wish.
    pub fn first_of(record: &Pin) -> [u8; 4] {
        let VersionId([a, b, c, d, ..]) = VersionId::of_wish(record);
        [a, b, c, d]
    }

    /// Whether it is this wish.
    pub(super) fn is(&self, wish: &VersionId) -> bool {
        match self {
            Self::Removal => *wish == VersionId::ABSENT,
            Self::Wish(first) => *wish != VersionId::ABSENT && wish.as_bytes().starts_with(first),
        }
    }
}

/// The canonical form of a record without its allocations.
pub(super) fn wish_bytes(pin: &Pin) -> Vec<u8> {
    let mut pin = normalised(pin.clone());
    pin.allocations.clear();
    encode_pin(&pin)
}

/// The versions of one CID that an author had seen: everything in the log up to an index, and these beyond it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Everything up to this index of the log.
    pub index: u64,
    /// Eventual writes, and records that stood in the log where those who wrote them stood.
    pub versions: BTreeSet<VersionId>,
    /// The [attempts](super::Write::attempt) that went before those writes: what the log made of them counts as seen.
    pub attempts: BTreeSet<RequestId>,
}

impl Seen {
    /// Whether a version that came into the log at `begins` is among them; `index` as far as it is believed.
    pub(super) fn contains(&self, index: u64, id: &VersionId, begins: u64) -> bool {
        index >= begins || self.versions.contains(id)
    }

    fn absorb(&mut self, other: &Self) {
        self.index = self.index.max(other.index);
        self.versions.extend(&other.versions);
        self.attempts.extend(&other.attempts);
    }
}

/// What a peer sees of a CID when it writes: collected from its state and its overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    pub(super) wishes: Seen,
    pub(super) repairs: Seen,
}

impl Sight {
    /// The state at `applied`, where `record` stands.
    pub fn of_state(applied: u64, record: Option<&Pin>) -> Self {
        let wish = record.map_or(VersionId::ABSENT, VersionId::of_wish);
        let repairs = record.map(VersionId::of_record).into_iter().collect();
        Self {
            wishes: Seen { index: applied, versions: BTreeSet::from([wish]), ..Seen::default() },
            repairs: Seen { index: applied, versions: repairs, ..Seen::default() },
        }
    }

    /// What the log may hold, or come to hold, as the author's own earlier attempt at the same pin. It is a guess for
    /// those who do not know what became of the attempt: the log may have given it another time.
    pub fn suspect(&mut self, record: &Pin) {
        self.wishes.versions.insert(VersionId::of_wish(record));
    }

    /// An eventual write on the same CID that is in the overlay, and with it whatever its author had seen.
    ///
    /// A reallocation shows nothing of the wishes its author knew, so they do not count as seen.
    pub fn add(&mut self, write: &Eventual) {
        self.repairs.absorb(&write.repairs);
        if write.wish == Wish::Reallocate {
            self.repairs.versions.insert(write.id());
        } else {
            self.wishes.absorb(&write.seen);
            self.wishes.versions.insert(write.id());
            self.wishes.attempts.extend(write.attempt);
        }
    }
}
