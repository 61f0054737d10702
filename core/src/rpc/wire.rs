//! The calls between peers and their encoding.

use bytes::Bytes;
use cluster_types::{Cid, ErrorClass, Id, Multiaddr, PeerId, PinInfo, RepoGc, RepoStat, WireError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::WireFormatError;
use crate::catchup::{Ask, Told};
use crate::cluster::meet::ClusterInfo;
use crate::consensus::log::{Deadline, MembersTold, RaftCall, RaftReply};
use crate::consensus::{Outcome, Request};
use crate::ports::Block;

/// Version of the envelope. A peer of another version is answered with an error, never guessed at.
const VERSION: u8 = 1;
const KIND_RAFT: u8 = 1;
const KIND_CALL: u8 = 2;
const KIND_REPLY: u8 = 3;
/// What a block takes in a message beside its bytes: field names, lengths and its CID.
const BLOCK_OVERHEAD: usize = 96;

/// What a peer is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Call {
    /// Who are you?
    Id,
    /// Who are the members, by the newest membership you know to be on a quorum?
    Members,
    /// Order this write (the leader answers).
    Submit {
        /// The caller's random number for it; a repetition carries the same.
        id: [u8; 16],
        /// The wish.
        request: Request,
        /// When it is too late for it, by the leader's clock; none: never.
        until: Option<Deadline>,
    },
    /// Up to where must be applied, to see all that was acknowledged? (the leader answers)
    ReadIndex,
    /// A fresh raft id, please (the leader answers).
    Reserve,
    /// Make me a member (the leader answers).
    Join {
        /// The reserved raft id.
        node_id: u64,
        /// Where to reach me.
        addresses: Vec<Multiaddr>,
    },
    /// Make another peer, which asked me, a member (the leader answers).
    JoinFor {
        /// The peer that joins.
        peer: PeerId,
        /// The reserved raft id.
        node_id: u64,
        /// Where to reach it.
        addresses: Vec<Multiaddr>,
    },
    /// Remove a member (the leader answers).
    RemovePeer {
        /// The member.
        peer: PeerId,
    },
    /// You are a member no longer.
    Removed {
        /// The raft id that was removed.
        node_id: u64,
    },
    /// How is this pin doing with you?
    Status {
        /// The pin.
        cid: Cid,
    },
    /// How are these pins doing with you, as far as you know without asking your node?
    Statuses {
        /// The pins.
        cids: Vec<Cid>,
    },
    /// How are your pins doing? One page.
    StatusPage {
        /// Bits of the wanted statuses.
        filter: u16,
        /// Resume after this one.
        after: Option<Cid>,
        /// At most so many.
        limit: u32,
    },
    /// Try this pin again at once.
    Recover {
        /// The pin.
        cid: Cid,
    },
    /// Try everything that failed again at once. One page.
    RecoverPage {
        /// Resume after this one.
        after: Option<Cid>,
        /// At most so many.
        limit: u32,
    },
    /// Keep these blocks.
    PutBlocks {
        /// The blocks.
        blocks: Vec<WireBlock>,
    },
    /// Give me these blocks of your node: the first of them, as many as fit into an answer.
    Blocks {
        /// Their names.
        cids: Vec<Cid>,
    },
    /// Collect garbage.
    CollectGarbage,
    /// Whom are you connected to?
    Node,
    /// How full is your node?
    RepoStat,
    /// To which cluster do you belong, and am I welcome there?
    Meet {
        /// The cluster of the one who asks, if it wants to join.
        cluster: Option<ClusterInfo>,
    },
    /// Do you wait to found a cluster with these peers, or do you belong to one?
    Gather {
        /// The founders, you and me among them, in order.
        founders: Vec<PeerId>,
    },
    /// Which writes did you accept without a quorum that wait still? Some of them.
    Outbox {
        /// From behind this number.
        after: u64,
    },
    /// What are these shards as of a log index?
    Shards(Ask),
    /// What is every shard now?
    Manifest {
        /// An older state than as of this log index is of no use.
        at_least: u64,
    },
    /// What was every shard at a log index, one that peers noted lately?
    Noted {
        /// The log index.
        index: u64,
    },
}

/// One block on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireBlock {
    /// Its CID in binary form.
    #[serde(with = "serde_bytes")]
    pub cid: Vec<u8>,
    /// Its bytes.
    pub data: Bytes,
}

impl From<&Block> for WireBlock {
    fn from(block: &Block) -> Self {
        Self { cid: block.cid.to_bytes(), data: block.data.clone() }
    }
}

impl TryFrom<&WireBlock> for Block {
    type Error = WireError;

    fn try_from(block: &WireBlock) -> Result<Self, WireError> {
        let cid = Cid::from_bytes(&block.cid).map_err(|error| WireError::from_error(ErrorClass::Invalid, &error))?;
        Ok(Self { cid, data: block.data.clone() })
    }
}

/// One page of a status listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusPage {
    /// The items, in the order of the pinset's listing.
    pub items: Vec<PinInfo>,
    /// What to ask after; `None` when this was the last page.
    pub next: Option<Cid>,
}

/// A peer's connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Peers it is connected to.
    pub peers: Vec<PeerId>,
    /// The nodes its IPFS node is connected to.
    pub ipfs_peers: Vec<String>,
}

