//! `get`: files and directories as a tar archive, plain or compressed.

use std::io::Write;

use bytes::Bytes;
use cluster_core::ports::{Clock, SystemClock};
use cluster_core::unixfs::read;
use cluster_core::unixfs::unixfs::Kind;
use cluster_types::Cid;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::Rpc;
use super::call::Call;
use super::path::Blocks;
use super::reply::{self, Answer, Failure};

/// A record of an archive.
const RECORD: usize = 512;
/// Directories above each other.
const MAX_DEPTH: usize = 1024;

impl Rpc {
    /// `get`.
    pub(super) async fn get(&self, mut call: Call) -> Answer {
        let compress = call.flag(&["compress", "C"])?.unwrap_or(false);
        let level = call.number(&["compression-level", "l"])?;
        let level = match (compress, level) {
            (false, None) => None,
            (true, None) => Some(6),
            (_, Some(level @ 1..=9)) => Some(level),
            (_, Some(_)) => return Err(Failure::new("compression level must be between 1 and 9")),
        };
        let archive = call.flag(&["archive", "a"])?.unwrap_or(false);
        let blocks = self.blocks(call.offline()?);
        let path = call.argument("ipfs-path").await?;
        let cid = blocks.resolve_block(&path).await?;
        let node = blocks.inspect(cid).await?;
        let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        let length = node.file_size;
        let bytes = match (level, length) {
            // A compressed file needs no archive around it, unless it was asked for.
            (Some(_), Some(size)) if !archive => blocks.file(cid, 0..size).boxed(),
            _ => archive_of(blocks, name, cid),
        };
        match level {
            None => reply::content(call.trailers, "application/x-tar", length, bytes).await,
            Some(level) => {
                let bytes = compressed(bytes, u32::try_from(level).unwrap_or(6));
                reply::content(call.trailers, "application/gzip", length, bytes).await
            }
        }
    }
}

fn compressed(
    mut bytes: BoxStream<'static, Result<Bytes, Failure>>,
    level: u32,
) -> BoxStream<'static, Result<Bytes, Failure>> {
    let failed = |error: std::io::Error| Failure::new(error.to_string());
    async_stream::try_stream! {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        while let Some(piece) = bytes.try_next().await? {
            encoder.write_all(&piece).map_err(failed)?;
            let done = std::mem::take(encoder.get_mut());
            if !done.is_empty() {
                yield Bytes::from(done);
            }
        }
        yield Bytes::from(encoder.finish().map_err(failed)?);
    }
    .boxed()
}

/// Names and what they lead to.
type Entries = BoxStream<'static, Result<(String, Cid), Failure>>;

/// An archive of a file or directory, entries in the order of the DAG.
fn archive_of(blocks: Blocks, name: String, root: Cid) -> BoxStream<'static, Result<Bytes, Failure>> {
    let now = SystemClock.now().unix_seconds();
    async_stream::try_stream! {
        let mut open: Vec<(String, Entries)> =
            vec![(String::new(), futures::stream::iter([Ok((name, root))]).boxed())];
        while let Some((above, entries)) = open.last_mut() {
            let Some((name, cid)) = entries.try_next().await? else {
                open.pop();
                continue;
            };
            let path = if above.is_empty() { name.clone() } else { format!("{above}/{name}") };
            if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
                Err(Failure::new(format!("the name {name:?} cannot stand in an archive")))?;
            }
            let node = blocks.inspect(cid).await?;
            match node.kind {
                Kind::Directory | Kind::HamtShard => {
                    if open.len() > MAX_DEPTH {
                        Err(Failure::new("directories are nested too deeply"))?;
                    }
                    yield header(&Entry { path: &path, kind: b'5', mode: 0o755, size: 0, target: "", time: now });
                    let below = read::list_directory(blocks.fetch(), cid)
                        .map_ok(|entry| (entry.name, entry.cid))
                        .map_err(Failure::from);
                    open.push((path, below.boxed()));
                }
                Kind::Symlink => {
                    let target = String::from_utf8_lossy(&node.data).into_owned();
                    yield header(&Entry { path: &path, kind: b'2', mode: 0o777, size: 0, target: &target, time: now });
                }
                Kind::File | Kind::Raw | Kind::Metadata => {
                    let size = node.file_size.ok_or_else(|| Failure::new("unrecognized node type"))?;
                    yield header(&Entry { path: &path, kind: b'0', mode: 0o644, size, target: "", time: now });
                    let mut file = std::pin::pin!(blocks.file(cid, 0..size));
                    while let Some(piece) = file.try_next().await? {
                        yield piece;
                    }
                    yield padding(size);
                }
            }
        }
        yield Bytes::from_static(&[0; 2 * RECORD]);
    }
    .boxed()
}

struct Entry<'a> {
    path: &'a str,
    kind: u8,
    mode: u32,
    size: u64,
    target: &'a str,
    time: i64,
}

fn padding(size: u64) -> Bytes {
    let rest = (size % RECORD as u64) as usize;
    Bytes::from_static(&[0; RECORD]).slice(..if rest == 0 { 0 } else { RECORD - rest })
}

/// The head of an entry; what the plain one cannot hold stands in an extended one before it.
fn header(entry: &Entry<'_>) -> Bytes {
    let mut extended = Vec::new();
    if entry.path.len() > 100 || !entry.path.is_ascii() {
        put_extended(&mut extended, "path", entry.path);
    }
    if entry.target.len() > 100 || !entry.target.is_ascii() {
        put_extended(&mut extended, "linkpath", entry.target);
    }
    if entry.size >= 1 << 33 {
        put_extended(&mut extended, "size", &entry.size.to_string());
    }
    let mut out = Vec::with_capacity(RECORD);
    if !extended.is_empty() {
        let size = extended.len() as u64;
        out.extend(record(&Entry { path: "PaxHeaders.0/entry", kind: b'x', mode: 0o644, size, target: "", time: 0 }));
        out.extend_from_slice(&extended);
        out.extend_from_slice(&padding(size));
    }
    out.extend(record(entry));
    out.into()
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn put_extended(out: &mut Vec<u8>, key: &str, value: &str) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() > rest.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
}

fn record(entry: &Entry<'_>) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    let mut put = |place: usize, most: usize, text: &[u8]| {
        let text = &text[..text.len().min(most)];
        record[place..place + text.len()].copy_from_slice(text);
    };
    put(0, 100, entry.path.as_bytes());
    put(100, 8, format!("{:07o}\0", entry.mode).as_bytes());
    put(108, 8, b"0000000\0");
    put(116, 8, b"0000000\0");
    put(124, 12, format!("{:011o}\0", entry.size.min((1 << 33) - 1)).as_bytes());
    put(136, 12, format!("{:011o}\0", entry.time.clamp(0, (1 << 33) - 1)).as_bytes());
    put(148, 8, b"        ");
    put(156, 1, &[entry.kind]);
    put(157, 100, entry.target.as_bytes());
    put(257, 8, b"ustar\x0000");
    let sum: u32 = record.iter().map(|byte| u32::from(*byte)).sum();
    record[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    record
}
