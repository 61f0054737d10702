//! `cat`: fetches one file from an IPFS node, with a node of its own that lives as long as the command.
//!
//! Nothing is kept: blocks go into a temporary folder. What arrives is checked against the CID on the way.

use anyhow::Context;
use cluster_types::Multiaddr;

use crate::args::{Arguments, CatArguments};
use crate::commands::daemon::start_logging;

/// Runs the command.
pub(crate) fn run(cat: &CatArguments, arguments: &Arguments) -> anyhow::Result<()> {
    start_logging(arguments)?;
    let folder = tempfile::tempdir().context("creating a temporary folder")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let mut output = tokio::io::stdout();
    runtime.block_on(fetch(&cat.peer, &cat.path, folder.path(), &mut output)).context("fetching the file")
}

/// INTEGRATION POINT: the embedded node takes over here.
///
/// Starts a node with its blocks in `folder`, connects it to `peers` (addresses with `/p2p/<id>`; one that answers is
/// enough), fetches the UnixFS file that `path` (`<cid>/<name>/…`) leads to, writes its bytes to `output` and
/// flushes it.
#[expect(clippy::unused_async, reason = "the embedded node is asynchronous")]
async fn fetch(
    _peers: &[Multiaddr],
    _path: &str,
    _folder: &std::path::Path,
    _output: &mut (dyn tokio::io::AsyncWrite + Send + Unpin),
) -> anyhow::Result<()> {
    anyhow::bail!("not wired yet")
}
