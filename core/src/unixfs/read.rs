//! Reads what is in a DAG: the bytes of a file, the entries of a directory, where a path leads.
//!
//! Blocks come from a function of the caller, one at a time and only when their content is asked for; it answers
//! with blocks that match their CIDs (see [`verify`](super::verify)).
//!
//! **Invariant:** a DAG made to harm costs its reader no more than it yields: sizes must agree between a node and its
//! parent, parts without bytes are not looked at, depth is bounded, and so is what waits to be read.

use std::collections::BTreeSet;
use std::future::Future;
use std::ops::Range;

use bytes::Bytes;
use cluster_types::{BoxError, Cid, Codec, ErrorClass};
use futures::Stream;

use super::dagpb::{self, Malformed};
use super::hamt::{self, Fanout};
use super::hash::identity_data;
use super::ipld::DagError;
use super::unixfs::{Kind, Message};

/// How deep a file may be; 174 children per node reach 2^64 bytes long before.
const MAX_DEPTH: usize = 64;
/// How many parts of a file may wait to be read (about 35 MB): more than the links of the largest block, so that only
/// a tower of such blocks is refused.
const MAX_WAITING: usize = 256 * 1024;

/// A DAG cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A block did not come.
    #[error("cannot get block {cid}")]
    Fetch {
        /// The block.
        cid: Cid,
        /// Why not.
        #[source]
        cause: BoxError,
    },
    /// A block makes no sense.
    #[error(transparent)]
    Malformed(Box<DagError>),
    /// It is something else than what was asked for.
    #[error("{cid} is not a {wanted}")]
    WrongKind {
        /// The node.
        cid: Cid,
        /// What was asked for.
        wanted: &'static str,
    },
    /// A part of a path does not exist.
    #[error("no link named {name:?} under {cid}")]
    NoLink {
        /// The name.
        name: Box<str>,
        /// Where it should be.
        cid: Cid,
    },
}

impl From<DagError> for ReadError {
    fn from(error: DagError) -> Self {
        Self::Malformed(Box::new(error))
    }
}

impl ReadError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Fetch { .. } => ErrorClass::Unavailable,
            Self::Malformed(_) | Self::WrongKind { .. } => ErrorClass::Invalid,
            Self::NoLink { .. } => ErrorClass::NotFound,
        }
    }
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its name; what is not UTF-8 in it is replaced.
    pub name: String,
    /// What it is.
    pub cid: Cid,
    /// What the directory says about its cumulative size.
    pub size: u64,
}

/// What a block is in UnixFS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// File, directory, symlink, …; plain blocks are files.
    pub kind: Kind,
    /// Bytes of the file.
    pub file_size: Option<u64>,
    /// Bytes that are in this very block: the start of a file, or the target of a symlink.
    pub data: Bytes,
}

/// Says what a block is.
pub fn inspect(cid: &Cid, block: &Bytes) -> Result<Node, DagError> {
    match cid.codec() {
        Codec::RAW => Ok(Node { kind: Kind::File, file_size: Some(block.len() as u64), data: block.clone() }),
        Codec::DAG_PB => {
            let message = message(cid, block)?;
            let is_file = matches!(message.kind, Kind::File | Kind::Raw);
            let file_size = if is_file { Some(agreed_size(cid, &message)?) } else { None };
            Ok(Node { kind: message.kind, file_size, data: block.slice_ref(message.data) })
        }
        _ => Err(DagError::new(cid, "it is not UnixFS")),
    }
}

/// The bytes `range` of a file; what lies behind its end is left out.
pub fn read_file<F, Fut>(fetch: F, root: Cid, range: Range<u64>) -> impl Stream<Item = Result<Bytes, ReadError>> + Send
where
    F: Fn(Cid) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Bytes, BoxError>> + Send,
{
    async_stream::try_stream! {
        let mut waiting = vec![FilePart { cid: root, start: 0, size: None, depth: 0 }];
        while let Some(part) = waiting.pop() {
            if part.start >= range.end {
                break;
            }
            if part.size.is_some_and(|size| part.start + size <= range.start) {
                continue;
            }
            let block = get(&fetch, &part.cid).await?;
            let data = open_part(&part, &block, &mut waiting)?;
            let from = range.start.saturating_sub(part.start).min(data.len() as u64);
            let to = (range.end - part.start).min(data.len() as u64);
            if from < to {
                yield data.slice(from as usize..to as usize);
            }
        }
    }
}

