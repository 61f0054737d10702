//! Encodings of what is stored and sent: protobuf with a version byte in front. Golden files pin them.
//!
//! A write is named after its bytes, so it has exactly one spelling: a new field of it needs a new version.

use std::collections::BTreeSet;

use cluster_types::{Cid, PeerId, Timestamp};
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::conflict::{Conflict, Party, Rule};
use super::history::{History, MAX_LIVING, Removal, Repair, Version};
use super::version::{MAX_SEEN, Seen, VersionId};
use super::write::{Eventual, InvalidWrite, RequestId, Wish, Write};
use crate::consensus::operation::{DecodeError, decode_pin, encode_pin};

/// The longest encoded write accepted: two records, of which each fits an entry of the log with room to spare, and
/// what was seen.
pub const MAX_WRITE_BYTES: usize = 128 * 1024;
/// The longest encoded conflict: its records come from writes or from the log.
const MAX_CONFLICT_BYTES: usize = 4 * MAX_WRITE_BYTES;

const WRITE_VERSION: u8 = 1;
/// The same with the attempt that went before it, and those that went before what it has seen.
const WRITE_AFTER_ATTEMPT_VERSION: u8 = 2;
const CONFLICT_VERSION: u8 = 1;
const HISTORY_VERSION: u8 = 1;

mod wire {
    //! The protobuf messages. Fields are added, never renumbered.

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Write {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) cid: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) author: Vec<u8>,
        #[prost(sint64, tag = "3")]
        pub(super) unix_nanos: i64,
        #[prost(uint32, tag = "4")]
        pub(super) wish: u32,
        #[prost(bytes = "vec", optional, tag = "5")]
        pub(super) base: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "6")]
        pub(super) result: Option<Vec<u8>>,
        #[prost(message, optional, tag = "7")]
        pub(super) seen: Option<Seen>,
        #[prost(message, optional, tag = "8")]
        pub(super) repairs: Option<Seen>,
        /// Since version 2.
        #[prost(bytes = "vec", optional, tag = "9")]
        pub(super) attempt: Option<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Seen {
        #[prost(uint64, tag = "1")]
        pub(super) index: u64,
        /// Sorted, 32 bytes each.
        #[prost(bytes = "vec", tag = "2")]
        pub(super) versions: Vec<u8>,
        /// Sorted, 16 bytes each. Since version 2.
        #[prost(bytes = "vec", tag = "3")]
        pub(super) attempts: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Party {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) author: Vec<u8>,
        #[prost(uint32, tag = "2")]
        pub(super) wish: u32,
        #[prost(sint64, optional, tag = "3")]
        pub(super) unix_nanos: Option<i64>,
        #[prost(bytes = "vec", optional, tag = "4")]
        pub(super) record: Option<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Conflict {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) cid: Vec<u8>,
        #[prost(message, optional, tag = "2")]
        pub(super) winner: Option<Party>,
        #[prost(message, optional, tag = "3")]
        pub(super) loser: Option<Party>,
        #[prost(uint32, tag = "4")]
        pub(super) rule: u32,
        #[prost(bool, tag = "5")]
        pub(super) stale: bool,
    }

    /// A version, a removal or a repair.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Living {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) author: Vec<u8>,
        #[prost(uint64, tag = "3")]
        pub(super) begins: u64,
        #[prost(bool, tag = "4")]
        pub(super) reported: bool,
        #[prost(uint32, tag = "5")]
        pub(super) wish: u32,
        #[prost(sint64, optional, tag = "6")]
        pub(super) unix_nanos: Option<i64>,
        #[prost(bytes = "vec", optional, tag = "7")]
        pub(super) record: Option<Vec<u8>>,
        #[prost(bytes = "vec", tag = "8")]
        pub(super) target: Vec<u8>,
        #[prost(bytes = "vec", repeated, tag = "9")]
        pub(super) allocations: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct History {
        #[prost(message, repeated, tag = "1")]
        pub(super) versions: Vec<Living>,
        #[prost(message, repeated, tag = "2")]
        pub(super) removals: Vec<Living>,
        #[prost(message, repeated, tag = "3")]
        pub(super) repairs: Vec<Living>,
        #[prost(bytes = "vec", tag = "4")]
        pub(super) left_wish: Vec<u8>,
        #[prost(bytes = "vec", tag = "5")]
        pub(super) left_record: Vec<u8>,
        #[prost(uint64, tag = "6")]
        pub(super) last_merged: u64,
    }
}

