//! Frames: `u32` length of what follows, `u64` id, one byte kind, body; numbers big-endian.
//!
//! **Invariant:** reading allocates as bytes arrive, never because a length says so.

use std::io;

use bytes::Bytes;
use cluster_core::ports::MAX_MESSAGE;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of id and kind.
const HEAD: usize = 9;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A call.
    Request,
    /// Its answer.
    Answer,
    /// The call was not looked at: there is too much to do.
    Overloaded,
    /// The call was handled, but there is no answer to it.
    Unanswerable,
}

impl Kind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Answer => 1,
            Self::Overloaded => 2,
            Self::Unanswerable => 3,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Request, Self::Answer, Self::Overloaded, Self::Unanswerable]
            .into_iter()
            .find(|kind| kind.to_byte() == byte)
    }
}

/// One message on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) id: u64,
    pub(super) kind: Kind,
    pub(super) body: Bytes,
}

/// What comes before a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: u64,
    pub(super) kind: Kind,
    /// Bytes of the body, at most [`MAX_MESSAGE`].
    pub(super) size: usize,
}

/// Reads a frame; `None` when the stream ended between two. Dropping the future loses the place in the stream.
pub(super) async fn read_frame<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Option<Frame>> {
    let Some(head) = read_head(stream).await? else { return Ok(None) };
    let body = read_body(stream, head).await?;
    Ok(Some(Frame { id: head.id, kind: head.kind, body }))
}

/// Reads what comes before a body; [`read_body`] or [`skip_body`] must follow.
pub(super) async fn read_head<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Option<Head>> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = u32::from_be_bytes(length) as usize;
    let Some(size) = length.checked_sub(HEAD).filter(|size| *size <= MAX_MESSAGE) else {
        return Err(garbage("a frame has an impossible length"));
    };
    let id = stream.read_u64().await?;
    let kind = Kind::from_byte(stream.read_u8().await?).ok_or_else(|| garbage("a frame has an unknown kind"))?;
    Ok(Some(Head { id, kind, size }))
}

/// Reads the body that belongs to a head.
pub(super) async fn read_body<R: AsyncRead + Unpin>(stream: &mut R, head: Head) -> io::Result<Bytes> {
    let mut body = Vec::new();
    stream.take(head.size as u64).read_to_end(&mut body).await?;
    if body.len() == head.size { Ok(body.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Reads over the body that belongs to a head.
pub(super) async fn skip_body<R: AsyncRead + Unpin>(stream: &mut R, head: Head) -> io::Result<()> {
    let skipped = tokio::io::copy(&mut stream.take(head.size as u64), &mut tokio::io::sink()).await?;
    if skipped == head.size as u64 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Writes a frame, without flushing. The body is no larger than [`MAX_MESSAGE`].
pub(super) async fn write_frame<W: AsyncWrite + Unpin>(stream: &mut W, frame: &Frame) -> io::Result<()> {
    let length = u32::try_from(HEAD + frame.body.len()).map_err(|_| garbage("the body is too large"))?;
    let mut head = [0; 4 + HEAD];
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4..12].copy_from_slice(&frame.id.to_be_bytes());
    head[12] = frame.kind.to_byte();
    stream.write_all(&head).await?;
    stream.write_all(&frame.body).await
}

fn garbage(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_is_read_as_it_was_written() {
        let frame = Frame { id: 7, kind: Kind::Answer, body: Bytes::from_static(b"body") };
        let mut wire = Vec::new();
        write_frame(&mut wire, &frame).await.unwrap();
        assert_eq!(wire, [0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0, 7, 1, b'b', b'o', b'd', b'y']);
        let mut reader = wire.as_slice();
        assert_eq!(read_frame(&mut reader).await.unwrap(), Some(frame));
        assert_eq!(read_frame(&mut reader).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_skipped_body_is_followed_by_the_next_frame() {
        let mut wire = Vec::new();
        for id in 1..3 {
            let body = Bytes::from(vec![0; 100]);
            write_frame(&mut wire, &Frame { id, kind: Kind::Request, body }).await.unwrap();
        }
        let mut reader = wire.as_slice();
        let head = read_head(&mut reader).await.unwrap().unwrap();
        assert_eq!(head, Head { id: 1, kind: Kind::Request, size: 100 });
        skip_body(&mut reader, head).await.unwrap();
        assert_eq!(read_frame(&mut reader).await.unwrap().unwrap().id, 2);
    }

    #[tokio::test]
    async fn garbage_is_an_error_and_never_an_allocation() {
        let too_long = u32::try_from(MAX_MESSAGE + HEAD + 1).unwrap().to_be_bytes();
        let mut unknown_kind = vec![0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1];
        unknown_kind.push(4);
        let cut_off = [0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        for wire in [&too_long[..], &[0, 0, 0, 8], &unknown_kind, &cut_off, &[0, 0]] {
            let mut reader = wire;
            assert!(read_frame(&mut reader).await.is_err(), "{wire:?}");
        }
    }
}
