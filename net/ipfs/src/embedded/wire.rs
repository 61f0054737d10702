//! Bitswap messages as they travel: protobuf behind a length prefix.
//!
//! Everything read here is hostile. A message is refused before it is believed: by its announced length, then by the
//! number of its parts (a part of two bytes takes a hundred in memory), then by protobuf.

use std::time::Duration;

use bytes::{Buf, Bytes};
use cluster_core::unixfs::HashFunction;
use cluster_types::{Cid, Codec};
use futures::{AsyncRead, AsyncReadExt};
use libp2p::StreamProtocol;
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_varint, skip_field};

/// The largest message that is read or written: what other implementations accept.
pub(super) const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// The largest block: what other implementations accept.
pub(super) const MAX_BLOCK: usize = cluster_core::unixfs::MAX_BLOCK;
/// More parts than an honest message has: 4 MiB of the smallest entries with a real CID are about 100,000, and other
/// implementations send at most a few thousand.
const MAX_PARTS: usize = 32 * 1024;
/// Digests shorter than this prove nothing.
const MIN_DIGEST: u64 = 20;
/// A body is read in pieces, so that memory is taken by bytes that came and not by a promise.
pub(super) const READ_PIECE: usize = 64 * 1024;

/// What the other side of a stream understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Plain blocks, named by their sha2-256.
    V1_0,
    /// Blocks with a CID prefix.
    V1_1,
    /// HAVE, DONT_HAVE and their questions.
    V1_2,
}

/// The protocols in the order they are offered, newest first.
pub(super) const PROTOCOLS: [(StreamProtocol, Version); 4] = [
    (StreamProtocol::new("/ipfs/bitswap/1.2.0"), Version::V1_2),
    (StreamProtocol::new("/ipfs/bitswap/1.1.0"), Version::V1_1),
    (StreamProtocol::new("/ipfs/bitswap/1.0.0"), Version::V1_0),
    (StreamProtocol::new("/ipfs/bitswap"), Version::V1_0),
];

/// One message.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Message {
    /// What the sender wants.
    #[prost(message, optional, tag = "1")]
    pub(super) wantlist: Option<Wantlist>,
    /// Blocks without a prefix (1.0.0).
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(super) blocks: Vec<Bytes>,
    /// Blocks.
    #[prost(message, repeated, tag = "3")]
    pub(super) payload: Vec<Payload>,
    /// What the sender has and has not.
    #[prost(message, repeated, tag = "4")]
    pub(super) presences: Vec<Presence>,
    /// Bytes the sender still holds for us; nobody uses it.
    #[prost(int32, tag = "5")]
    pub(super) pending_bytes: i32,
}

/// Changes to what the sender wants.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Wantlist {
    /// The changes.
    #[prost(message, repeated, tag = "1")]
    pub(super) entries: Vec<Entry>,
    /// Whether they replace all that was wanted before.
    #[prost(bool, tag = "2")]
    pub(super) full: bool,
}

/// One change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Entry {
    /// The CID in its binary form.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) cid: Bytes,
    /// Higher first.
    #[prost(int32, tag = "2")]
    pub(super) priority: i32,
    /// No longer wanted.
    #[prost(bool, tag = "3")]
    pub(super) cancel: bool,
    /// [`WANT_BLOCK`] or [`WANT_HAVE`].
    #[prost(int32, tag = "4")]
    pub(super) want_type: i32,
    /// Whether an absent block shall be answered.
    #[prost(bool, tag = "5")]
    pub(super) send_dont_have: bool,
}

/// A block.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Payload {
    /// Its CID without the digest.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) prefix: Bytes,
    /// Its bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) data: Bytes,
}

/// Whether the sender has a block.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Presence {
    /// The CID in its binary form.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) cid: Bytes,
    /// [`HAVE`] or [`DONT_HAVE`].
    #[prost(int32, tag = "2")]
    pub(super) kind: i32,
}

/// The sender wants the block itself.
pub(super) const WANT_BLOCK: i32 = 0;
/// The sender wants to know whether the block is there.
pub(super) const WANT_HAVE: i32 = 1;
/// The block is there.
pub(super) const HAVE: i32 = 0;
/// The block is not there.
pub(super) const DONT_HAVE: i32 = 1;