fn with_version(version: u8, message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(version);
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes
}

fn without_version<M: Message + Default>(what: &'static str, version: u8, bytes: &[u8]) -> Result<M, DecodeError> {
    match bytes.split_first() {
        Some((first, body)) if *first == version => M::decode(body).map_err(|error| DecodeError::new(what, error)),
        Some(_) | None => Err(DecodeError::new(what, "unknown version; was it written by a newer release?")),
    }
}

pub(super) fn encode_write(write: &Write) -> Vec<u8> {
    let message = wire::Write {
        cid: write.cid.to_bytes(),
        author: write.author.to_bytes(),
        unix_nanos: write.time.unix_nanos(),
        wish: wish_number(write.wish),
        base: write.base.as_ref().map(encode_pin),
        result: write.result.as_ref().map(encode_pin),
        seen: Some((&write.seen).into()),
        repairs: Some((&write.repairs).into()),
        attempt: write.attempt.map(|attempt| attempt.to_vec()),
    };
    let attempted =
        write.attempt.is_some() || [&write.seen, &write.repairs].iter().any(|seen| !seen.attempts.is_empty());
    with_version(if attempted { WRITE_AFTER_ATTEMPT_VERSION } else { WRITE_VERSION }, &message)
}

impl Eventual {
    /// The encoded form; its hash is the write's name.
    pub fn encode(&self) -> Vec<u8> {
        encode_write(self)
    }

    /// Reads and checks the encoded form, from whomever it comes.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidWrite> {
        if bytes.len() > MAX_WRITE_BYTES {
            return Err(InvalidWrite::new(format_args!("{} bytes are too many", bytes.len())));
        }
        let write = decode_write(bytes).map_err(InvalidWrite::new)?;
        let read = Self::new(write)?;
        // One content, one name: a second spelling would be merged a second time.
        if read.encode() == bytes { Ok(read) } else { Err(InvalidWrite::new("not in canonical form")) }
    }
}

fn decode_write(bytes: &[u8]) -> Result<Write, DecodeError> {
    const WHAT: &str = "eventual write";
    let newer = bytes.first() == Some(&WRITE_AFTER_ATTEMPT_VERSION);
    let version = if newer { WRITE_AFTER_ATTEMPT_VERSION } else { WRITE_VERSION };
    let message: wire::Write = without_version(WHAT, version, bytes)?;
    let attempt = |bytes: Vec<u8>| RequestId::try_from(bytes).map_err(|_| DecodeError::new(WHAT, "not a request id"));
    let seen = |seen: Option<wire::Seen>| seen.map_or_else(|| Ok(Seen::default()), Seen::try_from);
    Ok(Write {
        cid: Cid::from_bytes(&message.cid).map_err(|error| DecodeError::new(WHAT, error))?,
        author: PeerId::from_bytes(&message.author).map_err(|error| DecodeError::new(WHAT, error))?,
        time: Timestamp::from_unix_nanos(i128::from(message.unix_nanos)),
        wish: read_wish(message.wish)?,
        base: message.base.as_deref().map(decode_pin).transpose()?,
        result: message.result.as_deref().map(decode_pin).transpose()?,
        seen: seen(message.seen)?,
        repairs: seen(message.repairs)?,
        attempt: message.attempt.map(attempt).transpose()?,
    })
}

impl Serialize for Eventual {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

impl<'de> Deserialize<'de> for Eventual {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        Self::decode(&bytes).map_err(de::Error::custom)
    }
}

impl Conflict {
    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        let message = wire::Conflict {
            cid: self.cid.to_bytes(),
            winner: Some((&self.winner).into()),
            loser: Some((&self.loser).into()),
            rule: match self.rule {
                Rule::PinBeatsUnpin => 1,
                Rule::NewerPin => 2,
                Rule::DeeperPin => 3,
                Rule::UnpinBeatsRepair => 4,
                Rule::NewerRepair => 5,
            },
            stale: self.stale,
        };
        with_version(CONFLICT_VERSION, &message)
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "conflict";
        if bytes.len() > MAX_CONFLICT_BYTES {
            return Err(DecodeError::new(WHAT, format_args!("{} bytes are too many", bytes.len())));
        }
        let message: wire::Conflict = without_version(WHAT, CONFLICT_VERSION, bytes)?;
        let party = |party: Option<wire::Party>| party.ok_or_else(|| DecodeError::new(WHAT, "a side is missing"));
        Ok(Self {
            cid: Cid::from_bytes(&message.cid).map_err(|error| DecodeError::new(WHAT, error))?,
            winner: party(message.winner)?.try_into()?,
            loser: party(message.loser)?.try_into()?,
            rule: match message.rule {
                1 => Rule::PinBeatsUnpin,
                2 => Rule::NewerPin,
                3 => Rule::DeeperPin,
                4 => Rule::UnpinBeatsRepair,
                5 => Rule::NewerRepair,
                other => return Err(DecodeError::new(WHAT, format_args!("unknown rule {other}"))),
            },
            stale: message.stale,
        })
    }
}

