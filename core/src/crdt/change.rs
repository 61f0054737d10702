//! A change: some edits of one shard's records, made on a document that others can build too.
//!
//! It *is* an Automerge change (same bytes, same hash), but it travels as a description in a format of our own, from
//! which each peer builds it anew. Automerge's decoder trusts counts it reads (a few bytes can ask for 2^60 operations)
//! and some of its steps panic on references that lead nowhere; a log entry that does that would stop every peer.
//!
//! **Invariant:** whatever is decoded here encodes to the same bytes, and every field of it takes part in its id.
//! **Invariant:** the edits are of one shard, in the order of their CIDs, each CID once.

use std::fmt;
use std::num::NonZeroU64;

use automerge::legacy::{Key, ObjectId, Op, OpId, OpType};
use automerge::{ActorId, ChangeHash, ExpandedChange, ScalarValue};
use bytes::Bytes;
use cluster_types::{Cid, PeerId};

use super::RecordHash;
use super::codec::Format;
use crate::consensus::digest::shard_of;
use crate::consensus::operation::DecodeError;

/// Most edits a change may carry: as many as a log entry has operations.
pub const MAX_EDITS: usize = 1024;
/// Most changes a change may name as seen, its base included.
pub const MAX_DEPENDENCIES: usize = 256;
/// Most concurrent values one edit may replace.
pub const MAX_OVERWRITTEN: usize = 1024;
/// Longest encoded change: twice the usual size of a log entry.
pub const MAX_CHANGE_BYTES: usize = 512 * 1024;

const FORMAT: Format = Format { what: "change", version: 1, limit: MAX_CHANGE_BYTES };
/// First byte of Automerge's extra bytes; not the mark (1) of an author's name there.
const EXTRA_TAG: u8 = b'S';

/// Names a change, or the base of one: Automerge's hash of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChangeId(pub [u8; 32]);

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChangeId({self})")
    }
}

/// Who writes a sequence of changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Author {
    /// The peer.
    pub peer: PeerId,
    /// Random, new at each start of the peer: numbers of changes must not be given twice, and after a restart it cannot
    /// be sure which ones it gave.
    pub sequence: [u8; 16],
}

impl Author {
    /// The name the author has in a document.
    pub(super) fn actor(&self) -> Actor {
        let mut hasher = blake3::Hasher::new_derive_key("ipfs-cluster crdt actor v1");
        hasher.update(&self.sequence);
        hasher.update(&self.peer.to_bytes());
        let mut actor = [0; 16];
        actor.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Actor(actor)
    }
}

/// The name of an author within documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Actor(pub(super) [u8; 16]);

/// Names one operation in a document, in the order Automerge sorts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    pub(super) counter: u64,
    pub(super) actor: Actor,
}

/// What a change does to one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The pin.
    pub cid: Cid,
    /// The new record; `None` removes it.
    pub record: Option<Bytes>,
    /// What the author saw before the edit; `None` if there was no record. Of several concurrent ones, Automerge's
    /// choice.
    pub saw: Option<RecordHash>,
    /// The operations it replaces.
    pub(super) overwrites: Vec<Stamp>,
}

/// The content of a change before it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) author: Author,
    pub(super) number: u64,
    pub(super) first_operation: u64,
    pub(super) base_index: u64,
    pub(super) dependencies: Vec<ChangeId>,
    pub(super) edits: Vec<Edit>,
}

/// A checked change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    id: ChangeId,
    shard: u16,
    parts: Parts,
    built: automerge::Change,
}

impl Change {
    /// Its name: the same on every peer.
    pub fn id(&self) -> ChangeId {
        self.id
    }

    /// The shard of all its edits.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// Who wrote it.
    pub fn author(&self) -> &Author {
        &self.parts.author
    }

    /// The log index of the records it was made on.
    pub fn base_index(&self) -> u64 {
        self.parts.base_index
    }

    /// The base and the changes its author had seen, sorted.
    pub fn dependencies(&self) -> &[ChangeId] {
        &self.parts.dependencies
    }

