//! CAR archives: sent on to Kubo as they come, while their head is read for the roots.
//!
//! Kubo names the roots of an archive only when it pins them, and an import must not pin. So the head of the archive
//! is read on the way: at most [`MAX_HEAD`] bytes are kept for that.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_core::ports::IpfsError;
use cluster_types::Cid;
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use reqwest::multipart::{Form, Part};
use serde::Deserialize;
use tokio::time::Instant;

use super::KuboConfig;
use super::client::{Call, Client, Failure};

/// The longest head of an archive: some 20,000 roots.
const MAX_HEAD: usize = 1024 * 1024;
/// How a CARv2 begins: a CARv1 head without roots that says version 2.
const V2_PRAGMA: [u8; 11] = [0x0a, 0xa1, 0x67, b'v', b'e', b'r', b's', b'i', b'o', b'n', 0x02];
/// The fixed head of a CARv2: 16 bytes of flags, then three little-endian u64, the first of them the data offset.
const V2_HEAD: usize = 40;

#[derive(Deserialize)]
pub(super) struct ImportLine {
    #[serde(rename = "Stats", default)]
    pub(super) stats: Option<ImportStats>,
}

#[derive(Deserialize)]
pub(super) struct ImportStats {
    #[serde(rename = "BlockCount")]
    pub(super) block_count: u64,
}

/// What is known of an archive on its way.
struct Passage {
    head: Head,
    moved_at: Instant,
    broken: Option<String>,
}

enum Head {
    Reading(Vec<u8>),
    Read(Vec<Cid>),
}

impl Passage {
    /// Looks at the next piece.
    fn see(&mut self, piece: &[u8]) -> Result<(), String> {
        self.moved_at = Instant::now();
        let Head::Reading(head) = &mut self.head else { return Ok(()) };
        let room = MAX_HEAD - head.len();
        head.extend_from_slice(&piece[..piece.len().min(room)]);
        match roots(head)? {
            Some(roots) => self.head = Head::Read(roots),
            None if head.len() == MAX_HEAD => return Err(format!("its head is longer than {MAX_HEAD} bytes")),
            None => {}
        }
        Ok(())
    }
}

/// Imports an archive; all its blocks are on the node when this returns.
pub(super) async fn import(
    client: &Client,
    config: &KuboConfig,
    car: BoxStream<'static, Result<Bytes, io::Error>>,
) -> Result<Vec<Cid>, Failure> {
    let call = Call::new("dag/import").with("allow-big-block", true).with("pin-roots", false).with("stats", true);
    let passage =
        Arc::new(Mutex::new(Passage { head: Head::Reading(Vec::new()), moved_at: Instant::now(), broken: None }));
    let watched = Arc::clone(&passage);
    let body = car.map(move |piece| {
        let mut passage = watched.lock();
        let result = piece.map_err(|error| error.to_string()).and_then(|piece| passage.see(&piece).map(|()| piece));
        result.map_err(|reason| {
            passage.broken = Some(reason.clone());
            io::Error::other(reason)
        })
    });
    let form = Form::new().part("file", Part::stream(reqwest::Body::wrap_stream(body)).file_name("archive.car"));
    let work = async {
        let mut lines = client.post(&call, Some(form)).await?.lines();
        let mut blocks = None;
        while let Some(line) = lines.next::<ImportLine>().await? {
            blocks = line.stats.map(|stats| stats.block_count).or(blocks);
        }
        match blocks {
            Some(blocks) => Ok(blocks),
            None => Err(lines.bad("it does not say how many blocks it took".to_owned()).into()),
        }
    };
    let moving = while_moving(client, call.operation, config.request_timeout, &passage, work).await;
    let mut passage = passage.lock();
    if let Some(reason) = passage.broken.take() {
        return Err(unreadable(&reason));
    }
    let blocks = moving?;
    match &mut passage.head {
        Head::Read(roots) => {
            tracing::debug!(blocks, roots = roots.len(), "imported an archive");
            Ok(std::mem::take(roots))
        }
        Head::Reading(_) => Err(unreadable("it ends within its head")),
    }
}

fn unreadable(reason: &str) -> Failure {
    IpfsError::Refused { reason: format!("cannot import the archive: {reason}") }.into()
}

/// Waits for `work` as long as pieces of the archive move or moved `silence` ago.
async fn while_moving<T>(
    client: &Client,
    operation: &'static str,
    silence: Duration,
    passage: &Mutex<Passage>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(work);
    loop {
        let deadline = passage.lock().moved_at + silence;
        if let Ok(result) = tokio::time::timeout_at(deadline, &mut work).await {
            return result;
        }
        if passage.lock().moved_at + silence <= Instant::now() {
            return Err(client.silent(operation, silence).into());
        }
    }
}

/// The roots in the head of an archive; `None` when more bytes are needed.
fn roots(head: &[u8]) -> Result<Option<Vec<Cid>>, String> {
    if !head.starts_with(&V2_PRAGMA) {
        if V2_PRAGMA.starts_with(head) {
            return Ok(None);
        }
        return roots_v1(head);
    }
    let offset = V2_PRAGMA.len() + 16;
    let Some(bytes) = head.get(offset..offset + 8) else { return Ok(None) };
    let data = u64::from_le_bytes(bytes.try_into().map_err(|_| "its head is cut".to_owned())?);
    let data = usize::try_from(data).ok().filter(|at| (V2_PRAGMA.len() + V2_HEAD..MAX_HEAD).contains(at));
    let data = data.ok_or("its data begins in a place that makes no sense")?;
    head.get(data..).map_or(Ok(None), roots_v1)
}

