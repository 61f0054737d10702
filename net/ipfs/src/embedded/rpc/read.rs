//! `cat` and `resolve`.

use bytes::Bytes;
use cluster_core::unixfs::read::{self, ReadError};
use cluster_core::unixfs::unixfs::Kind;
use cluster_types::{Cid, Codec};
use futures::{Stream, StreamExt};
use serde_json::json;

use super::Rpc;
use super::call::Call;
use super::path::Blocks;
use super::reply::{self, Answer, Failure};

impl Blocks {
    /// What a block is in UnixFS; other codecs have no kind there.
    pub(super) async fn inspect(&self, cid: Cid) -> Result<read::Node, Failure> {
        let block = self.get(cid).await.map_err(|error| Failure::new(error.to_string()))?;
        read::inspect(&cid, &block).map_err(|error| match cid.codec() {
            Codec::RAW | Codec::DAG_PB => Failure::new(error.to_string()),
            _ => Failure::new("unrecognized node type"),
        })
    }

    /// A file's bytes.
    pub(super) fn file(
        &self,
        cid: Cid,
        range: std::ops::Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, Failure>> + Send + 'static {
        let fetch = self.fetch();
        read::read_file(fetch, cid, range).map(|piece: Result<Bytes, ReadError>| piece.map_err(Failure::from))
    }
}

impl Rpc {
    /// `cat`: files, one after the other.
    pub(super) async fn cat(&self, mut call: Call) -> Answer {
        let (offset, most) = (call.number(&["offset", "o"])?.unwrap_or(0), call.number(&["length", "l"])?);
        let offset = u64::try_from(offset).map_err(|_error| Failure::new("cannot specify negative offset"))?;
        let most =
            most.map(u64::try_from).transpose().map_err(|_error| Failure::new("cannot specify negative length"))?;
        let blocks = self.blocks(call.offline()?);
        let (mut skip, mut left, mut length) = (offset, most.unwrap_or(u64::MAX), 0);
        let mut files = Vec::new();
        for path in call.arguments("ipfs-path").await? {
            let cid = blocks.resolve_block(&path).await?;
            let size = match blocks.inspect(cid).await? {
                read::Node { file_size: Some(size), .. } => size,
                read::Node { kind: Kind::Directory | Kind::HamtShard, .. } => {
                    return Err(Failure::new("this dag node is a directory"));
                }
                read::Node { .. } => return Err(Failure::new("this dag node is not a regular file")),
            };
            let from = skip.min(size);
            let to = from + left.min(size - from);
            (skip, left, length) = (skip - from, left - (to - from), length + (to - from));
            files.push((cid, from..to));
        }
        let bytes = futures::stream::iter(files).flat_map(move |(cid, range)| blocks.file(cid, range).boxed());
        reply::content(call.trailers, "text/plain", Some(length), bytes).await
    }

    /// `resolve`.
    pub(super) async fn resolve(&self, mut call: Call) -> Answer {
        let path = call.argument("name").await?;
        let resolved = self.blocks(call.offline()?).resolve(&path).await?;
        let inside: String = resolved.inside.iter().flat_map(|name| ["/", name]).collect();
        let space = if path.starts_with("/ipld/") { "ipld" } else { "ipfs" };
        Ok(reply::one(&json!({ "Path": format!("/{space}/{}{inside}", resolved.cid) })))
    }
}
