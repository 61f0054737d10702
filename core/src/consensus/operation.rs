//! What a log entry carries: decisions, not wishes.
//!
//! An [`Entry`] holds a batch of operations with everything that is chosen fixed in it (allocations, time, ids), so
//! that applying it gives the same on every peer. The encodings are protobuf with a version in front; fields are
//! added, never renumbered, and unknown fields are kept out of the way. Golden files pin them.

use std::collections::BTreeMap;
use std::fmt;

use cluster_types::{
    Cid, Multiaddr, PeerId, Pin, PinDepth, PinOptions, PinType, PinningRequest, RequestNumber, Timestamp,
};
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::crdt::merge::Eventual;

/// Version byte in front of an encoded entry.
const ENTRY_VERSION: u8 = 1;

/// Bytes are not an operation or a pin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}: {reason}")]
pub struct DecodeError {
    what: &'static str,
    reason: String,
}

impl DecodeError {
    pub(crate) fn new(what: &'static str, reason: impl fmt::Display) -> Self {
        Self { what, reason: reason.to_string() }
    }
}

/// A change of the shared state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Write a pin as it stands here.
    Put(Box<Pin>),
    /// Write a pin as it stands here, if it is still in the pinset and its allocations are still `was`.
    Reallocate {
        /// The pin with its new allocations.
        pin: Box<Pin>,
        /// The allocations it was decided on.
        was: Vec<PeerId>,
    },
    /// Remove a pin.
    Remove {
        /// The pin.
        cid: Cid,
    },
    /// Remove a part of a sharded pin.
    RemovePart {
        /// The part.
        cid: Cid,
    },
    /// Remove a pin if its time is over at the entry's time.
    Expire {
        /// The pin.
        cid: Cid,
    },
    /// Nothing; its index becomes the raft id of a new member.
    Reserve,
    /// Merge writes that were accepted without a quorum.
    Merge(Box<Merge>),
}

/// Writes to merge, and who holds the pins they come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// The writes; those that were merged before change nothing.
    pub writes: Vec<Eventual>,
    /// Holders by CID, chosen by the leader: they count where the merge asks for another look at the allocations.
    pub holders: Vec<(Cid, Vec<PeerId>)>,
}

/// An operation and the name of the request it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// The caller's random number.
    pub id: [u8; 16],
    /// What to do.
    pub operation: Operation,
}

/// A batch of operations: one entry of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The leader's wall time.
    pub time: Timestamp,
    /// What to do, in this order.
    pub operations: Vec<Proposed>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} operations", self.operations.len())
    }
}

impl Entry {
    /// The encoded form, version included.
    pub fn encode(&self) -> Vec<u8> {
        let message = wire::Entry {
            unix_nanos: self.time.unix_nanos(),
            operations: self.operations.iter().map(wire::Operation::from).collect(),
        };
        let mut bytes = Vec::with_capacity(1 + message.encoded_len());
        bytes.push(ENTRY_VERSION);
        bytes.extend_from_slice(&message.encode_to_vec());
        bytes
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let fail = |reason: &dyn fmt::Display| DecodeError::new("log entry", reason);
        let Some((&ENTRY_VERSION, body)) = bytes.split_first() else {
            return Err(fail(&"unknown version; was it written by a newer release?"));
        };
        let message = wire::Entry::decode(body).map_err(|error| fail(&error))?;
        let operations = message.operations.into_iter().map(Proposed::try_from).collect::<Result<_, _>>()?;
        Ok(Self { time: Timestamp::from_unix_nanos(i128::from(message.unix_nanos)), operations })
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        Self::decode(&bytes).map_err(de::Error::custom)
    }
}

/// The canonical form of a pin: the same record gives the same bytes on every peer.
pub fn encode_pin(pin: &Pin) -> Vec<u8> {
    wire::Pin::from(pin).encode_to_vec()
}

/// Reads the canonical form.
pub fn decode_pin(bytes: &[u8]) -> Result<Pin, DecodeError> {
    let message = wire::Pin::decode(bytes).map_err(|error| DecodeError::new("pin", error))?;
    Pin::try_from(message)
}

