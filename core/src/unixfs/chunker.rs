//! Cuts a stream of bytes into chunks, of one size or where the content says so.
//!
//! **Invariant:** less than one chunk is kept between two pushes, and `next_chunk` empties what is complete.
//! **Invariant:** where a file is cut does not depend on how it is pushed.

mod buzhash;
mod rabin;

use bytes::{Bytes, BytesMut};

use super::MAX_BLOCK;
use buzhash::Buzhash;
use rabin::{Rabin, Sizes};

/// Chunk size of `ipfs add` when nothing else is asked for.
pub const DEFAULT_CHUNK: usize = 256 * 1024;
/// The largest chunk: with what UnixFS and dag-pb put around it, the block stays within [`MAX_BLOCK`].
pub const MAX_CHUNK: usize = MAX_BLOCK - 256;

/// A chunker's description cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkerError {
    /// Not a description of a chunker.
    #[error("chunker {spec:?} is not known: use size-N, rabin, rabin-AVERAGE, rabin-MIN-AVERAGE-MAX or buzhash")]
    Unknown {
        /// What was asked for.
        spec: String,
    },
    /// A size no chunk can have.
    #[error("chunker {spec:?} is refused: chunks have from 1 to {MAX_CHUNK} bytes")]
    Size {
        /// What was asked for.
        spec: String,
    },
    /// Sizes that chunks by content cannot have.
    #[error(
        "chunker {spec:?} is refused: its sizes must grow from MIN to AVERAGE to MAX, MIN being {WINDOW} or more and MAX at most {MAX_CHUNK}; \
         rabin-AVERAGE means a third of it to one and a half times it",
        WINDOW = rabin::WINDOW
    )]
    Sizes {
        /// What was asked for.
        spec: String,
    },
}

/// How files are cut; checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunking(Rule);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Even(usize),
    Rabin(Sizes),
    Buzhash,
}

impl Default for Chunking {
    fn default() -> Self {
        Self(Rule::Even(DEFAULT_CHUNK))
    }
}

impl Chunking {
    /// Reads the description of a chunker as `ipfs add --chunker` has it; the empty text and `default` mean chunks of
    /// [`DEFAULT_CHUNK`] bytes.
    pub fn parse(spec: &str) -> Result<Self, ChunkerError> {
        if spec.is_empty() || spec == "default" {
            return Ok(Self::default());
        }
        // The text goes back to the user: not more of it than a line.
        let shown = || spec.chars().take(64).collect::<String>();
        let unknown = || ChunkerError::Unknown { spec: shown() };
        let (name, numbers) = spec.split_once('-').map_or((spec, None), |(name, numbers)| (name, Some(numbers)));
        match (name, numbers) {
            ("size", Some(size)) => match read(size).ok_or_else(unknown)? {
                size @ 1..=MAX_CHUNK => Ok(Self(Rule::Even(size))),
                _ => Err(ChunkerError::Size { spec: shown() }),
            },
            ("buzhash", None) => Ok(Self(Rule::Buzhash)),
            ("rabin", numbers) => {
                let sizes = rabin_sizes(numbers).ok_or_else(unknown)?;
                let grow = rabin::WINDOW <= sizes.least && sizes.least < sizes.average && sizes.average < sizes.most;
                let fit = grow && sizes.most <= MAX_CHUNK;
                if fit { Ok(Self(Rule::Rabin(sizes))) } else { Err(ChunkerError::Sizes { spec: shown() }) }
            }
            _ => Err(unknown()),
        }
    }
}

/// A number of bytes; one that is too large for any chunk is the largest there is.
fn read(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(usize::MAX))
}

/// The sizes of `rabin`, `rabin-AVERAGE` and `rabin-MIN-AVERAGE-MAX`, not checked; the three may be labelled.
fn rabin_sizes(numbers: Option<&str>) -> Option<Sizes> {
    let about = |average: usize| Sizes { least: average / 3, average, most: average.saturating_add(average / 2) };
    let Some(numbers) = numbers else { return Some(about(DEFAULT_CHUNK)) };
    let numbers: Vec<&str> = numbers.split('-').collect();
    let labelled = |label: &str, text: &str| match text.split_once(':') {
        Some((said, number)) if said == label => read(number),
        Some(_) => None,
        None => read(text),
    };
    match numbers.as_slice() {
        [average] => read(average).map(about),
        [least, average, most] => Some(Sizes {
            least: labelled("min", least)?,
            average: labelled("avg", average)?,
            most: labelled("max", most)?,
        }),
        _ => None,
    }
}

/// Cuts one file.
#[derive(Debug)]
pub struct Chunker {
    cutter: Cutter,
    /// The start of a chunk that is not complete.
    begun: BytesMut,
    /// What was pushed last, not looked at yet.
    pushed: Bytes,
}

#[derive(Debug)]
enum Cutter {
    Even(usize),
    Rabin(Box<Rabin>),
    Buzhash(Box<Buzhash>),
}

impl Chunker {
    /// For one file.
    pub fn new(chunking: Chunking) -> Self {
        let cutter = match chunking.0 {
            Rule::Even(size) => Cutter::Even(size),
            Rule::Rabin(sizes) => Cutter::Rabin(Box::new(Rabin::new(sizes))),
            Rule::Buzhash => Cutter::Buzhash(Box::new(Buzhash::new())),
        };
        Self { cutter, begun: BytesMut::new(), pushed: Bytes::new() }
    }

