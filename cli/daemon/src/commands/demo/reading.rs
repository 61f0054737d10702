//! Reads files back from a peer's IPFS node, with a node that knows nothing but that peer's address, and compares
//! bytes.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use cluster_types::{Cid, Multiaddr};
use tokio::process::Command;

use super::content::{File, Tree};

/// How long fetching a file of a few megabytes may take.
const FETCH_WITHIN: Duration = Duration::from_secs(120);

/// Fetches `file` of the tree that was added as `root` from a node, and compares it with the original.
pub(super) async fn compare(
    executable: &Path,
    node: &[Multiaddr],
    root: &Cid,
    tree: &Tree,
    file: &File,
) -> anyhow::Result<()> {
    let path = format!("{root}/{}", file.path.display());
    let mut command = Command::new(executable);
    command.args(["--loglevel", "error", "cat"]);
    for address in node {
        command.args(["--peer", &address.to_string()]);
    }
    command.arg(&path).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(FETCH_WITHIN, command.output())
        .await
        .with_context(|| format!("fetching {path}: not done after {FETCH_WITHIN:?}"))??;
    if !output.status.success() {
        bail!("fetching {path}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let original = std::fs::read(tree.root.join(&file.path)).context("reading the original")?;
    if output.stdout != original {
        bail!("{path} came back with {} bytes that differ from the {} added", output.stdout.len(), original.len());
    }
    Ok(())
}