/// A pin as it is kept: whole seconds, its requests in order, and without what is only asked once.
pub fn normalised(mut pin: Pin) -> Pin {
    pin.timestamp = pin.timestamp.whole_seconds();
    pin.options.expire_at = pin.options.expire_at.whole_seconds();
    pin.options.user_allocations.clear();
    pin.options.mode = pin.max_depth.mode();
    for request in &mut pin.requests {
        request.created = request.created.whole_millis();
    }
    pin.requests.sort();
    pin.only_requested &= !pin.requests.is_empty();
    pin
}

mod wire {
    //! The protobuf messages.

    /// One entry.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Entry {
        #[prost(sint64, tag = "1")]
        pub(super) unix_nanos: i64,
        #[prost(message, repeated, tag = "2")]
        pub(super) operations: Vec<Operation>,
    }

    /// One operation.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Operation {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) id: Vec<u8>,
        #[prost(oneof = "Kind", tags = "2, 3, 4, 5, 6, 7, 8")]
        pub(super) kind: Option<Kind>,
    }

    /// What an operation does.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Kind {
        #[prost(message, tag = "2")]
        Put(Pin),
        #[prost(message, tag = "3")]
        Reallocate(Reallocate),
        #[prost(bytes, tag = "4")]
        Remove(Vec<u8>),
        #[prost(bytes, tag = "5")]
        Expire(Vec<u8>),
        #[prost(bool, tag = "6")]
        Reserve(bool),
        #[prost(message, tag = "7")]
        Merge(Merge),
        #[prost(bytes, tag = "8")]
        RemovePart(Vec<u8>),
    }

    /// Writes to merge.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Merge {
        #[prost(bytes = "vec", repeated, tag = "1")]
        pub(super) writes: Vec<Vec<u8>>,
        #[prost(message, repeated, tag = "2")]
        pub(super) holders: Vec<Holders>,
    }

    /// Who holds a pin.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Holders {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) cid: Vec<u8>,
        #[prost(bytes = "vec", repeated, tag = "2")]
        pub(super) peers: Vec<Vec<u8>>,
    }

    /// A pin with new allocations.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Reallocate {
        #[prost(message, optional, tag = "1")]
        pub(super) pin: Option<Pin>,
        #[prost(bytes = "vec", repeated, tag = "2")]
        pub(super) was: Vec<Vec<u8>>,
    }

    /// One pin.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Pin {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) cid: Vec<u8>,
        #[prost(uint32, tag = "2")]
        pub(super) kind: u32,
        #[prost(bytes = "vec", repeated, tag = "3")]
        pub(super) allocations: Vec<Vec<u8>>,
        #[prost(sint32, tag = "4")]
        pub(super) max_depth: i32,
        #[prost(bytes = "vec", tag = "5")]
        pub(super) reference: Vec<u8>,
        #[prost(sint64, tag = "6")]
        pub(super) timestamp: i64,
        #[prost(sint32, tag = "7")]
        pub(super) replication_min: i32,
        #[prost(sint32, tag = "8")]
        pub(super) replication_max: i32,
        #[prost(string, tag = "9")]
        pub(super) name: String,
        #[prost(uint64, tag = "10")]
        pub(super) shard_size: u64,
        #[prost(bytes = "vec", repeated, tag = "11")]
        pub(super) user_allocations: Vec<Vec<u8>>,
        /// Seconds since the Unix epoch; absent means never.
        #[prost(sint64, optional, tag = "12")]
        pub(super) expire_at: Option<i64>,
        #[prost(message, repeated, tag = "13")]
        pub(super) metadata: Vec<Metadata>,
        #[prost(bytes = "vec", tag = "14")]
        pub(super) pin_update: Vec<u8>,
        #[prost(bytes = "vec", repeated, tag = "15")]
        pub(super) origins: Vec<Vec<u8>>,
        #[prost(message, repeated, tag = "16")]
        pub(super) requests: Vec<Request>,
        #[prost(bool, tag = "17")]
        pub(super) only_requested: bool,
    }

    /// One request of the pinning service; sorted by number.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Request {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) id: Vec<u8>,
        #[prost(string, tag = "2")]
        pub(super) user: String,
        #[prost(string, tag = "3")]
        pub(super) name: String,
        #[prost(message, repeated, tag = "4")]
        pub(super) meta: Vec<Metadata>,
        #[prost(bytes = "vec", repeated, tag = "5")]
        pub(super) origins: Vec<Vec<u8>>,
        /// Milliseconds since the Unix epoch.
        #[prost(sint64, tag = "6")]
        pub(super) created: i64,
    }

    /// One piece of metadata; sorted by key.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metadata {
        #[prost(string, tag = "1")]
        pub(super) key: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }
}