/// The entries of a directory, sharded or not; by name if not.
pub fn list_directory<F, Fut>(fetch: F, root: Cid) -> impl Stream<Item = Result<DirectoryEntry, ReadError>> + Send
where
    F: Fn(Cid) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Bytes, BoxError>> + Send,
{
    async_stream::try_stream! {
        let mut waiting = vec![(root, 0)];
        // Shards hold names of different hashes, so none is linked twice; a tree of empty ones that are would never end.
        let mut seen = BTreeSet::new();
        while let Some((cid, level)) = waiting.pop() {
            if !seen.insert(cid) {
                Err(DagError::new(&cid, "a shard of a directory is linked twice"))?;
            }
            let block = get(&fetch, &cid).await?;
            let (entries, mut shards) = open_directory(&cid, &block, level)?;
            for entry in entries {
                yield entry;
            }
            shards.reverse();
            waiting.extend(shards.into_iter().map(|shard| (shard, level + 1)));
        }
    }
}

/// Where a path (`a/b/c`, empty for the root itself) leads. Symbolic links are not followed.
pub async fn resolve<F, Fut>(fetch: F, root: Cid, path: &str) -> Result<Cid, ReadError>
where
    F: Fn(Cid) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Bytes, BoxError>> + Send,
{
    let mut cid = root;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        cid = child(&fetch, cid, name).await?;
    }
    Ok(cid)
}

/// The entry `name` of a directory.
async fn child<F, Fut>(fetch: &F, directory: Cid, name: &str) -> Result<Cid, ReadError>
where
    F: Fn(Cid) -> Fut,
    Fut: Future<Output = Result<Bytes, BoxError>>,
{
    let missing = || ReadError::NoLink { name: name.into(), cid: directory };
    if directory.codec() != Codec::DAG_PB {
        return Err(missing());
    }
    let mut cid = directory;
    let hash = hamt::hash(name.as_bytes());
    for level in 0..hamt::MAX_LEVELS {
        let block = get(fetch, &cid).await?;
        let message = message(&cid, &block)?;
        let shard = shard(&cid, &message, level)?;
        let sharded = shard.is_some();
        let prefix = shard.map_or_else(String::new, |fanout| fanout.prefix(fanout.place(hash, level)));
        let mut below = None;
        for link in dagpb::links(&block) {
            let link = link.map_err(|error| bad(&cid, error))?;
            let found = link.name.strip_prefix(prefix.as_bytes());
            match found {
                Some(rest) if rest == name.as_bytes() => {
                    return Ok(link.cid().map_err(|error| bad(&cid, error))?);
                }
                Some([]) if sharded => below = Some(link.cid().map_err(|error| bad(&cid, error))?),
                _ => {}
            }
        }
        cid = below.ok_or_else(missing)?;
    }
    Err(missing())
}

struct FilePart {
    cid: Cid,
    /// Where it begins in the file.
    start: u64,
    /// What its parent says; the root has none.
    size: Option<u64>,
    depth: usize,
}

/// Checks a part, puts its children on the stack, and returns the bytes in the block itself; they come first.
fn open_part(part: &FilePart, block: &Bytes, waiting: &mut Vec<FilePart>) -> Result<Bytes, ReadError> {
    let cid = &part.cid;
    if cid.codec() == Codec::RAW {
        check_size(part, block.len() as u64)?;
        return Ok(block.clone());
    }
    if cid.codec() != Codec::DAG_PB {
        return Err(ReadError::WrongKind { cid: *cid, wanted: "file" });
    }
    let message = message(cid, block)?;
    if !matches!(message.kind, Kind::File | Kind::Raw) {
        return Err(ReadError::WrongKind { cid: *cid, wanted: "file" });
    }
    let size = agreed_size(cid, &message)?;
    check_size(part, size)?;
    part.start.checked_add(size).ok_or_else(|| DagError::new(cid, "the file is larger than 2^64 bytes"))?;
    let mut links = dagpb::links(block);
    let mut children = Vec::new();
    let mut start = part.start + message.data.len() as u64;
    for size in &message.block_sizes {
        let link = links.next().ok_or_else(|| DagError::new(cid, "it has more sizes than links"))?;
        if *size > 0 {
            let child = link.and_then(|link| link.cid()).map_err(|error| bad(cid, error))?;
            children.push(FilePart { cid: child, start, size: Some(*size), depth: part.depth + 1 });
        }
        start += size;
    }
    if links.next().is_some() {
        return Err(DagError::new(cid, "it has more links than sizes").into());
    }
    if !children.is_empty() && part.depth == MAX_DEPTH {
        return Err(DagError::new(cid, "the file is nested too deeply").into());
    }
    if waiting.len() + children.len() > MAX_WAITING {
        return Err(DagError::new(cid, "the nodes of the file have too many links").into());
    }
    waiting.extend(children.into_iter().rev());
    Ok(block.slice_ref(message.data))
}

