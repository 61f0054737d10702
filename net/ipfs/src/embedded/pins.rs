//! What is protected from garbage collection: the roots in the block store.
//!
//! **Invariant:** a root is kept only after all its blocks are here and durable.

use std::sync::Arc;

use async_stream::try_stream;
use cluster_core::ports::{IpfsError, ProgressSink, Root};
use cluster_types::{Cid, PinDepth};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::fetch::{Fetcher, store_failed};
use super::kept::Kept;

/// Roots read from the store at a time.
const PAGE: usize = 1024;

/// Brings a DAG and protects it. A pin of another depth is replaced.
pub(super) async fn pin(fetcher: &Fetcher, root: Root, progress: &ProgressSink) -> Result<(), IpfsError> {
    let kept = &fetcher.bitswap.kept;
    let _active = kept.activate(root);
    fetcher.fetch_dag(root, progress).await?;
    // Durable with everything put before it, so that a protected root is never without its blocks.
    kept.store().put_root(root).await.map_err(store_failed)
}

/// Protects a DAG no longer.
pub(super) async fn unpin(kept: &Kept, cid: &Cid) -> Result<(), IpfsError> {
    kept.store().delete_root(cid).await.map(drop).map_err(store_failed)
}

/// How a DAG is protected.
pub(super) async fn pinned(kept: &Kept, cid: &Cid) -> Result<Option<PinDepth>, IpfsError> {
    Ok(kept.store().root(cid).await.map_err(store_failed)?.map(|root| root.depth))
}

/// Everything that is protected.
pub(super) fn pins(kept: Arc<Kept>) -> BoxStream<'static, Result<(Cid, PinDepth), IpfsError>> {
    try_stream! {
        let mut after = None;
        loop {
            let page = kept.store().roots(after, PAGE).await.map_err(store_failed)?;
            for root in &page {
                yield (root.cid, root.depth);
            }
            match page.last() {
                Some(last) => after = Some(last.cid),
                None => return,
            }
        }
    }
    .boxed()
}