    /// What it does; readable without its base.
    pub fn edits(&self) -> &[Edit] {
        &self.parts.edits
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    pub(super) fn built(&self) -> &automerge::Change {
        &self.built
    }

    /// The number of its last operation.
    pub(super) fn last_operation(&self) -> u64 {
        self.parts.first_operation + self.parts.edits.len() as u64 - 1
    }

    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.parts)
    }

    /// Reads the encoded form. That its base exists, and that its author could see there what it says, is judged by
    /// [`Document::take`](super::Document::take).
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message: wire::Change = FORMAT.decode(bytes)?;
        let change = Self::build(read_parts(message)?)?;
        if change.encode() != bytes {
            return Err(FORMAT.fail("it is not in canonical form"));
        }
        Ok(change)
    }

    /// Checks the parts and builds the Automerge change.
    pub(super) fn build(parts: Parts) -> Result<Self, DecodeError> {
        let shard = check(&parts)?;
        let length = encode(&parts).len();
        if length > MAX_CHANGE_BYTES {
            return Err(FORMAT.fail(format_args!("{length} bytes are more than {MAX_CHANGE_BYTES}")));
        }
        let built = automerge::Change::from(expand(&parts)?);
        Ok(Self { id: ChangeId(built.hash().0), shard, parts, built })
    }
}

/// Checks what can be checked without the base; answers with the shard.
fn check(parts: &Parts) -> Result<u16, DecodeError> {
    let ascending = |dependencies: &[ChangeId]| dependencies.is_sorted_by(|left, right| left < right);
    if !(1..=MAX_DEPENDENCIES).contains(&parts.dependencies.len()) || !ascending(&parts.dependencies) {
        return Err(FORMAT.fail("the dependencies are none, too many or not in order"));
    }
    let Some(first) = parts.edits.first().filter(|_| parts.edits.len() <= MAX_EDITS) else {
        return Err(FORMAT.fail("it has no edits, or too many"));
    };
    // Automerge keeps these in 32 bits.
    let limit = u64::from(u32::MAX) - MAX_EDITS as u64;
    if !(1..=limit).contains(&parts.number) || !(1..=limit).contains(&parts.first_operation) {
        return Err(FORMAT.fail("a number is out of range"));
    }
    if !parts.edits.is_sorted_by(|left, right| left.cid.to_bytes() < right.cid.to_bytes()) {
        return Err(FORMAT.fail("the edits are not in the order of their CIDs"));
    }
    let shard = shard_of(&first.cid);
    for edit in &parts.edits {
        check_edit(edit, shard, parts.first_operation)?;
    }
    Ok(shard)
}

fn check_edit(edit: &Edit, shard: u16, first_operation: u64) -> Result<(), DecodeError> {
    if shard_of(&edit.cid) != shard {
        return Err(FORMAT.fail(format_args!("{} is in another shard", edit.cid)));
    }
    let overwrites = &edit.overwrites;
    if overwrites.len() > MAX_OVERWRITTEN || !overwrites.is_sorted_by(|left, right| left < right) {
        return Err(FORMAT.fail("what an edit replaces is too much or not in order"));
    }
    if overwrites.iter().any(|stamp| !(1..first_operation).contains(&stamp.counter)) {
        return Err(FORMAT.fail("an edit replaces what comes after it"));
    }
    if overwrites.is_empty() != edit.saw.is_none() {
        return Err(FORMAT.fail("an edit replaces nothing and saw something, or the reverse"));
    }
    if edit.record.is_none() && overwrites.is_empty() {
        return Err(FORMAT.fail("an edit removes what is not there"));
    }
    Ok(())
}

/// The change in Automerge's own terms. Its time is the log index of the base; its extra bytes are what was seen.
fn expand(parts: &Parts) -> Result<ExpandedChange, DecodeError> {
    let mut extra_bytes = vec![EXTRA_TAG];
    for edit in &parts.edits {
        extra_bytes.extend_from_slice(&edit.saw.map_or(0, RecordHash::get).to_le_bytes());
    }
    let operations = parts.edits.iter().map(|edit| Op {
        action: match &edit.record {
            Some(record) => OpType::Put(ScalarValue::Bytes(record.to_vec())),
            None => OpType::Delete,
        },
        obj: ObjectId::Root,
        key: Key::Map(edit.cid.to_string().into()),
        pred: edit.overwrites.iter().map(|stamp| OpId(stamp.counter, ActorId::from(stamp.actor.0))).collect(),
        insert: false,
    });
    Ok(ExpandedChange {
        operations: operations.collect(),
        actor_id: ActorId::from(parts.author.actor().0),
        hash: None,
        seq: parts.number,
        start_op: NonZeroU64::new(parts.first_operation).ok_or_else(|| FORMAT.fail("a number is out of range"))?,
        time: i64::try_from(parts.base_index).map_err(|_| FORMAT.fail("the index is out of range"))?,
        message: None,
        deps: parts.dependencies.iter().map(|id| ChangeHash(id.0)).collect(),
        extra_bytes,
        author: None,
    })
}