impl From<&Proposed> for wire::Operation {
    fn from(proposed: &Proposed) -> Self {
        let kind = match &proposed.operation {
            Operation::Put(pin) => wire::Kind::Put(wire::Pin::from(pin.as_ref())),
            Operation::Reallocate { pin, was } => wire::Kind::Reallocate(wire::Reallocate {
                pin: Some(wire::Pin::from(pin.as_ref())),
                was: was.iter().map(|peer| peer.to_bytes()).collect(),
            }),
            Operation::Remove { cid } => wire::Kind::Remove(cid.to_bytes()),
            Operation::RemovePart { cid } => wire::Kind::RemovePart(cid.to_bytes()),
            Operation::Expire { cid } => wire::Kind::Expire(cid.to_bytes()),
            Operation::Reserve => wire::Kind::Reserve(true),
            Operation::Merge(merge) => wire::Kind::Merge(wire::Merge::from(merge.as_ref())),
        };
        Self { id: proposed.id.to_vec(), kind: Some(kind) }
    }
}

impl TryFrom<wire::Operation> for Proposed {
    type Error = DecodeError;

    fn try_from(message: wire::Operation) -> Result<Self, DecodeError> {
        let fail = |reason: &str| DecodeError::new("operation", reason);
        let id = message.id.try_into().map_err(|_| fail("the request id is not 16 bytes long"))?;
        let operation = match message.kind.ok_or_else(|| fail("unknown kind; was it written by a newer release?"))? {
            wire::Kind::Put(pin) => Operation::Put(Box::new(pin.try_into()?)),
            wire::Kind::Reallocate(message) => Operation::Reallocate {
                pin: Box::new(message.pin.ok_or_else(|| fail("no pin"))?.try_into()?),
                was: peers(message.was)?,
            },
            wire::Kind::Remove(cid) => Operation::Remove { cid: read_cid(&cid)? },
            wire::Kind::RemovePart(cid) => Operation::RemovePart { cid: read_cid(&cid)? },
            wire::Kind::Expire(cid) => Operation::Expire { cid: read_cid(&cid)? },
            wire::Kind::Reserve(_) => Operation::Reserve,
            wire::Kind::Merge(merge) => Operation::Merge(Box::new(merge.try_into()?)),
        };
        Ok(Self { id, operation })
    }
}

impl From<&Merge> for wire::Merge {
    fn from(merge: &Merge) -> Self {
        let holders = |(cid, peers): &(Cid, Vec<PeerId>)| wire::Holders {
            cid: cid.to_bytes(),
            peers: peers.iter().map(|peer| peer.to_bytes()).collect(),
        };
        Self {
            writes: merge.writes.iter().map(Eventual::encode).collect(),
            holders: merge.holders.iter().map(holders).collect(),
        }
    }
}

impl TryFrom<wire::Merge> for Merge {
    type Error = DecodeError;

    fn try_from(message: wire::Merge) -> Result<Self, DecodeError> {
        let write = |bytes: &Vec<u8>| Eventual::decode(bytes).map_err(|error| DecodeError::new("merge", error));
        let holders = |holders: wire::Holders| Ok((read_cid(&holders.cid)?, peers(holders.peers)?));
        Ok(Self {
            writes: message.writes.iter().map(write).collect::<Result<_, _>>()?,
            holders: message.holders.into_iter().map(holders).collect::<Result<_, DecodeError>>()?,
        })
    }
}

