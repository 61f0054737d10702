//! IPLD values in dag-pb, dag-cbor, dag-json and raw, in both directions.
//!
//! **Invariant:** depth and the number of values are bounded before memory is taken for them; what is decoded is strict
//! (definite lengths, text keys, no tag but 42, nothing after the end), and what is encoded is canonical.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use cluster_core::unixfs::dagpb;
use cluster_types::{Cid, Codec};
use serde_json::{Map, Number, Value};

/// The multicodec of dag-json.
pub(in crate::embedded) const DAG_JSON: u64 = 0x0129;
/// The multicodecs of plain CBOR and JSON.
const CBOR: u64 = 0x51;
const JSON: u64 = 0x0200;
/// How deeply lists and maps may be nested: what the decoder of JSON allows.
const MAX_DEPTH: usize = 127;
/// The most values of one block.
const MAX_VALUES: usize = 512 * 1024;
/// The CBOR tag of a link.
const LINK_TAG: u64 = 42;

/// An IPLD value.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::embedded) enum Node {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    Link(Cid),
}

/// The multicodec with a name.
pub(in crate::embedded) fn by_name(name: &str) -> Option<u64> {
    Some(match name {
        "raw" => Codec::RAW,
        "dag-pb" | "protobuf" => Codec::DAG_PB,
        "dag-cbor" => Codec::DAG_CBOR,
        "dag-json" => DAG_JSON,
        "cbor" => CBOR,
        "json" => JSON,
        _ => return None,
    })
}

/// What a block holds.
pub(in crate::embedded) fn decode(codec: u64, block: &[u8]) -> Result<Node, String> {
    match codec {
        Codec::RAW => Ok(Node::Bytes(block.to_vec())),
        Codec::DAG_PB => decode_pb(block),
        Codec::DAG_CBOR | CBOR => {
            let mut rest = block;
            let node = cbor_value(&mut rest, &mut Budget { values: MAX_VALUES, depth: MAX_DEPTH })?;
            if rest.is_empty() { Ok(node) } else { Err("bytes follow the end".to_owned()) }
        }
        DAG_JSON | JSON => {
            let value: Value = serde_json::from_slice(block).map_err(|error| format!("invalid JSON: {error}"))?;
            json_value(value, codec == DAG_JSON, &mut Budget { values: MAX_VALUES, depth: MAX_DEPTH + 1 })
        }
        other => Err(format!("no decoder registered for multicodec code {other} (0x{other:x})")),
    }
}

/// The block that holds a value.
pub(in crate::embedded) fn encode(codec: u64, node: &Node) -> Result<Vec<u8>, String> {
    match codec {
        Codec::RAW => {
            let Node::Bytes(bytes) = node else {
                return Err("func called on wrong kind: AsBytes called on a node that is not bytes".to_owned());
            };
            Ok(bytes.clone())
        }
        Codec::DAG_PB => encode_pb(node),
        Codec::DAG_CBOR | CBOR => {
            let mut out = Vec::new();
            put_cbor(&mut out, node)?;
            Ok(out)
        }
        DAG_JSON | JSON => serde_json::to_vec(&to_json(node)?).map_err(|error| error.to_string()),
        other => Err(format!("no encoder registered for multicodec code {other} (0x{other:x})")),
    }
}

/// The value at a path, as far as it stays in this block: a link on the way ends it, with the names that are left. The
/// error is the name that leads nowhere.
pub(in crate::embedded) fn descend<'a, 'b>(
    node: &'a Node,
    path: &'b [String],
) -> Result<(&'a Node, &'b [String]), &'b str> {
    let mut here = node;
    for (place, name) in path.iter().enumerate() {
        here = match here {
            Node::Link(_) => return Ok((here, &path[place..])),
            Node::Map(entries) => {
                entries.iter().find(|(key, _)| key == name).map(|(_, value)| value).ok_or(name.as_str())?
            }
            Node::List(items) => name.parse().ok().and_then(|place: usize| items.get(place)).ok_or(name.as_str())?,
            Node::Null | Node::Bool(_) | Node::Integer(_) | Node::Float(_) | Node::Text(_) | Node::Bytes(_) => {
                return Err(name);
            }
        };
    }
    Ok((here, &[]))
}

