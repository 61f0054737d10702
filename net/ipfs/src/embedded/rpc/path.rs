//! Where a path leads: through directories, sharded or not, and through dag-cbor and dag-json maps and lists.

use std::sync::Arc;

use bytes::Bytes;
use cluster_core::ports::IpfsNode;
use cluster_core::unixfs::{identity_data, read};
use cluster_types::{BoxError, Cid, Codec};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Rpc;
use super::codec::{self, Node};
use super::reply::Failure;
use crate::embedded::EmbeddedNode;

/// Names in a path.
const MAX_SEGMENTS: usize = 1024;

/// Where a path leads.
pub(super) struct Resolved {
    /// The last block.
    pub(super) cid: Cid,
    /// The names that lead further, inside of that block.
    pub(super) inside: Vec<String>,
    /// What is there, if names lead into the block.
    pub(super) node: Option<Node>,
}

/// How blocks are had.
#[derive(Clone)]
pub(super) struct Blocks {
    node: Arc<EmbeddedNode>,
    offline: bool,
}

impl Blocks {
    /// A block, from here or, unless offline, from elsewhere.
    pub(super) async fn get(&self, cid: Cid) -> Result<Bytes, BoxError> {
        if let Some(data) = identity_data(&cid) {
            return Ok(Bytes::copy_from_slice(data));
        }
        if !self.offline {
            return Ok(self.node.block(cid).await?);
        }
        let found = self.node.kept.get(&cid.hash_bytes()).await?;
        found.ok_or_else(|| format!("block was not found locally (offline): ipld: could not find {cid}").into())
    }

    /// The same as a function, for readers.
    pub(super) fn fetch(
        &self,
    ) -> impl Fn(Cid) -> BoxFuture<'static, Result<Bytes, BoxError>> + Clone + Send + Sync + 'static {
        let blocks = self.clone();
        move |cid| {
            let blocks = blocks.clone();
            async move { blocks.get(cid).await }.boxed()
        }
    }

    /// Where `text` leads.
    pub(super) async fn resolve(&self, text: &str) -> Result<Resolved, Failure> {
        let (mut cid, segments) = parse(text)?;
        let mut left = segments.into_iter();
        while let Some(name) = left.next() {
            if !matches!(cid.codec(), Codec::DAG_CBOR | codec::DAG_JSON) {
                cid = read::resolve(self.fetch(), cid, &name).await?;
                continue;
            }
            let mut inside = vec![name];
            inside.extend(left.by_ref());
            let block = self.get(cid).await.map_err(|error| Failure::new(error.to_string()))?;
            let node = codec::decode(cid.codec(), &block).map_err(Failure::new)?;
            match codec::descend(&node, &inside) {
                Ok((Node::Link(target), [])) => cid = *target,
                Ok((Node::Link(target), rest)) => {
                    cid = *target;
                    left = Vec::from(rest).into_iter();
                }
                Ok((found, _)) => return Ok(Resolved { cid, node: Some(found.clone()), inside }),
                Err(name) => return Err(Failure::new(format!("no link named {name:?} under {cid}"))),
            }
        }
        Ok(Resolved { cid, inside: Vec::new(), node: None })
    }

    /// The block `text` leads to.
    pub(super) async fn resolve_block(&self, text: &str) -> Result<Cid, Failure> {
        let resolved = self.resolve(text).await?;
        match resolved.inside.first() {
            None => Ok(resolved.cid),
            Some(name) => Err(Failure::new(format!("no link named {name:?} under {}", resolved.cid))),
        }
    }
}

impl Rpc {
    /// How the blocks of a call are had.
    pub(super) fn blocks(&self, offline: bool) -> Blocks {
        Blocks { node: Arc::clone(&self.node), offline }
    }
}

/// The root of a path (`/ipfs/<cid>/a`, `<cid>/a`) and the names below it.
pub(super) fn parse(text: &str) -> Result<(Cid, Vec<String>), Failure> {
    let invalid = |reason: &str| Failure::new(format!("invalid path {text:?}: {reason}"));
    if text.starts_with("/ipns/") {
        return Err(Failure::new(format!("cannot resolve {text:?}: the embedded IPFS node does not resolve names")));
    }
    let rest = match text.strip_prefix("/ipfs/").or_else(|| text.strip_prefix("/ipld/")) {
        Some(rest) => rest,
        None if text.starts_with('/') => return Err(invalid("unknown namespace")),
        None => text,
    };
    let mut parts = rest.split('/').filter(|part| !part.is_empty());
    let root = parts.next().ok_or_else(|| invalid("path does not have enough components"))?;
    let cid = root.parse().map_err(|_error| {
        invalid(if text.starts_with('/') {
            "invalid cid: selected encoding not supported"
        } else {
            "path does not have enough components"
        })
    })?;
    let names: Vec<String> = parts.take(MAX_SEGMENTS + 1).map(str::to_owned).collect();
    if names.len() > MAX_SEGMENTS {
        return Err(Failure::new("the path has too many names"));
    }
    Ok((cid, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_and_without_a_namespace_are_understood() {
        let root = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
        for (text, names) in [(root.to_owned(), 0), (format!("/ipfs/{root}"), 0), (format!("{root}//a/b"), 2)] {
            let (cid, found) = parse(&text).ok().unwrap();
            assert_eq!((cid.to_string().as_str(), found.len()), (root, names));
        }
        for (bad, said) in [
            ("nonsense", "invalid path \"nonsense\": path does not have enough components"),
            ("/ipfs/nonsense", "invalid path \"/ipfs/nonsense\": invalid cid: selected encoding not supported"),
        ] {
            assert_eq!(parse(bad).err().unwrap().message(), said);
        }
    }
}