impl From<&Pin> for wire::Pin {
    fn from(pin: &Pin) -> Self {
        let options = &pin.options;
        Self {
            cid: pin.cid.to_bytes(),
            kind: match pin.kind {
                PinType::Data => 1,
                PinType::Meta => 2,
                PinType::ClusterDag => 3,
                PinType::Shard => 4,
            },
            allocations: pin.allocations.iter().map(|peer| peer.to_bytes()).collect(),
            max_depth: pin.max_depth.0,
            reference: pin.reference.map(|cid| cid.to_bytes()).unwrap_or_default(),
            timestamp: pin.timestamp.unix_seconds(),
            replication_min: options.replication_factor_min,
            replication_max: options.replication_factor_max,
            name: options.name.clone(),
            shard_size: options.shard_size,
            user_allocations: options.user_allocations.iter().map(|peer| peer.to_bytes()).collect(),
            expire_at: (!options.expire_at.is_zero()).then(|| options.expire_at.unix_seconds()),
            metadata: metadata(&options.metadata),
            pin_update: options.pin_update.map(|cid| cid.to_bytes()).unwrap_or_default(),
            origins: options.origins.iter().map(Multiaddr::to_vec).collect(),
            requests: pin.requests.iter().map(wire::Request::from).collect(),
            only_requested: pin.only_requested,
        }
    }
}

impl From<&PinningRequest> for wire::Request {
    fn from(request: &PinningRequest) -> Self {
        Self {
            id: request.id.0.to_vec(),
            user: request.user.clone(),
            name: request.name.clone(),
            meta: metadata(&request.meta),
            origins: request.origins.iter().map(Multiaddr::to_vec).collect(),
            created: request.created.unix_millis(),
        }
    }
}

impl TryFrom<wire::Request> for PinningRequest {
    type Error = DecodeError;

    fn try_from(message: wire::Request) -> Result<Self, DecodeError> {
        let id = message.id.try_into().map_err(|_| DecodeError::new("request", "its number is not 16 bytes long"))?;
        Ok(Self {
            id: RequestNumber(id),
            user: message.user,
            name: message.name,
            meta: message.meta.into_iter().map(|pair| (pair.key, pair.value)).collect(),
            origins: origins(message.origins)?,
            created: Timestamp::from_unix_millis(message.created),
        })
    }
}

impl TryFrom<wire::Pin> for Pin {
    type Error = DecodeError;

    fn try_from(message: wire::Pin) -> Result<Self, DecodeError> {
        let max_depth = PinDepth(message.max_depth);
        let options = PinOptions {
            replication_factor_min: message.replication_min,
            replication_factor_max: message.replication_max,
            name: message.name,
            mode: max_depth.mode(),
            shard_size: message.shard_size,
            user_allocations: peers(message.user_allocations)?,
            expire_at: message.expire_at.map_or(Timestamp::ZERO, Timestamp::from_unix_seconds),
            metadata: message.metadata.into_iter().map(|pair| (pair.key, pair.value)).collect::<BTreeMap<_, _>>(),
            pin_update: optional_cid(&message.pin_update)?,
            origins: origins(message.origins)?,
        };
        Ok(Self {
            options,
            cid: read_cid(&message.cid)?,
            kind: match message.kind {
                1 => PinType::Data,
                2 => PinType::Meta,
                3 => PinType::ClusterDag,
                4 => PinType::Shard,
                other => return Err(DecodeError::new("pin", format_args!("unknown kind {other}"))),
            },
            allocations: peers(message.allocations)?,
            max_depth,
            reference: optional_cid(&message.reference)?,
            timestamp: Timestamp::from_unix_seconds(message.timestamp),
            requests: message.requests.into_iter().map(PinningRequest::try_from).collect::<Result<_, _>>()?,
            only_requested: message.only_requested,
        })
    }
}

fn metadata(texts: &BTreeMap<String, String>) -> Vec<wire::Metadata> {
    texts.iter().map(|(key, value)| wire::Metadata { key: key.clone(), value: value.clone() }).collect()
}