fn check_size(part: &FilePart, size: u64) -> Result<(), DagError> {
    if part.size.is_none_or(|said| said == size) {
        Ok(())
    } else {
        Err(DagError::new(&part.cid, "its size is not what its parent says"))
    }
}

/// Entries and lower shards of a directory's block.
fn open_directory(cid: &Cid, block: &Bytes, level: usize) -> Result<(Vec<DirectoryEntry>, Vec<Cid>), ReadError> {
    let wrong = || ReadError::WrongKind { cid: *cid, wanted: "directory" };
    if cid.codec() != Codec::DAG_PB {
        return Err(wrong());
    }
    let message = message(cid, block)?;
    match message.kind {
        Kind::Directory if level == 0 => {}
        Kind::HamtShard => {}
        Kind::Directory | Kind::File | Kind::Raw | Kind::Metadata | Kind::Symlink => return Err(wrong()),
    }
    let shard = shard(cid, &message, level)?;
    let (mut entries, mut shards) = (Vec::new(), Vec::new());
    for (number, link) in dagpb::links(block).enumerate() {
        if shard.is_some_and(|fanout| number == fanout.places()) {
            return Err(DagError::new(cid, "a shard has more links than places").into());
        }
        let link = link.map_err(|error| bad(cid, error))?;
        let target = link.cid().map_err(|error| bad(cid, error))?;
        let Some(name) = link.name.get(shard.map_or(0, Fanout::digits)..) else {
            return Err(DagError::new(cid, "a link of a shard has no place").into());
        };
        if shard.is_some() && name.is_empty() {
            shards.push(target);
        } else {
            let name = String::from_utf8_lossy(name).into_owned();
            entries.push(DirectoryEntry { name, cid: target, size: link.size });
        }
    }
    Ok((entries, shards))
}

/// The fanout of a node of a sharded directory at a level; `None` if it is another node.
fn shard(cid: &Cid, message: &Message<'_>, level: usize) -> Result<Option<Fanout>, DagError> {
    if message.kind != Kind::HamtShard {
        return Ok(None);
    }
    let fanout = message.shard_fanout().map_err(|error| bad(cid, error))?;
    if level < fanout.levels() {
        Ok(Some(fanout))
    } else {
        Err(DagError::new(cid, "the directory is nested too deeply"))
    }
}

async fn get<F, Fut>(fetch: &F, cid: &Cid) -> Result<Bytes, ReadError>
where
    F: Fn(Cid) -> Fut,
    Fut: Future<Output = Result<Bytes, BoxError>>,
{
    match identity_data(cid) {
        Some(data) => Ok(Bytes::copy_from_slice(data)),
        None => fetch(*cid).await.map_err(|cause| ReadError::Fetch { cid: *cid, cause }),
    }
}

fn message<'a>(cid: &Cid, block: &'a [u8]) -> Result<Message<'a>, DagError> {
    dagpb::data(block).and_then(Message::read).map_err(|error| bad(cid, error))
}

fn agreed_size(cid: &Cid, message: &Message<'_>) -> Result<u64, DagError> {
    message.total_size().ok_or_else(|| DagError::new(cid, "its sizes contradict each other"))
}

fn bad(cid: &Cid, error: Malformed) -> DagError {
    DagError::new(cid, error.reason)
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
