//! The `dag-pb` codec: a block that is some bytes and a list of named links.
//!
//! Written the one canonical way (every link before the data, hash, name and size in order), as Kubo writes it. Read
//! as Kubo reads it: fields in order, none twice, none unknown. Reading copies nothing.

use cluster_types::Cid;

/// Bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Malformed {
    /// What is wrong with them.
    pub reason: &'static str,
}

impl Malformed {
    pub(super) fn new(reason: &'static str) -> Self {
        Self { reason }
    }
}

/// A link as it stands in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// The CID in its binary form.
    pub hash: &'a [u8],
    /// The name; not always UTF-8.
    pub name: &'a [u8],
    /// What the writer says about the size of the DAG below; not to be believed.
    pub size: u64,
}

impl Link<'_> {
    /// The block it leads to.
    pub fn cid(&self) -> Result<Cid, Malformed> {
        Cid::from_bytes(self.hash).map_err(|_error| Malformed::new("a link is not a CID"))
    }
}

/// A link to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLink<'a> {
    /// The block it leads to.
    pub cid: Cid,
    /// The name, empty inside files.
    pub name: std::borrow::Cow<'a, str>,
    /// Size of the DAG below, counting a shared block as often as it is linked.
    pub size: u64,
}

/// Writes a block.
pub fn encode<'a>(links: impl IntoIterator<Item = NewLink<'a>>, data: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(data.len() + 16);
    for link in links {
        let hash = link.cid.to_bytes();
        let body = field_length(hash.len()) + field_length(link.name.len()) + 1 + varint_length(link.size);
        put_varint(&mut block, 0x12);
        put_varint(&mut block, body as u64);
        put_bytes(&mut block, 1, &hash);
        put_bytes(&mut block, 2, link.name.as_bytes());
        put_number(&mut block, 3, link.size);
    }
    put_bytes(&mut block, 1, data);
    block
}

/// The links of a block in order; ends after the first error.
pub fn links(block: &[u8]) -> impl Iterator<Item = Result<Link<'_>, Malformed>> {
    let mut parts = Parts { rest: block, data_seen: false, links_over: false, links_seen: false };
    std::iter::from_fn(move || {
        loop {
            match parts.next()? {
                Ok(Part::Link(link)) => return Some(Ok(link)),
                Ok(Part::Data(_)) => {}
                Err(error) => {
                    parts.rest = &[];
                    return Some(Err(error));
                }
            }
        }
    })
}

/// The data of a block, empty when it has none; checks the whole block.
pub fn data(block: &[u8]) -> Result<&[u8], Malformed> {
    let parts = Parts { rest: block, data_seen: false, links_over: false, links_seen: false };
    let mut found: &[u8] = &[];
    for part in parts {
        if let Part::Data(data) = part? {
            found = data;
        }
    }
    Ok(found)
}

enum Part<'a> {
    Link(Link<'a>),
    Data(&'a [u8]),
}

/// Walks the fields of a block. Does not stop by itself after an error: its two users do.
struct Parts<'a> {
    rest: &'a [u8],
    data_seen: bool,
    links_seen: bool,
    links_over: bool,
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<Part<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() { None } else { Some(self.part()) }
    }
}

impl<'a> Parts<'a> {
    fn part(&mut self) -> Result<Part<'a>, Malformed> {
        match read_field(&mut self.rest)? {
            (2, Value::Bytes(link)) => {
                if self.links_over {
                    return Err(Malformed::new("the links are in two places"));
                }
                self.links_seen = true;
                read_link(link).map(Part::Link)
            }
            (1, Value::Bytes(data)) => {
                if self.data_seen {
                    return Err(Malformed::new("there are data twice"));
                }
                self.data_seen = true;
                self.links_over = self.links_seen;
                Ok(Part::Data(data))
            }
            _ => Err(Malformed::new("a node has an unknown field")),
        }
    }
}