fn origins(list: Vec<Vec<u8>>) -> Result<Vec<Multiaddr>, DecodeError> {
    let origin = |bytes| Multiaddr::try_from(bytes).map_err(|error| DecodeError::new("origin", error));
    list.into_iter().map(origin).collect()
}

fn peers(list: Vec<Vec<u8>>) -> Result<Vec<PeerId>, DecodeError> {
    list.iter().map(|bytes| PeerId::from_bytes(bytes).map_err(|error| DecodeError::new("peer id", error))).collect()
}

fn read_cid(bytes: &[u8]) -> Result<Cid, DecodeError> {
    Cid::from_bytes(bytes).map_err(|error| DecodeError::new("CID", error))
}

fn optional_cid(bytes: &[u8]) -> Result<Option<Cid>, DecodeError> {
    if bytes.is_empty() { Ok(None) } else { read_cid(bytes).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Pin {
        let cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap();
        let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap();
        let options = PinOptions {
            replication_factor_min: 1,
            replication_factor_max: 2,
            name: "a name".to_owned(),
            expire_at: Timestamp::from_unix_seconds(1_900_000_000),
            metadata: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            pin_update: Some(cid),
            origins: vec!["/ip4/1.2.3.4/tcp/4001".parse().unwrap()],
            ..PinOptions::default()
        };
        let mut pin = Pin::new(cid, options);
        pin.allocations = vec![peer];
        pin.timestamp = Timestamp::from_unix_seconds(1_800_000_000);
        pin
    }

    #[test]
    fn entries_round_trip() {
        let pin = sample();
        let operations = [
            Operation::Put(Box::new(pin.clone())),
            Operation::Reallocate { was: pin.allocations.clone(), pin: Box::new(pin.clone()) },
            Operation::Remove { cid: pin.cid },
            Operation::RemovePart { cid: pin.cid },
            Operation::Expire { cid: pin.cid },
            Operation::Reserve,
        ];
        let operations = operations.map(|operation| Proposed { id: [7; 16], operation }).to_vec();
        let entry = Entry { time: Timestamp::from_unix_nanos(1_800_000_000_123_456_789), operations };
        assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
        let packed = rmp_serde::to_vec_named(&entry).unwrap();
        assert_eq!(rmp_serde::from_slice::<Entry>(&packed).unwrap(), entry);
    }

    #[test]
    fn cut_or_foreign_bytes_are_an_error() {
        let entry = Entry {
            time: Timestamp::ZERO,
            operations: vec![Proposed { id: [1; 16], operation: Operation::Put(Box::new(sample())) }],
        };
        let bytes = entry.encode();
        assert!(Entry::decode(&bytes[..bytes.len() - 3]).is_err());
        assert!(Entry::decode(&[]).is_err());
        assert!(Entry::decode(&[9, 1, 2]).is_err());
    }

    fn requested() -> Pin {
        let request = |id, name: &str| PinningRequest {
            id: RequestNumber([id; 16]),
            user: "ann".to_owned(),
            name: name.to_owned(),
            meta: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            origins: vec!["/ip4/1.2.3.4/tcp/4001".parse().unwrap()],
            created: Timestamp::from_unix_millis(1_800_000_000_123),
        };
        Pin { requests: vec![request(1, "one"), request(2, "")], only_requested: true, ..sample() }
    }

    #[test]
    fn the_record_format_of_requests_is_pinned() {
        let golden = include_str!("golden/pin-requests-v1.hex");
        let hex: String = encode_pin(&requested()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden.trim());
        assert_eq!(decode_pin(&encode_pin(&requested())).unwrap(), requested());
        let mut mixed = requested();
        mixed.requests.reverse();
        mixed.requests[0].created = Timestamp::from_unix_nanos(1_800_000_000_123_456_789);
        assert_eq!(normalised(mixed), requested());
        assert!(!normalised(Pin { requests: Vec::new(), ..requested() }).only_requested);
    }

    #[test]
    fn the_record_format_is_pinned() {
        let golden = include_str!("golden/pin-v1.hex");
        let hex: String = encode_pin(&sample()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden.trim());
        assert_eq!(decode_pin(&encode_pin(&sample())).unwrap(), normalised(sample()));
    }
}
