//! CAR archives: writes version 1, reads versions 1 and 2.
//!
//! Reading does no I/O: bytes are pushed in as they come, blocks are taken out. Every block that comes out has been
//! checked against its CID.
//!
//! **Invariant:** the reader keeps at most one section (a CID and a block of [`MAX_BLOCK`] bytes) and what was pushed
//! last; longer sections and headers are refused by their length alone.

use bytes::{Buf, Bytes, BytesMut};
use cluster_types::Cid;

use super::MAX_BLOCK;
use super::dagpb::put_varint;
use super::hash::{VerifyError, verify};
use super::ipld::{cbor_head, cbor_link, take};
use crate::ports::Block;

/// The longest header: room for about 800 roots.
const MAX_HEADER: usize = 32 * 1024;
/// The longest section: a CID and a block.
const MAX_SECTION: usize = MAX_BLOCK + 160;
/// Bytes of the version 2 header after its first section.
const V2_HEADER: usize = 40;
/// Bytes of the first section of version 2, with its length.
const V2_PRAGMA: u64 = 11;
/// How far behind the headers the payload of version 2 may begin.
const MAX_PADDING: u64 = 16 * 1024 * 1024;

/// An archive cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CarError {
    /// It is not a CAR archive, or a damaged one.
    #[error("invalid CAR: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A block is not what its CID says.
    #[error("invalid CAR: {0}")]
    BadBlock(VerifyError),
}

fn malformed(reason: &'static str) -> CarError {
    CarError::Malformed { reason }
}

/// The start of an archive.
pub fn write_header(roots: &[Cid]) -> Bytes {
    let mut header = vec![0xa2, 0x65];
    header.extend_from_slice(b"roots");
    put_cbor_head(&mut header, 4, roots.len());
    for root in roots {
        let cid = root.to_bytes();
        header.extend_from_slice(&[0xd8, 42]);
        put_cbor_head(&mut header, 2, cid.len() + 1);
        header.push(0);
        header.extend_from_slice(&cid);
    }
    header.push(0x67);
    header.extend_from_slice(b"version\x01");
    let mut bytes = Vec::with_capacity(header.len() + 4);
    put_varint(&mut bytes, header.len() as u64);
    bytes.extend_from_slice(&header);
    bytes.into()
}

/// A block as it stands in an archive.
pub fn write_block(block: &Block) -> Bytes {
    let cid = block.cid.to_bytes();
    let length = cid.len() + block.data.len();
    let mut bytes = Vec::with_capacity(length + 4);
    put_varint(&mut bytes, length as u64);
    bytes.extend_from_slice(&cid);
    bytes.extend_from_slice(&block.data);
    bytes.into()
}