/// The roots in the head of a CARv1: a length, then `{"roots": [links], "version": 1}` in DAG-CBOR.
fn roots_v1(head: &[u8]) -> Result<Option<Vec<Cid>>, String> {
    let Some((length, body)) = varint(head)? else { return Ok(None) };
    if length == 0 || length > MAX_HEAD - 16 {
        return Err("the length of its head makes no sense".to_owned());
    }
    let Some(body) = body.get(..length) else { return Ok(None) };
    cbor_head(body).map(Some).ok_or_else(|| "its head is malformed".to_owned())
}

/// An unsigned LEB128 number of at most four bytes, which is above [`MAX_HEAD`], and what follows.
fn varint(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, String> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, &bytes[at + 1..])));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err("the length of its head makes no sense".to_owned()) }
}

fn cbor_head(body: &[u8]) -> Option<Vec<Cid>> {
    const UNSIGNED: u8 = 0;
    const TEXT: u8 = 3;
    const ARRAY: u8 = 4;
    const MAP: u8 = 5;
    let mut rest = body;
    let (mut roots, mut version) = (Vec::new(), None);
    for _ in 0..cbor_item(&mut rest, MAP)? {
        let length = cbor_item(&mut rest, TEXT)?;
        match cbor_take(&mut rest, length)? {
            b"version" => version = Some(cbor_item(&mut rest, UNSIGNED)?),
            b"roots" => {
                // No room is made ahead: each root takes bytes of the head, which is bounded.
                for _ in 0..cbor_item(&mut rest, ARRAY)? {
                    roots.push(cbor_link(&mut rest)?);
                }
            }
            _ => return None,
        }
    }
    (version == Some(1) && rest.is_empty()).then_some(roots)
}

/// A link: tag 42 around bytes that begin with a zero.
fn cbor_link(rest: &mut &[u8]) -> Option<Cid> {
    const BYTES: u8 = 2;
    const TAG: u8 = 6;
    if cbor_item(rest, TAG)? != 42 {
        return None;
    }
    let length = cbor_item(rest, BYTES)?;
    let bytes = cbor_take(rest, length)?;
    Cid::from_bytes(bytes.strip_prefix(&[0])?).ok()
}

/// The number in the head of an item of the wanted kind.
fn cbor_item(rest: &mut &[u8], kind: u8) -> Option<u64> {
    let first = *cbor_take(rest, 1)?.first()?;
    if first >> 5 != kind {
        return None;
    }
    let width = match first & 0x1f {
        small @ 0..=23 => return Some(u64::from(small)),
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => return None,
    };
    let bytes = cbor_take(rest, width)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn cbor_take<'a>(rest: &mut &'a [u8], count: u64) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(usize::try_from(count).ok()?)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";

    /// `{"roots": [ROOT], "version": 1}` with its length before it.
    fn v1() -> Vec<u8> {
        let cid = ROOT.parse::<Cid>().unwrap().to_bytes();
        let mut body = vec![0xa2, 0x65];
        body.extend(b"roots");
        body.extend([0x81, 0xd8, 0x2a, 0x58, cid.len() as u8 + 1, 0]);
        body.extend(&cid);
        body.push(0x67);
        body.extend(b"version");
        body.push(1);
        let mut head = vec![body.len() as u8];
        head.extend(body);
        head
    }

    fn v2() -> Vec<u8> {
        let mut head = V2_PRAGMA.to_vec();
        head.extend([0; 16]);
        head.extend(60_u64.to_le_bytes());
        head.extend([0; 16]);
        head.resize(60, 0);
        head.extend(v1());
        head
    }

    #[test]
    fn both_versions_name_their_roots() {
        let expected = Some(vec![ROOT.parse::<Cid>().unwrap()]);
        assert_eq!(roots(&v1()).unwrap(), expected);
        assert_eq!(roots(&v2()).unwrap(), expected);
    }

    #[test]
    fn a_cut_head_asks_for_more() {
        for head in [v1(), v2()] {
            for length in 0..head.len() {
                assert_eq!(roots(&head[..length]), Ok(None), "{length} of {} bytes", head.len());
            }
        }
    }

    #[test]
    fn hostile_heads_are_errors() {
        let mut endless = V2_PRAGMA.to_vec();
        endless.extend([0xff; 40]);
        let mut other_version = v1();
        *other_version.last_mut().unwrap() = 2;
        for head in [vec![0], vec![0xff; 64], endless, other_version, b"\x05hello".to_vec(), vec![2, 0xbb, 0xff]] {
            assert!(roots(&head).is_err(), "{head:?}");
        }
        for at in 0..v1().len() {
            for value in [0, 0x1b, 0x5b, 0x9b, 0xbb, 0xff] {
                let mut head = v1();
                head[at] = value;
                drop(roots(&head)); // An error or not, but no panic.
            }
        }
    }
}
