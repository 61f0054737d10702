//! Which blocks a block links to, whatever its codec.
//!
//! **Invariant:** the walk needs memory for the links it finds and a bounded stack, never for what lengths in the
//! block promise.

use cluster_types::{Cid, Codec};

use super::dagpb;
use super::hash::identity_data;

/// How deeply lists and maps of a dag-cbor block may be nested: the limit of Kubo's decoder.
const MAX_CBOR_DEPTH: usize = 1024;
/// The CBOR tag of a link.
const LINK_TAG: u64 = 42;

/// A block cannot be read as its codec says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {cid} is not valid {}: {reason}", codec_name(cid.codec()))]
pub struct DagError {
    /// The block.
    pub cid: Cid,
    /// What is wrong with it.
    pub reason: String,
}

impl DagError {
    pub(super) fn new(cid: &Cid, reason: impl Into<String>) -> Self {
        Self { cid: *cid, reason: reason.into() }
    }
}

/// The multicodec name of a codec that can be walked, `unknown` otherwise.
pub fn codec_name(codec: u64) -> &'static str {
    match codec {
        Codec::RAW => "raw",
        Codec::DAG_PB => "dag-pb",
        Codec::DAG_CBOR => "dag-cbor",
        _ => "unknown",
    }
}

/// The blocks a block links to, in order: none for `raw`, the links of a `dag-pb` or `dag-cbor` block.
///
/// A CID that holds its data itself (identity hash) is read from the CID; `data` is not looked at then. A block that
/// links to another twice lists it twice.
pub fn links(cid: &Cid, data: &[u8]) -> Result<Vec<Cid>, DagError> {
    let data = identity_data(cid).unwrap_or(data);
    match cid.codec() {
        Codec::RAW => Ok(Vec::new()),
        Codec::DAG_PB => dagpb::links(data)
            .map(|link| link?.cid())
            .collect::<Result<_, _>>()
            .map_err(|error| DagError::new(cid, error.reason)),
        Codec::DAG_CBOR => cbor_links(data).map_err(|reason| DagError::new(cid, reason)),
        other => Err(DagError::new(cid, format!("blocks of codec 0x{other:x} cannot be walked"))),
    }
}

/// A list or map that is not finished: how many items it still holds, and whether they are keys and values.
struct Open {
    left: u64,
    map: bool,
}

/// The links of a dag-cbor block: strict about structure (definite lengths, text keys, no tag but 42, nothing after
/// the end), indifferent to the order of keys and the width of numbers.
fn cbor_links(data: &[u8]) -> Result<Vec<Cid>, &'static str> {
    let mut rest = data;
    let mut found = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    loop {
        let must_be_text = open.last().is_some_and(|frame| frame.map && frame.left % 2 == 0);
        if let Some(frame) = open.last_mut() {
            frame.left -= 1;
        }
        let (major, argument) = cbor_head(&mut rest)?;
        if must_be_text && major != 3 {
            return Err("a map key is not text");
        }
        match major {
            2 => drop(take(&mut rest, argument)?),
            3 => drop(std::str::from_utf8(take(&mut rest, argument)?).map_err(|_error| "text is not UTF-8")?),
            4 | 5 => {
                let map = major == 5;
                let left = if map { argument.checked_mul(2) } else { Some(argument) };
                // Every item takes at least a byte.
                let left = left.filter(|left| *left <= rest.len() as u64).ok_or("a list or map ends too early")?;
                if open.len() == MAX_CBOR_DEPTH {
                    return Err("it is nested too deeply");
                }
                open.push(Open { left, map });
            }
            6 => found.push(cbor_link(&mut rest, argument)?),
            _ => {} // Numbers and simple values: the head was all.
        }
        while open.last().is_some_and(|frame| frame.left == 0) {
            open.pop();
        }
        if open.is_empty() {
            return if rest.is_empty() { Ok(found) } else { Err("bytes follow the end") };
        }
    }
}

/// A major type and its argument; for floats and simple values the argument is of no use.
pub(super) fn cbor_head(rest: &mut &[u8]) -> Result<(u8, u64), &'static str> {
    let first = *take(rest, 1)?.first().ok_or("it ends too early")?;
    let (major, info) = (first >> 5, first & 0x1f);
    let wide = match info {
        0..=23 => 0,
        24..=27 => 1_u64 << (info - 24),
        _ => return Err("a length is indefinite or reserved"),
    };
    if major == 7 && !matches!(info, 20..=22 | 25..=27) {
        return Err("a simple value is not allowed");
    }
    let argument = take(rest, wide)?.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    Ok((major, if wide == 0 { u64::from(info) } else { argument }))
}