/// The links of a value with the paths to them.
pub(in crate::embedded) fn links(node: &Node) -> Vec<(String, Cid)> {
    let mut found = Vec::new();
    let mut waiting = vec![(String::new(), node)];
    while let Some((path, node)) = waiting.pop() {
        let under = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        match node {
            Node::Link(cid) => found.push((path, *cid)),
            Node::Map(entries) => waiting.extend(entries.iter().rev().map(|(key, value)| (under(key), value))),
            Node::List(items) => {
                waiting.extend(items.iter().enumerate().rev().map(|(place, value)| (under(&place.to_string()), value)));
            }
            Node::Null | Node::Bool(_) | Node::Integer(_) | Node::Float(_) | Node::Text(_) | Node::Bytes(_) => {}
        }
    }
    found
}

struct Budget {
    values: usize,
    depth: usize,
}

impl Budget {
    fn take(&mut self, values: usize) -> Result<(), String> {
        self.values = self.values.checked_sub(values).ok_or("it has too many values")?;
        Ok(())
    }

    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        self.depth = self.depth.checked_sub(1).ok_or("it is nested too deeply")?;
        let done = work(self);
        self.depth += 1;
        done
    }
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], String> {
    let length = usize::try_from(length).map_err(|_error| "unexpected EOF")?;
    let (head, tail) = rest.split_at_checked(length).ok_or("unexpected EOF")?;
    *rest = tail;
    Ok(head)
}

/// Major type, additional information, argument.
fn cbor_head(rest: &mut &[u8]) -> Result<(u8, u8, u64), String> {
    let first = *take(rest, 1)?.first().ok_or("unexpected EOF")?;
    let (major, info) = (first >> 5, first & 0x1f);
    let wide = match info {
        0..=23 => return Ok((major, info, u64::from(info))),
        24..=27 => 1_u64 << (info - 24),
        _ => return Err("a length is indefinite or reserved".to_owned()),
    };
    let argument = take(rest, wide)?.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    Ok((major, info, argument))
}

fn cbor_text(rest: &mut &[u8], length: u64) -> Result<String, String> {
    String::from_utf8(take(rest, length)?.to_vec()).map_err(|_error| "text is not UTF-8".to_owned())
}

fn cbor_value(rest: &mut &[u8], budget: &mut Budget) -> Result<Node, String> {
    budget.take(1)?;
    let (major, info, argument) = cbor_head(rest)?;
    Ok(match major {
        0 => Node::Integer(argument.into()),
        1 => Node::Integer(-1 - i128::from(i64::try_from(argument).map_err(|_error| "a number does not fit 64 bits")?)),
        2 => Node::Bytes(take(rest, argument)?.to_vec()),
        3 => Node::Text(cbor_text(rest, argument)?),
        4 => {
            let mut items = Vec::new();
            budget.deeper(|budget| {
                for _ in 0..argument {
                    items.push(cbor_value(rest, budget)?);
                }
                Ok(())
            })?;
            Node::List(items)
        }
        5 => Node::Map(budget.deeper(|budget| cbor_map(rest, argument, budget))?),
        6 if argument == LINK_TAG => match cbor_head(rest)? {
            (2, _, length) => match take(rest, length)? {
                [0, cid @ ..] => Node::Link(Cid::from_bytes(cid).map_err(|error| error.to_string())?),
                _ => return Err("invalid multibase on IPLD link".to_owned()),
            },
            _ => return Err("a link is not a byte string".to_owned()),
        },
        6 => return Err(format!("unhandled cbor tag {argument}")),
        _ => match info {
            20 | 21 => Node::Bool(info == 21),
            22 => Node::Null,
            25 => float(half(argument))?,
            26 => float(f64::from(f32::from_bits(u32::try_from(argument).unwrap_or_default())))?,
            27 => float(f64::from_bits(argument))?,
            _ => return Err("a simple value is not allowed".to_owned()),
        },
    })
}

fn cbor_map(rest: &mut &[u8], length: u64, budget: &mut Budget) -> Result<Vec<(String, Node)>, String> {
    let mut entries: Vec<(String, Node)> = Vec::new();
    let mut keys = std::collections::HashSet::new();
    for _ in 0..length {
        budget.take(1)?;
        let (3, _, length) = cbor_head(rest)? else { return Err("a map key is not text".to_owned()) };
        let key = cbor_text(rest, length)?;
        if !keys.insert(key.clone()) {
            return Err(format!("cannot repeat map key {key:?}"));
        }
        entries.push((key, cbor_value(rest, budget)?));
    }
    Ok(entries)
}