impl History {
    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = |id: Option<VersionId>| id.map(|id| id.as_bytes().to_vec()).unwrap_or_default();
        let message = wire::History {
            versions: self.versions.iter().map(wire::Living::from).collect(),
            removals: self.removals.iter().map(wire::Living::from).collect(),
            repairs: self.repairs.iter().map(wire::Living::from).collect(),
            left_wish: bytes(self.left.map(|(wish, _)| wish)),
            left_record: bytes(self.left.map(|(_, record)| record)),
            last_merged: self.last_merged,
        };
        with_version(HISTORY_VERSION, &message)
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "merge history";
        let message: wire::History = without_version(WHAT, HISTORY_VERSION, bytes)?;
        let longest = message.versions.len().max(message.removals.len()).max(message.repairs.len());
        if longest > MAX_LIVING {
            return Err(DecodeError::new(WHAT, format_args!("{longest} versions are too many")));
        }
        let left = match (message.left_wish.is_empty(), message.left_record.is_empty()) {
            (true, true) => None,
            (false, false) => Some((read_id(&message.left_wish)?, read_id(&message.left_record)?)),
            (true, false) | (false, true) => return Err(DecodeError::new(WHAT, "half a record")),
        };
        Ok(Self {
            versions: message.versions.into_iter().map(Version::try_from).collect::<Result<_, _>>()?,
            removals: message.removals.into_iter().map(Removal::try_from).collect::<Result<_, _>>()?,
            repairs: message.repairs.into_iter().map(Repair::try_from).collect::<Result<_, _>>()?,
            left,
            last_merged: message.last_merged,
        })
    }
}

impl From<&Seen> for wire::Seen {
    fn from(seen: &Seen) -> Self {
        Self {
            index: seen.index,
            versions: seen.versions.iter().flat_map(|id| *id.as_bytes()).collect(),
            attempts: seen.attempts.iter().flatten().copied().collect(),
        }
    }
}

impl TryFrom<wire::Seen> for Seen {
    type Error = DecodeError;

    fn try_from(message: wire::Seen) -> Result<Self, DecodeError> {
        let (names, rest) = message.versions.as_chunks::<32>();
        if !rest.is_empty() || names.len() > MAX_SEEN {
            return Err(DecodeError::new("versions seen", "too many, or not 32 bytes each"));
        }
        let (attempts, rest) = message.attempts.as_chunks::<16>();
        if !rest.is_empty() || attempts.len() > MAX_SEEN {
            return Err(DecodeError::new("attempts seen", "too many, or not 16 bytes each"));
        }
        let versions: BTreeSet<_> = names.iter().map(|name| VersionId::from_bytes(*name)).collect();
        Ok(Self { index: message.index, versions, attempts: attempts.iter().copied().collect() })
    }
}

impl From<&Party> for wire::Party {
    fn from(party: &Party) -> Self {
        Self {
            author: author_bytes(party.author),
            wish: wish_number(party.wish),
            unix_nanos: optional_nanos(party.time),
            record: party.record.as_ref().map(encode_pin),
        }
    }
}

impl TryFrom<wire::Party> for Party {
    type Error = DecodeError;

    fn try_from(message: wire::Party) -> Result<Self, DecodeError> {
        Ok(Self {
            author: read_author(&message.author)?,
            wish: read_wish(message.wish)?,
            time: read_nanos(message.unix_nanos),
            record: message.record.as_deref().map(decode_pin).transpose()?,
        })
    }
}

impl From<&Version> for wire::Living {
    fn from(version: &Version) -> Self {
        Self {
            id: version.id.as_bytes().to_vec(),
            author: author_bytes(version.author),
            begins: version.begins,
            reported: version.reported,
            wish: wish_number(if version.joined { Wish::Join } else { Wish::Pin }),
            record: Some(encode_pin(&version.record)),
            ..Self::default()
        }
    }
}