/// A message cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The stream broke.
    #[error("the stream broke")]
    Io(#[source] std::io::Error),
    /// The message is larger than allowed, or has more parts.
    #[error("a message of {0} bytes or parts is too large")]
    TooLarge(u64),
    /// The bytes are no bitswap message.
    #[error("the bytes are no bitswap message")]
    Malformed(#[source] Option<prost::DecodeError>),
}

impl Message {
    /// The message with its length in front.
    pub(super) fn to_frame(&self) -> Vec<u8> {
        self.encode_length_delimited_to_vec()
    }
}

/// Reads the length of the next message; `None` at the end of the stream.
pub(super) async fn read_length<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Option<usize>, WireError> {
    let mut length: u64 = 0;
    for place in 0..4 {
        let mut byte = [0_u8];
        if stream.read(&mut byte).await.map_err(WireError::Io)? == 0 {
            return if place == 0 { Ok(None) } else { Err(WireError::Malformed(None)) };
        }
        length |= u64::from(byte[0] & 0x7f) << (7 * place);
        if byte[0] & 0x80 == 0 {
            return match usize::try_from(length) {
                Ok(length) if length <= MAX_MESSAGE => Ok(Some(length)),
                _ => Err(WireError::TooLarge(length)),
            };
        }
    }
    Err(WireError::TooLarge(length))
}

/// Reads on until `body` has `length` bytes. Each piece must come within `silence`.
pub(super) async fn read_on<R: AsyncRead + Unpin>(
    stream: &mut R,
    body: &mut Vec<u8>,
    length: usize,
    silence: Duration,
) -> Result<(), WireError> {
    while body.len() < length {
        let start = body.len();
        body.resize(length.min(start + READ_PIECE), 0);
        let piece = tokio::time::timeout(silence, stream.read_exact(&mut body[start..])).await;
        piece.map_err(std::io::Error::from).flatten().map_err(WireError::Io)?;
    }
    Ok(())
}

/// Reads a message from bytes.
pub(super) fn decode(body: Bytes) -> Result<Message, WireError> {
    let mut parts = 0;
    count_parts(body.clone(), true, &mut parts).map_err(|error| WireError::Malformed(Some(error)))?;
    if parts > MAX_PARTS {
        return Err(WireError::TooLarge(parts as u64));
    }
    Message::decode(body).map_err(|error| WireError::Malformed(Some(error)))
}

/// Counts the fields of a message and of its wantlist.
fn count_parts(mut body: Bytes, top: bool, parts: &mut usize) -> Result<(), prost::DecodeError> {
    while body.has_remaining() && *parts <= MAX_PARTS {
        *parts += 1;
        let (tag, wire_type) = decode_key(&mut body)?;
        if top && tag == 1 && wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut body)?).unwrap_or(usize::MAX);
            let inner = body.split_to(length.min(body.len()));
            count_parts(inner, false, parts)?;
        } else {
            skip_field(wire_type, tag, &mut body, DecodeContext::default())?;
        }
    }
    Ok(())
}

/// The CID without its digest, as a block carries it.
pub(super) fn prefix_of(cid: &Cid) -> Bytes {
    let mut prefix = Vec::with_capacity(8);
    encode_varint(cid.version(), &mut prefix);
    encode_varint(cid.codec(), &mut prefix);
    encode_varint(cid.hash().code(), &mut prefix);
    encode_varint(cid.hash().digest().len() as u64, &mut prefix);
    Bytes::from(prefix)
}

/// The multihash of a received block, computed from its bytes; `None` when its prefix makes no sense, names an unsafe
/// hash function, or the block is too large.
pub(super) fn multihash_of(payload: &Payload) -> Option<Vec<u8>> {
    if payload.data.len() > MAX_BLOCK {
        return None;
    }
    let mut prefix = payload.prefix.clone();
    let mut next = || decode_varint(&mut prefix).ok();
    let (_version, _codec, code, length) = (next()?, next()?, next()?, next()?);
    let digest = HashFunction::by_code(code)?.digest(&payload.data);
    let length = usize::try_from(length).ok().filter(|length| *length as u64 >= MIN_DIGEST)?;
    let mut multihash = Vec::with_capacity(length.min(digest.len()) + 8);
    encode_varint(code, &mut multihash);
    encode_varint(length as u64, &mut multihash);
    multihash.extend_from_slice(digest.get(..length)?);
    Some(multihash)
}

/// The prefix of a block that came without one.
pub(super) fn bare_prefix() -> Bytes {
    const V0: [u8; 4] = [0, Codec::DAG_PB as u8, Codec::SHA2_256 as u8, 32];
    Bytes::from_static(&V0)
}