/// What a peer answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Call::Id`].
    Id(Box<Id>),
    /// To [`Call::Submit`].
    Receipt {
        /// Term of the entry.
        term: u64,
        /// Index of the entry.
        index: u64,
        /// What became of the request.
        outcome: Outcome,
    },
    /// To [`Call::ReadIndex`] and [`Call::Reserve`].
    Index(u64),
    /// To [`Call::Members`].
    Members(MembersTold),
    /// To calls that need no answer.
    Done,
    /// To [`Call::Status`] and [`Call::Recover`].
    Status(Box<PinInfo>),
    /// To [`Call::StatusPage`] and [`Call::RecoverPage`].
    Page(StatusPage),
    /// To [`Call::Blocks`].
    Blocks(Vec<WireBlock>),
    /// To [`Call::CollectGarbage`].
    Garbage(RepoGc),
    /// To [`Call::Node`].
    Node(NodeInfo),
    /// To [`Call::RepoStat`].
    RepoStat(RepoStat),
    /// To [`Call::Meet`].
    Cluster {
        /// The cluster, if the peer belongs to one.
        cluster: Option<ClusterInfo>,
        /// Whether who asked may join it.
        welcome: bool,
    },
    /// To [`Call::Gather`].
    Gathered {
        /// Whether it waits for the same founders.
        waits: bool,
        /// Whether it belongs to a cluster.
        member: bool,
    },
    /// To [`Call::Outbox`].
    Outbox {
        /// The writes, encoded.
        writes: Vec<Bytes>,
        /// The number up to which there are no more.
        up_to: u64,
    },
    /// To [`Call::Shards`].
    Shards(Told),
    /// To [`Call::Manifest`] and [`Call::Noted`].
    Manifest {
        /// The log index as of which it is.
        index: u64,
        /// The manifest, see [`decode_manifest`](crate::catchup::decode_manifest).
        manifest: Bytes,
    },
}

/// A message as it came in.
#[derive(Debug)]
pub(super) enum Incoming {
    Raft(Box<RaftCall>),
    Call(Box<Call>),
}

pub(crate) fn encode_raft(call: &RaftCall) -> Result<Bytes, WireFormatError> {
    encode(KIND_RAFT, call)
}

pub(crate) fn decode_raft_reply(bytes: &Bytes) -> Result<RaftReply, WireFormatError> {
    decode(KIND_REPLY, bytes)
}

pub(super) fn encode_raft_reply(reply: &RaftReply) -> Result<Bytes, WireFormatError> {
    encode(KIND_REPLY, reply)
}

pub(super) fn encode_call(call: &Call) -> Result<Bytes, WireFormatError> {
    // Room for what blocks take, so that the bytes are not moved while it grows.
    let mut room = 0;
    if let Call::PutBlocks { blocks } = call {
        room = blocks.iter().map(|block| block.data.len() + BLOCK_OVERHEAD).sum();
    }
    encode_into(Vec::with_capacity(room), KIND_CALL, call)
}

pub(super) fn encode_reply(reply: &Result<Reply, WireError>) -> Result<Bytes, WireFormatError> {
    encode(KIND_REPLY, reply)
}

pub(super) fn decode_reply(bytes: &Bytes) -> Result<Result<Reply, WireError>, WireFormatError> {
    decode(KIND_REPLY, bytes)
}

pub(super) fn decode_incoming(bytes: &Bytes) -> Result<Incoming, WireFormatError> {
    match bytes.get(1) {
        Some(&KIND_RAFT) => decode(KIND_RAFT, bytes).map(|call| Incoming::Raft(Box::new(call))),
        _ => decode(KIND_CALL, bytes).map(|call| Incoming::Call(Box::new(call))),
    }
}

fn encode<T: Serialize>(kind: u8, value: &T) -> Result<Bytes, WireFormatError> {
    encode_into(Vec::new(), kind, value)
}

fn encode_into<T: Serialize>(mut bytes: Vec<u8>, kind: u8, value: &T) -> Result<Bytes, WireFormatError> {
    bytes.extend_from_slice(&[VERSION, kind]);
    rmp_serde::encode::write_named(&mut bytes, value).map_err(|error| WireFormatError { reason: error.to_string() })?;
    Ok(bytes.into())
}

fn decode<T: DeserializeOwned>(kind: u8, bytes: &[u8]) -> Result<T, WireFormatError> {
    let fail = |reason: String| WireFormatError { reason };
    match bytes {
        [VERSION, found, body @ ..] if *found == kind => {
            rmp_serde::from_slice(body).map_err(|error| fail(error.to_string()))
        }
        [VERSION, ..] => Err(fail("another kind of message was expected".to_owned())),
        [version, ..] => Err(fail(format!("protocol version {version} is not known here; update the older peer"))),
        [] => Err(fail("it is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_round_trip_and_foreign_bytes_are_errors() {
        let cid: Cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap();
        let call =
            Call::PutBlocks { blocks: vec![WireBlock { cid: cid.to_bytes(), data: Bytes::from_static(b"abc") }] };
        let bytes = encode_call(&call).unwrap();
        assert!(matches!(decode_incoming(&bytes).unwrap(), Incoming::Call(found) if *found == call));
        assert!(decode_incoming(&bytes.slice(..bytes.len() - 2)).is_err());
        assert!(decode_incoming(&Bytes::new()).is_err());
        assert!(decode_incoming(&Bytes::from_static(&[2, 2, 0])).unwrap_err().to_string().contains("version 2"));
    }

    #[test]
    fn the_format_of_calls_is_pinned() {
        let call = Call::Submit {
            id: [7; 16],
            request: Request::Unpin { cid: "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap() },
            until: Some(Deadline { term: 3, clock: 11_300 }),
        };
        let hex: String = encode_call(&call).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("golden/submit-v1.hex").trim());
    }
}