impl TryFrom<wire::Living> for Version {
    type Error = DecodeError;

    fn try_from(message: wire::Living) -> Result<Self, DecodeError> {
        let record = message.record.ok_or_else(|| DecodeError::new("version", "no record"))?;
        let record = decode_pin(&record)?;
        Ok(Self {
            id: read_id(&message.id)?,
            author: read_author(&message.author)?,
            begins: message.begins,
            reported: message.reported,
            joined: read_wish(message.wish)? == Wish::Join,
            wish: VersionId::of_wish(&record),
            record,
        })
    }
}

impl From<&Removal> for wire::Living {
    fn from(removal: &Removal) -> Self {
        Self {
            id: removal.id.as_bytes().to_vec(),
            author: author_bytes(removal.author),
            begins: removal.begins,
            reported: removal.reported,
            wish: wish_number(removal.wish),
            unix_nanos: optional_nanos(removal.time),
            ..Self::default()
        }
    }
}

impl TryFrom<wire::Living> for Removal {
    type Error = DecodeError;

    fn try_from(message: wire::Living) -> Result<Self, DecodeError> {
        Ok(Self {
            id: read_id(&message.id)?,
            author: read_author(&message.author)?,
            begins: message.begins,
            reported: message.reported,
            wish: read_wish(message.wish)?,
            time: read_nanos(message.unix_nanos),
        })
    }
}

impl From<&Repair> for wire::Living {
    fn from(repair: &Repair) -> Self {
        Self {
            id: repair.id.as_bytes().to_vec(),
            author: author_bytes(repair.author),
            begins: repair.begins,
            reported: repair.reported,
            wish: wish_number(Wish::Reallocate),
            unix_nanos: optional_nanos(repair.time),
            target: repair.target.as_bytes().to_vec(),
            allocations: repair.allocations.iter().map(|peer| peer.to_bytes()).collect(),
            ..Self::default()
        }
    }
}

impl TryFrom<wire::Living> for Repair {
    type Error = DecodeError;

    fn try_from(message: wire::Living) -> Result<Self, DecodeError> {
        let peers = message.allocations.iter();
        Ok(Self {
            id: read_id(&message.id)?,
            author: read_author(&message.author)?,
            begins: message.begins,
            reported: message.reported,
            target: read_id(&message.target)?,
            allocations: peers.map(|peer| read_peer(peer)).collect::<Result<_, _>>()?,
            time: read_nanos(message.unix_nanos),
        })
    }
}

fn wish_number(wish: Wish) -> u32 {
    match wish {
        Wish::Pin => 1,
        Wish::Unpin => 2,
        Wish::Expire => 3,
        Wish::Reallocate => 4,
        Wish::Join => 5,
    }
}

fn read_wish(number: u32) -> Result<Wish, DecodeError> {
    Ok(match number {
        1 => Wish::Pin,
        2 => Wish::Unpin,
        3 => Wish::Expire,
        4 => Wish::Reallocate,
        5 => Wish::Join,
        other => return Err(DecodeError::new("wish", format_args!("unknown kind {other}"))),
    })
}

fn read_id(bytes: &[u8]) -> Result<VersionId, DecodeError> {
    let bytes = bytes.try_into().map_err(|_| DecodeError::new("version", "its name is not 32 bytes long"))?;
    Ok(VersionId::from_bytes(bytes))
}

fn author_bytes(author: Option<PeerId>) -> Vec<u8> {
    author.map(|author| author.to_bytes()).unwrap_or_default()
}

fn read_author(bytes: &[u8]) -> Result<Option<PeerId>, DecodeError> {
    if bytes.is_empty() { Ok(None) } else { read_peer(bytes).map(Some) }
}

fn read_peer(bytes: &[u8]) -> Result<PeerId, DecodeError> {
    PeerId::from_bytes(bytes).map_err(|error| DecodeError::new("peer id", error))
}

fn optional_nanos(time: Timestamp) -> Option<i64> {
    (!time.is_zero()).then(|| time.unix_nanos())
}

fn read_nanos(nanos: Option<i64>) -> Timestamp {
    nanos.map_or(Timestamp::ZERO, |nanos| Timestamp::from_unix_nanos(i128::from(nanos)))
}
