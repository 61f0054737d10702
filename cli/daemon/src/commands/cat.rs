//! `cat`: fetches one file from an IPFS node, with a node of its own that lives as long as the command.
//!
//! Nothing is kept: blocks go into a temporary folder. What arrives is checked against the CID on the way.

use anyhow::Context;
use cluster_peer::cat::fetch;

use crate::args::{Arguments, CatArguments};
use crate::commands::daemon::start_logging;

/// Runs the command.
pub(crate) fn run(cat: &CatArguments, arguments: &Arguments) -> anyhow::Result<()> {
    start_logging(arguments)?;
    let folder = tempfile::tempdir().context("creating a temporary folder")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let mut output = tokio::io::stdout();
    let fetched = runtime.block_on(fetch(&cat.peer, &cat.path, folder.path(), &mut output));
    fetched.map_err(anyhow::Error::from_boxed).context("fetching the file")
}