    /// Takes more of the file; call [`Chunker::next_chunk`] until it has nothing before pushing again.
    pub fn push(&mut self, data: Bytes) {
        debug_assert!(self.pushed.is_empty(), "chunks are taken before more is pushed");
        self.pushed = data;
    }

    /// The next complete chunk.
    pub fn next_chunk(&mut self) -> Option<Bytes> {
        let (begun, pushed) = (self.begun.len(), &self.pushed);
        let end = match &mut self.cutter {
            Cutter::Even(size) => Some(*size - begun).filter(|missing| *missing <= pushed.len()),
            Cutter::Rabin(rabin) => rabin.find_end(begun, pushed),
            Cutter::Buzhash(buzhash) => buzhash.find_end(begun, pushed),
        };
        let part = self.pushed.split_to(end.unwrap_or(self.pushed.len()));
        if end.is_some() && begun == 0 {
            return Some(part);
        }
        self.begun.extend_from_slice(&part);
        end.map(|_| self.begun.split().freeze())
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
    fn what_kubo_understands_is_understood() {
        let even = |size| Ok(Chunking(Rule::Even(size)));
        assert_eq!(Chunking::parse("size-262144"), even(DEFAULT_CHUNK));
        assert_eq!(Chunking::parse(""), even(DEFAULT_CHUNK));
        assert_eq!(Chunking::parse("default"), even(DEFAULT_CHUNK));
        assert_eq!(Chunking::parse("size-1"), even(1));
        assert_eq!(Chunking::parse("size-2096896"), even(MAX_CHUNK));
        assert_eq!(Chunking::parse("buzhash"), Ok(Chunking(Rule::Buzhash)));
        let rabin = |least, average, most| Ok(Chunking(Rule::Rabin(Sizes { least, average, most })));
        assert_eq!(Chunking::parse("rabin"), rabin(87_381, 262_144, 393_216));
        assert_eq!(Chunking::parse("rabin-100"), rabin(33, 100, 150));
        assert_eq!(Chunking::parse("rabin-16-32-64"), rabin(16, 32, 64));
        assert_eq!(Chunking::parse("rabin-min:16-avg:32-max:2096896"), rabin(16, 32, MAX_CHUNK));
    }

    #[test]
    fn only_sizes_that_fit_a_block_are_taken() {
        for spec in ["size-0", "size-2096897", "size-99999999999999999999999"] {
            assert!(matches!(Chunking::parse(spec), Err(ChunkerError::Size { .. })), "{spec}");
        }
        for spec in [
            "rabin-0",
            "rabin-47",
            "rabin-1397932",
            "rabin-15-32-64",
            "rabin-16-16-64",
            "rabin-16-64-32",
            "rabin-16-32-2096897",
            "rabin-99999999999999999999999",
        ] {
            assert!(matches!(Chunking::parse(spec), Err(ChunkerError::Sizes { .. })), "{spec}");
        }
        for spec in [
            "size",
            "size-",
            "size--1",
            "size-+1",
            "size-1k",
            "sizes",
            "rabinx",
            "x",
            "rabin-",
            "rabin-1-2",
            "rabin-a",
            "rabin-avg:16-avg:32-max:64",
            "rabin-1-2-3-4",
            "buzhash-1",
            "-",
        ] {
            assert!(matches!(Chunking::parse(spec), Err(ChunkerError::Unknown { .. })), "{spec}");
        }
    }

    fn cut(chunking: Chunking, pieces: &[&[u8]]) -> Vec<Bytes> {
        let mut chunker = Chunker::new(chunking);
        let mut chunks = Vec::new();
        for piece in pieces {
            chunker.push(Bytes::copy_from_slice(piece));
            while let Some(chunk) = chunker.next_chunk() {
                chunks.push(chunk);
            }
        }
        chunks.extend(chunker.last_chunk());
        chunks
    }

    proptest! {
        #[test]
        fn chunks_are_the_file_cut_evenly(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..20),
            size in 1_usize..40,
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let whole = pieces.concat();
            let even: Vec<&[u8]> = whole.chunks(size).collect();
            prop_assert_eq!(cut(Chunking(Rule::Even(size)), &pieces), even);
        }

        #[test]
        fn pushing_in_pieces_changes_nothing(
            seed in any::<u64>(),
            lengths in proptest::collection::vec(0_usize..70_000, 1..12),
        ) {
            let mut state = seed | 1;
            let mut byte = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            };
            let whole: Vec<u8> = (0..lengths.iter().sum()).map(|_| byte()).collect();
            let mut rest = whole.as_slice();
            let pieces: Vec<&[u8]> = lengths.iter().map(|length| rest.split_off(..*length).unwrap_or_default()).collect();
            for spec in ["buzhash", "rabin-40000", "rabin-16-600-700"] {
                let chunking = Chunking::parse(spec).unwrap();
                let chunks = cut(chunking, &pieces);
                prop_assert_eq!(&chunks, &cut(chunking, &[&whole]), "{}", spec);
                prop_assert_eq!(chunks.concat(), whole.as_slice());
                if let (Rule::Rabin(sizes), [all @ .., _last]) = (chunking.0, chunks.as_slice()) {
                    prop_assert!(all.iter().all(|chunk| (sizes.least..=sizes.most).contains(&chunk.len())), "{}", spec);
                }
            }
        }
    }
}
