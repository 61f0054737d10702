//! DAGs and archives made by hand, for tests that must not depend on the code they test.

use bytes::Bytes;
use cluster_types::{Cid, Codec};
use multihash_codetable::{Code, MultihashDigest};

use crate::ports::Block;
use crate::unixfs;

/// The data of a UnixFS directory.
const DIRECTORY: [u8; 2] = [0x08, 0x01];
/// The field of a dag-pb node that holds a link.
const LINK: u8 = 0x12;

/// A block of plain bytes.
pub fn leaf(data: impl Into<Bytes>) -> Block {
    let data = data.into();
    Block { cid: Cid::new_v1(Codec::RAW, Code::Sha2_256.digest(&data)), data }
}

/// A directory that holds `children` under names; names must be in order.
pub fn directory(children: &[(&str, Cid)]) -> Block {
    let mut data = Vec::new();
    for (name, cid) in children {
        let mut link = Vec::new();
        field(&mut link, 0x0a, &cid.to_bytes());
        field(&mut link, 0x12, name.as_bytes());
        link.extend([0x18, 0]);
        field(&mut data, LINK, &link);
    }
    field(&mut data, 0x0a, &DIRECTORY);
    let data = Bytes::from(data);
    Block { cid: Cid::new_v1(Codec::DAG_PB, Code::Sha2_256.digest(&data)), data }
}

/// The same block under its CIDv0.
pub fn as_v0(block: &Block) -> Block {
    let cid = Cid::new_v0(*block.cid.hash()).expect("a directory of this module is hashed with sha2-256");
    Block { cid, data: block.data.clone() }
}

/// The names and CIDs a block links to: those of a dag-pb node, none for all other codecs.
pub fn links(block: &Block) -> Vec<(String, Cid)> {
    if block.cid.codec() != Codec::DAG_PB {
        return Vec::new();
    }
    let mut links = Vec::new();
    let mut rest = block.data.as_ref();
    while let Some((tag, body)) = take_field(&mut rest) {
        if tag == LINK {
            links.extend(link(body));
        }
    }
    links
}

fn link(mut body: &[u8]) -> Option<(String, Cid)> {
    let (mut name, mut cid) = (String::new(), None);
    while let Some((tag, value)) = take_field(&mut body) {
        match tag {
            0x0a => cid = Cid::from_bytes(value).ok(),
            0x12 => name = String::from_utf8_lossy(value).into_owned(),
            _ => {}
        }
    }
    Some((name, cid?))
}

/// Whether bytes match a CID.
pub fn matches(cid: &Cid, data: &[u8]) -> bool {
    match Code::try_from(cid.hash().code()) {
        Ok(function) => function.digest(data).digest() == cid.hash().digest(),
        // Identity, and functions that the table lacks.
        Err(_) => unixfs::verify(cid, data).is_ok(),
    }
}

/// A CARv1 archive.
pub fn car(roots: &[Cid], blocks: &[Block]) -> Bytes {
    assert!(roots.len() < 24, "the head is written for few roots");
    let mut head = vec![0xa2, 0x65];
    head.extend(b"roots");
    head.push(0x80 | u8::try_from(roots.len()).expect("checked above"));
    for root in roots {
        let cid = root.to_bytes();
        head.extend([0xd8, 0x2a, 0x58, u8::try_from(cid.len() + 1).expect("a sha2-256 CID is short"), 0]);
        head.extend(cid);
    }
    head.push(0x67);
    head.extend(b"version");
    head.push(1);
    let mut car = Vec::new();
    section(&mut car, &head);
    for block in blocks {
        section(&mut car, &[block.cid.to_bytes().as_slice(), &block.data].concat());
    }
    car.into()
}

/// Roots and blocks of an archive made by [`car`]; `None` when it is cut or a block does not match its CID.
pub fn read_car(mut car: &[u8]) -> Option<(Vec<Cid>, Vec<Block>)> {
    let mut head = take_section(&mut car)?;
    let mut roots = Vec::new();
    while let Some(at) = head.windows(3).position(|bytes| bytes == [0xd8, 0x2a, 0x58]) {
        let (cid, _length) = Cid::read_prefix(head.get(at + 5..)?).ok()?;
        roots.push(cid);
        head = head.get(at + 5..)?;
    }
    let mut blocks = Vec::new();
    while !car.is_empty() {
        let section = take_section(&mut car)?;
        let (cid, length) = Cid::read_prefix(section).ok()?;
        let data = section.get(length..)?;
        if !matches(&cid, data) {
            return None;
        }
        blocks.push(Block { cid, data: Bytes::copy_from_slice(data) });
    }
    Some((roots, blocks))
}

fn section(car: &mut Vec<u8>, bytes: &[u8]) {
    varint(car, bytes.len());
    car.extend(bytes);
}

fn take_section<'a>(car: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_varint(car)?;
    let (section, rest) = car.split_at_checked(length)?;
    *car = rest;
    Some(section)
}

fn field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    varint(out, bytes.len());
    out.extend(bytes);
}

/// The next field of a protobuf message; numbers come without bytes.
fn take_field<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, after) = rest.split_first()?;
    *rest = after;
    let value = take_varint(rest)?;
    if tag & 7 == 0 {
        return Some((*tag, &[]));
    }
    let (bytes, after) = rest.split_at_checked(value)?;
    *rest = after;
    Some((*tag, bytes))
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("seven bits"));
}

fn take_varint(rest: &mut &[u8]) -> Option<usize> {
    let mut value = 0_usize;
    for shift in (0..28).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_has_the_cid_everybody_knows() {
        let empty = as_v0(&directory(&[]));
        assert_eq!(empty.cid.to_string(), "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn");
    }

    #[test]
    fn links_and_archives_read_as_written() {
        let (a, b) = (leaf("a"), leaf("b"));
        let top = directory(&[("a", a.cid), ("b", b.cid)]);
        assert_eq!(links(&top), vec![("a".to_owned(), a.cid), ("b".to_owned(), b.cid)]);
        let blocks = vec![top.clone(), a, b];
        let archive = car(&[top.cid], &blocks);
        assert_eq!(read_car(&archive), Some((vec![top.cid], blocks)));
        assert_eq!(read_car(&archive[..archive.len() - 1]), None);
    }
}