mod wire {
    //! The protobuf messages.

    /// A change.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Change {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) peer: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) sequence: Vec<u8>,
        #[prost(uint64, tag = "3")]
        pub(super) number: u64,
        #[prost(uint64, tag = "4")]
        pub(super) first_operation: u64,
        #[prost(uint64, tag = "5")]
        pub(super) base_index: u64,
        #[prost(bytes = "vec", repeated, tag = "6")]
        pub(super) dependencies: Vec<Vec<u8>>,
        /// All actors that stamps name, sorted.
        #[prost(bytes = "vec", repeated, tag = "7")]
        pub(super) actors: Vec<Vec<u8>>,
        #[prost(message, repeated, tag = "8")]
        pub(super) edits: Vec<Edit>,
    }

    /// An edit.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Edit {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) cid: Vec<u8>,
        #[prost(bytes = "bytes", optional, tag = "2")]
        pub(super) record: Option<bytes::Bytes>,
        /// 0: nothing.
        #[prost(fixed64, tag = "3")]
        pub(super) saw: u64,
        #[prost(message, repeated, tag = "4")]
        pub(super) overwrites: Vec<Stamp>,
    }

    /// An operation's name.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Stamp {
        #[prost(uint64, tag = "1")]
        pub(super) counter: u64,
        /// Place in the list of actors.
        #[prost(uint32, tag = "2")]
        pub(super) actor: u32,
    }
}

fn encode(parts: &Parts) -> Vec<u8> {
    let stamps = parts.edits.iter().flat_map(|edit| &edit.overwrites);
    let mut actors: Vec<Actor> = stamps.map(|stamp| stamp.actor).collect();
    actors.sort_unstable();
    actors.dedup();
    let place = |actor: &Actor| actors.binary_search(actor).ok().and_then(|place| u32::try_from(place).ok());
    let stamp = |stamp: &Stamp| wire::Stamp {
        counter: stamp.counter,
        actor: place(&stamp.actor).expect("every stamp's actor is in the list, which is short"),
    };
    let edits = parts.edits.iter().map(|edit| wire::Edit {
        cid: edit.cid.to_bytes(),
        record: edit.record.clone(),
        saw: edit.saw.map_or(0, RecordHash::get),
        overwrites: edit.overwrites.iter().map(stamp).collect(),
    });
    FORMAT.encode(&wire::Change {
        peer: parts.author.peer.to_bytes(),
        sequence: parts.author.sequence.to_vec(),
        number: parts.number,
        first_operation: parts.first_operation,
        base_index: parts.base_index,
        dependencies: parts.dependencies.iter().map(|id| id.0.to_vec()).collect(),
        edits: edits.collect(),
        actors: actors.iter().map(|actor| actor.0.to_vec()).collect(),
    })
}

fn read_parts(message: wire::Change) -> Result<Parts, DecodeError> {
    let actors: Vec<Actor> =
        message.actors.iter().map(|bytes| FORMAT.array(bytes).map(Actor)).collect::<Result<_, _>>()?;
    let stamp = |stamp: wire::Stamp| {
        let place = usize::try_from(stamp.actor).ok();
        match place.and_then(|place| actors.get(place)) {
            Some(actor) => Ok(Stamp { counter: stamp.counter, actor: *actor }),
            None => Err(FORMAT.fail("an actor is missing")),
        }
    };
    let edit = |edit: wire::Edit| {
        Ok(Edit {
            cid: FORMAT.cid(&edit.cid)?,
            record: edit.record,
            saw: RecordHash::from_number(edit.saw),
            overwrites: edit.overwrites.into_iter().map(stamp).collect::<Result<_, _>>()?,
        })
    };
    Ok(Parts {
        author: Author {
            peer: PeerId::from_bytes(&message.peer).map_err(|error| FORMAT.fail(error))?,
            sequence: FORMAT.array(&message.sequence)?,
        },
        number: message.number,
        first_operation: message.first_operation,
        base_index: message.base_index,
        dependencies: message
            .dependencies
            .iter()
            .map(|bytes| FORMAT.array(bytes).map(ChangeId))
            .collect::<Result<_, _>>()?,
        edits: message.edits.into_iter().map(edit).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
