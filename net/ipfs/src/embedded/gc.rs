//! Garbage collection: marks what the roots hold, sweeps the rest.
//!
//! Runs beside everything else. What must not be swept because somebody just put or found it is the business of
//! [`super::kept`]; its header says why nothing is lost. Memory: two bytes per block of the store, at most 64 MiB
//! ([`super::filter`]), about 50 bytes per inner block of what is pinned ([`super::walk`]), and the bounded list of what
//! was removed.

use cluster_core::ports::{BlockError, Root};
use cluster_core::unixfs::{identity_data, links};
use cluster_types::{Cid, Codec, ErrorChain, GcKey};

use super::kept::{Kept, Marking};
use super::walk::{Step, Walk};
use crate::GcList;

/// Names read from the store at a time.
const PAGE: usize = 4096;
/// Blocks removed while puts wait.
const BATCH: usize = 256;

/// Removes what nothing protects. Not to be run twice at the same time.
pub(super) async fn collect(kept: &Kept) -> Result<Vec<GcKey>, BlockError> {
    let blocks = count(kept).await?;
    // First the set that fetches add to, then the roots of the fetches: one that begins in between is in both.
    let marking = kept.begin_marking(blocks + blocks / 4);
    let mut walk = Walk::new();
    for root in kept.active_roots() {
        mark(kept, &marking, &mut walk, root).await?;
    }
    let mut after = None;
    loop {
        let page = kept.store().roots(after, PAGE).await?;
        for root in &page {
            mark(kept, &marking, &mut walk, *root).await?;
        }
        match page.last() {
            Some(last) => after = Some(last.cid),
            None => break,
        }
    }
    drop(walk);
    sweep(kept, &marking).await
}

/// How many blocks there are.
pub(super) async fn count(kept: &Kept) -> Result<u64, BlockError> {
    let (mut blocks, mut after) = (0, None);
    loop {
        let page = kept.store().list(after, PAGE).await?;
        blocks += page.len() as u64;
        match page.last() {
            Some(last) => after = Some(last.clone()),
            None => return Ok(blocks),
        }
    }
}

/// Marks what is here of a DAG. A part that is not here is skipped: the fetch is not done, or the disk lost it.
async fn mark(kept: &Kept, marking: &Marking<'_>, walk: &mut Walk, root: Root) -> Result<(), BlockError> {
    walk.begin(root.cid, root.depth);
    while let Some(step) = walk.next() {
        match step {
            Step::Visit(cid, below) => {
                marking.mark(&cid.hash_bytes());
                if below > 0 && cid.codec() != Codec::RAW {
                    let found = read_links(kept, &cid).await?;
                    if let Err(error) = walk.expand(cid, below, found) {
                        // Never swept for that reason: give up rather than remove what may be pinned.
                        return Err(BlockError::Io { operation: "walk a pinned DAG", cause: error.into() });
                    }
                }
            }
            Step::Reload(cid) => walk.reload(read_links(kept, &cid).await?),
        }
    }
    Ok(())
}

async fn read_links(kept: &Kept, cid: &Cid) -> Result<Vec<Cid>, BlockError> {
    let data = match identity_data(cid) {
        Some(_) => Some(bytes::Bytes::new()),
        None => kept.get(&cid.hash_bytes()).await?,
    };
    Ok(data.map_or_else(Vec::new, |data| {
        links(cid, &data).unwrap_or_else(|error| {
            tracing::warn!(error = %ErrorChain(&error), "a protected block cannot be walked");
            Vec::new()
        })
    }))
}

async fn sweep(kept: &Kept, marking: &Marking<'_>) -> Result<Vec<GcKey>, BlockError> {
    let mut removed = GcList::new();
    let mut after = None;
    loop {
        let page = kept.store().list(after, PAGE).await?;
        after = match page.last() {
            Some(last) => Some(last.clone()),
            None => return Ok(removed.finish()),
        };
        let garbage: Vec<_> = page.into_iter().filter(|multihash| !marking.stays(multihash)).collect();
        for batch in garbage.chunks(BATCH) {
            let _gate = marking.close_gate().await;
            // Whoever came while the gate was open has marked what it relies on.
            let batch: Vec<_> = batch.iter().filter(|multihash| !marking.stays(multihash)).cloned().collect();
            kept.store().delete(batch.clone()).await?;
            batch.iter().for_each(|multihash| removed.push(raw_name(multihash), String::new()));
        }
    }
}

/// The store does not know a block's codec, so the block is named as raw bytes, as Kubo does.
pub(super) fn raw_name(multihash: &[u8]) -> Option<Cid> {
    const V1_RAW: [u8; 2] = [1, Codec::RAW as u8];
    Cid::from_bytes(&[&V1_RAW, multihash].concat()).ok()
}
