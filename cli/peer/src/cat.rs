//! Reads one file from the IPFS network with a node that lives as long as the read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::ports::IpfsNode;
use cluster_core::task::TaskGroup;
use cluster_core::unixfs::read::read_file;
use cluster_ipfs::embedded::{EmbeddedConfig, EmbeddedNode};
use cluster_store::BlockStore;
use cluster_types::{BoxError, Cid, Multiaddr};
use futures::StreamExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// How long the node may take to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Starts a node with its blocks in `folder`, connects it to `peers` (addresses with `/p2p/<id>`; one that answers is
/// enough), fetches the UnixFS file that `path` (`<cid>/<name>/…`) leads to, writes its bytes to `output` and flushes
/// it.
pub async fn fetch(
    peers: &[Multiaddr],
    path: &str,
    folder: &Path,
    output: &mut (dyn AsyncWrite + Send + Unpin),
) -> Result<(), BoxError> {
    let tasks = TaskGroup::new();
    let blocks = BlockStore::open(folder)?;
    let mut config = EmbeddedConfig::new(folder.join("key"));
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse()?];
    config.peers = peers.to_vec();
    let node = EmbeddedNode::start(config, Arc::clone(&blocks) as _, &tasks).await?;
    let read = read(node.as_ref(), path, output).await;
    drop(tasks.shut_down(GRACE).await);
    blocks.close().await?;
    read
}

async fn read(node: &EmbeddedNode, path: &str, output: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<(), BoxError> {
    let root: Cid = if path.contains('/') {
        node.resolve(&format!("/ipfs/{}", path.trim_start_matches("/ipfs/"))).await?
    } else {
        path.parse()?
    };
    let fetch = |cid: Cid| async move { node.block(cid).await.map_err(BoxError::from) };
    let mut bytes = std::pin::pin!(read_file(fetch, root, 0..u64::MAX));
    while let Some(piece) = bytes.next().await {
        output.write_all(&piece?).await?;
    }
    output.flush().await?;
    Ok(())
}
