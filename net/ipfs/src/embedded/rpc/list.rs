//! `ls`: the entries of directories.
//!
//! **Invariant:** an answer that is not streamed holds at most [`MAX_LISTED`] entries.

use cluster_core::unixfs::unixfs::Kind;
use cluster_core::unixfs::{dagpb, read};
use cluster_types::{Cid, Codec};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::Rpc;
use super::call::Call;
use super::path::Blocks;
use super::reply::{self, Answer, Failure};

/// The most entries that are collected for one answer.
const MAX_LISTED: usize = 1_000_000;
/// Entries whose blocks are looked at ahead.
const AHEAD: usize = 16;
/// What Kubo says of content without a time.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

impl Rpc {
    /// `ls`.
    pub(super) async fn ls(&self, mut call: Call) -> Answer {
        let look = call.flag(&["resolve-type"])?.unwrap_or(true) || call.flag(&["size"])?.unwrap_or(true);
        let blocks = self.blocks(call.offline()?);
        let paths = call.arguments("ipfs-path").await?;
        if call.flag(&["stream", "s"])?.unwrap_or(false) {
            let row = futures::stream::iter(paths).then(move |path| {
                let blocks = blocks.clone();
                async move {
                    let links = blocks.entries(&path, look).await?;
                    let object = move |link: Value| json!({ "Objects": [{ "Hash": path, "Links": [link] }] });
                    Ok::<_, Failure>(links.map_ok(object))
                }
            });
            return reply::row(call.trailers, row.try_flatten().boxed()).await;
        }
        let (mut objects, mut count) = (Vec::new(), 0);
        for path in paths {
            let mut entries = blocks.entries(&path, look).await?;
            let mut links = Vec::new();
            while let Some(link) = entries.try_next().await? {
                count += 1;
                if count > MAX_LISTED {
                    return Err(Failure::new("the directory is too large to be collected: use stream=true"));
                }
                links.push(link);
            }
            links.sort_by(|one, other| one["Name"].as_str().cmp(&other["Name"].as_str()));
            objects.push(json!({ "Hash": path, "Links": links }));
        }
        Ok(reply::one(&json!({ "Objects": objects })))
    }
}

impl Blocks {
    /// The entries below a path: those of a directory, the parts of a file.
    async fn entries(&self, path: &str, look: bool) -> Result<BoxStream<'static, Result<Value, Failure>>, Failure> {
        let root = self.resolve_block(path).await?;
        let block = self.get(root).await.map_err(|error| Failure::new(error.to_string()))?;
        let is_directory =
            read::inspect(&root, &block).is_ok_and(|node| matches!(node.kind, Kind::Directory | Kind::HamtShard));
        let entries = if is_directory {
            read::list_directory(self.fetch(), root)
                .map_ok(|entry| (entry.name, entry.cid, entry.size))
                .map_err(Failure::from)
                .boxed()
        } else if root.codec() == Codec::DAG_PB {
            let parts: Vec<_> = dagpb::links(&block)
                .map(|link| {
                    let link = link.map_err(|error| Failure::new(error.reason))?;
                    let cid = link.cid().map_err(|error| Failure::new(error.reason))?;
                    Ok((String::from_utf8_lossy(link.name).into_owned(), cid, link.size))
                })
                .collect();
            futures::stream::iter(parts).boxed()
        } else {
            futures::stream::empty().boxed()
        };
        let blocks = self.clone();
        let described = entries.map(move |entry| {
            let blocks = blocks.clone();
            async move {
                let (name, cid, size) = entry?;
                blocks.describe(name, cid, size, look).await
            }
        });
        Ok(described.buffered(AHEAD).boxed())
    }

    async fn describe(&self, name: String, cid: Cid, size: u64, look: bool) -> Result<Value, Failure> {
        let (size, kind, target) = match cid.codec() {
            Codec::RAW => (size, 2, String::new()),
            Codec::DAG_PB if look => {
                let node = self.inspect(cid).await?;
                match node.kind {
                    Kind::Directory | Kind::HamtShard => (0, 1, String::new()),
                    Kind::Symlink => (node.data.len() as u64, 4, String::from_utf8_lossy(&node.data).into_owned()),
                    Kind::File | Kind::Raw | Kind::Metadata => (node.file_size.unwrap_or(0), 2, String::new()),
                }
            }
            _ => (0, 0, String::new()),
        };
        Ok(json!({
            "Name": name, "Hash": cid.to_string(), "Size": size, "Type": kind, "Target": target,
            "Mode": 0, "ModTime": NO_TIME,
        }))
    }
}