fn read_link(mut rest: &[u8]) -> Result<Link<'_>, Malformed> {
    let mut link = Link { hash: &[], name: &[], size: 0 };
    let mut last = 0;
    while !rest.is_empty() {
        let (field, value) = read_field(&mut rest)?;
        if field <= last {
            return Err(Malformed::new("a link's fields are out of order"));
        }
        last = field;
        match (field, value) {
            (1, Value::Bytes(hash)) => link.hash = hash,
            (2, Value::Bytes(name)) => link.name = name,
            (3, Value::Number(size)) => link.size = size,
            _ => return Err(Malformed::new("a link has an unknown field")),
        }
    }
    if link.hash.is_empty() { Err(Malformed::new("a link has no CID")) } else { Ok(link) }
}

/// The value of a protobuf field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// A varint.
    Number(u64),
    /// Bytes, text or a message.
    Bytes(&'a [u8]),
    /// Four or eight bytes.
    Fixed,
}

/// Reads one protobuf field.
pub(super) fn read_field<'a>(rest: &mut &'a [u8]) -> Result<(u64, Value<'a>), Malformed> {
    let key = read_varint(rest)?;
    let value = match key & 7 {
        0 => Value::Number(read_varint(rest)?),
        1 => {
            take(rest, 8)?;
            Value::Fixed
        }
        2 => {
            let length = read_varint(rest)?;
            Value::Bytes(take(rest, length)?)
        }
        5 => {
            take(rest, 4)?;
            Value::Fixed
        }
        _ => return Err(Malformed::new("a field has an unknown wire type")),
    };
    Ok((key >> 3, value))
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], Malformed> {
    let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (head, tail) = split.ok_or(Malformed::new("it ends too early"))?;
    *rest = tail;
    Ok(head)
}

/// Reads a varint of at most 64 bits.
pub(super) fn read_varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first().ok_or(Malformed::new("it ends too early"))?;
        *rest = tail;
        if shift == 63 && *byte > 1 {
            break;
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed::new("a number has more than 64 bits"))
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(out, field << 3);
    put_varint(out, number);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint_length(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Length of a bytes field whose number is below 16.
fn field_length(bytes: usize) -> usize {
    1 + varint_length(bytes as u64) + bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cid() -> Cid {
        "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap()
    }

    #[test]
    fn links_come_before_data_on_the_wire() {
        let block = encode([NewLink { cid: cid(), name: "a".into(), size: 300 }], &[8, 1]);
        assert_eq!(block[..4], [0x12, 42, 0x0a, 34]);
        assert_eq!(block[38..], [0x12, 1, b'a', 0x18, 0xac, 0x02, 0x0a, 2, 8, 1]);
    }

    #[test]
    fn what_kubo_refuses_is_refused() {
        let link: &[u8] = &[0x12, 3, 0x0a, 1, 7];
        let data: &[u8] = &[0x0a, 1, 9];
        let refused = |parts: &[&[u8]]| {
            let block = parts.concat();
            let by_links = links(&block).find_map(Result::err).unwrap().reason;
            assert_eq!(super::data(&block).unwrap_err().reason, by_links);
            by_links
        };
        assert_eq!(refused(&[data, data]), "there are data twice");
        assert_eq!(refused(&[link, data, link]), "the links are in two places");
        assert_eq!(refused(&[&[0x1a, 0]]), "a node has an unknown field");
        assert_eq!(refused(&[&[0x12, 0]]), "a link has no CID");
        assert_eq!(refused(&[&[0x12, 5, 0x18, 1, 0x0a, 1, 7]]), "a link's fields are out of order");
        assert_eq!(refused(&[&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]]), "it ends too early");
        assert_eq!(refused(&[&[0xff; 11]]), "a number has more than 64 bits");
        assert_eq!(links(&[data, link].concat()).count(), 1);
    }

    proptest! {
        #[test]
        fn every_node_reads_back(
            names in proptest::collection::vec(("[a-zé/ ]{0,200}", any::<u64>()), 0..20),
            data in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let block = encode(names.iter().map(|(name, size)| NewLink { cid: cid(), name: name.into(), size: *size }), &data);
            prop_assert_eq!(super::data(&block).unwrap(), &data[..]);
            let read: Vec<_> = links(&block).map(|link| link.unwrap()).collect();
            prop_assert_eq!(read.len(), names.len());
            for (link, (name, size)) in read.iter().zip(&names) {
                prop_assert_eq!(link.name, name.as_bytes());
                prop_assert_eq!(link.size, *size);
                prop_assert_eq!(link.cid().unwrap(), cid());
            }
        }
    }
}