fn put_cbor_head(out: &mut Vec<u8>, major: u8, number: usize) {
    let major = major << 5;
    match u16::try_from(number) {
        Ok(small @ 0..24) => out.push(major | small as u8),
        Ok(small @ 24..256) => out.extend_from_slice(&[major | 24, small as u8]),
        Ok(number) => {
            out.push(major | 25);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Err(_) => {
            out.push(major | 27);
            out.extend_from_slice(&(number as u64).to_be_bytes());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The first header is next.
    Start,
    /// The fixed header of version 2 is next.
    V2Header,
    /// Bytes before the inner archive.
    Skip { bytes: u64, payload: u64 },
    /// The inner archive's header is next.
    InnerHeader,
    /// Sections are next.
    Sections,
    /// What follows the payload (an index) does not matter.
    Over,
}

/// Reads an archive that comes in pieces.
#[derive(Debug)]
pub struct CarReader {
    stage: Stage,
    buffer: BytesMut,
    roots: Vec<Cid>,
    /// Bytes of the payload that are not read yet; `None` in version 1, which goes on to the end.
    left: Option<u64>,
}

impl Default for CarReader {
    fn default() -> Self {
        Self::new()
    }
}

impl CarReader {
    /// For one archive.
    pub fn new() -> Self {
        Self { stage: Stage::Start, buffer: BytesMut::new(), roots: Vec::new(), left: None }
    }

    /// Takes more of the archive; call [`CarReader::next_block`] until it has nothing before pushing again.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.stage != Stage::Over {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The roots, as soon as the header was read.
    pub fn roots(&self) -> Option<&[Cid]> {
        matches!(self.stage, Stage::Sections | Stage::Over).then_some(&self.roots)
    }

    /// The next block, `None` when more bytes are needed.
    pub fn next_block(&mut self) -> Result<Option<Block>, CarError> {
        loop {
            let step = match self.stage {
                Stage::Start | Stage::InnerHeader => self.read_header()?,
                Stage::V2Header => self.read_v2_header()?,
                Stage::Skip { bytes, payload } => self.skip(bytes, payload),
                Stage::Sections => match self.section(MAX_SECTION)? {
                    Some(section) => return checked_block(section).map(Some),
                    None => false,
                },
                Stage::Over => {
                    self.buffer.clear();
                    false
                }
            };
            if !step {
                return Ok(None);
            }
        }
    }

    /// Checks that the archive is whole.
    pub fn finish(&self) -> Result<(), CarError> {
        let whole = match self.stage {
            Stage::Over => true,
            Stage::Sections => self.left.is_none_or(|left| left == 0) && self.buffer.is_empty(),
            Stage::Start | Stage::InnerHeader | Stage::V2Header | Stage::Skip { .. } => false,
        };
        if whole { Ok(()) } else { Err(malformed("it ends too early")) }
    }

    fn read_header(&mut self) -> Result<bool, CarError> {
        let Some(header) = self.section(MAX_HEADER)? else { return Ok(false) };
        let (version, roots) = parse_header(&header).map_err(malformed)?;
        self.stage = match (version, self.stage == Stage::Start) {
            (1, _) => Stage::Sections,
            (2, true) => Stage::V2Header,
            (2, false) => return Err(malformed("an archive of version 2 holds another of version 2")),
            _ => return Err(malformed("its version is neither 1 nor 2")),
        };
        self.roots = roots;
        Ok(true)
    }

    fn read_v2_header(&mut self) -> Result<bool, CarError> {
        if self.buffer.len() < V2_HEADER {
            return Ok(false);
        }
        let mut header = self.buffer.split_to(V2_HEADER);
        header.advance(16); // Characteristics: only about the index.
        let offset = header.get_u64_le();
        let payload = header.get_u64_le();
        let bytes = offset
            .checked_sub(V2_PRAGMA + V2_HEADER as u64)
            .filter(|bytes| *bytes <= MAX_PADDING)
            .ok_or(malformed("its payload is at an impossible place"))?;
        self.stage = Stage::Skip { bytes, payload };
        Ok(true)
    }

    fn skip(&mut self, bytes: u64, payload: u64) -> bool {
        let here = self.buffer.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        self.buffer.advance(here);
        let bytes = bytes - here as u64;
        if bytes == 0 {
            self.left = Some(payload);
            self.stage = Stage::InnerHeader;
        } else {
            self.stage = Stage::Skip { bytes, payload };
        }
        bytes == 0
    }

    /// The next piece with its length in front, `None` when it is not there yet or the payload is over.
    fn section(&mut self, limit: usize) -> Result<Option<Bytes>, CarError> {
        if self.left == Some(0) {
            self.stage = Stage::Over;
            self.buffer.clear();
            return Ok(None);
        }
        let Some((length, head)) = read_length(&self.buffer)? else { return Ok(None) };
        if length > limit {
            return Err(malformed("a section is larger than the largest block"));
        }
        if let Some(left) = &mut self.left {
            let rest = left.checked_sub((length + head) as u64);
            if rest.is_none() {
                return Err(malformed("a section goes on after the end of the payload"));
            }
            if self.buffer.len() >= head + length {
                *left = rest.unwrap_or(0);
            }
        }
        if self.buffer.len() < head + length {
            return Ok(None);
        }
        self.buffer.advance(head);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// The length in front of a section, and how many bytes it took; `None` when it is not there yet.
fn read_length(buffer: &[u8]) -> Result<Option<(usize, usize)>, CarError> {
    let mut length = 0_usize;
    // Four bytes hold more than the largest section.
    for (place, byte) in buffer.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return if length == 0 { Err(malformed("a section is empty")) } else { Ok(Some((length, place + 1))) };
        }
    }
    if buffer.len() < 4 { Ok(None) } else { Err(malformed("a section is larger than the largest block")) }
}

/// The block of a section.
fn checked_block(section: Bytes) -> Result<Block, CarError> {
    let (cid, length) =
        Cid::read_prefix(&section).map_err(|_error| malformed("a section does not start with a CID"))?;
    let data = section.slice(length..);
    if data.len() > MAX_BLOCK {
        return Err(malformed("a block is larger than 2 MiB"));
    }
    verify(&cid, &data).map_err(CarError::BadBlock)?;
    Ok(Block { cid, data })
}

/// Version and roots of a header.
fn parse_header(header: &[u8]) -> Result<(u64, Vec<Cid>), &'static str> {
    let mut rest = header;
    let (mut version, mut roots) = (None, Vec::new());
    let (major, fields) = cbor_head(&mut rest)?;
    if major != 5 {
        return Err("its header is not a map");
    }
    for _ in 0..fields {
        let (major, length) = cbor_head(&mut rest)?;
        if major != 3 {
            return Err("a key of its header is not text");
        }
        match (take(&mut rest, length)?, cbor_head(&mut rest)?) {
            (b"version", (0, number)) if version.is_none() => version = Some(number),
            (b"roots", (4, count)) if roots.is_empty() => {
                for _ in 0..count {
                    match cbor_head(&mut rest)? {
                        (6, tag) => roots.push(cbor_link(&mut rest, tag)?),
                        _ => return Err("a root is not a link"),
                    }
                }
            }
            _ => return Err("its header has an unknown field"),
        }
    }
    if rest.is_empty() {
        Ok((version.ok_or("its header has no version")?, roots))
    } else {
        Err("bytes follow its header")
    }
}

#[cfg(test)]
mod tests {
    use cluster_types::Codec;
    use proptest::prelude::*;

    use super::*;
    use crate::unixfs::CidBuilder;

    fn block(data: &[u8]) -> Block {
        let cid = CidBuilder::new(1, "sha2-256").unwrap().cid(Codec::RAW, data);
        Block { cid, data: Bytes::copy_from_slice(data) }
    }

    fn archive(blocks: &[Block]) -> Vec<u8> {
        let mut bytes = write_header(&[blocks[0].cid]).to_vec();
        blocks.iter().for_each(|block| bytes.extend(write_block(block)));
        bytes
    }

    fn version_two(inner: &[u8], padding: usize, index: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x0a, 0xa1, 0x67];
        bytes.extend(b"version\x02");
        bytes.extend([0; 16]);
        for number in [51 + padding, inner.len(), 51 + padding + inner.len()] {
            bytes.extend((number as u64).to_le_bytes());
        }
        bytes.extend(vec![0; padding]);
        bytes.extend(inner);
        bytes.extend(index);
        bytes
    }

    fn read(bytes: &[u8], piece: usize) -> Result<(Vec<Cid>, Vec<Block>), CarError> {
        let (mut reader, mut blocks) = (CarReader::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            reader.push(piece);
            while let Some(block) = reader.next_block()? {
                blocks.push(block);
            }
        }
        reader.finish()?;
        Ok((reader.roots().unwrap_or_default().to_vec(), blocks))
    }

    #[test]
    fn both_versions_read_back_in_any_pieces() {
        let blocks = vec![block(b"root"), block(b""), block(&[7; 5000])];
        let one = archive(&blocks);
        let two = version_two(&one, 13, b"an index of some sort");
        for piece in [1, 2, 7, 100, 100_000] {
            for bytes in [&one, &two] {
                assert_eq!(read(bytes, piece), Ok((vec![blocks[0].cid], blocks.clone())), "{piece}");
            }
        }
    }

    #[test]
    fn an_archive_that_is_cut_is_not_whole() {
        let one = archive(&[block(b"root"), block(b"more")]);
        for bytes in [one.clone(), version_two(&one, 3, b"")] {
            let section = write_block(&block(b"more")).len();
            for cut in 1..section {
                assert_eq!(read(&bytes[..bytes.len() - cut], 10), Err(malformed("it ends too early")), "{cut}");
            }
        }
        assert_eq!(read(b"", 1), Err(malformed("it ends too early")));
    }

    #[test]
    fn a_block_that_was_changed_is_refused() {
        let mut bytes = archive(&[block(b"root")]);
        *bytes.last_mut().unwrap() ^= 1;
        assert!(matches!(read(&bytes, 100), Err(CarError::BadBlock(VerifyError::Mismatch { .. }))));
    }

    #[test]
    fn lengths_are_not_believed() {
        let header = write_header(&[]).to_vec();
        for (tail, reason) in [
            (&[0xff, 0xff, 0xff, 0x7f][..], "a section is larger than the largest block"),
            (&[0xff, 0xff, 0xff, 0xff, 0xff], "a section is larger than the largest block"),
            (&[0], "a section is empty"),
            (&[2, 9, 9], "a section does not start with a CID"),
        ] {
            assert_eq!(read(&[&header, tail].concat(), 3), Err(malformed(reason)));
        }
        assert_eq!(read(&[0xff, 0xff, 0x7f], 3), Err(malformed("a section is larger than the largest block")));
        let mut far = version_two(&header, 0, b"");
        far[27..35].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(read(&far, 100), Err(malformed("its payload is at an impossible place")));
    }

    #[test]
    fn headers_with_many_roots_read_back() {
        for count in [0, 1, 23, 24, 300] {
            let roots: Vec<Cid> = (0..count).map(|number: u32| block(&number.to_be_bytes()).cid).collect();
            let (read, blocks) = read(&write_header(&roots), 50).unwrap();
            assert_eq!((read, blocks), (roots, Vec::new()));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            data in proptest::collection::vec(any::<u8>(), 0..200), piece in 1_usize..50, behind in any::<bool>(),
        ) {
            let bytes = if behind { [&archive(&[block(b"x")])[..], &data].concat() } else { data };
            let _ = read(&bytes, piece);
            let _ = read(&version_two(&bytes, 1, b""), piece);
        }
    }
}