#[cfg(test)]
mod tests {
    use cluster_core::unixfs::CidBuilder;
    use futures::io::Cursor;

    use super::*;

    const SILENCE: Duration = Duration::from_secs(10);

    async fn read_body<R: AsyncRead + Unpin>(stream: &mut R, length: usize) -> Result<Message, WireError> {
        let mut body = Vec::new();
        read_on(stream, &mut body, length, SILENCE).await?;
        decode(Bytes::from(body))
    }

    fn entry(cid: &Cid) -> Entry {
        Entry { cid: cid.to_bytes().into(), priority: 1, cancel: false, want_type: WANT_HAVE, send_dont_have: true }
    }

    #[tokio::test]
    async fn a_message_survives_its_frame_and_the_stream_ends_cleanly() {
        let cid = CidBuilder::new(1, "sha2-256").unwrap().cid(Codec::RAW, b"x");
        let message = Message {
            wantlist: Some(Wantlist { entries: vec![entry(&cid)], full: true }),
            payload: vec![Payload { prefix: prefix_of(&cid), data: Bytes::from_static(b"x") }],
            presences: vec![Presence { cid: cid.to_bytes().into(), kind: DONT_HAVE }],
            ..Message::default()
        };
        let mut stream = Cursor::new(message.to_frame());
        let length = read_length(&mut stream).await.unwrap().unwrap();
        assert_eq!(read_body(&mut stream, length).await.unwrap(), message);
        assert_eq!(read_length(&mut stream).await.unwrap(), None);
        assert_eq!(multihash_of(&message.payload[0]), Some(cid.hash_bytes()));
    }

    /// Bytes as other implementations write them: field numbers and types of the published protocol.
    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let message = Message {
            wantlist: Some(Wantlist {
                entries: vec![Entry {
                    cid: Bytes::from_static(b"c"),
                    priority: 3,
                    cancel: true,
                    want_type: WANT_HAVE,
                    send_dont_have: true,
                }],
                full: true,
            }),
            presences: vec![Presence { cid: Bytes::from_static(b"d"), kind: DONT_HAVE }],
            ..Message::default()
        };
        let expected = [
            0x0a, 0x0f, 0x0a, 0x0b, 0x0a, 1, b'c', 0x10, 3, 0x18, 1, 0x20, 1, 0x28, 1, 0x10, 1, 0x22, 5, 0x0a, 1, b'd',
            0x10, 1,
        ];
        assert_eq!(message.encode_to_vec(), expected);
    }

    #[tokio::test]
    async fn hostile_lengths_and_bytes_are_errors() {
        let endless = Cursor::new(vec![0xff; 10]);
        assert!(matches!(read_length(&mut { endless }).await, Err(WireError::TooLarge(_))));
        let cut = Cursor::new(vec![0x80]);
        assert!(matches!(read_length(&mut { cut }).await, Err(WireError::Malformed(_))));
        let short = Cursor::new(vec![1, 2, 3]);
        assert!(matches!(read_body(&mut { short }, 100).await, Err(WireError::Io(_))));
        assert!(matches!(decode(Bytes::from_static(&[0xff; 40])), Err(WireError::Malformed(_))));
        // A million empty entries are two million bytes here and a hundred times that in memory.
        let many = [0x0a, 0x00].repeat(1_000_000);
        let mut hostile = vec![0x0a];
        encode_varint(many.len() as u64, &mut hostile);
        hostile.extend_from_slice(&many);
        assert!(matches!(decode(Bytes::from(hostile)), Err(WireError::TooLarge(_))));
    }

    #[test]
    fn a_prefix_must_name_a_safe_hash() {
        let block = |prefix: &[u8]| Payload { prefix: prefix.to_vec().into(), data: Bytes::from_static(b"x") };
        assert!(multihash_of(&block(&[1, 0x55, 0x12, 32])).is_some());
        assert!(multihash_of(&block(&[1, 0x55, 0x12, 4])).is_none());
        assert!(multihash_of(&block(&[1, 0x55, 0x12, 33])).is_none());
        assert!(multihash_of(&block(&[1, 0x55, 0x00, 32])).is_none());
        assert!(multihash_of(&block(&[1, 0x55])).is_none());
        assert!(multihash_of(&Payload { prefix: bare_prefix(), data: vec![0; MAX_BLOCK + 1].into() }).is_none());
    }
}
