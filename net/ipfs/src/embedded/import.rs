//! Blocks and paths from outside, checked before they count.

use bytes::Bytes;
use cluster_core::ports::IpfsError;
use cluster_core::unixfs;
use cluster_core::unixfs::car::CarReader;
use cluster_core::unixfs::read::ReadError;
use cluster_types::{Cid, ErrorChain};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::EmbeddedNode;
use crate::check_block;

/// Blocks of an archive are kept in batches of about this many bytes.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// An archive's roots: more would have to be held in memory for an answer that nobody reads.
const MAX_ROOTS: usize = 16 * 1024;

/// Keeps the blocks of an archive as they come.
pub(super) async fn import_car(
    node: &EmbeddedNode,
    mut car: BoxStream<'static, Result<Bytes, std::io::Error>>,
) -> Result<Vec<Cid>, IpfsError> {
    let refused = |error: unixfs::car::CarError| IpfsError::Refused {
        reason: format!("cannot import the CAR archive: {}", ErrorChain(&error)),
    };
    let mut reader = CarReader::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let silence = node.fetcher.stall_timeout;
    let broken = |reason: String| IpfsError::Refused { reason: format!("cannot import the CAR archive: {reason}") };
    loop {
        let piece = tokio::time::timeout(silence, car.next()).await;
        let piece = piece.map_err(|_elapsed| broken(format!("nothing came for {} s", silence.as_secs())))?;
        let Some(piece) = piece else { break };
        let piece = piece.map_err(|error| broken(error.to_string()))?;
        reader.push(&piece);
        while let Some(block) = reader.next_block().map_err(refused)? {
            check_block(&block.cid, &block.data)?;
            if unixfs::identity_data(&block.cid).is_some() {
                continue;
            }
            bytes += block.data.len() + 64;
            batch.push(block);
            if bytes >= BATCH_BYTES {
                node.keep_imported(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
    }
    reader.finish().map_err(refused)?;
    node.keep_imported(batch).await?;
    let roots = reader.roots().unwrap_or_default();
    if roots.len() > MAX_ROOTS {
        return Err(IpfsError::Refused { reason: format!("a CAR archive with {} roots is refused", roots.len()) });
    }
    Ok(roots.to_vec())
}

/// Why a path leads nowhere. A block that could not be had just now is another matter than one that says no.
pub(super) fn not_resolved(path: &str, error: ReadError) -> IpfsError {
    let error = if let ReadError::Fetch { cid, cause } = error {
        match cause.downcast::<IpfsError>() {
            Ok(failure) => return *failure,
            Err(cause) => ReadError::Fetch { cid, cause },
        }
    } else {
        error
    };
    IpfsError::Refused { reason: format!("cannot resolve {path}: {}", ErrorChain(&error)) }
}

/// The root CID of a path, and the names below it.
pub(super) fn parse_path(path: &str) -> Result<(Cid, &str), IpfsError> {
    let refused = |reason: String| IpfsError::Refused { reason };
    if path.starts_with("/ipns/") {
        return Err(refused(format!(
            "cannot resolve {path}: the embedded IPFS node does not resolve names; give the /ipfs/ path behind it"
        )));
    }
    let rest = path.strip_prefix("/ipfs/").or_else(|| path.strip_prefix("/ipld/"));
    let rest = rest.ok_or_else(|| refused(format!("{path:?} is not a path: it must begin with /ipfs/ or /ipld/")))?;
    let (root, names) = rest.split_once('/').unwrap_or((rest, ""));
    let root = root.parse().map_err(|error| refused(format!("cannot resolve {path}: {error}")))?;
    Ok((root, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_content() {
        let root = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
        let cid: Cid = root.parse().unwrap();
        assert_eq!(parse_path(&format!("/ipfs/{root}")).unwrap(), (cid, ""));
        assert_eq!(parse_path(&format!("/ipld/{root}/a/b")).unwrap(), (cid, "a/b"));
        assert!(parse_path("/ipns/example.org").unwrap_err().to_string().contains("does not resolve names"));
        for bad in ["", "/", "/ipfs/", "/ipfs/x", root, "/btih/1"] {
            assert!(parse_path(bad).is_err(), "{bad}");
        }
    }
}