fn float(value: f64) -> Result<Node, String> {
    if value.is_finite() { Ok(Node::Float(value)) } else { Err("a number is not finite".to_owned()) }
}

/// A number of 16 bits.
fn half(bits: u64) -> f64 {
    let exponent = i32::try_from(bits >> 10 & 0x1f).unwrap_or_default();
    let fraction = (bits & 0x3ff) as f64;
    let value = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 => f64::INFINITY,
        _ => (fraction + 1024.0) * 2_f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { value } else { -value }
}

fn put_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    let bytes = argument.to_be_bytes();
    match argument {
        0..=23 => out.push(major | bytes[7]),
        24..=0xff => out.extend_from_slice(&[major | 24, bytes[7]]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&bytes[6..]);
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&bytes[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&bytes);
        }
    }
}

fn put_cbor(out: &mut Vec<u8>, node: &Node) -> Result<(), String> {
    let too_large = |_error| "a number does not fit 64 bits".to_owned();
    match node {
        Node::Null => out.push(0xf6),
        Node::Bool(value) => out.push(0xf4 + u8::from(*value)),
        Node::Integer(value) if *value >= 0 => put_head(out, 0, u64::try_from(*value).map_err(too_large)?),
        Node::Integer(value) => put_head(out, 1, u64::try_from(-1 - *value).map_err(too_large)?),
        Node::Float(value) => {
            out.push(0xfb);
            out.extend_from_slice(&value.to_be_bytes());
        }
        Node::Text(text) => {
            put_head(out, 3, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        Node::Bytes(bytes) => {
            put_head(out, 2, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        Node::List(items) => {
            put_head(out, 4, items.len() as u64);
            items.iter().try_for_each(|item| put_cbor(out, item))?;
        }
        Node::Map(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            // Shorter keys first, as canonical CBOR has it.
            sorted.sort_by(|(one, _), (other, _)| (one.len(), one.as_bytes()).cmp(&(other.len(), other.as_bytes())));
            put_head(out, 5, sorted.len() as u64);
            for (key, value) in sorted {
                put_head(out, 3, key.len() as u64);
                out.extend_from_slice(key.as_bytes());
                put_cbor(out, value)?;
            }
        }
        Node::Link(cid) => {
            let cid = cid.to_bytes();
            put_head(out, 6, LINK_TAG);
            put_head(out, 2, cid.len() as u64 + 1);
            out.push(0);
            out.extend_from_slice(&cid);
        }
    }
    Ok(())
}

fn json_value(value: Value, links: bool, budget: &mut Budget) -> Result<Node, String> {
    budget.take(1)?;
    Ok(match value {
        Value::Null => Node::Null,
        Value::Bool(value) => Node::Bool(value),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), ..) => Node::Integer(value.into()),
            (None, Some(value), _) => Node::Integer(value.into()),
            (None, None, Some(value)) => float(value)?,
            (None, None, None) => return Err("a number cannot be read".to_owned()),
        },
        Value::String(text) => Node::Text(text),
        Value::Array(items) => {
            Node::List(budget.deeper(|budget| items.into_iter().map(|item| json_value(item, links, budget)).collect())?)
        }
        Value::Object(entries) => {
            if links && let Some(special) = json_special(&entries)? {
                return Ok(special);
            }
            Node::Map(budget.deeper(|budget| {
                entries.into_iter().map(|(key, value)| Ok((key, json_value(value, links, budget)?))).collect()
            })?)
        }
    })
}

/// `{"/": "<cid>"}` and `{"/": {"bytes": "…"}}`.
fn json_special(entries: &Map<String, Value>) -> Result<Option<Node>, String> {
    if entries.len() != 1 {
        return Ok(None);
    }
    match entries.get("/") {
        Some(Value::String(cid)) => {
            Ok(Some(Node::Link(cid.parse().map_err(|error| format!("invalid link {cid:?}: {error}"))?)))
        }
        Some(Value::Object(inner)) if inner.len() == 1 => match inner.get("bytes") {
            Some(Value::String(text)) => {
                let bytes = STANDARD_NO_PAD.decode(text.trim_end_matches('='));
                Ok(Some(Node::Bytes(bytes.map_err(|error| format!("invalid bytes: {error}"))?)))
            }
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

fn to_json(node: &Node) -> Result<Value, String> {
    let under_slash = |value| Value::Object(Map::from_iter([("/".to_owned(), value)]));
    Ok(match node {
        Node::Null => Value::Null,
        Node::Bool(value) => Value::Bool(*value),
        Node::Integer(value) => Number::from_i128(*value).map(Value::Number).ok_or("a number does not fit 64 bits")?,
        Node::Float(value) => Number::from_f64(*value).map(Value::Number).ok_or("a number is not finite")?,
        Node::Text(text) => Value::String(text.clone()),
        Node::Bytes(bytes) => {
            let text = Value::String(STANDARD_NO_PAD.encode(bytes));
            under_slash(Value::Object(Map::from_iter([("bytes".to_owned(), text)])))
        }
        Node::List(items) => Value::Array(items.iter().map(to_json).collect::<Result<_, _>>()?),
        Node::Map(entries) => Value::Object(
            entries.iter().map(|(key, value)| Ok((key.clone(), to_json(value)?))).collect::<Result<_, String>>()?,
        ),
        Node::Link(cid) => under_slash(Value::String(cid.to_string())),
    })
}

fn decode_pb(block: &[u8]) -> Result<Node, String> {
    let data = dagpb::data(block).map_err(|error| error.reason.to_owned())?;
    let mut links = Vec::new();
    for link in dagpb::links(block) {
        let link = link.map_err(|error| error.reason.to_owned())?;
        let cid = link.cid().map_err(|error| error.reason.to_owned())?;
        links.push(Node::Map(vec![
            ("Hash".to_owned(), Node::Link(cid)),
            ("Name".to_owned(), Node::Text(String::from_utf8_lossy(link.name).into_owned())),
            ("Tsize".to_owned(), Node::Integer(link.size.into())),
        ]));
    }
    let mut entries = vec![("Links".to_owned(), Node::List(links))];
    if !data.is_empty() {
        entries.insert(0, ("Data".to_owned(), Node::Bytes(data.to_vec())));
    }
    Ok(Node::Map(entries))
}

fn encode_pb(node: &Node) -> Result<Vec<u8>, String> {
    let Node::Map(entries) = node else { return Err("a dag-pb node must be a map".to_owned()) };
    if let Some((key, _)) = entries.iter().find(|(key, _)| key != "Data" && key != "Links") {
        return Err(format!("invalid key for dag-pb: {key:?}"));
    }
    let field = |name: &str| entries.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let Some(Node::List(items)) = field("Links") else { return Err("a dag-pb node must have Links".to_owned()) };
    let mut links = items.iter().map(pb_link).collect::<Result<Vec<_>, String>>()?;
    // Canonical: by name, equal names in their order.
    links.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
    let mut out = Vec::new();
    for (_, link) in links {
        put_pb(&mut out, 0x12, &link);
    }
    match field("Data") {
        None => {}
        Some(Node::Bytes(data)) => put_pb(&mut out, 0x0a, data),
        Some(_) => return Err("Data of a dag-pb node must be bytes".to_owned()),
    }
    Ok(out)
}

/// A link's name and bytes.
fn pb_link(node: &Node) -> Result<(String, Vec<u8>), String> {
    let Node::Map(entries) = node else { return Err("a link of a dag-pb node must be a map".to_owned()) };
    let (mut name, mut out, mut tail) = (String::new(), Vec::new(), Vec::new());
    let mut hash = None;
    for (key, value) in entries {
        match (key.as_str(), value) {
            ("Hash", Node::Link(cid)) => hash = Some(cid.to_bytes()),
            ("Name", Node::Text(text)) => name.clone_from(text),
            ("Tsize", Node::Integer(size)) => {
                tail.push(0x18);
                put_varint(&mut tail, u64::try_from(*size).map_err(|_error| "Tsize is out of range")?);
            }
            _ => return Err(format!("invalid field of a dag-pb link: {key:?}")),
        }
    }
    put_pb(&mut out, 0x0a, &hash.ok_or("a link of a dag-pb node must have a Hash")?);
    if entries.iter().any(|(key, _)| key == "Name") {
        put_pb(&mut out, 0x12, name.as_bytes());
    }
    out.extend(tail);
    Ok((name, out))
}

fn put_pb(out: &mut Vec<u8>, key: u8, bytes: &[u8]) {
    out.push(key);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CID: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";

    #[test]
    fn json_becomes_canonical_cbor_and_comes_back() {
        let text = format!(r#"{{"bb":[1,-2,1.5,null,true],"a":{{"/":{{"bytes":"AQI"}}}},"link":{{"/":"{CID}"}}}}"#);
        let node = decode(DAG_JSON, text.as_bytes()).unwrap();
        let block = encode(Codec::DAG_CBOR, &node).unwrap();
        assert!(block.starts_with(&[0xa3, 0x61, b'a', 0x42, 1, 2, 0x62, b'b', b'b', 0x85, 1, 0x21, 0xfb]), "{block:?}");
        let back = decode(Codec::DAG_CBOR, &block).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        let printed: Value = serde_json::from_slice(&encode(DAG_JSON, &back).unwrap()).unwrap();
        assert_eq!(printed, expected);
        assert_eq!(links(&back), vec![("link".to_owned(), CID.parse().unwrap())]);
    }

    #[test]
    fn names_lead_into_a_value_and_up_to_a_link() {
        let node = decode(DAG_JSON, format!(r#"{{"a":[{{"/":"{CID}"}},7]}}"#).as_bytes()).unwrap();
        let path = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(descend(&node, &path(&["a", "1"])), Ok((&Node::Integer(7), [].as_slice())));
        let further = path(&["a", "0", "x"]);
        let (found, rest) = descend(&node, &further).unwrap();
        assert_eq!((found, rest), (&Node::Link(CID.parse().unwrap()), path(&["x"]).as_slice()));
        assert_eq!(descend(&node, &path(&["a", "2"])), Err("2"));
        assert_eq!(descend(&node, &path(&["b"])), Err("b"));
    }

    #[test]
    fn dag_pb_is_the_same_in_both_directions() {
        let text = format!(
            r#"{{"Data":{{"/":{{"bytes":"CAE"}}}},"Links":[{{"Hash":{{"/":"{CID}"}},"Name":"x","Tsize":300}}]}}"#
        );
        let node = decode(DAG_JSON, text.as_bytes()).unwrap();
        let block = encode(Codec::DAG_PB, &node).unwrap();
        assert_eq!(encode(DAG_JSON, &decode(Codec::DAG_PB, &block).unwrap()).unwrap(), text.as_bytes());
        assert_eq!(encode(Codec::DAG_PB, &decode(DAG_JSON, br#"{"Links":[]}"#).unwrap()).unwrap(), b"");
        assert!(encode(Codec::DAG_PB, &decode(DAG_JSON, br#"{"Links":[],"x":1}"#).unwrap()).is_err());
    }

    #[test]
    fn hostile_blocks_are_refused() {
        let bombs: [&[u8]; 7] = [
            &[0x81; 5000],
            &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0xa2, 0x61, b'a', 0, 0x61, b'a', 0],
            &[0xf9, 0x7c, 0x00],
            &[0x01, 0x01],
            &[0xc1, 0x00],
        ];
        for bomb in bombs {
            assert!(decode(Codec::DAG_CBOR, bomb).is_err(), "{bomb:?}");
        }
        let mut wide = vec![0x9a];
        wide.extend((MAX_VALUES as u32 + 1).to_be_bytes());
        wide.resize(MAX_VALUES + 6, 0);
        assert_eq!(decode(Codec::DAG_CBOR, &wide).unwrap_err(), "it has too many values");
        assert!(decode(DAG_JSON, "[".repeat(5000).as_bytes()).is_err());
        assert!(decode(DAG_JSON, br#"{"/":"nonsense"}"#).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            for codec in [Codec::DAG_PB, Codec::DAG_CBOR, DAG_JSON, Codec::RAW] {
                if let Ok(node) = decode(codec, &data) {
                    prop_assert!(encode(DAG_JSON, &node).is_ok());
                    prop_assert_eq!(decode(Codec::DAG_CBOR, &encode(Codec::DAG_CBOR, &node).unwrap()).unwrap(), sorted(node));
                }
            }
        }
    }

    /// Maps as canonical CBOR orders them.
    fn sorted(node: Node) -> Node {
        match node {
            Node::List(items) => Node::List(items.into_iter().map(sorted).collect()),
            Node::Map(entries) => {
                let mut entries: Vec<_> = entries.into_iter().map(|(key, value)| (key, sorted(value))).collect();
                entries
                    .sort_by(|(one, _), (other, _)| (one.len(), one.as_bytes()).cmp(&(other.len(), other.as_bytes())));
                Node::Map(entries)
            }
            other @ (Node::Null
            | Node::Bool(_)
            | Node::Integer(_)
            | Node::Float(_)
            | Node::Text(_)
            | Node::Bytes(_)
            | Node::Link(_)) => other,
        }
    }
}
