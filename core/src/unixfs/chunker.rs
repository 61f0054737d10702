//! Cuts a stream of bytes into chunks of one size.
//!
//! **Invariant:** less than one chunk is kept between two pushes, and `next` empties what is complete.

use bytes::{Bytes, BytesMut};

use super::MAX_BLOCK;

/// Chunk size of `ipfs add` when nothing else is asked for.
pub const DEFAULT_CHUNK: usize = 256 * 1024;
/// The largest chunk: with what UnixFS and dag-pb put around it, the block stays within [`MAX_BLOCK`].
pub const MAX_CHUNK: usize = MAX_BLOCK - 256;

/// A chunker's description cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkerError {
    /// Not a description of a chunker.
    #[error("chunker {spec:?} is not known: use size-N with N from 1 to {MAX_CHUNK}")]
    Unknown {
        /// What was asked for.
        spec: String,
    },
    /// A chunker of Kubo that is not there yet.
    #[error("chunker {spec:?} is not supported yet: use size-N with N from 1 to {MAX_CHUNK}")]
    Unsupported {
        /// What was asked for.
        spec: String,
    },
    /// A size no chunk can have.
    #[error("chunker {spec:?} is refused: chunks have from 1 to {MAX_CHUNK} bytes")]
    Size {
        /// What was asked for.
        spec: String,
    },
}

/// A checked chunk size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSize(usize);

impl Default for ChunkSize {
    fn default() -> Self {
        Self(DEFAULT_CHUNK)
    }
}

impl ChunkSize {
    /// Reads `size-N`; the empty text and `default` mean [`DEFAULT_CHUNK`].
    pub fn parse(spec: &str) -> Result<Self, ChunkerError> {
        if spec.is_empty() || spec == "default" {
            return Ok(Self::default());
        }
        // The text goes back to the user: not more of it than a line.
        let shown = || spec.chars().take(64).collect::<String>();
        let Some(number) = spec.strip_prefix("size-") else {
            let known = spec == "buzhash" || spec == "rabin" || spec.starts_with("rabin-");
            return Err(if known {
                ChunkerError::Unsupported { spec: shown() }
            } else {
                ChunkerError::Unknown { spec: shown() }
            });
        };
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ChunkerError::Unknown { spec: shown() });
        }
        match number.parse() {
            Ok(size @ 1..=MAX_CHUNK) => Ok(Self(size)),
            _ => Err(ChunkerError::Size { spec: shown() }),
        }
    }

    /// The size in bytes.
    pub fn bytes(self) -> usize {
        self.0
    }
}

/// Cuts one file.
#[derive(Debug)]
pub struct Chunker {
    size: usize,
    /// The start of a chunk that is not complete.
    begun: BytesMut,
    /// What was pushed last, not looked at yet.
    pushed: Bytes,
}

impl Chunker {
    /// For one file.
    pub fn new(size: ChunkSize) -> Self {
        Self { size: size.0, begun: BytesMut::new(), pushed: Bytes::new() }
    }

    /// Takes more of the file; call [`Chunker::next_chunk`] until it has nothing before pushing again.
    pub fn push(&mut self, data: Bytes) {
        debug_assert!(self.pushed.is_empty(), "chunks are taken before more is pushed");
        self.pushed = data;
    }

    /// The next complete chunk.
    pub fn next_chunk(&mut self) -> Option<Bytes> {
        if self.begun.is_empty() && self.pushed.len() >= self.size {
            return Some(self.pushed.split_to(self.size));
        }
        let missing = self.size - self.begun.len();
        let part = self.pushed.split_to(missing.min(self.pushed.len()));
        self.begun.extend_from_slice(&part);
        (self.begun.len() == self.size).then(|| self.begun.split().freeze())
    }

    /// What is left at the end of the file; `None` when the last chunk was complete, or the file is empty.
    pub fn last_chunk(self) -> Option<Bytes> {
        (!self.begun.is_empty()).then(|| self.begun.freeze())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_sizes_that_fit_a_block_are_taken() {
        assert_eq!(ChunkSize::parse("size-262144").unwrap(), ChunkSize::default());
        assert_eq!(ChunkSize::parse("").unwrap().bytes(), DEFAULT_CHUNK);
        assert_eq!(ChunkSize::parse("size-1").unwrap().bytes(), 1);
        assert_eq!(ChunkSize::parse("size-2096896").unwrap().bytes(), MAX_CHUNK);
        for spec in ["size-0", "size-2096897", "size-99999999999999999999999"] {
            assert!(matches!(ChunkSize::parse(spec), Err(ChunkerError::Size { .. })), "{spec}");
        }
        for spec in ["size", "size-", "size--1", "size-+1", "size-1k", "sizes", "rabinx", "x"] {
            assert!(matches!(ChunkSize::parse(spec), Err(ChunkerError::Unknown { .. })), "{spec}");
        }
        for spec in ["rabin", "rabin-16-32-64", "buzhash"] {
            let error = ChunkSize::parse(spec).unwrap_err();
            assert!(matches!(error, ChunkerError::Unsupported { .. }), "{spec}");
            assert!(error.to_string().contains("use size-N"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn chunks_are_the_file_cut_evenly(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..20),
            size in 1_usize..40,
        ) {
            let mut chunker = Chunker::new(ChunkSize(size));
            let mut chunks = Vec::new();
            for piece in &pieces {
                chunker.push(Bytes::copy_from_slice(piece));
                while let Some(chunk) = chunker.next_chunk() {
                    chunks.push(chunk);
                }
            }
            chunks.extend(chunker.last_chunk());
            let whole = pieces.concat();
            let even: Vec<&[u8]> = whole.chunks(size).collect();
            prop_assert_eq!(chunks, even);
        }
    }
}
