//! `refs`: what links to what.

use std::collections::HashMap;

use cluster_core::unixfs::dagpb;
use cluster_types::{Cid, Codec};
use futures::StreamExt;
use serde_json::{Value, json};

use super::Rpc;
use super::call::Call;
use super::codec;
use super::path::Blocks;
use super::reply::{self, Answer, Failure};

/// Links that wait while a DAG is walked.
const MAX_WAITING: usize = 512 * 1024;
/// Blocks that are told apart.
const MAX_SEEN: usize = 1_000_000;
/// Multihashes read from the store at a time.
const PAGE: usize = 4096;

/// A link that waits.
struct Edge {
    from: Cid,
    to: Cid,
    name: String,
    depth: i64,
}

impl Blocks {
    /// The links of a block and their names.
    pub(super) async fn named_links(&self, cid: Cid) -> Result<Vec<(String, Cid)>, Failure> {
        if cid.codec() == Codec::RAW {
            return Ok(Vec::new());
        }
        let block = self.get(cid).await.map_err(|error| Failure::new(error.to_string()))?;
        if cid.codec() != Codec::DAG_PB {
            return Ok(codec::links(&codec::decode(cid.codec(), &block).map_err(Failure::new)?));
        }
        dagpb::links(&block)
            .map(|link| {
                let link = link?;
                Ok((String::from_utf8_lossy(link.name).into_owned(), link.cid()?))
            })
            .collect::<Result<_, dagpb::Malformed>>()
            .map_err(|error| Failure::new(error.reason))
    }
}

impl Rpc {
    /// `refs`.
    pub(super) async fn refs(&self, mut call: Call) -> Answer {
        let recursive = call.flag(&["recursive", "r"])?.unwrap_or(false);
        let unique = call.flag(&["unique", "u"])?.unwrap_or(false);
        let format = call.text(&["format"]).unwrap_or("<dst>").to_owned();
        let format = match (call.flag(&["edges", "e"])?.unwrap_or(false), format.as_str()) {
            (true, "<dst>") => "<src> -> <dst>".to_owned(),
            (true, _) => return Err(Failure::new("using format argument with edges is not allowed")),
            (false, _) => format,
        };
        let most = if recursive { call.number(&["max-depth"])?.unwrap_or(-1) } else { 1 };
        let blocks = self.blocks(call.offline()?);
        let mut roots = Vec::new();
        for path in call.arguments("ipfs-path").await? {
            roots.push(blocks.resolve_block(&path).await?);
        }
        let row = async_stream::stream! {
            let mut seen = HashMap::new();
            for root in roots {
                let mut walk = std::pin::pin!(walk(&blocks, root, most, unique, &mut seen));
                while let Some(edge) = walk.next().await {
                    match edge {
                        Ok(edge) => yield Ok(told(&format, &edge)),
                        Err(failure) => {
                            yield Ok(json!({ "Ref": "", "Err": failure.message() }));
                            break;
                        }
                    }
                }
            }
        };
        reply::row(call.trailers, row.boxed()).await
    }

    /// `refs local`: every block that is here.
    pub(super) async fn refs_local(&self) -> Answer {
        let rpc = self.clone();
        let row = async_stream::try_stream! {
            let mut after = None;
            loop {
                let page = rpc.node.kept.store().list(after, PAGE).await?;
                let Some(last) = page.last() else { return };
                after = Some(last.clone());
                for cid in page.iter().filter_map(|multihash| crate::embedded::gc::raw_name(multihash)) {
                    yield json!({ "Ref": cid.to_string(), "Err": "" });
                }
            }
        };
        reply::row(true, row.boxed()).await
    }
}

fn told(format: &str, edge: &Edge) -> Value {
    let text = format.replace("<src>", &edge.from.to_string()).replace("<dst>", &edge.to.to_string());
    json!({ "Ref": text.replace("<linkname>", &edge.name), "Err": "" })
}

/// The links below `root` in order, as deep as `most` says (-1: all); a link is told after its block was had.
fn walk<'a>(
    blocks: &'a Blocks,
    root: Cid,
    most: i64,
    unique: bool,
    seen: &'a mut HashMap<Cid, i64>,
) -> impl futures::Stream<Item = Result<Edge, Failure>> + Send + 'a {
    async_stream::try_stream! {
        let mut waiting = edges(blocks, root, 1).await?;
        while let Some(edge) = waiting.pop() {
            if most >= 0 && edge.depth > most {
                continue;
            }
            let (mut tell, mut deeper) = (true, edge.depth != most);
            if unique {
                let known = seen.get(&edge.to).copied();
                if known.is_some_and(|depth| most < 0 || depth <= edge.depth) {
                    continue;
                }
                seen.insert(edge.to, edge.depth);
                if seen.len() > MAX_SEEN {
                    Err(Failure::new("the DAG has too many blocks to tell them apart: leave out unique"))?;
                }
                (tell, deeper) = (known.is_none(), deeper);
            }
            let below = if deeper { edges(blocks, edge.to, edge.depth + 1).await? } else { Vec::new() };
            if !deeper {
                blocks.get(edge.to).await.map_err(|error| Failure::new(error.to_string()))?;
            }
            if waiting.len() + below.len() > MAX_WAITING {
                Err(Failure::new("the DAG has too many links"))?;
            }
            waiting.extend(below);
            if tell {
                yield edge;
            }
        }
    }
}

/// The links of a block, the last first.
async fn edges(blocks: &Blocks, from: Cid, depth: i64) -> Result<Vec<Edge>, Failure> {
    let links = blocks.named_links(from).await?;
    Ok(links.into_iter().rev().map(|(name, to)| Edge { from, to, name, depth }).collect())
}