/// The link after a tag.
pub(super) fn cbor_link(rest: &mut &[u8], tag: u64) -> Result<Cid, &'static str> {
    if tag != LINK_TAG {
        return Err("a tag other than 42 is not allowed");
    }
    let (major, length) = cbor_head(rest)?;
    if major != 2 {
        return Err("a link is not a byte string");
    }
    match take(rest, length)? {
        [0, cid @ ..] => Cid::from_bytes(cid).map_err(|_error| "a link is not a CID"),
        _ => Err("a link does not start with the identity multibase"),
    }
}

pub(super) fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], &'static str> {
    let length = usize::try_from(length).map_err(|_error| "it ends too early")?;
    let (head, tail) = rest.split_at_checked(length).ok_or("it ends too early")?;
    *rest = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHILD: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";

    fn child() -> Cid {
        CHILD.parse().unwrap()
    }

    fn named(codec: u64, data: &[u8]) -> Cid {
        super::super::CidBuilder::new(1, "sha2-256").unwrap().cid(codec, data)
    }

    fn link_bytes() -> Vec<u8> {
        let cid = child().to_bytes();
        let mut bytes = vec![0xd8, 42, 0x58, u8::try_from(cid.len() + 1).unwrap(), 0];
        bytes.extend_from_slice(&cid);
        bytes
    }

    #[test]
    fn links_of_nested_cbor_are_found_in_order() {
        // {"a": [link, 1], "b": {"c": link}}
        let mut bytes = vec![0xa2, 0x61, b'a', 0x82];
        bytes.extend(link_bytes());
        bytes.extend([0x01, 0x61, b'b', 0xa1, 0x61, b'c']);
        bytes.extend(link_bytes());
        let cid = named(Codec::DAG_CBOR, &bytes);
        assert_eq!(links(&cid, &bytes), Ok(vec![child(), child()]));
        bytes.push(0);
        assert_eq!(links(&cid, &bytes).unwrap_err().reason, "bytes follow the end");
    }

    #[test]
    fn hostile_cbor_is_refused() {
        let cid = named(Codec::DAG_CBOR, b"");
        let refused = |bytes: &[u8]| links(&cid, bytes).unwrap_err().reason;
        assert_eq!(refused(&[]), "it ends too early");
        assert_eq!(refused(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), "a list or map ends too early");
        assert_eq!(refused(&[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), "a list or map ends too early");
        assert_eq!(refused(&[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), "it ends too early");
        assert_eq!(refused(&[0x9f, 0xff]), "a length is indefinite or reserved");
        assert_eq!(refused(&[0xc1, 0x00]), "a tag other than 42 is not allowed");
        assert_eq!(refused(&[0xa1, 0x01, 0x01]), "a map key is not text");
        assert_eq!(refused(&[0x81; 5000]), "it is nested too deeply");
        assert_eq!(refused(&[0xd8, 42, 0x41, 0x00]), "a link is not a CID");
    }

    #[test]
    fn raw_blocks_have_no_links_and_unknown_codecs_say_so() {
        assert_eq!(links(&named(Codec::RAW, b"x"), b"x"), Ok(Vec::new()));
        let error = links(&named(0x78, b"x"), b"x").unwrap_err();
        assert!(error.to_string().contains("0x78"), "{error}");
    }

    #[test]
    fn an_identity_cid_is_read_from_itself() {
        let mut node = vec![0x12, 0x24 + 2, 0x0a, 0x24];
        node.extend(child().to_bytes());
        let mut bytes = vec![1, 0x70, 0, u8::try_from(node.len()).unwrap()];
        bytes.extend(&node);
        let cid = Cid::from_bytes(&bytes).unwrap();
        assert_eq!(links(&cid, b"not looked at"), Ok(vec![child()]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_walk_panic(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            for codec in [Codec::DAG_PB, Codec::DAG_CBOR, Codec::RAW] {
                if let Ok(found) = links(&named(codec, b""), &data) {
                    prop_assert!(found.len() <= data.len() / 4);
                }
            }
        }
    }
}
